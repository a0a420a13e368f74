package main

import (
	"context"
	"errors"
	"strings"
	"syscall"
)

// node is a directory in a watch's picture of its tree. The picture is what the events that were read so far tell;
// reality may be ahead of it.
type node struct {
	watch    *watch
	parent   *node // nil of the root
	name     string
	children map[string]*node // those that are watched
	kernel   *kernelWatch     // nil once the kernel has let the directory go
	dead     bool

	// told are the names that a scan told which may be told again by events before toldUntil in the queue.
	told      map[string]struct{}
	toldUntil int64
}

// errMoved: what was to be opened is not where our picture has it. An event that says so is in the queue.
var errMoved = errors.New("it is elsewhere now")

func (n *node) attach(at *kernelWatch) {
	n.kernel = at
	at.nodes = append(at.nodes, n)
}

// detach forgets the node and everything below it.
func (n *node) detach() {
	n.dead = true
	for _, child := range n.children {
		child.detach()
	}
	if n.parent != nil && n.parent.children[n.name] == n {
		delete(n.parent.children, n.name)
	}
	if at := n.kernel; at != nil {
		for i, one := range at.nodes {
			if one == n {
				at.nodes = append(at.nodes[:i], at.nodes[i+1:]...)
				break
			}
		}
		n.watch.owner.release(at)
	}
}

func (n *node) put(name string, child *node) {
	if former := n.children[name]; former != nil && former != child {
		former.detach()
	}
	if n.children == nil {
		n.children = map[string]*node{}
	}
	child.parent, child.name = n, name
	n.children[name] = child
}

// relative is the path of a name in this directory from the root on; "" gives the directory's own.
func (n *node) relative(name string) string {
	length, depth := len(name), 0
	for at := n; at.parent != nil; at = at.parent {
		length += len(at.name) + 1
		depth++
	}
	if depth == 0 {
		return name
	}
	path := make([]byte, length)
	end := length - len(name)
	copy(path[end:], name)
	for at := n; at.parent != nil; at = at.parent {
		end--
		path[end] = '/'
		end -= len(at.name)
		copy(path[end:], at.name)
	}
	if name == "" {
		path = path[:length-1]
	}
	return string(path)
}

func (n *node) depth() int {
	depth := 0
	for at := n; at.parent != nil; at = at.parent {
		depth++
	}
	return depth
}

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

// isBelow: where we came to look too late, a picture may show a directory moved into itself.
func (n *node) isBelow(other *node) bool {
	for at := n; at != nil; at = at.parent {
		if at == other {
			return true
		}
	}
	return false
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

// look makes sure that the directory of this name is watched, and tells what is in it when it was not before. One that
// is known by this name already may be what the name leads to now, or be gone: then there are events to come that say so.
func (n *node) look(name string) {
	w := n.watch
	if !w.recursive || w.ended || n.dead || n.children[name] != nil || w.filter.excludes(n.relative(name)) {
		return
	}
	directory, err := w.reach(n)
	if err == errMoved {
		w.unreached = append(w.unreached, unreached{n, name})
		return
	}
	if err == nil {
		err = n.enter(context.Background(), directory, name, scanTelling)
		_ = syscall.Close(directory) // of a directory: cannot fail
	}
	if err != nil {
		w.fail(err)
	}
}

// reach opens a directory of the picture, and makes sure that it is the one.
func (w *watch) reach(n *node) (int, error) {
	if n.kernel == nil {
		return -1, errMoved
	}
	path := w.real
	if relative := n.relative(""); relative != "" {
		path = strings.TrimSuffix(path, "/") + "/" + relative
	}
	directory, err := openTree(path)
	if isGone(err) {
		return -1, errMoved
	}
	if err != nil {
		return -1, cannot("watch", path, err)
	}
	at, err := w.owner.hold(directory, watchedBits)
	if err == nil && at == n.kernel {
		return directory, nil
	}
	_ = syscall.Close(directory) // of a directory: cannot fail
	if err != nil && !isGone(err) {
		return -1, w.limit(path, err)
	}
	if err == nil {
		w.owner.release(at)
	}
	return -1, errMoved
}

// isGone: there is no such directory, or none any more.
func isGone(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ESTALE)
}

