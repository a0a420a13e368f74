package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Every unfinished file's name begins so.
const unfinishedPrefix = ".atoll-unfinished-"

// unfinishedFile is a file that is being made. It takes its place whole by replace, or never by discard.
//
// Nothing here calls fsync: a write promises what a program's own write promises. Processes see the old file or the new
// one; a snapshot writes out what it holds; only a power cut of the host can lose the last seconds, and a command `sync`
// is there for who must rule that out. It would cost milliseconds for every file.
type unfinishedFile struct {
	*os.File
	path string
}

// makeUnfinished makes an empty file (0600, root's) on the same mount as the directory where it is to appear: out of
// everybody's sight where that is the root file system, else in the directory itself.
func (f *files) makeUnfinished(destination string) (*unfinishedFile, error) {
	place, err := f.unfinishedPlace(destination)
	if err != nil {
		return nil, err
	}
	return makeUnfinishedIn(place)
}

func makeUnfinishedIn(place string) (*unfinishedFile, error) {
	path := unfinishedName(place)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	return &unfinishedFile{file, path}, err
}

// unfinishedPlace gives the directory for what will be renamed into destination, a directory that exists.
func (f *files) unfinishedPlace(destination string) (string, error) {
	wanted, err := openDirectory(destination)
	if err != nil {
		return "", err
	}
	defer wanted.close()
	if isKernels(wanted.file) {
		return "", refuse("NOT_SUPPORTED", "Cannot make files in %q: it belongs to the kernel; use a command to write there", destination)
	}
	private, err := openDirectory(f.unfinished)
	if errors.Is(err, syscall.ENOENT) {
		if err = os.MkdirAll(f.unfinished, 0o700); err == nil {
			private, err = openDirectory(f.unfinished)
		}
	}
	if err != nil {
		return destination, nil // read-only or full there; it may be neither here
	}
	defer private.close()
	if mountOf(private.file) != mountOf(wanted.file) {
		return destination, nil
	}
	return f.unfinished, nil
}

func unfinishedName(place string) string {
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		panic(err) // the kernel's random numbers do not fail
	}
	return filepath.Join(place, unfinishedPrefix+hex.EncodeToString(random[:]))
}

// replace puts the file in place of whatever has the name target: whole, in one step.
func (u *unfinishedFile) replace(target string) error {
	if err := u.Close(); err != nil {
		return err
	}
	return os.Rename(u.path, target)
}

// discard removes what did not get into place; after replace it does nothing.
func (u *unfinishedFile) discard() {
	u.Close()
	os.Remove(u.path)
}

// replaceBy puts what create makes, which is whole at once, in place of whatever has the name target. place is a
// directory of the same mount.
func replaceBy(place, target string, create func(path string) error) error {
	path := unfinishedName(place)
	// Also after success: the rename of one hard link onto another of the same file does nothing.
	defer os.Remove(path)
	if err := create(path); err != nil {
		return err
	}
	return os.Rename(path, target)
}

// removeUnfinished removes what an agent that was killed left behind.
func (f *files) removeUnfinished() {
	private, err := openDirectory(f.unfinished)
	if err != nil {
		return
	}
	defer private.close()
	_ = private.each(func(name string) error {
		if strings.HasPrefix(name, unfinishedPrefix) {
			_ = removeTree(private, name, private.at(name)) // what resists is tried again at the next start
		}
		return nil
	})
}

// attributes are what a file has beside its content.
type attributes struct {
	uid, gid int
	mode     uint32
	extended map[string][]byte
	modified *time.Time
}

// attributesOf gives what a file that is replaced hands on: owner, mode, access control list and extended attributes.
func attributesOf(path string, stat *syscall.Stat_t) attributes {
	return attributes{
		uid: int(stat.Uid), gid: int(stat.Gid), mode: stat.Mode & 0o7777,
		extended: extendedAttributes(path),
	}
}

// newFileAttributes are root's, with the directory's group where its set-group-id bit asks for that.
func newFileAttributes(directory *syscall.Stat_t) attributes {
	fresh := attributes{mode: 0o644}
	if directory.Mode&syscall.S_ISGID != 0 {
		fresh.gid = int(directory.Gid)
	}
	return fresh
}

func (u *unfinishedFile) take(a attributes) error {
	if err := u.Chown(a.uid, a.gid); err != nil {
		return err
	}
	for name, value := range a.extended {
		// A name space that this file system or this container does not have is not the caller's concern.
		err := syscall.Setxattr(u.path, name, value, 0)
		if err != nil && !errors.Is(err, syscall.EOPNOTSUPP) && !errors.Is(err, syscall.EPERM) {
			return err
		}
	}
	// After chown, which takes away the set-user-id bit.
	if err := syscall.Chmod(u.path, a.mode); err != nil {
		return err
	}
	if a.modified != nil {
		return os.Chtimes(u.path, *a.modified, *a.modified)
	}
	return nil
}

// Some kilobytes are the most that Linux file systems hold in all; a file that lies about it keeps none.
const extendedLimitBytes = 64 << 10

func extendedAttributes(path string) map[string][]byte {
	names := make([]byte, extendedLimitBytes)
	size, err := syscall.Listxattr(path, names)
	if err != nil || size <= 0 {
		return nil
	}
	found := map[string][]byte{}
	for _, name := range strings.Split(strings.TrimSuffix(string(names[:size]), "\x00"), "\x00") {
		// Capabilities are taken from a file by every write, as for any program that writes.
		if name == "security.capability" {
			continue
		}
		value := make([]byte, extendedLimitBytes)
		if size, err := syscall.Getxattr(path, name, value); err == nil {
			found[name] = value[:size]
		}
	}
	return found
}
