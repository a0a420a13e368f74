package main

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// What a watch tells. Bytes that are written through a mapping (mmap) are told by nobody: the kernel has no event for
	// them.
	watchedBits = syscall.IN_CREATE | syscall.IN_DELETE | syscall.IN_MOVED_FROM | syscall.IN_MOVED_TO | syscall.IN_MODIFY |
		syscall.IN_ATTRIB | syscall.IN_DELETE_SELF | syscall.IN_MOVE_SELF | syscall.IN_EXCL_UNLINK
	// What must be known of the directories above a watched one: whether the way to it is still there.
	anchorBits = syscall.IN_DELETE | syscall.IN_MOVED_FROM

	// Watches at once, of all readers; each has a queue of its own.
	watchLimit = 256
	// The two halves of a rename are queued by one system call: the second is there at once, unless its process was
	// interrupted between them. Who waits too short takes the directory for a new one, which is right, only dearer.
	moveHalfLimit = 2 * time.Millisecond
	// A directory that no path leads to has been renamed, and the event that tells it is on its way. When it does not come
	// our picture of the tree is wrong.
	unreachedLimit = 200 * time.Millisecond
)

// watches are all watches of the agent: one inotify instance, as instances are few (128 a sandbox), which is open only
// while there are watches.
//
// Every watch has its own picture of the directories that it watches (node), made by scanning and kept right by the
// queue of events. Two rules make it sound. A directory is watched first and listed afterwards, so that whatever happens
// in it is either listed or told. And a directory is known by the number that the kernel has for it, never by its path:
// paths may have changed already when an event is read, but then the events that say so follow in the queue.
type watches struct {
	mutex    sync.Mutex
	instance *inotify // nil while there are no watches
	all      map[*watch]struct{}
	kernel   map[int32]*kernelWatch
	// backlog is what was read from the queue and not yet dealt with, position the place in the queue before it.
	backlog  []inotifyEvent
	position int64
	// fresh are the nodes that remember what their scan told.
	fresh   []*node
	waiters []queueWaiter
	names   []byte // a buffer for directory entries
}

func newWatches() *watches {
	return &watches{all: map[*watch]struct{}{}, kernel: map[int32]*kernelWatch{}}
}

// kernelWatch is a directory that the kernel watches for us, on behalf of these.
type kernelWatch struct {
	wd    int32
	nodes []*node
	// anchors are the watches below this directory, with the name that leads to each.
	anchors []anchor
}

type anchor struct {
	watch *watch
	name  string
}

type queueWaiter struct {
	until int64
	done  chan struct{}
}

// watchSink takes what a watch has to tell. Called with the mutex of the watches held, so it must not wait.
type watchSink interface {
	// movedFrom is where a directory that was moved to this path was before, when that is watched too, else "".
	tell(kind watchKind, path string, isDirectory bool, movedFrom string)
	// overflow: something was lost, but from here on everything is told again.
	overflow()
	// stop is the last: the directory is gone (reason) or cannot be watched (err).
	stop(reason string, err error)
}

type watchKind byte

const (
	watchCreate watchKind = 1 << iota
	watchModify
	watchDelete
	watchMoveFrom
	watchMoveTo
	watchAttrib
)

// watch is one watched directory, with everything below it when it is recursive.
type watch struct {
	owner *watches
	// path is how the directory was named by who asked, real where it lies.
	path, real string
	recursive  bool
	filter     pathFilter
	sink       watchSink
	root       *node
	anchors    []*kernelWatch
	ended      bool
	// why it ended, when that was not by end.
	why error
	// unreached are directories that a path did not lead to when their event was read.
	unreached      []unreached
	unreachedSince time.Time
}

type unreached struct {
	parent *node
	name   string
}

// begin sets a watch. When it returns, what happens from now on is told. path is absolute. A done context ends the
// search of a large tree.
func (all *watches) begin(ctx context.Context, w *watch) error {
	w.owner = all
	err := all.beginOnce(ctx, w)
	// Somebody renames directories on the way to this one at this moment: where is it now?
	for tries := 0; err == errMoved && tries < 10; tries++ {
		err = all.beginOnce(ctx, w)
	}
	if err == errMoved {
		err = cannot("watch", w.path, syscall.ENOENT)
	}
	if err != nil {
		w.end()
	}
	return err
}

