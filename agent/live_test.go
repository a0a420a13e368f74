package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"testing"
	"time"
)

// live is what of an agent needs no processes, served on a unix socket: in this process, so that its descriptors can be
// counted and its queues held up.
type live struct {
	t      testing.TB
	agent  *agent
	client *http.Client
	socket string
	folder string
}

func startLive(t testing.TB) *live {
	t.Helper()
	folder := t.TempDir()
	chosen := defaultSettings()
	chosen.times.heartbeat = time.Second
	watches := newWatches()
	l := &live{t: t, folder: filepath.Join(folder, "work"), socket: filepath.Join(folder, "s")}
	l.must(os.Mkdir(l.folder, 0o755))
	l.agent = &agent{
		settings: chosen, times: chosen.times, events: newEvents(),
		sessions: loadSessions(filepath.Join(folder, "sessions"), l.folder),
		watches:  watches, changes: newChanges(watches), ports: newPorts("/proc"),
		processes: newProcesses(chosen.times),
	}
	listener, err := net.Listen("unix", l.socket)
	l.must(err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, one := range l.agent.routes() {
			if names, ok := match(one.path, r.URL.EscapedPath()); ok && one.method == r.Method {
				if err := one.serve(w, r, names); err != nil {
					writeError(w, err)
				}
				return
			}
		}
		writeError(w, refuse("NOT_SUPPORTED", "Cannot serve %s", r.URL.Path))
	})}
	go func() { _ = server.Serve(listener) }()
	l.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", l.socket)
	}}}
	t.Cleanup(func() {
		l.client.CloseIdleConnections()
		server.Close()
	})
	return l
}

func (l *live) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *live) context() context.Context {
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	l.t.Cleanup(stop)
	return ctx
}

func (l *live) path(name string) string { return filepath.Join(l.folder, name) }

func (l *live) mkdir(name string) {
	l.t.Helper()
	l.must(os.MkdirAll(l.path(name), 0o755))
}

func (l *live) write(name, content string) {
	l.t.Helper()
	l.must(os.WriteFile(l.path(name), []byte(content), 0o644))
}

func (l *live) rename(from, to string) {
	l.t.Helper()
	l.must(os.Rename(l.path(from), l.path(to)))
}

// ask makes a call and decodes its answer strictly.
func (l *live) ask(method, path string, body, answer any) *agentError {
	l.t.Helper()
	text, err := json.Marshal(body)
	l.must(err)
	request, err := http.NewRequest(method, "http://agent"+path, bytes.NewReader(text))
	l.must(err)
	response, err := l.client.Do(request)
	l.must(err)
	defer response.Body.Close()
	text, err = io.ReadAll(response.Body)
	l.must(err)
	if response.StatusCode >= 300 {
		refusal := &agentError{}
		strictly(l.t, text, refusal)
		equal(l.t, "status of "+refusal.Code, response.StatusCode, statuses[refusal.Code])
		return refusal
	}
	if answer != nil {
		strictly(l.t, text, answer)
	}
	return nil
}

// watching reads a watch's lines.
type watching struct {
	l     *live
	body  io.ReadCloser
	lines *bufio.Reader
	stop  context.CancelFunc
	path  string
}

func (l *live) tryWatch(request watchRequest) (*watching, *agentError) {
	l.t.Helper()
	text, err := json.Marshal(request)
	l.must(err)
	ctx, stop := context.WithCancel(context.Background())
	call, err := http.NewRequestWithContext(ctx, "POST", "http://agent/watches", bytes.NewReader(text))
	l.must(err)
	response, err := l.client.Do(call)
	l.must(err)
	if response.StatusCode != 200 {
		defer stop()
		defer response.Body.Close()
		text, _ := io.ReadAll(response.Body)
		refusal := &agentError{}
		strictly(l.t, text, refusal)
		return nil, refusal
	}
	w := &watching{l: l, body: response.Body, lines: bufio.NewReaderSize(response.Body, 64<<10), stop: stop}
	l.t.Cleanup(w.close)
	first := w.next()
	if first.Ready == nil {
		l.t.Fatalf("the first line is %+v", first)
	}
	w.path = first.Ready.Path
	return w, nil
}

// watch watches the folder, or what is below it, recursively and without joining.
func (l *live) watch(changes ...func(*watchRequest)) *watching {
	l.t.Helper()
	request := watchRequest{Path: l.folder, Recursive: true}
	for _, change := range changes {
		change(&request)
	}
	w, refusal := l.tryWatch(request)
	if refusal != nil {
		l.t.Fatal(refusal)
	}
	return w
}

func (w *watching) close() {
	w.stop()
	w.body.Close()
}

// next gives the next line that is no heartbeat.
func (w *watching) next() watchLine {
	w.l.t.Helper()
	hung := time.AfterFunc(20*time.Second, func() {
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1) // a diagnosis, no more
		w.stop()
	})
	defer hung.Stop()
	for {
		text, err := w.lines.ReadBytes('\n')
		if err != nil {
			w.l.t.Fatalf("the watch ended: %v", err)
		}
		var line watchLine
		strictly(w.l.t, text, &line)
		if line.Heartbeat == nil {
			return line
		}
	}
}

// event words the next event as "create a/b" or "create a/", relative to the folder; another line as it is.
func (w *watching) event() string {
	w.l.t.Helper()
	line := w.next()
	if line.Event == nil {
		text, _ := json.Marshal(line)
		return string(text)
	}
	text := line.Event.EventType + " " + strings.TrimPrefix(strings.TrimPrefix(line.Event.Path, w.path), "/")
	if line.Event.IsDirectory {
		text += "/"
	}
	return text
}

func (w *watching) tells(want ...string) {
	w.l.t.Helper()
	for _, one := range want {
		if got := w.event(); got != one {
			w.l.t.Fatalf("told %q, want %q", got, one)
		}
	}
}

// tellsAll: in any order, as a directory is listed in any.
func (w *watching) tellsAll(want ...string) {
	w.l.t.Helper()
	missing := map[string]bool{}
	for _, one := range want {
		missing[one] = true
	}
	for range want {
		got := w.event()
		if !missing[got] {
			w.l.t.Fatalf("told %q, want one of %v", got, missing)
		}
		delete(missing, got)
	}
}

// until reads up to this event and gives everything before it.
func (w *watching) until(want string) []string {
	w.l.t.Helper()
	var before []string
	for {
		got := w.event()
		if got == want {
			return before
		}
		before = append(before, got)
	}
}

// inotifyDirectories counts the inotify instances of this process and the directories they watch.
func inotifyDirectories(t testing.TB) (instances, directories int) {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range names {
		if target, err := os.Readlink("/proc/self/fd/" + one.Name()); err != nil || target != "anon_inode:inotify" {
			continue
		}
		info, err := os.ReadFile("/proc/self/fdinfo/" + one.Name())
		if err != nil {
			continue
		}
		instances++
		directories += strings.Count(string(info), "inotify wd:")
	}
	return instances, directories
}

func (l *live) watchesDirectories(want int) {
	l.t.Helper()
	until(l.t, fmt.Sprintf("%d directories are watched", want), func() bool {
		_, got := inotifyDirectories(l.t)
		return got == want
	})
}
