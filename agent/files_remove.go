package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// So deep a removal keeps directories open; what lies deeper is first moved up, to the top of the tree.
const removeDepth = 200

// removeTree removes name in parent, with all that is in it when it is a directory, however deep. It follows no symlink
// and ends at the first thing that cannot be removed, which the error names; shown is name's path for that.
func removeTree(parent directory, name, shown string) error {
	return new(removal).remove(parent, name, shown, 0)
}

type removal struct {
	top   directory
	moved []string
}

func (r *removal) remove(d directory, name, shown string, depth int) error {
	err := syscall.Unlink(d.at(name))
	if err == nil || errors.Is(err, syscall.ENOENT) {
		return nil
	}
	if stat, failed := d.lstat(name); failed != nil || stat.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return cannot("remove", shown, err)
	}
	if depth == removeDepth {
		return r.moveUp(d, name, shown)
	}
	child, err := d.open(name)
	if err != nil {
		return cannot("remove", shown, err)
	}
	defer child.close()
	if depth == 0 {
		r.top = child
	}
	inside := func(inner string) error { return r.remove(child, inner, filepath.Join(shown, inner), depth+1) }
	if err := child.each(inside); err != nil {
		return cannot("remove", shown, err)
	}
	for depth == 0 && len(r.moved) > 0 {
		last := r.moved[len(r.moved)-1]
		r.moved = r.moved[:len(r.moved)-1]
		if err := inside(last); err != nil {
			return err
		}
	}
	if err := syscall.Rmdir(d.at(name)); err != nil && !errors.Is(err, syscall.ENOENT) {
		return cannot("remove", shown, err)
	}
	return nil
}

func (r *removal) moveUp(d directory, name, shown string) error {
	moved := filepath.Base(unfinishedName(""))
	if err := os.Rename(d.at(name), r.top.at(moved)); err != nil {
		return cannot("remove", shown, err)
	}
	r.moved = append(r.moved, moved)
	return nil
}
