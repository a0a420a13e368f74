package main

import (
	"sync"
	"time"
)

const (
	// Ended processes whose log stays for those who come back: of exec (keep), in the background (roll), and as many terminals.
	endedKeepLimit  = 1024
	endedRollLimit  = 64
	endedBytesLimit = 32 << 20
	// Forgotten ids are remembered, so that a reader that comes back too late never starts its command again.
	rememberedIds = 8192
)

// processes is the table of those that run and of those ended ones whose log is still there.
type processes struct {
	mutex     sync.Mutex
	byID      map[string]*process
	starting  map[string]chan struct{}
	endedKeep []*process // the oldest first, as in the next two
	endedRoll []*process
	endedTtys []*process
	forgotten map[string]struct{}
	order     []string          // of forgotten, the oldest first
	attempts  map[string]string // of those known and remembered, where one was given
	times     times
}

func newProcesses(times times) *processes {
	return &processes{
		byID: map[string]*process{}, starting: map[string]chan struct{}{}, forgotten: map[string]struct{}{},
		attempts: map[string]string{}, times: times,
	}
}

// findOrStart gives the process of this id, or makes it by `start`. Callers with the same id share one start. What start
// gives beside the process is its watch, begun when the table has it. An ended process of another attempt gives its id
// away; one that runs does not.
func (t *processes) findOrStart(id, attempt string, start func() (*process, func(), error)) (*process, error) {
	t.mutex.Lock()
	for {
		another := attempt != "" && attempt != t.attempts[id]
		if p := t.byID[id]; p != nil {
			if !another {
				t.mutex.Unlock()
				return p, nil
			}
			select {
			case <-p.done:
				t.drop(p)
			default:
				t.mutex.Unlock()
				return nil, refuse("RESOURCE_BUSY", "Cannot start process %q: another one with this id is running", id)
			}
		}
		if _, was := t.forgotten[id]; was && !another {
			t.mutex.Unlock()
			return nil, refuse("PROCESS_NOT_FOUND", "Cannot attach to process %q: it has ended and its log is no longer kept", id)
		}
		under := t.starting[id]
		if under == nil {
			break
		}
		t.mutex.Unlock()
		<-under
		t.mutex.Lock()
	}
	started := make(chan struct{})
	t.starting[id] = started
	t.mutex.Unlock()

	p, watch, err := start()

	t.mutex.Lock()
	defer t.mutex.Unlock()
	delete(t.starting, id)
	close(started)
	if err != nil {
		return nil, err
	}
	t.byID[id] = p
	t.remember(id, attempt)
	go watch()
	return p, nil
}

// remember makes the id that of a living process of this attempt. It needs the mutex.
func (t *processes) remember(id, attempt string) {
	if _, was := t.forgotten[id]; was {
		delete(t.forgotten, id)
		for i, one := range t.order {
			if one == id {
				t.order = append(t.order[:i], t.order[i+1:]...)
				break
			}
		}
	}
	if attempt == "" {
		delete(t.attempts, id)
	} else {
		t.attempts[id] = attempt
	}
}

func (t *processes) find(id string) (*process, error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if p := t.byID[id]; p != nil {
		return p, nil
	}
	return nil, refuse("PROCESS_NOT_FOUND", "Cannot find process %q: there is none, or it has ended and is no longer kept", id)
}

func (t *processes) all() []*process {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	all := make([]*process, 0, len(t.byID))
	for _, p := range t.byID {
		all = append(all, p)
	}
	return all
}

// young gives the background processes that run, but terminals, and were started within this time.
func (t *processes) young(age time.Duration) []*process {
	var young []*process
	for _, p := range t.all() {
		select {
		case <-p.done:
		default:
			if !p.log.state().keep && p.terminal == nil && time.Since(p.startedAt) < age {
				young = append(young, p)
			}
		}
	}
	return young
}

// underWay gives those that run: their leaders with their start times, and the markers, also of those that are being started.
func (t *processes) underWay() (leaders map[int]uint64, markers map[string]bool) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	leaders, markers = map[int]uint64{}, map[string]bool{}
	for _, p := range t.byID {
		select {
		case <-p.done:
		default:
			leaders[p.tree.leader] = p.tree.startTicks
			markers[p.tree.marker] = true
		}
	}
	for id := range t.starting {
		markers[processMarker+"="+id] = true
	}
	return leaders, markers
}

// ended keeps the log for a time, and drops the oldest where there are too many.
func (t *processes) ended(p *process) {
	if !p.log.state().keep {
		t.mutex.Lock()
		defer t.mutex.Unlock()
		if t.byID[p.id] != p {
			return // dropped in the moment since its end
		}
		ended := &t.endedRoll
		if p.terminal != nil {
			ended = &t.endedTtys
		}
		*ended = append(*ended, p)
		for len(*ended) > endedRollLimit {
			t.drop((*ended)[0])
		}
		return
	}
	t.forgetAfter(p, t.times.keepUndelivered)
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.byID[p.id] != p {
		return
	}
	t.endedKeep = append(t.endedKeep, p)
	held := int64(0)
	for _, one := range t.endedKeep {
		held += one.log.state().held
	}
	for len(t.endedKeep) > 1 && (len(t.endedKeep) > endedKeepLimit || held > endedBytesLimit) {
		oldest := t.oldestEnded()
		if oldest == p {
			break
		}
		held -= oldest.log.state().held
		t.drop(oldest)
	}
}

// oldestEnded is the first whose reader has all of it, or else the first.
func (t *processes) oldestEnded() *process {
	for _, one := range t.endedKeep {
		one.mutex.Lock()
		delivered := one.delivered
		one.mutex.Unlock()
		if delivered {
			return one
		}
	}
	return t.endedKeep[0]
}

// delivered: the foreground reader has been sent everything.
func (t *processes) delivered(p *process) {
	p.mutex.Lock()
	p.delivered = true
	keep := p.log.state().keep
	p.mutex.Unlock()
	if keep {
		t.forgetAfter(p, t.times.keepDelivered)
	}
}

func (t *processes) forgetAfter(p *process, after time.Duration) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.forget != nil {
		p.forget.Stop()
	}
	p.forget = time.AfterFunc(after, func() { t.forget(p) })
}

func (t *processes) forget(p *process) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.drop(p)
}

// drop needs the mutex.
func (t *processes) drop(p *process) {
	if t.byID[p.id] != p {
		return
	}
	delete(t.byID, p.id)
	t.endedKeep = without(t.endedKeep, p)
	t.endedRoll = without(t.endedRoll, p)
	t.endedTtys = without(t.endedTtys, p)
	t.forgotten[p.id] = struct{}{}
	t.order = append(t.order, p.id)
	if len(t.order) > rememberedIds {
		delete(t.forgotten, t.order[0])
		delete(t.attempts, t.order[0])
		t.order = t.order[1:]
	}
}

func without(list []*process, p *process) []*process {
	for i, one := range list {
		if one == p {
			return append(list[:i], list[i+1:]...)
		}
	}
	return list
}
