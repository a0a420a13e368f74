package main

import (
	"fmt"
	"os"
	"sort"
	"syscall"
)

// directory is an open directory. What is reached through it stays in it, whatever happens to the path by which it was
// opened meanwhile.
type directory struct{ file *os.File }

const openDirectoryFlags = os.O_RDONLY | syscall.O_DIRECTORY | syscall.O_NONBLOCK

// openDirectory follows symlinks.
func openDirectory(path string) (directory, error) {
	file, err := os.OpenFile(path, openDirectoryFlags, 0)
	return directory{file}, err
}

// open opens a directory in this one. A symlink is refused, by ENOTDIR or ELOOP.
func (d directory) open(name string) (directory, error) {
	file, err := os.OpenFile(d.at(name), openDirectoryFlags|syscall.O_NOFOLLOW, 0)
	return directory{file}, err
}

func (d directory) close() { d.file.Close() }

// at is a path to a name in this very directory, for any system call that does not follow the last component.
func (d directory) at(name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.file.Fd(), name)
}

func (d directory) lstat(name string) (syscall.Stat_t, error) {
	var stat syscall.Stat_t
	err := syscall.Lstat(d.at(name), &stat)
	return stat, err
}

func (d directory) device() uint64 {
	var stat syscall.Stat_t
	if err := syscall.Fstat(int(d.file.Fd()), &stat); err != nil {
		return 0
	}
	return uint64(stat.Dev)
}

// So many names are held at once, some megabytes. A directory with more is read in several such parts.
const namesAtOnce = 1 << 17

// each calls visit with every name in the directory, sorted (in parts of namesAtOnce). An error of visit ends it.
func (d directory) each(visit func(name string) error) error {
	for {
		names, err := d.file.Readdirnames(namesAtOnce)
		sort.Strings(names)
		for _, name := range names {
			if err := visit(name); err != nil {
				return err
			}
		}
		if len(names) == 0 || err != nil {
			return ignoreEOF(err)
		}
	}
}

// The most directories that a walk has open within one another. Ordinary trees are less than 100 deep; a path can hold
// no more than 2,047.
const deepest = 1_000

func tooDeep(verb, path string) error {
	return refuse("NAME_TOO_LONG", "Cannot %s %q: directories lie in one another more than %d deep", verb, path, deepest)
}
