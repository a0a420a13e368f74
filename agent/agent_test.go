package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// In a child of the tests this binary is the agent itself: PID 1 of its own user, pid and mount namespaces.
func TestMain(m *testing.M) {
	if os.Getenv("ATOLL_TEST_AGENT") != "1" {
		os.Exit(m.Run())
	}
	// The runtime gives a sandbox no such capability. What is in the bounding set is had again with the exec.
	if os.Getenv("ATOLL_TEST_BOUND") == "" {
		runtime.LockOSThread()
		const dropFromBounding, sysPtrace = 24, 19
		if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, dropFromBounding, sysPtrace, 0); errno != 0 {
			must(errno)
		}
		must(syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), "ATOLL_TEST_BOUND=1")))
	}
	os.Unsetenv("ATOLL_TEST_BOUND")
	os.Unsetenv("ATOLL_TEST_AGENT")
	must(syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	must(syscall.Mount("proc", "/proc", "proc", 0, ""))
	if hidden := os.Getenv("ATOLL_TEST_HIDE"); hidden != "" {
		must(syscall.Mount("/dev/null", hidden, "", syscall.MS_BIND, ""))
	}
	if small := os.Getenv("ATOLL_TEST_TMPFS"); small != "" {
		where, options, _ := strings.Cut(small, ":")
		must(os.MkdirAll(where, 0o755))
		must(syscall.Mount("tmpfs", where, "tmpfs", 0, options))
	}
	go dumpOnRequest()
	main()
}

// dumpOnRequest tells where every goroutine of a hanging agent is.
func dumpOnRequest() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR2)
	for range asked {
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1) // a diagnosis, no more
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

// Not the host's own uid 0: the kernel exempts that from RLIMIT_NPROC in every user namespace.
const hostUID = 1_800_000_000

type testAgent struct {
	t         testing.TB
	client    *http.Client
	socket    string
	folder    string
	workspace string
	process   *os.Process
	arguments []string
	environ   []string
	wait      func() error
}

func startAgent(t testing.TB, arguments ...string) *testAgent {
	t.Helper()
	a := prepareAgent(t, arguments...)
	a.begin()
	t.Cleanup(a.watchdog())
	return a
}

func prepareAgent(t testing.TB, arguments ...string) *testAgent {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for namespaces")
	}
	folder := t.TempDir()
	must(os.Chmod(filepath.Dir(folder), 0o755))
	must(os.Chown(folder, hostUID, hostUID))
	a := &testAgent{t: t, folder: folder, socket: filepath.Join(folder, "s"), workspace: filepath.Join(folder, "workspace"), arguments: arguments}
	t.Cleanup(func() { a.kill() })
	return a
}

func (a *testAgent) begin() {
	a.t.Helper()
	command := exec.Command("/proc/self/exe", append([]string{
		"-socket", a.socket, "-sessions", filepath.Join(a.folder, "sessions"), "-workspace", a.workspace,
		"-cgroup", filepath.Join(a.folder, "cgroup"),
	}, a.arguments...)...)
	command.Env = append(append(os.Environ(), "ATOLL_TEST_AGENT=1"), a.environ...)
	command.Stderr = os.Stderr
	all := []syscall.SysProcIDMap{{ContainerID: 0, HostID: hostUID, Size: 65536}}
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:                 syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
		UidMappings:                all,
		GidMappings:                all,
		GidMappingsEnableSetgroups: true,
		Credential:                 &syscall.Credential{},
		Pdeathsig:                  syscall.SIGKILL,
	}
	if err := command.Start(); err != nil {
		a.t.Fatal(err)
	}
	a.process, a.wait = command.Process, command.Wait
	a.client = &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 64,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", a.socket)
		},
	}}
	until(a.t, "the agent answers", func() bool {
		response, err := a.client.Get("http://agent/hello")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == 200
	})
}

// kill ends the agent as a run ends, by SIGKILL: everything in its pid namespace goes with it.
func (a *testAgent) kill() {
	if a.process != nil {
		a.client.CloseIdleConnections()
		_ = a.process.Kill()
		_ = a.wait() // it was killed: that is what it says
		a.process = nil
	}
}

// watchdog makes a test that hangs say where its agent is.
func (a *testAgent) watchdog() func() {
	timer := time.AfterFunc(30*time.Second, func() { _ = a.process.Signal(syscall.SIGUSR2) })
	return func() { timer.Stop() }
}

func until(t testing.TB, what string, probe func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !probe(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("Cannot see that %s", what)
		}
	}
}

var lastID int64

func newID() string { return fmt.Sprintf("p%d", atomic.AddInt64(&lastID, 1)) }

type change func(*processSpec)

func argv(words ...string) change {
	return func(s *processSpec) { s.Command = processCommand{Argv: words} }
}
func script(text string) change {
	return func(s *processSpec) { s.Command = processCommand{Script: &text} }
}
func inSession(name, text string) change {
	return func(s *processSpec) { s.Command = processCommand{Script: &text, Session: &name} }
}
func roll(s *processSpec)  { s.Mode = "roll" }
func merge(s *processSpec) { s.Stderr = "merge" }
func piped(s *processSpec) { s.Stdin.Kind = "pipe" }
func callEnv(name, value string) change {
	return func(s *processSpec) {
		if s.CallEnv == nil {
			s.CallEnv = map[string]*string{}
		}
		s.CallEnv[name] = &value
	}
}