func (all *watches) beginOnce(ctx context.Context, w *watch) error {
	real, err := filepath.EvalSymlinks(w.path)
	if err != nil {
		return cannot("watch", w.path, asErrno(err))
	}
	directory, err := openTree(real)
	if err != nil {
		return cannot("watch", w.path, err)
	}
	defer syscall.Close(directory)

	all.mutex.Lock()
	defer all.unlock()
	if w.ended {
		return w.why // by an event that came while an earlier try was under way
	}
	if err := all.open(); err != nil {
		return err
	}
	if _, known := all.all[w]; !known {
		if len(all.all) >= watchLimit {
			return refuse("LIMIT_REACHED", "Cannot watch %q: %d watches are the most at once. End some", w.path, watchLimit)
		}
		all.all[w] = struct{}{}
	}
	w.forget()
	w.real = real
	at, err := all.hold(directory, watchedBits)
	if err != nil {
		return w.limit(w.path, err)
	}
	w.root = &node{watch: w}
	w.root.attach(at)
	if err := w.anchor(); err != nil {
		return err
	}
	if !w.stands() {
		return errMoved
	}
	return w.root.scan(ctx, directory, scanQuietly)
}

// open makes sure that there is an instance, with somebody who reads it.
func (all *watches) open() error {
	if all.instance != nil {
		return nil
	}
	instance, err := openInotify()
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return refuse("LIMIT_REACHED", "Cannot watch: the programs of the sandbox have as many inotify instances or open files as it may. End some")
	}
	if err != nil {
		return err
	}
	all.instance, all.position, all.backlog = instance, 0, nil
	go all.serve(instance)
	return nil
}

// unlock also closes the instance when nobody watches any more: outside the mutex, as closing waits for the reader.
func (all *watches) unlock() {
	var idle *inotify
	if len(all.all) == 0 && all.instance != nil {
		idle, all.instance = all.instance, nil
		all.kernel = map[int32]*kernelWatch{}
		all.backlog, all.fresh, all.names = nil, nil, nil
		all.settleWaiters()
	}
	all.mutex.Unlock()
	if idle != nil {
		idle.close()
	}
}

// end is for whoever began the watch. Nothing is told any more.
func (w *watch) end() {
	w.owner.mutex.Lock()
	w.close()
	w.owner.unlock()
}

// close needs the mutex.
func (w *watch) close() {
	w.ended = true
	w.forget()
	delete(w.owner.all, w)
}

// forget gives back every directory that the watch holds.
func (w *watch) forget() {
	if w.root != nil {
		w.root.detach()
		w.root = nil
	}
	for _, at := range w.anchors {
		for i, one := range at.anchors {
			if one.watch == w {
				at.anchors = append(at.anchors[:i], at.anchors[i+1:]...)
				break
			}
		}
		w.owner.release(at)
	}
	w.anchors, w.unreached = nil, nil
}

// stop ends the watch because its directory is gone.
func (w *watch) stop(reason string) {
	if !w.ended {
		w.close()
		w.why = refuse("FILE_NOT_FOUND", "Cannot watch %q: %s", w.path, reason)
		w.sink.stop(reason, nil)
	}
}

// fail ends the watch because it cannot tell everything any more.
func (w *watch) fail(err error) {
	if !w.ended {
		w.close()
		w.why = err
		w.sink.stop("", err)
	}
}

// limit words what may keep the kernel from watching a directory.
func (w *watch) limit(path string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return refuse("LIMIT_REACHED", "Cannot watch %q: the sandbox has as many directories under watch as it may (fs.inotify.max_user_watches). Exclude directories that need no watching", path)
	case errors.Is(err, syscall.ENOMEM):
		return refuse("LIMIT_REACHED", "Cannot watch %q: the memory of the sandbox is used up. End some processes, or exclude directories that need no watching", path)
	}
	return cannot("watch", path, err)
}

// anchor watches the directories above the root for the end of the way to it: the kernel tells the directory itself
// neither that one above it was renamed nor, while anybody stands in it, that it was removed.
func (w *watch) anchor() error {
	for at := w.real; at != "/"; {
		parent, name := filepath.Dir(at), filepath.Base(at)
		directory, err := openTree(parent)
		if err != nil {
			return errMoved
		}
		held, err := w.owner.hold(directory, anchorBits|syscall.IN_MASK_ADD)
		_ = syscall.Close(directory) // of a directory: cannot fail
		if err != nil {
			return w.limit(parent, err)
		}
		held.anchors = append(held.anchors, anchor{w, name})
		w.anchors = append(w.anchors, held)
		at = parent
	}
	return nil
}

// stands tells whether the path still leads to the root.
func (w *watch) stands() bool {
	real, err := filepath.EvalSymlinks(w.path)
	if err != nil || real != w.real {
		return false
	}
	directory, err := w.reach(w.root)
	if err != nil {
		return false
	}
	_ = syscall.Close(directory) // of a directory: cannot fail
	return true
}

