package main

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"
)

type anchor struct {
	watch *watch
	name  string
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
		held, err := w.owner.hold(directory, anchorBits)
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

// errMoved: what was to be opened is not where our picture has it. An event that says so is in the queue.
var errMoved = errors.New("it is elsewhere now")

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
