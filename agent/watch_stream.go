package main

import (
	"sync"
	"sync/atomic"
	"time"
)

type watchRequest struct {
	Path      string   `json:"path"`
	Session   string   `json:"session,omitempty"`
	Recursive bool     `json:"recursive"`
	Include   []string `json:"include,omitempty"`
	Exclude   []string `json:"exclude,omitempty"`
	JoinMs    int64    `json:"joinMs"`
}

type watchEvent struct {
	EventType   string `json:"eventType"`
	Path        string `json:"path"`
	IsDirectory bool   `json:"isDirectory"`
	MovedFrom   string `json:"movedFrom,omitempty"`
	AtMs        int64  `json:"atMs"`
}

// watchLine holds one of these.
type watchLine struct {
	Ready     *watchReady    `json:"ready,omitempty"`
	Event     *watchEvent    `json:"event,omitempty"`
	Overflow  *watchOverflow `json:"overflow,omitempty"`
	Heartbeat *struct{}      `json:"heartbeat,omitempty"`
	Stopped   *watchStopped  `json:"stopped,omitempty"`
	Error     *agentError    `json:"error,omitempty"`
}

type watchReady struct {
	Path string `json:"path"`
}

type watchOverflow struct {
	AtMs int64 `json:"atMs"`
}

type watchStopped struct {
	Reason string `json:"reason"`
}

var watchKindNames = map[watchKind]string{
	watchCreate: "create", watchModify: "modify", watchDelete: "delete",
	watchMoveFrom: "move_from", watchMoveTo: "move_to", watchAttrib: "attrib",
}

const (
	// What waits for one reader, some 30,000 events, and what all of them may have waiting together: more than this they
	// each hold only a little.
	streamLimitBytes  = 4 << 20
	streamsTotalBytes = 16 << 20
	streamFloorBytes  = 256 << 10
	eventCostBytes    = 80
	// Paths whose events are being joined. With more of them joining would cost more than it saves.
	joinedPathsLimit = 1 << 14
)

// streamsBytes is what waits for all readers.
var streamsBytes int64

// watchStream is what one watch has told and its reader has not yet taken.
//
// Joining: the first event of a kind for a file is told at once and opens a window; what else happens to this file in the
// window is told at its end, each kind once, in the order in which each happened last. So nothing that happened after a
// reader looked stays untold. Creation, removal and renames of directories are not joined, and what was held back before
// them is told before them: the order of what is told is one that a reader may follow.
type watchStream struct {
	join time.Duration
	now  func() time.Time
	// wake gets an item when there is something to take, if there is place for one.
	wake chan struct{}

	mutex sync.Mutex
	queue []queuedEvent
	bytes int64
	lost  *watchOverflow
	last  *watchLine

	windows map[string]*joinWindow
	order   []*joinWindow // the window that ends first is the first
	held    []*joinWindow // those that may have something pending
	pending int
}

type queuedEvent struct {
	kind        watchKind
	isDirectory bool
	path        string
	movedFrom   string
	atMs        int64
}

func (e queuedEvent) cost() int64 { return int64(len(e.path)+len(e.movedFrom)) + eventCostBytes }

type joinWindow struct {
	path    string
	until   time.Time
	told    watchKind
	pending []queuedEvent
	isHeld  bool // in held
}

func newWatchStream(join time.Duration) *watchStream {
	return &watchStream{join: join, now: time.Now, wake: make(chan struct{}, 1), windows: map[string]*joinWindow{}}
}

func (s *watchStream) tell(kind watchKind, path string, isDirectory bool, movedFrom string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	now := s.now()
	event := queuedEvent{kind, isDirectory, path, movedFrom, now.UnixMilli()}
	defer s.tellReader()
	if s.join <= 0 {
		s.enqueue(event)
		return
	}
	s.closeWindows(now)
	if isDirectory && kind&(watchCreate|watchDelete|watchMoveFrom|watchMoveTo) != 0 {
		s.tellHeld()
		s.enqueue(event)
		return
	}
	window := s.windows[path]
	if window == nil {
		if len(s.windows) >= joinedPathsLimit {
			s.tellHeld()
			s.windows, s.order = map[string]*joinWindow{}, nil
		}
		window = &joinWindow{path: path, until: now.Add(s.join)}
		s.windows[path] = window
		s.order = append(s.order, window)
	}
	if window.told&kind == 0 && len(window.pending) == 0 {
		window.told |= kind
		s.enqueue(event)
		return
	}
	if len(window.pending) == 0 {
		s.pending++
	}
	if !window.isHeld {
		window.isHeld = true
		s.held = append(s.held, window)
	}
	window.hold(event)
}

