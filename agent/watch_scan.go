package main

import (
	"context"
	"strings"
	"syscall"
)

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
