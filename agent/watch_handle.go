package main

import (
	"strings"
	"syscall"
)

// handle deals with one event of this directory. other is the MOVED_TO of a directory's MOVED_FROM.
func (n *node) handle(event, other *inotifyEvent) {
	w, directory := n.watch, event.isDirectory()
	if event.name == "" {
		n.handleOwn(event)
		return
	}
	hidden := strings.HasPrefix(event.name, unfinishedPrefix)
	if hidden && other == nil {
		return
	}
	switch {
	case event.has(syscall.IN_MODIFY):
		n.tell(watchModify, event.name, directory)
	case event.has(syscall.IN_ATTRIB):
		n.tell(watchAttrib, event.name, directory)
	case event.has(syscall.IN_CREATE):
		if n.toldBefore(event) {
			return
		}
		n.tell(watchCreate, event.name, directory)
		if directory {
			n.look(event.name)
		}
	case event.has(syscall.IN_DELETE):
		delete(n.told, event.name)
		if child := n.children[event.name]; child != nil {
			child.detach()
		}
		n.tell(watchDelete, event.name, directory)
	case event.has(syscall.IN_MOVED_FROM):
		delete(n.told, event.name)
		if !hidden {
			n.tell(watchMoveFrom, event.name, directory)
		}
		child := n.children[event.name]
		received := false
		if other != nil && w.owner.kernel[other.wd] != nil {
			for _, to := range append([]*node(nil), w.owner.kernel[other.wd].nodes...) {
				if to.watch == w && !to.dead {
					to.receive(child, other, n.relative(event.name))
					child, received = nil, true
				}
			}
		}
		if child != nil && !received {
			child.detach()
		}
	case event.has(syscall.IN_MOVED_TO):
		if directory {
			n.receive(nil, event, "")
		} else if !n.toldBefore(event) {
			n.tell(watchMoveTo, event.name, false)
		}
	}
}

// handleOwn deals with what happens to the directory itself: its parent tells that too, except of the root.
func (n *node) handleOwn(event *inotifyEvent) {
	w := n.watch
	switch {
	case event.has(syscall.IN_UNMOUNT) && n.parent != nil:
		// What the mount hid is seen again, and nobody tells it.
		w.rebuild()
	case n.parent != nil:
	case event.has(syscall.IN_DELETE_SELF | syscall.IN_MOVE_SELF | syscall.IN_UNMOUNT):
		w.stop(goneReason(event))
	case event.has(syscall.IN_ATTRIB):
		w.tell(watchAttrib, "", true, "")
	}
}

// receive takes a directory that was moved here: the node that we had for it, or nil when it comes from where we do not
// watch. from is its former path.
func (n *node) receive(moved *node, event *inotifyEvent, from string) {
	w := n.watch
	relative := n.relative(event.name)
	shown := !strings.HasPrefix(event.name, unfinishedPrefix) && !w.filter.excludes(relative)
	// Where what is excluded depends on the place, other paths are now excluded below it than before.
	if moved != nil && (!shown || w.filter.dependsOnPlace() || n.isBelow(moved) || !n.holds(event.name, moved)) {
		moved.detach()
		moved = nil
	}
	if !shown || n.dead {
		return
	}
	switch known := n.toldBefore(event); {
	case known:
		// A scan was here first: it told the directory and what is in it, and its node knows which events that covers.
		if moved != nil {
			moved.detach()
		}
		n.look(event.name)
	case moved != nil:
		w.tell(watchMoveTo, relative, true, from)
		delete(moved.parent.children, moved.name)
		n.put(event.name, moved)
	default:
		w.tell(watchMoveTo, relative, true, "")
		if former := n.children[event.name]; former != nil {
			former.detach() // it may be the same, seen before it was told: what is in it belongs behind this
		}
		n.look(event.name)
	}
	if len(w.unreached) > 0 && !w.ended {
		w.reachAgain()
	}
}

// holds tells whether the directory of this name is what we know by that node: the name that we knew it by may have been
// another's when we came to look.
func (n *node) holds(name string, known *node) bool {
	directory, err := n.watch.reach(n)
	if err != nil {
		return false
	}
	defer syscall.Close(directory)
	child, err := openRetry(directory, name, reachFlags)
	if err != nil {
		return false
	}
	defer syscall.Close(child)
	at, err := n.watch.owner.hold(child, watchedBits)
	if err != nil {
		return false
	}
	if at == known.kernel {
		return true
	}
	n.watch.owner.release(at)
	return false
}

// toldBefore tells whether the scan of this directory has told what the event tells.
func (n *node) toldBefore(event *inotifyEvent) bool {
	if _, was := n.told[event.name]; !was {
		return false
	}
	delete(n.told, event.name)
	return event.end <= n.toldUntil
}

func (n *node) tell(kind watchKind, name string, directory bool) {
	n.watch.tell(kind, n.relative(name), directory, "")
}