func makeSpec(changes ...change) *processSpec {
	spec := &processSpec{
		ID: newID(), Env: map[string]string{"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
		DefaultCwd: "/tmp", Stdin: stdinSpec{Kind: "none"}, Stderr: "separate", Mode: "keep",
	}
	for _, change := range changes {
		change(spec)
	}
	return spec
}

type frame struct {
	kind    byte
	offset  int64
	payload []byte
}

// logReader reads frames as the daemon does.
type logReader struct {
	body io.ReadCloser
	from *bufio.Reader
}

func (r *logReader) next() (frame, error) {
	var header [frameHeaderBytes]byte
	if _, err := io.ReadFull(r.from, header[:]); err != nil {
		return frame{}, err
	}
	f := frame{kind: header[0], offset: int64(binary.LittleEndian.Uint64(header[8:]))}
	f.payload = make([]byte, binary.LittleEndian.Uint32(header[4:]))
	_, err := io.ReadFull(r.from, f.payload)
	return f, err
}

type result struct {
	started        processStarted
	stdout, stderr string
	end            *processEnd
	lost           []truncated
	failure        *agentError
	offset         int64
}

// rest reads to the end of the stream.
func (r *logReader) rest(t testing.TB) result {
	t.Helper()
	defer r.body.Close()
	var got result
	for {
		f, err := r.next()
		if err == io.EOF {
			return got
		}
		if err != nil {
			t.Errorf("Cannot read the log: %v", err)
			return got
		}
		got.add(t, f)
	}
}

func (got *result) add(t testing.TB, f frame) {
	t.Helper()
	switch f.kind {
	case frameStdout:
		got.stdout += string(f.payload)
	case frameStderr:
		got.stderr += string(f.payload)
	case frameStarted:
		strictly(t, f.payload, &got.started)
	case frameEnded:
		got.end = &processEnd{}
		strictly(t, f.payload, got.end)
	case frameTruncated:
		var lost truncated
		strictly(t, f.payload, &lost)
		got.lost = append(got.lost, lost)
	case frameError:
		got.failure = &agentError{}
		strictly(t, f.payload, got.failure)
	case frameHeartbeat:
	default:
		t.Errorf("unknown frame %d", f.kind)
	}
	got.offset = f.offset
	if f.kind < frameStarted {
		got.offset += int64(len(f.payload))
	}
}

func strictly(t testing.TB, body []byte, into any) {
	t.Helper()
	if err := decodeStrictly(body, into); err != nil {
		t.Errorf("%v: %s", err, body)
	}
}

func (a *testAgent) request(method, path string, body any) (*http.Response, error) {
	var reader io.Reader
	switch given := body.(type) {
	case nil:
	case io.Reader:
		reader = given
	default:
		text, err := json.Marshal(given)
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(text)
	}
	request, err := http.NewRequest(method, "http://agent"+path, reader)
	if err != nil {
		return nil, err
	}
	return a.client.Do(request)
}

// call makes a request and decodes its answer; a refusal is given back.
func (a *testAgent) call(method, path string, body, answer any) *agentError {
	a.t.Helper()
	response, err := a.request(method, path, body)
	if err != nil {
		a.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	if response.StatusCode >= 300 {
		refusal := &agentError{}
		strictly(a.t, text, refusal)
		if response.StatusCode != statuses[refusal.Code] {
			a.t.Errorf("%s came with status %d", refusal.Code, response.StatusCode)
		}
		return refusal
	}
	if answer != nil {
		strictly(a.t, text, answer)
	}
	return nil
}

func (a *testAgent) open(path string, spec *processSpec) (*logReader, *agentError) {
	a.t.Helper()
	method, body := "GET", any(nil)
	if spec != nil {
		method, body = "POST", spec
	}
	response, err := a.request(method, path, body)
	if err != nil {
		a.t.Fatal(err)
	}
	if response.StatusCode != 200 {
		defer response.Body.Close()
		text, _ := io.ReadAll(response.Body)
		refusal := &agentError{}
		strictly(a.t, text, refusal)
		return nil, refusal
	}
	return &logReader{response.Body, bufio.NewReaderSize(response.Body, 256<<10)}, nil
}

func (a *testAgent) start(spec *processSpec) *logReader {
	a.t.Helper()
	log, refusal := a.open("/processes", spec)
	if refusal != nil {
		a.t.Fatal(refusal)
	}
	return log
}

func (a *testAgent) run(changes ...change) result {
	a.t.Helper()
	return a.start(makeSpec(changes...)).rest(a.t)
}

func (a *testAgent) refused(changes ...change) *agentError {
	a.t.Helper()
	log, refusal := a.open("/processes", makeSpec(changes...))
	if refusal == nil {
		a.t.Fatalf("it was not refused: %+v", log.rest(a.t))
	}
	return refusal
}

func (r *logReader) until(t testing.TB, want string) result {
	t.Helper()
	var got result
	for !strings.Contains(got.stdout, want) {
		f, err := r.next()
		if err != nil {
			t.Fatalf("the log ended before %q: %v, %+v", want, err, got)
		}
		got.add(t, f)
	}
	return got
}

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %#v, want %#v", what, got, want)
	}
}
