package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
)

// entry puts one entry into its place, or refuses it.
func (u *unpacking) entry(header *tar.Header, content io.Reader) error {
	if header.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	components, err := u.components(header.Name, header.Name)
	if err != nil {
		return err
	}
	if header.Typeflag == tar.TypeDir {
		return u.makeDirectory(header, components)
	}
	if len(components) == 0 || strings.HasSuffix(header.Name, "/") {
		return u.refuse(header.Name, "it names a directory but is none")
	}
	if u.isRepeated(components) {
		return u.refuse(header.Name, "the archive contains it twice")
	}
	parent, place, err := u.parent(header.Name, components)
	if err != nil {
		return err
	}
	target := parent.at(components[len(components)-1])
	switch header.Typeflag {
	case tar.TypeReg, tar.TypeRegA, tar.TypeCont, tar.TypeGNUSparse:
		return u.writeFile(header, content, place, target)
	case tar.TypeSymlink:
		return u.makeSymlink(header, place, target)
	case tar.TypeLink:
		return u.makeLink(header, place, target)
	case tar.TypeFifo, tar.TypeChar, tar.TypeBlock:
		return u.refuse(header.Name, "named pipes and devices are not taken")
	default:
		return u.refuse(header.Name, "entries of type %q are not known", header.Typeflag)
	}
}

func (u *unpacking) refuse(entry, why string, values ...any) error {
	return refuse("VALIDATION_FAILED", "Cannot unpack %q into %q: %s", entry, u.path, fmt.Sprintf(why, values...))
}

// components splits a name of the archive; "." and doubled slashes do not count.
func (u *unpacking) components(entry, name string) ([]string, error) {
	if strings.HasPrefix(name, "/") {
		return nil, u.refuse(entry, "the name %q begins with a slash", name)
	}
	if strings.IndexByte(name, 0) >= 0 {
		return nil, u.refuse(entry, "the name contains a NUL byte")
	}
	if len(name) > longestPath {
		return nil, refuse("NAME_TOO_LONG", "Cannot unpack %.100q... into %q: the name has %d bytes", entry, u.path, len(name))
	}
	components := []string{}
	for _, component := range strings.Split(name, "/") {
		switch component {
		case "", ".":
		case "..":
			return nil, u.refuse(entry, `the name %q leads out of the directory by ".."`, name)
		default:
			components = append(components, component)
		}
	}
	return components, nil
}

func (u *unpacking) isRepeated(components []string) bool {
	key := maphash.String(u.seed, strings.Join(components, "/"))
	_, repeated := u.seen[key]
	u.seen[key] = struct{}{}
	return repeated
}

// parent gives the directory for an entry and the place for what is unfinished of it. Both are good until the next call.
func (u *unpacking) parent(entry string, components []string) (directory, string, error) {
	above := components[:len(components)-1]
	path := strings.Join(above, "/")
	if u.last.file != nil && u.lastPath == path {
		return u.last, u.lastPlace, nil
	}
	u.forgetLast()
	found, err := u.walk(entry, above)
	if err != nil {
		return directory{}, "", err
	}
	u.last, u.lastPath = found, path
	u.lastPlace, err = u.files.unfinishedPlace(found.at("."))
	return u.last, u.lastPlace, err
}

func (u *unpacking) forgetLast() {
	if u.last.file != nil {
		u.last.close()
	}
	u.last = directory{}
}

// walk opens the directory that components name from the root, and makes what is missing. Close it.
func (u *unpacking) walk(entry string, components []string) (directory, error) {
	at, err := u.root.open(".")
	for i, name := range components {
		if err != nil {
			break
		}
		var next directory
		next, err = at.open(name)
		if errors.Is(err, syscall.ENOENT) {
			if err = syscall.Mkdir(at.at(name), 0o755); err == nil || errors.Is(err, syscall.EEXIST) {
				next, err = at.open(name)
			}
		}
		if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
			err = u.obstacle(entry, strings.Join(components[:i+1], "/"), at, name)
		}
		at.close()
		at = next
	}
	return at, err
}

