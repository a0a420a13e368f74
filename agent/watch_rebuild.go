package main

import (
	"context"
	"syscall"
	"time"
)

// A directory that no path leads to has been renamed, and the event that tells it is on its way. When it does not come
// our picture of the tree is wrong.
const unreachedLimit = 200 * time.Millisecond

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

type unreached struct {
	parent *node
	name   string
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
