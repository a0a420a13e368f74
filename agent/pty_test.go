package main

import (
	"bufio"
	"crypto/md5"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

func onTerminal(cols, rows int) change {
	return func(s *processSpec) {
		s.Mode, s.Stderr, s.RingBytes = "roll", "merge", 256<<10
		s.Pty = &terminalSize{cols, rows}
	}
}

// open starts a process in a terminal and leaves it alone.
func (a *testAgent) openTerminal(changes ...change) string {
	a.t.Helper()
	spec := makeSpec(append([]change{onTerminal(80, 24)}, changes...)...)
	a.start(spec).body.Close()
	return spec.ID
}

// viewer is one who looks at a terminal and types.
type viewer struct {
	*logReader
	t          testing.TB
	connection *net.UnixConn
	shown      string
	lost       []truncated
}

func (a *testAgent) view(id string, after int64) *viewer {
	a.t.Helper()
	l := &live{t: a.t, socket: a.socket}
	connection, reader, response := l.upgrade(fmt.Sprintf("/processes/%s/attach?after=%d", id, after), "atoll-terminal", "")
	if response.StatusCode != 101 {
		a.t.Fatalf("answered %d", response.StatusCode)
	}
	return &viewer{logReader: &logReader{connection, reader}, t: a.t, connection: connection}
}

func (v *viewer) send(kind byte, payload []byte) {
	v.t.Helper()
	if _, err := v.connection.Write(appendFrame(nil, kind, 0, payload)); err != nil {
		v.t.Fatal(err)
	}
}

func (v *viewer) types(text string) { v.send(frameInput, []byte(text)) }

func (v *viewer) resizes(cols, rows int) {
	text, _ := json.Marshal(terminalSize{cols, rows})
	v.send(frameResize, text)
}

// sees reads until the text was shown.
func (v *viewer) sees(want string) {
	v.t.Helper()
	for !strings.Contains(v.shown, want) {
		f, err := v.next()
		if err != nil || f.kind == frameEnded || f.kind == frameError {
			v.t.Fatalf("the terminal ended before %q: %v %d %s; shown: %q", want, err, f.kind, f.payload, tail(v.shown))
		}
		v.take(f)
	}
	v.shown = v.shown[strings.Index(v.shown, want)+len(want):]
}

func (v *viewer) take(f frame) {
	switch f.kind {
	case frameStdout:
		v.shown += string(f.payload)
		if len(v.shown) > 256<<10 {
			v.shown = v.shown[len(v.shown)-64<<10:]
		}
	case frameTruncated:
		var lost truncated
		strictly(v.t, f.payload, &lost)
		v.lost = append(v.lost, lost)
	case frameStderr:
		v.t.Errorf("a terminal has one stream: %q", f.payload)
	}
}

// end reads to the end.
func (v *viewer) end() *processEnd {
	v.t.Helper()
	for {
		f, err := v.next()
		if err != nil {
			v.t.Fatalf("no end: %v; shown: %q", err, tail(v.shown))
		}
		if f.kind == frameEnded {
			end := &processEnd{}
			strictly(v.t, f.payload, end)
			return end
		}
		if f.kind == frameHeartbeat {
			v.t.Error("the end was told late, with a heartbeat")
		}
		v.take(f)
	}
}

func md5Of(text string) string { return fmt.Sprintf("%x", md5.Sum([]byte(text))) }

func tail(text string) string {
	if len(text) > 300 {
		return "..." + text[len(text)-300:]
	}
	return text
}

func TestATerminalIsOne(t *testing.T) {
	a := startAgent(t)
	v := a.view(a.openTerminal(argv("bash", "--norc", "-i"), callEnv("PS1", "ready> ")), 0)
	v.sees("ready> ")
	v.types("tty; test -t 0 -a -t 1 -a -t 2 && echo all are; stty size; echo term=$TERM; echo ü | cat\r")
	for _, want := range []string{"/dev/pts/", "all are", "24 80", "term=xterm-256color", "ü\r\n", "ready> "} {
		v.sees(want)
	}
	v.types("echo too \x7f\x7flong\r") // backspace: the line is edited
	v.sees("tolong\r\n")
	v.types("(echo up; exec sleep 100)\r")
	v.sees("up\r\n")
	v.types("\x03")
	v.sees("^C")
	v.sees("ready> ")
	v.types("(echo up; exec sleep 100)\r")
	v.sees("up\r\n")
	v.types("\x1a") // job control: stopped, and told so
	v.sees("Stopped")
	v.types("kill -9 %1; exec sh -c 'exit 7'\r")
	end := v.end()
	equal(t, "exit code", end.ExitCode, 7)
	if _, err := v.next(); err == nil {
		t.Error("something follows the end")
	}
}

func TestResizingIsToldToTheProgram(t *testing.T) {
	a := startAgent(t)
	// bash loses a signal that comes while its trap runs, so the trap only takes a note
	id := a.openTerminal(argv("bash", "-c", `trap changed=1 WINCH; echo up
		while :; do sleep 0.01; if [ "$changed" ]; then changed=; stty size; fi; done`))
	v := a.view(id, 0)
	v.sees("up\r\n")
	v.resizes(132, 50)
	v.sees("50 132\r\n")
	if refusal := a.call("POST", "/processes/"+id+"/resize", terminalSize{1000, 1}, nil); refusal != nil {
		t.Fatal(refusal)
	}
	v.sees("1 1000\r\n")
	for _, size := range []terminalSize{{0, 1}, {1, 0}, {1001, 1}, {1, 1001}, {-1, -1}} {
		if refusal := a.call("POST", "/processes/"+id+"/resize", size, nil); refusal == nil || refusal.Code != "VALIDATION_FAILED" {
			t.Errorf("%v: %+v", size, refusal)
		}
	}
	v.resizes(0, 0)
	for {
		f, err := v.next()
		if err != nil {
			t.Fatalf("no error was told: %v", err)
		}
		if f.kind == frameError {
			break
		}
	}
}

func TestWhatIsTypedAtOnceArrivesWhole(t *testing.T) {
	a := startAgent(t)
	id := a.openTerminal(argv("bash", "-c", `stty raw -echo; echo up; head -c 1000000 | md5sum`))
	v := a.view(id, 0)
	v.sees("up")
	paste := strings.Repeat("0123456789 Zeichen für Zeichen\n", 40_000)[:1_000_000]
	go v.types(paste)
	v.sees(md5Of(paste))
	equal(t, "exit code", v.end().ExitCode, 0)
}

func TestEveryViewerSeesEverythingFromWhereItBegins(t *testing.T) {
	a := startAgent(t)
	id := a.openTerminal(argv("cat"))
	first := a.view(id, 0)
	first.types("one\r")
	first.sees("one\r\none\r\n")
	second := a.view(id, 0)
	second.sees("one\r\none\r\n")
	third := a.view(id, 5)
	third.sees("one\r\n")
	equal(t, "nothing before its offset", third.shown, "")
	second.types("two\r")
	for _, v := range []*viewer{first, second, third} {
		v.sees("two\r\ntwo\r\n")
	}
	// One leaves; the others go on, and the program notices nothing.
	second.connection.Close()
	third.types("three\r")
	first.sees("three\r\nthree\r\n")
	first.types("\x04")
	equal(t, "exit code", first.end().ExitCode, 0)
	equal(t, "exit code", third.end().ExitCode, 0)
	// Who comes after the end sees all of it.
	late := a.view(id, 0)
	late.types("nobody reads this")
	late.resizes(10, 10)
	equal(t, "exit code", late.end().ExitCode, 0)
	equal(t, "replay", late.shown, "one\r\none\r\ntwo\r\ntwo\r\nthree\r\nthree\r\n")
}

func TestAProgramMayCloseItsTerminalAndOpenItAgain(t *testing.T) {
	a := startAgent(t)
	closed := `exec 3</dev/null; exec <&3 >&3 2>&3; `
	again := a.view(a.openTerminal(argv("bash", "-c", closed+`sleep 0.3; echo back >/dev/tty; exit 7`)), 0)
	again.sees("back\r\n")
	equal(t, "exit code", again.end().ExitCode, 7)
	for i := 0; i < 20; i++ {
		// not hung up on between its last close and its exit
		slow := a.view(a.openTerminal(argv("bash", "-c", `echo here; `+closed+`exit 0`)), 0)
		equal(t, "exit code", slow.end().ExitCode, 0)
		equal(t, "shown", slow.shown, "here\r\n")
	}
}

func TestAViewerThatDoesNotReadFallsBehindAndSlowsNobody(t *testing.T) {
	a := startAgent(t)
	id := a.openTerminal(argv("bash", "-c", `read; seq 1 2000000; echo done`))
	stuck, quick := a.view(id, 0), a.view(id, 0)
	quick.types("\r")
	quick.sees("done\r\n")
	if len(quick.lost) > 0 {
		t.Errorf("who reads lost %v", quick.lost)
	}
	quick.end()
	stuck.end()
	if len(stuck.lost) == 0 || !strings.HasSuffix(stuck.shown, "2000000\r\ndone\r\n") {
		t.Errorf("lost %v, shown %q", stuck.lost, tail(stuck.shown))
	}
}

func TestAProgramThatDoesNotReadHoldsUpNobody(t *testing.T) {
	a := startAgent(t)
	id := a.openTerminal(argv("bash", "-c", `stty raw -echo; echo up; while :; do echo tick; sleep 0.05; done`))
	v := a.view(id, 0)
	v.sees("up")
	go func() {
		paste := appendFrame(nil, frameInput, 0, make([]byte, inputFrameLimitBytes))
		_, _ = v.connection.Write(paste) // it is cut off when the viewer leaves
	}()
	v.sees("tick")
	other := a.view(id, 0)
	other.sees("tick")
	go other.types("x")
	other.sees("tick")
	v.connection.Close()
	other.connection.Close()
	again := a.view(id, 0)
	again.sees("tick")
	a.call("POST", "/processes/"+id+"/signal", signalRequest{Signal: "SIGKILL"}, nil)
	equal(t, "signal", again.end().Signal, "SIGKILL")
}

func TestAProgramThatPrintsWithoutEndLeavesTheAgentCalm(t *testing.T) {
	a := startAgent(t)
	id := a.openTerminal(argv("yes"))
	spent := func() time.Duration { return cpuTime(t, a.process.Pid) }
	before, started := spent(), time.Now()
	time.Sleep(time.Second) // a rate is measured over a time
	used, passed := spent()-before, time.Since(started)
	t.Logf("the agent used %v of %v", used, passed)
	if used > passed/2 {
		t.Errorf("the agent used %v of %v", used, passed)
	}
	v := a.view(id, 0)
	v.sees("y\r\ny\r\n")
	v.types("\x03")
	end := v.end()
	equal(t, "signal", end.Signal, "SIGINT")
	var described agentProcess
	a.call("GET", "/processes/"+id, nil, &described)
	if held := described.Offset - described.WindowStart; held > 512<<10 {
		t.Errorf("%d bytes are held", held)
	}
}

// cpuTime is what a process has used so far.
func cpuTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	text := readSmall(fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		t.Fatalf("Cannot read %q", text)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

func TestTheEndComesWithEverythingThatWasPrinted(t *testing.T) {
	a := startAgent(t)
	for i := 0; i < 30; i++ {
		v := a.view(a.openTerminal(argv("sh", "-c", `seq 1 3000; exit 3`)), 0)
		end := v.end()
		equal(t, "exit code", end.ExitCode, 3)
		equal(t, "background", end.Background, false)
		if len(v.lost) > 0 || !strings.HasSuffix(v.shown, "\r\n3000\r\n") || len(v.shown) != 13893+3000 {
			t.Fatalf("lost %v, shown %d bytes: %q", v.lost, len(v.shown), tail(v.shown))
		}
	}
	// Somebody in the background holds the terminal on: the shell's end is told all the same.
	v := a.view(a.openTerminal(argv("bash", "-c", `trap '' HUP; sleep 100 & echo shell is done`)), 0)
	v.sees("shell is done")
	equal(t, "background", v.end().Background, true)
}

func TestATerminalBelongsToItsUser(t *testing.T) {
	a := startAgent(t)
	v := a.view(a.openTerminal(argv("sh", "-c", `id -u; stat -c %u "$(tty)"; : < /dev/tty && : > "$(tty)" && echo opened`),
		func(s *processSpec) { s.User = "nobody" }), 0)
	v.sees("65534\r\n65534\r\nopened\r\n")
}

func TestAScriptOfASessionRunsInATerminal(t *testing.T) {
	a := startAgent(t)
	v := a.view(a.openTerminal(inSession("default", `X=1; test -t 1 && echo "a terminal in $PWD"; read -r line; echo "got $line"`)), 0)
	v.sees("a terminal in " + a.workspace)
	v.types("hello\r")
	v.sees("got hello")
	end := v.end()
	// Like everything in the background it leaves the session as it is.
	if end.StateSaved == nil || *end.StateSaved {
		t.Errorf("state saved: %v", end.StateSaved)
	}
	equal(t, "session", a.run(inSession("default", `echo "$X"`)).stdout, "\n")
}

func TestATerminalThatCannotBeIsRefused(t *testing.T) {
	a := startAgent(t)
	for _, one := range []change{
		onTerminal(0, 1), onTerminal(1, 1001),
		func(s *processSpec) { onTerminal(80, 24)(s); s.Mode = "keep" },
		func(s *processSpec) { onTerminal(80, 24)(s); s.Stdin.Kind = "pipe" },
	} {
		equal(t, "code", a.refused(argv("true"), one).Code, "VALIDATION_FAILED")
	}
	missing := a.view(a.openTerminal(argv("no-such-program")), 0)
	equal(t, "exit code", missing.end().ExitCode, exitNotFound)
	equal(t, "words", missing.shown, "no-such-program: command not found\r\n")
	plain := makeSpec(argv("sleep", "100"), roll)
	a.start(plain).body.Close()
	l := &live{t: t, socket: a.socket}
	equal(t, "no terminal", l.dialRefused("/processes/"+plain.ID+"/attach", "atoll-terminal").Code, "VALIDATION_FAILED")
	equal(t, "nobody", l.dialRefused("/processes/nobody/attach", "atoll-terminal").Code, "PROCESS_NOT_FOUND")
	id := a.openTerminal(argv("cat"))
	equal(t, "beyond", l.dialRefused("/processes/"+id+"/attach?after=99", "atoll-terminal").Code, "VALIDATION_FAILED")
	equal(t, "no upgrade", l.dialRefused("/processes/"+id+"/attach", "websocket").Code, "VALIDATION_FAILED")
	v := a.view(id, 0)
	v.send(99, nil)
	for {
		f, err := v.next()
		if err != nil {
			t.Fatal(err)
		}
		if f.kind == frameError {
			break
		}
	}
}

func TestTerminalsGiveTheirDescriptorsBack(t *testing.T) {
	a := startAgent(t)
	count := func() int {
		names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", a.process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	once := func() {
		v := a.view(a.openTerminal(argv("sh", "-c", "read x; exit")), 0)
		v.types("\r")
		v.end()
		v.connection.Close()
	}
	once()
	before := count()
	for i := 0; i < 50; i++ {
		once()
	}
	until(t, "the descriptors are given back", func() bool { return count() <= before+2 })
}

func FuzzWhatIsTypedIsReadSafely(f *testing.F) {
	f.Add(appendFrame(appendFrameJSON(nil, frameResize, 0, terminalSize{80, 24}), frameInput, 0, []byte("x")))
	f.Add(appendFrame(nil, 99, 0, nil))
	f.Fuzz(func(t *testing.T, frames []byte) {
		terminal, child, err := openTerminal(terminalSize{80, 24}, nil)
		if err != nil {
			t.Skip(err)
		}
		defer terminal.file.Close()
		closeAll([]int{child}) // nobody reads: writing fails or is taken, and never waits for long
		left := make(chan struct{})
		close(left)
		v := &view{left: left}
		if v.readInput(strings.NewReader(string(frames)), terminal) == nil {
			t.Error("it has no end")
		}
	})
}

func BenchmarkTerminalEcho(b *testing.B) {
	a := startAgent(b)
	v := a.view(a.openTerminal(argv("bash", "-c", "stty raw -echo; echo up; exec cat")), 0)
	v.sees("up")
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		v.types("x")
		v.sees("x")
	}
}

func BenchmarkTerminalThroughput(b *testing.B) {
	a := startAgent(b)
	v := a.view(a.openTerminal(argv("sh", "-c", fmt.Sprintf("read x; yes 0123456789012345678901234567890123456789012345678901234567890123456789012345 | head -n %d", b.N*1000))), 0)
	v.logReader.from = bufio.NewReaderSize(v.logReader.from, 256<<10)
	v.types("\r")
	b.SetBytes(78_000)
	b.ResetTimer()
	for {
		f, err := v.next()
		if err != nil {
			b.Fatal(err)
		}
		if f.kind == frameTruncated {
			b.Fatal("it lost something")
		}
		if f.kind == frameEnded {
			return
		}
	}
}