func (u *unpacking) obstacle(entry, path string, in directory, name string) error {
	stat, err := in.lstat(name)
	if err != nil {
		return err
	}
	if stat.Mode&syscall.S_IFMT == syscall.S_IFLNK {
		return u.refuse(entry, "%q is a symlink, and none is followed; unpack into what it leads to", path)
	}
	return refuse("NOT_DIRECTORY", "Cannot unpack %q into %q: %q is %s", entry, u.path, path, kind(stat.Mode))
}

func (u *unpacking) makeDirectory(header *tar.Header, components []string) error {
	if len(components) == 0 {
		return nil // the directory itself, which keeps its mode
	}
	made, err := u.walk(header.Name, components)
	if err != nil {
		return err
	}
	defer made.close()
	if u.keepOwners {
		if err := made.file.Chown(header.Uid, header.Gid); err != nil {
			return err
		}
	}
	return syscall.Fchmod(int(made.file.Fd()), u.mode(header, 0o1777))
}

// mode is what the archive says, within the bits that are taken when owners are not.
func (u *unpacking) mode(header *tar.Header, taken uint32) uint32 {
	if u.keepOwners {
		taken = 0o7777
	}
	return uint32(header.Mode) & taken
}

func (u *unpacking) writeFile(header *tar.Header, content io.Reader, place, target string) error {
	if err := u.refuseHuge(header); err != nil {
		return err
	}
	file, err := makeUnfinishedIn(place)
	if err != nil {
		return err
	}
	defer file.discard()
	if err := copyAll(file, content); err != nil {
		return err
	}
	modified := sensibleTime(header.ModTime)
	wanted := attributes{mode: u.mode(header, 0o777), modified: &modified}
	if u.keepOwners {
		wanted.uid, wanted.gid = header.Uid, header.Gid
	}
	if err := file.take(wanted); err != nil {
		return err
	}
	return file.replace(target)
}

// refuseHuge refuses a size that no write could reach, before a sparse entry of a few bytes fills the disk.
func (u *unpacking) refuseHuge(header *tar.Header) error {
	var disk syscall.Statfs_t
	if header.Size <= 1<<20 || syscall.Fstatfs(int(u.root.file.Fd()), &disk) != nil {
		return nil
	}
	size := uint64(header.Size) / uint64(disk.Bsize)
	if size > disk.Blocks {
		return u.refuse(header.Name, "its size of %d bytes is larger than the disk", header.Size)
	}
	if size > disk.Bavail {
		return syscall.ENOSPC
	}
	return nil
}

// sensibleTime keeps what file systems can store.
func sensibleTime(t time.Time) time.Time {
	if t.Unix() < 0 || t.Unix() > 1<<33 {
		return time.Unix(0, 0)
	}
	return t
}

func (u *unpacking) makeSymlink(header *tar.Header, place, target string) error {
	if header.Linkname == "" || strings.IndexByte(header.Linkname, 0) >= 0 {
		return u.refuse(header.Name, "the symlink leads to %q", header.Linkname)
	}
	return replaceBy(place, target, func(path string) error {
		if err := os.Symlink(header.Linkname, path); err != nil || !u.keepOwners {
			return err
		}
		return os.Lchown(path, header.Uid, header.Gid)
	})
}

// makeLink links to a regular file within the directory, in this archive or there before.
func (u *unpacking) makeLink(header *tar.Header, place, target string) error {
	components, err := u.components(header.Name, header.Linkname)
	if err != nil {
		return err
	}
	if len(components) == 0 {
		return u.refuse(header.Name, "it links to no file")
	}
	above, err := u.walk(header.Name, components[:len(components)-1])
	if err != nil {
		return err
	}
	defer above.close()
	name := components[len(components)-1]
	stat, err := above.lstat(name)
	if errors.Is(err, syscall.ENOENT) {
		return u.refuse(header.Name, "it links to %q, which is not there", header.Linkname)
	}
	if err != nil {
		return err
	}
	if stat.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return u.refuse(header.Name, "it links to %q, which is %s", header.Linkname, kind(stat.Mode))
	}
	return replaceBy(place, target, func(path string) error { return os.Link(above.at(name), path) })
}
