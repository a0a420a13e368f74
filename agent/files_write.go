package main

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// writeContent replaces a file whole or not at all and makes missing parents. Where path is a symlink, what it leads to
// is replaced. A replaced file keeps its owner, mode and attributes; mode, when given, wins. An upload that is cut off
// changes nothing. Of writers at the same time, the last to end wins. Other hard links of a replaced file keep the old
// content.
func (f *files) writeContent(w http.ResponseWriter, r *http.Request) error {
	q, path, err := f.target(r)
	if err != nil {
		return err
	}
	mode, err := q.mode()
	if err != nil {
		return err
	}
	if strings.HasSuffix(q.values.Get("path"), "/") {
		return refuse("IS_DIRECTORY", "Cannot write %q: a path that ends with a slash names a directory", q.values.Get("path"))
	}
	if err := f.replaceFile(path, r.Body, mode); err != nil {
		return cannot("write", path, err)
	}
	written, err := describeTarget(path)
	if err != nil {
		return cannot("write", path, err)
	}
	writeJSON(w, http.StatusOK, written)
	return nil
}

func (f *files) replaceFile(path string, content io.Reader, mode *uint32) error {
	target, err := followLinks(path)
	if err != nil {
		return err
	}
	ancestor, ancestorStat, err := nearestDirectory(filepath.Dir(target))
	if err != nil {
		return err
	}
	wanted := newFileAttributes(ancestorStat)
	var old syscall.Stat_t
	if err := syscall.Lstat(target, &old); err == nil {
		if err := mustBeRegular(target, old.Mode); err != nil {
			return err
		}
		wanted = attributesOf(target, &old)
	} else if !errors.Is(err, syscall.ENOENT) {
		return err
	}
	if mode != nil {
		wanted.mode = *mode
	}

	file, err := f.makeUnfinished(ancestor)
	if err != nil {
		return err
	}
	defer file.discard()
	if err := receiveUpload(file.File, content); err != nil {
		return err
	}
	if err := file.take(wanted); err != nil {
		return err
	}
	if err := makeParents(target); err != nil {
		return err
	}
	return file.replace(target)
}

// As many symlinks as the kernel follows for one path.
const mostLinks = 40

// followLinks gives the name at the end of a chain of symlinks; nothing need be there.
func followLinks(path string) (string, error) {
	for i := 0; i < mostLinks; i++ {
		target, err := os.Readlink(path)
		if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOENT) {
			return path, nil
		}
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(target) {
			target = filepath.Dir(path) + "/" + target
		}
		if path, err = normalize(target); err != nil {
			return "", err
		}
	}
	return "", syscall.ELOOP
}

// nearestDirectory gives the directory, or the closest one above it that exists.
func nearestDirectory(path string) (string, *syscall.Stat_t, error) {
	for {
		var stat syscall.Stat_t
		err := syscall.Stat(path, &stat)
		switch {
		case err == nil && stat.Mode&syscall.S_IFMT != syscall.S_IFDIR:
			return "", nil, syscall.ENOTDIR
		case err == nil:
			return path, &stat, nil
		case !errors.Is(err, syscall.ENOENT) || path == "/":
			return "", nil, err
		}
		path = filepath.Dir(path)
	}
}

// receiveUpload writes what a client sends. A failure of the client's side is told apart from one of the disk.
func receiveUpload(file io.Writer, content io.Reader) error {
	source := &upload{content: content}
	err := copyAll(file, source)
	if source.err != nil {
		return source.err
	}
	return err
}

var transferBuffers = sync.Pool{New: func() any { return new([transferBytes]byte) }}

// copyAll is io.Copy with a shared buffer, whatever the two could do by themselves.
func copyAll(to io.Writer, from io.Reader) error {
	buffer := transferBuffers.Get().(*[transferBytes]byte)
	defer transferBuffers.Put(buffer)
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, buffer[:])
	return err
}

// upload is a body that names its own failures.
type upload struct {
	content io.Reader
	err     error
}

func (u *upload) Read(buffer []byte) (int, error) {
	count, err := u.content.Read(buffer)
	var refusal *agentError
	if errors.As(err, &refusal) {
		u.err = refusal // from a copy of our own
	} else if err != nil && err != io.EOF && u.err == nil {
		u.err = refuse("ABORTED", "Cannot receive the upload: it was cut off (%v); the unfinished file is not kept", err)
	}
	return count, err
}