// hold has the kernel watch a directory. Who calls it then attaches something to it, or releases it.
func (all *watches) hold(directory int, bits uint32) (*kernelWatch, error) {
	wd, err := all.instance.add(directory, bits)
	if err != nil {
		return nil, err
	}
	at := all.kernel[wd]
	if at == nil {
		at = &kernelWatch{wd: wd}
		all.kernel[wd] = at
	}
	return at, nil
}

// release lets the directory go when nobody needs it any more.
func (all *watches) release(at *kernelWatch) {
	if len(at.nodes) == 0 && len(at.anchors) == 0 && all.kernel[at.wd] == at {
		delete(all.kernel, at.wd)
		all.instance.remove(at.wd)
	}
}

// serve reads one instance's queue until it is closed.
func (all *watches) serve(instance *inotify) {
	// As much as a burst of some thousand events.
	buffer := make([]byte, 256<<10)
	for {
		events, err := instance.wait(buffer)
		all.mutex.Lock()
		if all.instance != instance {
			all.mutex.Unlock()
			return
		}
		if err != nil {
			for w := range all.all {
				w.fail(err)
			}
			all.unlock()
			return
		}
		all.backlog = append(all.backlog, events...)
		all.work(buffer)
		all.unlock()
	}
}

// work deals with the backlog.
func (all *watches) work(buffer []byte) {
	for len(all.backlog) > 0 && len(all.all) > 0 {
		event := all.backlog[0]
		var other *inotifyEvent
		if event.has(syscall.IN_MOVED_FROM) && event.isDirectory() && all.kernel[event.wd] != nil {
			other = all.otherHalf(event.cookie, buffer)
		}
		all.backlog = all.backlog[1:]
		all.position = event.end
		if !event.handled {
			all.handle(&event, other)
		}
	}
	for w := range all.all {
		w.reachAgain()
	}
	all.forgetScans()
	all.settleWaiters()
}

// otherHalf finds the MOVED_TO that belongs to the event at the head of the backlog.
func (all *watches) otherHalf(cookie uint32, buffer []byte) *inotifyEvent {
	deadline := time.Now().Add(moveHalfLimit)
	for from := 1; ; {
		for ; from < len(all.backlog); from++ {
			if one := &all.backlog[from]; one.cookie == cookie && one.has(syscall.IN_MOVED_TO) {
				return one
			}
		}
		more, err := all.instance.readNow(buffer)
		all.backlog = append(all.backlog, more...)
		if err == nil {
			continue
		}
		if err != syscall.EAGAIN || time.Now().After(deadline) {
			return nil
		}
		runtime.Gosched()
		time.Sleep(100 * time.Microsecond)
	}
}

func (all *watches) handle(event, other *inotifyEvent) {
	if event.has(syscall.IN_Q_OVERFLOW) {
		for w := range all.all {
			w.rebuild()
		}
		return
	}
	at := all.kernel[event.wd]
	if at == nil {
		return // of a directory that nobody watches any more
	}
	if event.has(syscall.IN_IGNORED) {
		delete(all.kernel, event.wd)
		for _, one := range at.nodes {
			one.kernel = nil
		}
		roots := at.nodes
		at.nodes = nil
		for _, one := range roots {
			if one.parent == nil && !one.dead {
				one.watch.stop(goneReason(event))
			}
		}
		return
	}
	if event.isDirectory() && event.has(anchorBits) {
		for _, one := range append([]anchor(nil), at.anchors...) {
			if one.name == event.name {
				one.watch.stop(goneReason(event))
			}
		}
	}
	for _, one := range append(make([]*node, 0, 4), at.nodes...) {
		if !one.dead {
			one.handle(event, other)
		}
	}
	if other != nil {
		other.handled = true
		// Watches that only know where the directory went.
		if to := all.kernel[other.wd]; to != nil {
			for _, one := range append(make([]*node, 0, 4), to.nodes...) {
				if !one.dead && !at.isIn(one.watch) {
					one.handle(other, nil)
				}
			}
		}
	}
}

func (at *kernelWatch) isIn(w *watch) bool {
	for _, one := range at.nodes {
		if one.watch == w {
			return true
		}
	}
	return false
}

func goneReason(event *inotifyEvent) string {
	switch {
	case event.has(syscall.IN_UNMOUNT):
		return "its file system was unmounted"
	case event.has(syscall.IN_MOVED_FROM | syscall.IN_MOVE_SELF):
		return "it, or a directory above it, was moved"
	}
	return "it was deleted"
}

