package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// house is the file verbs over HTTP, with a session whose directory is an empty temporary one.
type house struct {
	*testing.T
	url        string
	directory  string
	unfinished string
}

type fixedDirectory string

func (d fixedDirectory) directory(session string) (string, error) {
	if session == "gone" {
		return "", refuse("SESSION_NOT_FOUND", "Cannot find the session %q: there is none", session)
	}
	return string(d), nil
}

func openHouse(t *testing.T) *house {
	t.Helper()
	base := t.TempDir()
	h := &house{T: t, directory: filepath.Join(base, "work"), unfinished: filepath.Join(base, "unfinished")}
	h.must(os.Mkdir(h.directory, 0o755))
	mux := http.NewServeMux()
	(&files{sessions: fixedDirectory(h.directory), unfinished: h.unfinished}).register(mux)
	server := httptest.NewServer(mux)
	server.Config.ErrorLog = nil
	t.Cleanup(server.Close)
	h.url = server.URL
	return h
}

func (h *house) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *house) path(name string) string { return filepath.Join(h.directory, name) }

func (h *house) put(name, content string) {
	h.Helper()
	h.must(os.MkdirAll(filepath.Dir(h.path(name)), 0o755))
	h.must(os.WriteFile(h.path(name), []byte(content), 0o644))
}

func (h *house) content(name string) string {
	h.Helper()
	content, err := os.ReadFile(h.path(name))
	h.must(err)
	return string(content)
}

type reply struct {
	status int
	header http.Header
	body   []byte
	cut    error
}

// ask makes a request; pairs are a query's names and values.
func (h *house) ask(method, verb string, body io.Reader, pairs ...string) reply {
	h.Helper()
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	request, err := http.NewRequest(method, h.url+"/files/"+verb+"?"+q.Encode(), body)
	h.must(err)
	return h.send(request)
}

func (h *house) send(request *http.Request) reply {
	h.Helper()
	response, err := http.DefaultClient.Do(request)
	h.must(err)
	defer response.Body.Close()
	content, cut := io.ReadAll(response.Body)
	return reply{response.StatusCode, response.Header, content, cut}
}

func (h *house) post(verb string, request any) reply {
	h.Helper()
	body, err := json.Marshal(request)
	h.must(err)
	return h.ask("POST", verb, bytes.NewReader(body))
}

func (h *house) succeeds(r reply) reply {
	h.Helper()
	if r.status/100 != 2 || r.cut != nil {
		h.Fatalf("answered %d (%v): %.500s", r.status, r.cut, r.body)
	}
	return r
}

// refused fails unless the reply is a refusal with this code and the house's wording, and gives its message.
func (h *house) refused(r reply, code string) string {
	h.Helper()
	var refusal agentError
	if err := json.Unmarshal(r.body, &refusal); err != nil || r.status < 400 {
		h.Fatalf("answered %d: %.500s; wanted %s", r.status, r.body, code)
	}
	if refusal.Code != code || !strings.HasPrefix(refusal.Message, "Cannot ") {
		h.Fatalf("refused with %s: %s; wanted %s", refusal.Code, refusal.Message, code)
	}
	return refusal.Message
}

func (h *house) file(r reply) agentFile {
	h.Helper()
	h.succeeds(r)
	var file agentFile
	h.must(json.Unmarshal(r.body, &file))
	return file
}

// isTidy fails when anything unfinished is left.
func (h *house) isTidy() {
	h.Helper()
	for _, directory := range []string{h.directory, h.unfinished} {
		_ = filepath.Walk(directory, func(path string, _ os.FileInfo, err error) error {
			if err == nil && strings.Contains(path, unfinishedPrefix) {
				h.Errorf("%s was left", path)
			}
			return nil
		})
	}
}

