package main

import (
	"bytes"
	"encoding/json"
	"io"
	"math/rand"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
)

func (h *house) get(path string, header ...string) reply {
	h.Helper()
	request, err := http.NewRequest("GET", h.url+"/files/content?path="+url.QueryEscape(path), nil)
	h.must(err)
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	return h.send(request)
}

func TestContentComesWithItsSizeAndDescription(t *testing.T) {
	h := openHouse(t)
	content := make([]byte, 3*transferBytes+17)
	rand.New(rand.NewSource(1)).Read(content)
	h.put("größe 😀.bin", string(content))
	h.must(os.Symlink("größe 😀.bin", h.path("link")))
	for _, name := range []string{"größe 😀.bin", "link"} {
		r := h.succeeds(h.get(name))
		if !bytes.Equal(r.body, content) || r.header.Get("content-length") != "196625" {
			t.Fatalf("%d bytes, content-length %s", len(r.body), r.header.Get("content-length"))
		}
		var file agentFile
		h.must(json.Unmarshal([]byte(r.header.Get("atoll-file")), &file))
		if file.Name != name || file.Type != "file" || file.Size != int64(len(content)) {
			t.Errorf("%+v", file)
		}
	}
	h.put("empty", "")
	if r := h.succeeds(h.get("empty")); len(r.body) != 0 || r.header.Get("content-length") != "0" {
		t.Errorf("%q", r.body)
	}
}

func TestWhatIsNoRegularFileIsRefusedAtOnce(t *testing.T) {
	h := openHouse(t)
	h.must(syscall.Mkfifo(h.path("pipe"), 0o644))
	socket, err := net.Listen("unix", h.path("socket"))
	h.must(err)
	defer socket.Close()
	h.must(os.Symlink("/dev/zero", h.path("zero")))
	for _, path := range []string{"pipe", "socket", "zero", "/dev/zero", "/dev/ptmx"} {
		h.refused(h.get(path), "VALIDATION_FAILED")
		h.refused(h.ask("PUT", "content", strings.NewReader("x"), "path", path), "VALIDATION_FAILED")
		h.refused(h.ask("GET", "archive", nil, "path", path), "VALIDATION_FAILED")
		h.refused(h.ask("GET", "list", nil, "path", path), "NOT_DIRECTORY")
	}
	h.refused(h.get("."), "IS_DIRECTORY")
	h.refused(h.ask("PUT", "content", strings.NewReader("x"), "path", "."), "IS_DIRECTORY")
	h.refused(h.ask("PUT", "content", strings.NewReader("x"), "path", "new/"), "IS_DIRECTORY")
	h.isTidy()
}

func TestFilesOfTheKernelAreStreamedToTheirEnd(t *testing.T) {
	h := openHouse(t)
	want, err := os.ReadFile("/proc/cpuinfo")
	h.must(err)
	r := h.succeeds(h.get("/proc/cpuinfo"))
	if len(r.body) == 0 || bytes.Count(r.body, []byte("processor")) != bytes.Count(want, []byte("processor")) {
		t.Errorf("%q", r.body)
	}
	if r.header.Get("content-length") != "" {
		t.Error("a size was told")
	}
	if r := h.succeeds(h.get("/sys/kernel/uevent_seqnum")); len(r.body) == 0 {
		t.Error("nothing was read from sysfs")
	}
	h.refused(h.ask("PUT", "content", strings.NewReader("x"), "path", "/proc/made-up"), "NOT_SUPPORTED")
}

func TestAKernelFileThatWaitsForNewsEndsWhereItWouldWait(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	h := openHouse(t)
	h.succeeds(h.get("/proc/kmsg")) // empties it
	h.succeeds(h.get("/proc/kmsg"))
}

func TestOneRangeIsServedSoThatADownloadCanBeResumed(t *testing.T) {
	h := openHouse(t)
	h.put("f", "0123456789")
	r := h.succeeds(h.get("f", "range", "bytes=4-"))
	if r.status != 206 || string(r.body) != "456789" || r.header.Get("content-range") != "bytes 4-9/10" || r.header.Get("content-length") != "6" {
		t.Errorf("%d %q %v", r.status, r.body, r.header)
	}
	tag := r.header.Get("etag")
	if r := h.succeeds(h.get("f", "range", "bytes=8-", "if-range", tag)); string(r.body) != "89" {
		t.Errorf("%q", r.body)
	}
	h.put("f", "abcdefghijk")
	if r := h.succeeds(h.get("f", "range", "bytes=8-", "if-range", tag)); r.status != 200 || string(r.body) != "abcdefghijk" {
		t.Errorf("a changed file was resumed: %q", r.body)
	}
	r = h.get("f", "range", "bytes=11-")
	h.refused(r, "VALIDATION_FAILED")
	if r.status != 416 || r.header.Get("content-range") != "bytes */11" {
		t.Errorf("%d %v", r.status, r.header)
	}
}

func TestRangesMeanWhatTheStandardSays(t *testing.T) {
	whole := span{0, 10}
	cases := []struct {
		header          string
		part            span
		ok, satisfiable bool
	}{
		{"", whole, false, true},
		{"bytes=0-0", span{0, 1}, true, true},
		{"bytes=2-5", span{2, 4}, true, true},
		{"bytes=2-99", span{2, 8}, true, true},
		{"bytes=-3", span{7, 3}, true, true},
		{"bytes=-99", whole, true, true},
		{"bytes=-0", span{}, true, false},
		{"bytes=10-", span{}, true, false},
		{"bytes=99999999999999999999-", span{}, true, false},
		{"bytes=5-2", whole, false, true},
		{"bytes=0-1,3-4", whole, false, true},
		{"bytes=--1", whole, false, true},
		{"bytes=+1-2", whole, false, true},
		{"bytes=", whole, false, true},
		{"bytes=-", whole, false, true},
		{"lines=1-2", whole, false, true},
	}
	for _, c := range cases {
		if part, ok, satisfiable := parseRange(c.header, 10); part != c.part || ok != c.ok || satisfiable != c.satisfiable {
			t.Errorf("%q: %v %v %v", c.header, part, ok, satisfiable)
		}
	}
}

func FuzzRange(f *testing.F) {
	for _, seed := range []string{"bytes=0-", "bytes=-1", "bytes=9223372036854775807-9223372036854775807", "bytes=1-2,3-4", "b=1-2"} {
		f.Add(seed, int64(100))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		part, ok, satisfiable := parseRange(header, size)
		if !satisfiable && (part != span{} || !ok) {
			t.Errorf("%q of %d: %v", header, size, part)
		}
		if satisfiable && (part.start < 0 || part.length < 0 || part.start+part.length > size || !ok && part != span{0, size}) {
			t.Errorf("%q of %d: %v", header, size, part)
		}
	})
}

func TestAFileThatShrinksCutsTheAnswerAndOneThatGrowsEndsAtTheSizeTold(t *testing.T) {
	h := openHouse(t)
	size := int64(64 << 20) // more than all buffers on the way hold
	for _, to := range []int64{size / 2, size * 2} {
		h.must(os.WriteFile(h.path("f"), nil, 0o644))
		h.must(os.Truncate(h.path("f"), size)) // sparse: costs no disk
		response, err := http.Get(h.url + "/files/content?path=f")
		h.must(err)
		h.must(os.Truncate(h.path("f"), to))
		count, err := io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if to < size && (err == nil || count >= size) {
			t.Errorf("shrunk: %d bytes, %v", count, err)
		}
		if to > size && (err != nil || count != size) {
			t.Errorf("grown: %d bytes, %v", count, err)
		}
	}
}