// scanMode is what a scan does with what it finds: at the beginning nothing, in a directory that came while watching it
// tells it, and it lets others have the mutex only where nobody relies on it.
type scanMode struct{ telling, breathing bool }

var (
	scanQuietly = scanMode{breathing: true}
	scanLocked  = scanMode{}
	scanTelling = scanMode{telling: true}
)

// So often a scan lets the others have the mutex: they wait some hundred microseconds at most.
const breathEvery = 64

// scan watches every directory below this one, which is watched already, and tells what is there.
func (n *node) scan(ctx context.Context, directory int, mode scanMode) error {
	w := n.watch
	if !w.recursive {
		return nil
	}
	if n.depth() > deepest {
		return tooDeep("watch", n.relative(""))
	}
	listing, err := openListing(directory)
	if isGone(err) {
		return nil // it was removed under us
	}
	if err != nil {
		return cannot("watch", n.relative(""), err)
	}
	defer syscall.Close(listing)
	all := w.owner
	if all.names == nil {
		all.names = make([]byte, 32<<10)
	}
	seen := 0
	for {
		entries, err := readEntries(listing, all.names)
		if isGone(err) {
			return nil
		}
		if err != nil {
			return cannot("watch", n.relative(""), err)
		}
		if len(entries) == 0 {
			break
		}
		for _, one := range entries {
			if err := n.scanEntry(ctx, listing, one, mode); err != nil {
				return err
			}
			if seen++; mode.breathing && seen%breathEvery == 0 {
				all.breathe()
				if ctx.Err() != nil {
					return ctx.Err()
				}
			}
			if w.ended {
				return w.why
			}
			if n.dead {
				return nil
			}
		}
	}
	if len(n.told) > 0 {
		n.toldUntil = all.instance.horizon()
		all.fresh = append(all.fresh, n)
	}
	return nil
}

func (n *node) scanEntry(ctx context.Context, directory int, one directoryEntry, mode scanMode) error {
	w := n.watch
	if strings.HasPrefix(one.name, unfinishedPrefix) {
		return nil
	}
	isDirectory := one.kind == syscall.DT_DIR
	if one.kind == syscall.DT_UNKNOWN {
		isDirectory = isDirectoryAt(directory, one.name)
	}
	if !isDirectory && !mode.telling {
		return nil
	}
	relative := n.relative(one.name)
	if w.filter.excludes(relative) {
		return nil
	}
	if mode.telling {
		if n.told == nil {
			n.told = map[string]struct{}{}
		}
		n.told[one.name] = struct{}{}
		w.tell(watchCreate, relative, isDirectory, "")
	}
	if !isDirectory {
		return nil
	}
	return n.enter(ctx, directory, one.name, mode)
}

func isDirectoryAt(directory int, name string) bool {
	file, err := openRetry(directory, name, reachFlags)
	if err != nil {
		return false
	}
	_ = syscall.Close(file) // of a directory: cannot fail
	return true
}

// enter watches the directory of this name in an open one, and scans it unless we watched it before.
func (n *node) enter(ctx context.Context, parent int, name string, mode scanMode) error {
	w := n.watch
	directory, err := openRetry(parent, name, reachFlags)
	if isGone(err) {
		return nil
	}
	if err != nil {
		return cannot("watch", n.relative(name), err)
	}
	defer syscall.Close(directory)
	var filesystem syscall.Statfs_t
	if syscall.Fstatfs(directory, &filesystem) == nil && kernelFileSystems[int64(filesystem.Type)] {
		return nil // /proc and its like: they tell nothing, and have no end
	}
	at, err := w.owner.hold(directory, watchedBits)
	if isGone(err) {
		return nil
	}
	if err != nil {
		return w.limit(n.relative(name), err)
	}
	if n.children[name] != nil {
		w.owner.release(at) // an event was quicker
		return nil
	}
	child := &node{watch: w}
	child.attach(at)
	n.put(name, child)
	return child.scan(ctx, directory, mode)
}