// hold puts the event behind the others; of its kind only it stays.
func (w *joinWindow) hold(event queuedEvent) {
	for i, one := range w.pending {
		if one.kind == event.kind {
			w.pending = append(w.pending[:i], w.pending[i+1:]...)
			break
		}
	}
	w.pending = append(w.pending, event)
}

// closeWindows tells what was held back by windows that have ended; each of these begins anew.
func (s *watchStream) closeWindows(now time.Time) {
	for len(s.order) > 0 && !s.order[0].until.After(now) {
		window := s.order[0]
		s.order[0] = nil
		s.order = s.order[1:]
		if len(window.pending) == 0 {
			if s.windows[window.path] == window {
				delete(s.windows, window.path)
			}
			continue
		}
		window.told = 0
		s.tellPending(window)
		window.until = now.Add(s.join)
		s.order = append(s.order, window)
	}
	if s.pending == 0 || len(s.held) > 2*len(s.windows)+64 {
		s.tidyHeld()
	}
}

// tidyHeld drops those that have nothing pending any more.
func (s *watchStream) tidyHeld() {
	kept := s.held[:0]
	for _, window := range s.held {
		if window.isHeld = len(window.pending) > 0; window.isHeld {
			kept = append(kept, window)
		}
	}
	s.held = kept
}

// tellHeld tells everything that is held back.
func (s *watchStream) tellHeld() {
	if s.pending > 0 {
		for _, window := range s.held {
			s.tellPending(window)
		}
	}
	s.tidyHeld()
}

func (s *watchStream) tellPending(window *joinWindow) {
	if len(window.pending) == 0 {
		return
	}
	events := window.pending
	window.pending = nil
	s.pending--
	for _, event := range events {
		window.told |= event.kind
		s.enqueue(event)
	}
}

func (s *watchStream) enqueue(event queuedEvent) {
	if s.last != nil {
		return
	}
	cost := event.cost()
	total := atomic.AddInt64(&streamsBytes, cost)
	s.bytes += cost
	s.queue = append(s.queue, event)
	if s.bytes > streamLimitBytes || total > streamsTotalBytes && s.bytes > streamFloorBytes {
		s.lose()
	}
}

// lose gives up what is waiting: the reader will be told to look again, which makes all of it old.
func (s *watchStream) lose() {
	s.drop()
	for _, window := range s.held {
		window.pending = nil
	}
	s.windows, s.order, s.held, s.pending = map[string]*joinWindow{}, nil, nil, 0
	s.lost = &watchOverflow{s.now().UnixMilli()}
}

func (s *watchStream) drop() {
	atomic.AddInt64(&streamsBytes, -s.bytes)
	s.queue, s.bytes = nil, 0
}

func (s *watchStream) overflow() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.last == nil {
		s.lose()
	}
	s.tellReader()
}

func (s *watchStream) stop(reason string, err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.tellHeld()
	if s.last == nil {
		s.last = &watchLine{Stopped: &watchStopped{reason}}
		if err != nil {
			s.last = &watchLine{Error: asAgentError(err)}
		}
	}
	s.tellReader()
}

func (s *watchStream) tellReader() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// taken is what a reader gets at once, in this order.
type taken struct {
	lost   *watchOverflow
	events []queuedEvent
	last   *watchLine
	// more is there already; else the next may come at `due`, without a wake; zero when nothing is held back.
	more bool
	due  time.Time
}

func (s *watchStream) take(limit int) taken {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.closeWindows(s.now())
	t := taken{lost: s.lost}
	s.lost = nil
	count := len(s.queue)
	if count > limit {
		count = limit
	}
	t.events = append(t.events, s.queue[:count]...)
	for i, event := range t.events {
		s.bytes -= event.cost()
		atomic.AddInt64(&streamsBytes, -event.cost())
		s.queue[i] = queuedEvent{} // the array lives on: it must not hold the path
	}
	s.queue = s.queue[count:]
	if len(s.queue) == 0 {
		s.queue = nil
		t.last = s.last
	}
	t.more = len(s.queue) > 0
	if s.pending > 0 && len(s.order) > 0 {
		t.due = s.order[0].until
	}
	return t
}

// abandon: nobody reads any more.
func (s *watchStream) abandon() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.drop()
	s.last = &watchLine{Stopped: &watchStopped{"its reader has gone"}}
}
