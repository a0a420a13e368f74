package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
)

type fileLine struct {
	File  *agentFile
	End   *struct{ Count int }
	Error *agentError
}

func (h *house) list(pairs ...string) (files []agentFile, count int) {
	h.Helper()
	r := h.succeeds(h.ask("GET", "list", nil, pairs...))
	lines := bufio.NewScanner(bytes.NewReader(r.body))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line fileLine
		h.must(json.Unmarshal(lines.Bytes(), &line))
		switch {
		case line.File != nil:
			files = append(files, *line.File)
		case line.End != nil:
			return files, line.End.Count
		case line.Error != nil:
			h.Fatal(line.Error.Message)
		}
	}
	h.Fatal("the list has no end")
	return nil, 0
}

func relativePaths(files []agentFile) string {
	var paths []string
	for _, file := range files {
		paths = append(paths, file.RelativePath)
	}
	return strings.Join(paths, " ")
}

func TestAListIsSortedAndFollowsNoSymlink(t *testing.T) {
	h := openHouse(t)
	for _, name := range []string{"b/2", "b/1", "a", "c", ".hidden/x", "b/.env"} {
		h.put(name, "")
	}
	h.must(os.Symlink("..", h.path("b/up")))
	h.must(syscall.Mkfifo(h.path("pipe"), 0o600))
	for want, pairs := range map[string][]string{
		"a b c pipe":              {"path", "."},
		".hidden a b c pipe":      {"path", ".", "hidden", "1"},
		"a b b/1 b/2 b/up c pipe": {"path", ".", "recursive", "1"},
		".hidden .hidden/x a b b/.env b/1 b/2 b/up c pipe": {"path", ".", "recursive", "1", "hidden", "1"},
		"1 2 up": {"path", "b"},
	} {
		files, count := h.list(pairs...)
		if relativePaths(files) != want || count != len(files) {
			t.Errorf("%v: %q, %d", pairs, relativePaths(files), count)
		}
	}
	files, _ := h.list("path", "b/up/b", "recursive", "1") // a path may lead through symlinks
	if relativePaths(files) != "1 2 up" || files[2].Type != "symlink" || *files[2].Target != ".." || files[0].AbsolutePath != h.path("b/up/b/1") {
		t.Errorf("%+v", files)
	}
	h.put("file", "")
	h.refused(h.ask("GET", "list", nil, "path", "file"), "NOT_DIRECTORY")
}

func TestAListDoesNotEnterTheKernelsFileSystems(t *testing.T) {
	h := openHouse(t)
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	h.must(os.Mkdir(h.path("proc"), 0o755))
	h.must(syscall.Mount("proc", h.path("proc"), "proc", 0, ""))
	defer syscall.Unmount(h.path("proc"), syscall.MNT_DETACH)
	files, _ := h.list("path", ".", "recursive", "1")
	if relativePaths(files) != "proc" {
		t.Errorf("%d files", len(files))
	}
	if files, _ := h.list("path", "proc/self"); len(files) == 0 {
		t.Error("asked for by name, it is listed")
	}
}

func TestALargeDirectoryIsListedWhole(t *testing.T) {
	h := openHouse(t)
	const total = 20_000
	for i := 0; i < total; i++ {
		h.must(os.WriteFile(h.path(fmt.Sprintf("f%05d", i)), nil, 0o600))
	}
	files, count := h.list("path", ".")
	if count != total || len(files) != total || files[0].Name != "f00000" || files[total-1].Name != "f19999" {
		t.Errorf("%d %d", count, len(files))
	}
}

func TestATreeThatIsTooDeepIsToldAtTheEndOfTheList(t *testing.T) {
	h := openHouse(t)
	h.makeDeep(deepest + 5)
	r := h.succeeds(h.ask("GET", "list", nil, "path", ".", "recursive", "1"))
	last := r.body[bytes.LastIndexByte(bytes.TrimSpace(r.body), '\n')+1:]
	var line fileLine
	h.must(json.Unmarshal(last, &line))
	if line.Error == nil || line.Error.Code != "NAME_TOO_LONG" {
		t.Errorf("%s", last)
	}
	if r := h.ask("GET", "archive", nil, "path", "."); r.cut == nil {
		t.Error("the archive was not cut")
	}
}

// makeDeep makes directories within one another, deeper than a path can name.
func (h *house) makeDeep(depth int) {
	h.Helper()
	at, err := openDirectory(h.directory)
	h.must(err)
	for i := 0; i < depth; i++ {
		h.must(os.Mkdir(at.at("deep"), 0o755))
		next, err := at.open("deep")
		h.must(err)
		at.close()
		at = next
	}
	h.must(os.WriteFile(at.at("file"), nil, 0o600))
	at.close()
}

func TestAListEndsWhenItsReaderLeaves(t *testing.T) {
	h := openHouse(t)
	for i := 0; i < 5_000; i++ {
		h.must(os.WriteFile(h.path(fmt.Sprintf("%0200d", i)), nil, 0o600))
	}
	response, err := http.Get(h.url + "/files/list?path=.&session=")
	h.must(err)
	response.Body.Close() // closing the server in the end waits for the handler
}
