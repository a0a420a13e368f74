package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
)

// list sends what is in a directory, a FileLine each, sorted by name within a directory, a directory before what is in
// it. Symlinks are not followed, but path itself may be one. Names that begin with a dot are left out, with all beneath
// them, unless hidden=1. What vanishes meanwhile is left out; a directory that may not be read is listed without its
// content, and so are those of the kernel (proc, sys, ...) that the walk meets on its way.
func (f *files) list(w http.ResponseWriter, r *http.Request) error {
	q, path, err := f.target(r)
	if err != nil {
		return err
	}
	recursive, err := q.flag("recursive")
	if err != nil {
		return err
	}
	hidden, err := q.flag("hidden")
	if err != nil {
		return err
	}
	top, err := openDirectory(path)
	if err != nil {
		return cannot("list", path, err)
	}
	defer top.close()

	w.Header().Set("content-type", "application/x-ndjson")
	out := bufio.NewWriterSize(w, transferBytes)
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false)
	l := &listing{lines: lines, context: r.Context(), recursive: recursive, hidden: hidden}
	err = l.directory(top, path, "", 0)
	last := map[string]any{"end": map[string]int{"count": l.count}}
	if err != nil {
		last = map[string]any{"error": asAgentError(cannot("list", path, err))}
	}
	if lines.Encode(last) != nil || out.Flush() != nil {
		cut()
	}
	return nil
}

type listing struct {
	lines             *json.Encoder
	context           context.Context
	recursive, hidden bool
	count             int
}

func (l *listing) directory(d directory, absolute, relative string, depth int) error {
	if depth == deepest {
		return tooDeep("list", absolute)
	}
	device := d.device()
	return d.each(func(name string) error {
		if err := l.context.Err(); err != nil {
			return err
		}
		if !l.hidden && strings.HasPrefix(name, ".") {
			return nil
		}
		stat, err := d.lstat(name)
		if errors.Is(err, syscall.ENOENT) {
			return nil
		}
		if err != nil {
			return err
		}
		here, below := filepath.Join(absolute, name), filepath.Join(relative, name)
		line := struct {
			File agentFile `json:"file"`
		}{describe(here, below, d.at(name), &stat)}
		if err := l.lines.Encode(line); err != nil {
			return err
		}
		l.count++
		if !l.recursive || stat.Mode&syscall.S_IFMT != syscall.S_IFDIR {
			return nil
		}
		child, err := d.open(name)
		if isUnreadable(err) {
			return nil
		}
		if err != nil {
			return err
		}
		defer child.close()
		if uint64(stat.Dev) != device && isKernels(child.file) {
			return nil
		}
		return l.directory(child, here, below, depth+1)
	})
}

// isUnreadable tells whether a directory seen a moment ago is gone, has become something else, or may not be read.
func isUnreadable(err error) bool {
	for _, errno := range []syscall.Errno{syscall.ENOENT, syscall.ENOTDIR, syscall.ELOOP, syscall.EACCES, syscall.EPERM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func ignoreEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}