// tmpfs mounts a file system of its own for the test.
func (h *house) tmpfs(name, options string) string {
	h.Helper()
	if os.Getuid() != 0 {
		h.Skip("mounting needs root")
	}
	path := h.path(name)
	h.must(os.MkdirAll(path, 0o755))
	h.must(syscall.Mount("tmpfs", path, "tmpfs", 0, options))
	h.Cleanup(func() { _ = syscall.Unmount(path, syscall.MNT_DETACH) })
	return path
}

func TestStatDescribesTheEntryItself(t *testing.T) {
	h := openHouse(t)
	h.put("a.txt", "hello")
	h.must(os.Chmod(h.path("a.txt"), 0o640))
	h.must(os.Symlink("a.txt", h.path("link")))

	file := h.file(h.ask("GET", "stat", nil, "path", "a.txt"))
	if file.Type != "file" || file.Size != 5 || file.Mode != 0o640 || file.AbsolutePath != h.path("a.txt") || file.Name != "a.txt" || file.RelativePath != "" {
		t.Errorf("%+v", file)
	}
	link := h.file(h.ask("GET", "stat", nil, "path", "link"))
	if link.Type != "symlink" || link.Target == nil || *link.Target != "a.txt" {
		t.Errorf("%+v", link)
	}
	if followed := h.file(h.ask("GET", "stat", nil, "path", "link", "follow", "1")); followed.Type != "file" || followed.Name != "link" {
		t.Errorf("%+v", followed)
	}
	if device := h.file(h.ask("GET", "stat", nil, "path", "/dev/null")); device.Type != "other" {
		t.Errorf("%+v", device)
	}
}

func TestBadPathsAreRefusedByEveryVerb(t *testing.T) {
	h := openHouse(t)
	h.put("file", "x")
	h.must(os.Symlink("loop", h.path("loop")))
	cases := []struct{ path, code string }{
		{"", "VALIDATION_FAILED"},
		{"a\x00b", "VALIDATION_FAILED"},
		{strings.Repeat("n", 256), "NAME_TOO_LONG"},
		{strings.Repeat("n/", 2100), "NAME_TOO_LONG"},
		{"file/below", "NOT_DIRECTORY"},
		{"loop/below", "VALIDATION_FAILED"},
		{"loop/../file", "VALIDATION_FAILED"},
	}
	for _, c := range cases {
		h.refused(h.ask("GET", "stat", nil, "path", c.path), c.code)
		h.refused(h.ask("GET", "content", nil, "path", c.path), c.code)
		h.refused(h.ask("PUT", "content", strings.NewReader("x"), "path", c.path), c.code)
		h.refused(h.ask("GET", "list", nil, "path", c.path), c.code)
		h.refused(h.ask("GET", "archive", nil, "path", c.path), c.code)
		h.refused(h.ask("PUT", "archive", strings.NewReader(""), "path", c.path), c.code)
		h.refused(h.post("mkdir", mkdirRequest{Path: c.path}), c.code)
		h.refused(h.post("mkdir", mkdirRequest{Path: c.path, Recursive: true}), c.code)
		h.refused(h.post("remove", removeRequest{Path: c.path, Recursive: true}), c.code)
		h.refused(h.post("move", moveRequest{Path: c.path, To: "elsewhere"}), c.code)
		h.refused(h.post("move", moveRequest{Path: "file", To: c.path}), c.code)
	}
	for _, verb := range []string{"stat", "content", "list", "archive"} {
		h.refused(h.ask("GET", verb, nil, "path", "missing"), "FILE_NOT_FOUND")
		h.refused(h.ask("GET", verb, nil, "path", "x", "session", "gone"), "SESSION_NOT_FOUND")
		h.refused(h.ask("DELETE", verb, nil, "path", "file"), "NOT_SUPPORTED")
	}
	h.refused(h.ask("GET", "content", nil, "path", "loop"), "VALIDATION_FAILED")
	h.refused(h.ask("PUT", "content", strings.NewReader("x"), "path", "loop"), "VALIDATION_FAILED")
	h.isTidy()
}

