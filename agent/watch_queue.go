package main

import (
	"context"
	"runtime"
	"syscall"
	"time"
)

// The two halves of a rename are queued by one system call: the second is there at once, unless its process was
// interrupted between them. Who waits too short takes the directory for a new one, which is right, only dearer.
const moveHalfLimit = 2 * time.Millisecond

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

func goneReason(event *inotifyEvent) string {
	switch {
	case event.has(syscall.IN_UNMOUNT):
		return "its file system was unmounted"
	case event.has(syscall.IN_MOVED_FROM | syscall.IN_MOVE_SELF):
		return "it, or a directory above it, was moved"
	}
	return "it was deleted"
}

type queueWaiter struct {
	until int64
	done  chan struct{}
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