// rebuild makes the picture of the tree anew after events were lost, and tells so once everything is watched again.
func (w *watch) rebuild() {
	if w.ended {
		return
	}
	if !w.stands() {
		w.sink.overflow()
		w.stop("it was moved or deleted")
		return
	}
	directory, err := w.reach(w.root)
	if err != nil {
		w.sink.overflow()
		w.stop("it was moved or deleted")
		return
	}
	defer syscall.Close(directory)
	former := w.root
	w.unreached = nil
	w.root = &node{watch: w}
	w.root.attach(former.kernel)
	err = w.root.scan(context.Background(), directory, scanLocked)
	former.detach() // only now, so that what is still there was watched all the time
	if err != nil {
		w.fail(err)
		return
	}
	w.sink.overflow()
}

// reachAgain looks at the directories that no path led to: the events that tell where they are may have come.
func (w *watch) reachAgain() {
	list := w.unreached
	if len(list) == 0 || w.ended {
		return
	}
	w.unreached = nil
	for _, one := range list {
		if !one.parent.dead && !w.ended {
			one.parent.look(one.name)
		}
	}
	if len(w.unreached) == 0 || w.ended {
		w.unreachedSince = time.Time{}
		return
	}
	if len(w.unreached) < len(list) || w.unreachedSince.IsZero() {
		w.unreachedSince = time.Now()
	}
	if time.Since(w.unreachedSince) > unreachedLimit {
		w.unreachedSince = time.Time{}
		w.rebuild()
		return
	}
	time.AfterFunc(unreachedLimit/4, func() {
		w.owner.mutex.Lock()
		if !w.ended && len(w.owner.backlog) == 0 {
			w.reachAgain()
		}
		w.owner.unlock()
	})
}

// settle waits until everything that happened before the call has been told.
func (all *watches) settle(ctx context.Context) {
	all.mutex.Lock()
	if all.instance == nil {
		all.mutex.Unlock()
		return
	}
	until := all.instance.horizon()
	if all.position >= until {
		all.mutex.Unlock()
		return
	}
	one := queueWaiter{until, make(chan struct{})}
	all.waiters = append(all.waiters, one)
	all.mutex.Unlock()
	select {
	case <-one.done:
	case <-ctx.Done():
	}
}

func (all *watches) settleWaiters() {
	kept := all.waiters[:0]
	for _, one := range all.waiters {
		if all.instance == nil || all.position >= one.until {
			close(one.done)
		} else {
			kept = append(kept, one)
		}
	}
	all.waiters = kept
}

// forgetScans drops what scans told as soon as the events of the same are behind us.
func (all *watches) forgetScans() {
	kept := all.fresh[:0]
	for _, one := range all.fresh {
		if one.dead || one.toldUntil <= all.position {
			one.told = nil
		} else {
			kept = append(kept, one)
		}
	}
	all.fresh = kept
}

// breathe lets others have the mutex for a moment.
func (all *watches) breathe() {
	all.unlock()
	all.mutex.Lock()
}

func asErrno(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return syscall.ELOOP // the one reason of its own that EvalSymlinks has
}

const (
	// A directory that is reached by these can be watched, and what is in it be opened, but not be listed.
	reachFlags = openPath | syscall.O_DIRECTORY | syscall.O_NOFOLLOW | syscall.O_CLOEXEC
	openPath   = 0x200000 // O_PATH, which package syscall does not name
)

// openListing opens a directory that was reached, and is watched by now, once more for listing it. A descriptor from
// before the watch may list only what was there when it was opened (btrfs does): what came between the opening and the
// watch would be neither listed nor told.
func openListing(directory int) (int, error) {
	return openRetry(directory, ".", syscall.O_DIRECTORY|syscall.O_CLOEXEC)
}

// openTree reaches a directory by its real path, also one longer than the kernel takes at once.
func openTree(path string) (int, error) {
	if len(path) <= longestPath {
		return openRetry(-1, path, reachFlags)
	}
	at := -1
	for path != "" {
		part := path
		if len(part) > longestPath {
			cut := strings.LastIndexByte(part[:longestPath], '/')
			if cut <= 0 {
				cut = longestPath // a name this long there is none: the kernel says so
			}
			part = part[:cut]
		}
		path = strings.TrimLeft(path[len(part):], "/")
		next, err := openRetry(at, part, reachFlags)
		if at >= 0 {
			_ = syscall.Close(at) // of a directory: cannot fail
		}
		if err != nil {
			return -1, err
		}
		at = next
	}
	return at, nil
}

func openRetry(at int, path string, flags int) (int, error) {
	for {
		fd, err := syscall.Openat(at, path, flags, 0)
		if err != syscall.EINTR {
			return fd, err
		}
	}
}