func TestMalformedRequestsAreRefused(t *testing.T) {
	h := openHouse(t)
	h.refused(h.ask("GET", "list", nil, "path", ".", "recursive", "yes"), "VALIDATION_FAILED")
	h.refused(h.ask("PUT", "content", strings.NewReader("x"), "path", "a", "mode", "0o777"), "VALIDATION_FAILED")
	h.refused(h.ask("PUT", "content", strings.NewReader("x"), "path", "a", "mode", "-1"), "VALIDATION_FAILED")
	h.refused(h.ask("PUT", "content", strings.NewReader("x"), "path", "a", "mode", "4096"), "VALIDATION_FAILED")
	h.refused(h.ask("POST", "mkdir", strings.NewReader(`{"path":`)), "VALIDATION_FAILED")
	h.refused(h.ask("POST", "mkdir", strings.NewReader(`{"path":1}`)), "VALIDATION_FAILED")
	h.refused(h.ask("POST", "mkdir", strings.NewReader(`{"path":"a","mode":-1}`)), "VALIDATION_FAILED")
	h.refused(h.ask("POST", "mkdir", strings.NewReader(`{"path":"a","mode":65535}`)), "VALIDATION_FAILED")
	h.refused(h.ask("GET", "unknown", nil, "path", "a"), "NOT_SUPPORTED")
	request, err := http.NewRequest("GET", h.url+"/files/stat?path=%zz", nil)
	if err == nil {
		h.refused(h.send(request), "VALIDATION_FAILED")
	}
}

func TestTwoDotsMeanTheParentOfWhatIsReallyThere(t *testing.T) {
	h := openHouse(t)
	h.put("real/inner/file", "x")
	h.must(os.Symlink("real/inner", h.path("link")))
	for path, want := range map[string]string{
		"link/../inner/file":   h.path("real/inner/file"),
		"real/../real/./inner": h.path("real/inner"),
		"missing/../real":      h.path("real"),
		"//etc//./":            "/etc",
		"/../..":               "/",
	} {
		if file := h.file(h.ask("GET", "stat", nil, "path", path)); file.AbsolutePath != want {
			t.Errorf("%q is %q, not %q", path, file.AbsolutePath, want)
		}
	}
	h.refused(h.ask("GET", "content", nil, "path", "real/inner/file/"), "NOT_DIRECTORY")
}

func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"path=a&recursive=1", "path=%2e%2e%2f&mode=493", "mode=+7&hidden=2", "a=b;c=d", "path=%zz", "%00=%ff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := parseQuery(raw)
		if err != nil {
			return
		}
		if mode, err := q.mode(); err == nil && mode != nil && *mode > 0o7777 {
			t.Errorf("%q gave the mode %o", raw, *mode)
		}
		if _, err := q.flag("recursive"); err != nil && asAgentError(err).Code != "VALIDATION_FAILED" {
			t.Error(err)
		}
		path := q.values.Get("path")
		placed, err := (&files{sessions: fixedDirectory("/nowhere/at-all")}).place(path, "")
		if err == nil && (!filepath.IsAbs(placed) || filepath.Clean(placed) != placed || strings.IndexByte(placed, 0) >= 0) {
			t.Errorf("%q was placed at %q", path, placed)
		}
	})
}

func TestHeaderJSONIsASCIIAndMeansTheSame(t *testing.T) {
	for _, name := range []string{"plain", "grüße", "日本", "😀 face", "a\"b\\c\n\t", "\x7f"} {
		text := headerJSON(map[string]string{"name": name})
		for _, c := range []byte(text) {
			if c < 0x20 || c > 0x7e {
				t.Fatalf("%q holds the byte %#x", text, c)
			}
		}
		var back map[string]string
		if err := json.Unmarshal([]byte(text), &back); err != nil || back["name"] != name {
			t.Errorf("%q came back as %q (%v)", name, back["name"], err)
		}
	}
}
