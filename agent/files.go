package main

import (
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Where what is being written lies until it is whole: on the root file system, so that a rename puts it in place, and
// where nobody watches.
const unfinishedDirectory = "/var/lib/atoll/unfinished"

// registerFiles serves the routes /files/... of protocol/agent.ts and removes what a killed agent left unfinished.
// Relative paths are relative to the session's directory.
func registerFiles(mux *http.ServeMux, sessions sessionDirectories) {
	f := &files{sessions: sessions, unfinished: unfinishedDirectory}
	f.removeUnfinished()
	f.register(mux)
}

type files struct {
	sessions   sessionDirectories
	unfinished string
}

func (f *files) register(mux *http.ServeMux) {
	mux.Handle("/files/", methods{})
	mux.Handle("/files/stat", methods{"GET": f.stat})
	mux.Handle("/files/content", methods{"GET": f.readContent, "PUT": f.writeContent})
	mux.Handle("/files/list", methods{"GET": f.list})
	mux.Handle("/files/mkdir", methods{"POST": f.mkdir})
	mux.Handle("/files/remove", methods{"POST": f.remove})
	mux.Handle("/files/move", methods{"POST": f.move})
	mux.Handle("/files/archive", methods{"GET": f.readArchive, "PUT": f.writeArchive})
}

// methods serves one path. An error is answered as a refusal, so it may only be returned before the first byte of an
// answer; a stream that fails later calls cut.
type methods map[string]func(w http.ResponseWriter, r *http.Request) error

func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	serve, ok := m[r.Method]
	if !ok {
		writeError(w, refuse("NOT_SUPPORTED", "Cannot %s %q: no such verb", r.Method, r.URL.Path))
		return
	}
	if err := serve(w, r); err != nil {
		writeError(w, err)
	}
}

// cut ends an answer under way so that the reader sees that it is not whole: without its last bytes or chunk.
func cut() { panic(http.ErrAbortHandler) }

// query is a request's query string, read strictly: what is malformed is refused rather than dropped.
type query struct{ values url.Values }

func parseQuery(raw string) (query, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return query{}, refuse("VALIDATION_FAILED", "Cannot read the query %q: %v", raw, err)
	}
	return query{values}, nil
}

// flag is 0 or 1; absent it is 0.
func (q query) flag(name string) (bool, error) {
	switch value := q.values.Get(name); value {
	case "", "0":
		return false, nil
	case "1":
		return true, nil
	default:
		return false, refuse("VALIDATION_FAILED", "Cannot read %s=%q: it must be 0 or 1", name, value)
	}
}

// mode is a decimal number of permission bits (493 is 0o755), or nil when absent.
func (q query) mode() (*uint32, error) {
	text := q.values.Get("mode")
	if text == "" {
		return nil, nil
	}
	value, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return nil, refuse("VALIDATION_FAILED", "Cannot read mode=%q: it must be a decimal number", text)
	}
	mode := uint32(value)
	return &mode, checkMode(&mode)
}

func checkMode(mode *uint32) error {
	if mode != nil && *mode > 0o7777 {
		return refuse("VALIDATION_FAILED", "Cannot set the mode %#o: permission bits end at 0o7777", *mode)
	}
	return nil
}

// target is the query and the path of a request that names its file in the query.
func (f *files) target(r *http.Request) (query, string, error) {
	q, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return q, "", err
	}
	path, err := f.place(q.values.Get("path"), q.values.Get("session"))
	return q, path, err
}

// place gives the absolute path, without ".", ".." or doubled slashes, that the kernel would reach by path from the
// session's directory. The last component may be a symlink or missing. A path that ends with a slash must not be a
// file.
func (f *files) place(path, session string) (string, error) {
	if path == "" {
		return "", refuse("VALIDATION_FAILED", "Cannot use an empty path: name a file or directory")
	}
	if strings.IndexByte(path, 0) >= 0 {
		return "", refuse("VALIDATION_FAILED", "Cannot use the path %q: it contains a NUL byte", path)
	}
	if !filepath.IsAbs(path) {
		directory, err := f.sessions.directory(session)
		if err != nil {
			return "", err
		}
		path = directory + "/" + path
	}
	if len(path) > longestPath {
		return "", refuse("NAME_TOO_LONG", "Cannot use a path of %d bytes: the kernel takes %d", len(path), longestPath)
	}
	normal, err := normalize(path)
	if err != nil {
		return "", cannot("find", path, err)
	}
	if strings.HasSuffix(path, "/") {
		if info, err := os.Stat(normal); err == nil && !info.IsDir() {
			return "", cannot("use", path, syscall.ENOTDIR)
		}
	}
	return normal, nil
}

// PATH_MAX without the ending NUL.
const longestPath = 4095

// normalize removes ".", ".." and doubled slashes. ".." is the parent of what the path before it really leads to, as for
// the kernel, which is not the text before the last slash when that is a symlink. Where nothing is, text is all there is.
func normalize(path string) (string, error) {
	components := strings.Split(path, "/")
	at := "/"
	for _, component := range components {
		switch component {
		case "", ".":
		case "..":
			real, err := filepath.EvalSymlinks(at)
			var errno syscall.Errno
			switch {
			case errors.Is(err, syscall.ENOENT):
				real = at
			case errors.As(err, &errno):
				return "", err
			case err != nil:
				return "", syscall.ELOOP // the one reason of its own that EvalSymlinks has
			}
			at = filepath.Dir(real)
		default:
			at = filepath.Join(at, component)
		}
	}
	return at, nil
}
