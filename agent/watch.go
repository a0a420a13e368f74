package main

import (
	"context"
	"errors"
	"path/filepath"
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

// breathe lets others have the mutex for a moment.
func (all *watches) breathe() {
	all.unlock()
	all.mutex.Lock()
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

// tell passes on what the filter lets through. That a directory was moved is told whatever is to be included: what lies
// in it was moved with it.
func (w *watch) tell(kind watchKind, relative string, directory bool, from string) {
	if w.ended || w.filter.excludes(relative) {
		return
	}
	moved := directory && kind&(watchMoveFrom|watchMoveTo) != 0
	if !moved && !w.filter.includes(relative) {
		return
	}
	if from != "" {
		from = w.absolute(from)
	}
	w.sink.tell(kind, w.absolute(relative), directory, from)
}

func (w *watch) absolute(relative string) string {
	if relative == "" {
		return w.path
	}
	return strings.TrimSuffix(w.path, "/") + "/" + relative
}
