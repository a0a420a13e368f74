package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestAProgramRunsWithItsArguments(t *testing.T) {
	a := startAgent(t)
	got := a.run(argv("sh", "-c", `echo "$1|$2"; echo err >&2; exit 7`, "x", "a b", "$c"))
	equal(t, "stdout", got.stdout, "a b|$c\n")
	equal(t, "stderr", got.stderr, "err\n")
	equal(t, "code", got.end.ExitCode, 7)
	equal(t, "offset of the end", got.offset, int64(len("a b|$c\nerr\n")))
	if got.started.Pid <= 1 || got.end.Background || got.end.StateSaved != nil || got.end.DurationMs <= 0 {
		t.Errorf("%+v %+v", got.started, got.end)
	}
}

func TestWhatCannotRunSaysSoAsAShellWould(t *testing.T) {
	a := startAgent(t)
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(a.folder, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain, noInterpreter := file("plain", "echo no", 0o644), file("lost", "#!/no/such\n", 0o755)
	bare := file("bare", "echo ran by sh $1\n", 0o755)
	for _, one := range []struct {
		argv   []string
		code   int
		stderr string
	}{
		{[]string{"no-such-program"}, 127, "no-such-program: command not found\n"},
		{[]string{"/no/such"}, 127, "/no/such: No such file or directory\n"},
		{[]string{"/etc/passwd/x"}, 127, "/etc/passwd/x: Not a directory\n"},
		{[]string{plain}, 126, plain + ": Permission denied\n"},
		{[]string{"/etc"}, 126, "/etc: Is a directory\n"},
		{[]string{noInterpreter}, 127, noInterpreter + ": cannot execute: required file not found\n"},
		{[]string{"true", strings.Repeat("x", 200_000)}, 126, "true: Argument list too long\n"},
		{[]string{""}, 127, ": command not found\n"},
	} {
		got := a.run(argv(one.argv...))
		equal(t, one.argv[0], got.end.ExitCode, one.code)
		equal(t, one.argv[0], got.stderr, one.stderr)
	}
	equal(t, "a script without interpreter", a.run(argv(bare, "me")).stdout, "ran by sh me\n")
}

func TestRefusalsSayWhatAndWhy(t *testing.T) {
	a := startAgent(t)
	cwd := func(path string) change { return func(s *processSpec) { s.Cwd = &path } }
	user := func(name string) change { return func(s *processSpec) { s.User = name } }
	for _, one := range []struct {
		code string
		spec []change
	}{
		{"FILE_NOT_FOUND", []change{argv("true"), cwd("/no/such")}},
		{"NOT_DIRECTORY", []change{argv("true"), cwd("/etc/passwd")}},
		{"FILE_NOT_FOUND", []change{inSession("default", "true"), cwd("no-such")}},
		{"PERMISSION_DENIED", []change{argv("true"), cwd("/root"), user("nobody")}},
		{"VALIDATION_FAILED", []change{argv("true"), user("no-such-user")}},
		{"VALIDATION_FAILED", []change{argv("true"), func(s *processSpec) { s.Mode = "x" }}},
		{"VALIDATION_FAILED", []change{argv("true"), func(s *processSpec) { s.ID = "" }}},
		{"VALIDATION_FAILED", []change{argv("true"), func(s *processSpec) { s.Env["A=B"] = "" }}},
		{"VALIDATION_FAILED", []change{func(s *processSpec) { text := "x"; s.Command = processCommand{Argv: []string{"x"}, Script: &text} }}},
		{"INVALID_COMMAND", []change{argv("echo", "a\x00b")}},
		{"INVALID_COMMAND", []change{script("echo a\x00b")}},
		{"SESSION_NOT_FOUND", []change{inSession("nobody-made-it", "true")}},
	} {
		refusal := a.refused(one.spec...)
		equal(t, refusal.Message, refusal.Code, one.code)
		if !strings.HasPrefix(refusal.Message, "Cannot ") {
			t.Errorf("worded otherwise: %s", refusal.Message)
		}
	}
	for _, body := range []string{"", "{", "[]", `{"id":1}`, `{"id":"x","unknown":1}`, `{"stdin":"other"}`, `{} {}`, `{"stdin":{"base64":"*"}}`} {
		equal(t, body, a.call("POST", "/processes", strings.NewReader(body), nil).Code, "VALIDATION_FAILED")
	}
	equal(t, "a huge body", a.call("POST", "/processes", io.LimitReader(zeros{}, bodyLimitBytes+1), nil).Code, "PAYLOAD_TOO_LARGE")
	equal(t, "an unknown verb", a.call("PUT", "/nothing", nil, nil).Code, "NOT_SUPPORTED")
	equal(t, "an unknown process", a.call("GET", "/processes/none", nil, nil).Code, "PROCESS_NOT_FOUND")
	equal(t, "an unknown signal", a.call("POST", "/signal", signalRequest{Signal: "SIGNONE"}, nil).Code, "VALIDATION_FAILED")
}

type zeros struct{}

func (zeros) Read(into []byte) (int, error) {
	for i := range into {
		into[i] = ' '
	}
	return len(into), nil
}

func TestEnvironmentAndUserAreWhatWasAsked(t *testing.T) {
	a := startAgent(t)
	null := func(s *processSpec) { s.CallEnv = map[string]*string{"LANG": nil} }
	got := a.run(argv("env"), callEnv("A", "1=2"), func(s *processSpec) { s.ID = "marked" })
	for _, line := range []string{"HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/bash", "LANG=C.UTF-8", "A=1=2", "ATOLL_PROCESS=marked"} {
		if !strings.Contains("\n"+got.stdout, "\n"+line+"\n") {
			t.Errorf("%s is missing in %s", line, got.stdout)
		}
	}
	equal(t, "an unset variable", a.run(script("echo ${LANG-unset}"), null).stdout, "unset\n")
	nobody := func(s *processSpec) { s.User = "nobody" }
	equal(t, "a user", a.run(argv("sh", "-c", "id -u; id -g; echo $HOME $USER"), nobody).stdout, "65534\n65534\n/nonexistent nobody\n")
	number := func(s *processSpec) { s.User = "4242" }
	equal(t, "a user by number", a.run(script("id -u; id -G; echo $HOME"), number).stdout, "4242\n4242\n/\n")
	equal(t, "the oom score", a.run(argv("cat", "/proc/self/oom_score_adj")).stdout, "500\n")
	equal(t, "signals", a.run(script("grep -E 'Sig(Blk|Ign)' /proc/self/status | tr -d '0\\t\\n'")).stdout, "SigBlk:SigIgn:")
	equal(t, "descriptors", a.run(argv("ls", "/proc/self/fd")).stdout, "0\n1\n2\n3\n")
}

func TestAScriptWithoutASessionIsAsBashDashC(t *testing.T) {
	a := startAgent(t)
	equal(t, "a megabyte", a.run(script(": "+strings.Repeat("x", 1<<20)+"\necho end $LINENO $# $0")).stdout, "end 2 0 bash\n")
	equal(t, "nothing of ours", a.run(script("compgen -v | grep -c __sb_; exit 3")).stdout, "0\n")
	equal(t, "fd 3", a.run(script("echo x >&3"), merge).end.ExitCode, 1)
	equal(t, "made if missing", a.run(script("pwd"), func(s *processSpec) { s.DefaultCwd = a.folder + "/made" }).stdout, a.folder+"/made\n")
}

func TestMergedOutputIsInTheExactOrder(t *testing.T) {
	a := startAgent(t)
	got := a.run(script(`for i in {1..500}; do echo o$i; echo e$i >&2; done`), merge)
	want := ""
	for i := 1; i <= 500; i++ {
		want += fmt.Sprintf("o%d\ne%d\n", i, i)
	}
	equal(t, "merged", got.stdout, want)
	equal(t, "stderr", got.stderr, "")
}

func TestACommandEndsWithItsShellAndItsBackgroundGoesOn(t *testing.T) {
	a := startAgent(t)
	spec := makeSpec(script(`(while :; do sleep 0.1; [ -e ` + a.folder + `/go ] && echo late && exit; done) & echo now`))
	got := a.start(spec).rest(t)
	equal(t, "stdout", got.stdout, "now\n")
	equal(t, "background", got.end.Background, true)
	if err := os.WriteFile(a.folder+"/go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	until(t, "the late line is in the log", func() bool {
		log, _ := a.open("/processes/"+spec.ID+"/log?after=4", nil)
		return log != nil && log.rest(t).stdout == "late\n"
	})
	again := a.start(spec).rest(t)
	equal(t, "the command's own output", again.stdout, "now\n")
	equal(t, "redirected background", a.run(script("sleep 100 >/dev/null 2>&1 & echo x")).end.Background, false)
}

func TestTimeoutAndStopEndTheWholeTree(t *testing.T) {
	a := startAgent(t)
	// Escapees: another session, a double fork, nohup, one whose parent is gone, one that ignores SIGTERM.
	tree := `setsid sleep 1000 & (setsid sh -c 'sleep 1001 & sleep 1002' &) ; nohup sleep 1003 >/dev/null 2>&1 & sh -c 'trap "" TERM; echo up; while :; do sleep 1004; done' & wait; sleep 1005`
	timeout := a.run(script(tree), func(s *processSpec) { s.TimeoutMs = 300 })
	equal(t, "code", timeout.end.ExitCode, 124)
	equal(t, "reason", timeout.end.Reason, "timeout")
	equal(t, "left", a.survivors(), "")
	another := a.run(script(tree), func(s *processSpec) { s.TimeoutMs, s.User = 300, "1000" })
	equal(t, "another user's", another.end.Reason, "timeout")
	equal(t, "left of another user's", a.survivors(), "")

	spec := makeSpec(script(tree))
	log := a.start(spec)
	log.until(t, "up\n")
	grace := int64(100)
	a.call("POST", "/processes/"+spec.ID+"/stop", stopRequest{"aborted", &grace}, nil)
	got := log.rest(t)
	equal(t, "reason", got.end.Reason, "aborted")
	equal(t, "left", a.survivors(), "")

	// A handler may clean up, with programs of its own, before the end.
	spec = makeSpec(script(`trap 'sleep 0.05; echo cleaned; exit 0' TERM; echo up; while :; do sleep 0.01; done`))
	log = a.start(spec)
	log.until(t, "up\n")
	a.call("POST", "/processes/"+spec.ID+"/stop", stopRequest{Reason: "stopped"}, nil)
	got = log.rest(t)
	equal(t, "what the handler printed", got.stdout, "cleaned\n")
	equal(t, "reason", got.end.Reason, "stopped")
}

func (a *testAgent) survivors() string {
	return a.run(argv("sh", "-c", `ps -e -o args= | grep '^sleep 10' || true`)).stdout
}

func TestSignalsReachTheWholeTreeOnce(t *testing.T) {
	a := startAgent(t)
	child := `sh -c 'trap "echo got" USR1; echo up; while :; do sleep 0.01; done'`
	spec := makeSpec(script(`trap 'echo parent; exit 5' USR1; ` + child + ` & ` + `wait; wait`))
	log := a.start(spec)
	log.until(t, "up\n")
	var answer signalResult
	if refusal := a.call("POST", "/processes/"+spec.ID+"/signal", signalRequest{Signal: "SIGUSR1"}, &answer); refusal != nil {
		t.Fatal(refusal)
	}
	if answer.Signalled < 2 {
		t.Errorf("signalled %d", answer.Signalled)
	}
	got := log.rest(t)
	equal(t, "parent", strings.Count(got.stdout, "parent\n"), 1)
	equal(t, "child", strings.Count(got.stdout, "got\n"), 1)
	a.call("POST", "/processes/"+spec.ID+"/signal", signalRequest{Signal: "SIGKILL"}, &answer)

	killed := makeSpec(argv("sleep", "1000"))
	log = a.start(killed)
	a.call("POST", "/processes/"+killed.ID+"/signal", signalRequest{Signal: "SIGKILL"}, &answer)
	got = log.rest(t)
	equal(t, "code", got.end.ExitCode, 137)
	equal(t, "signal", got.end.Signal, "SIGKILL")
	equal(t, "reason", got.end.Reason, "killed")

	one, two := a.start(makeSpec(argv("sleep", "1000"))), a.start(makeSpec(script("setsid sleep 1000 & sleep 1000"), roll))
	a.call("POST", "/signal", signalRequest{Signal: "SIGKILL"}, &answer)
	equal(t, "first", one.rest(t).end.Signal, "SIGKILL")
	equal(t, "second", two.rest(t).end.Signal, "SIGKILL")
}

func TestSignalsToEverybodyWhileProgramsStart(t *testing.T) {
	a := startAgent(t)
	a.run(script("for i in $(seq 1 100); do sleep 1000 & done >/dev/null 2>&1"))
	stop := time.Now().Add(5 * time.Second)
	var wait sync.WaitGroup
	defer wait.Wait()
	for i := 0; i < 2; i++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for time.Now().Before(stop) {
				a.run(argv("/bin/true"))
			}
		}()
	}
	for time.Now().Before(stop) {
		if refusal := a.call("POST", "/signal", signalRequest{Signal: "SIGWINCH"}, &signalResult{}); refusal != nil {
			t.Fatal(refusal)
		}
	}
}

func TestTwoSignalsAtOnceLeaveNobodyStopped(t *testing.T) {
	a := startAgent(t)
	a.run(script("for i in $(seq 1 60); do sleep 1000 & done >/dev/null 2>&1"))
	spec := makeSpec(script("trap : USR1; sleep 1000 & echo $$; while :; do wait; done"), roll)
	pid := strings.TrimSpace(a.start(spec).until(t, "\n").stdout)
	for stop := time.Now().Add(5 * time.Second); time.Now().Before(stop); {
		var both sync.WaitGroup
		for i := 0; i < 2; i++ {
			both.Add(1)
			pause := time.Duration(rand.Intn(6000)) * time.Microsecond
			go func() {
				defer both.Done()
				time.Sleep(pause)
				a.call("POST", "/processes/"+spec.ID+"/signal", signalRequest{Signal: "SIGUSR1"}, &signalResult{})
			}()
		}
		both.Wait()
		until(t, "the shell goes on", func() bool {
			return !strings.Contains(a.run(argv("cat", "/proc/"+pid+"/stat")).stdout, ") T ")
		})
	}
}

func TestAProcessIsKnownByItsStartHoweverSoonItEnds(t *testing.T) {
	folder := t.TempDir()
	chosen := defaultSettings()
	chosen.sessions, chosen.workspace, chosen.cgroup = folder+"/s", folder+"/w", folder+"/c"
	a, err := newAgent(chosen)
	must(err)
	for i := 0; i < 300; i++ {
		p, watch, err := a.start(makeSpec(argv("/bin/true"), roll))
		if err != nil {
			t.Fatal(err)
		}
		if p.tree.startTicks == 0 {
			t.Fatalf("start %d is not known", i)
		}
		watch()
	}
}

func TestWhatWasLeftBehindIsSignalledAlone(t *testing.T) {
	a := startAgent(t)
	a.run(script("sleep 1000 >/dev/null 2>&1 & env -i setsid sleep 1000 >/dev/null 2>&1 & setsid sh -c 'sleep 1000; :' >/dev/null 2>&1 &"))
	background := a.start(makeSpec(script("setsid sleep 1001 & env -i sleep 1001 & sleep 1001"), roll))
	foreground := a.start(makeSpec(script("echo up; sleep 1001")))
	foreground.until(t, "up\n")
	until(t, "those without a marker are old enough", func() bool {
		var answer signalResult
		if refusal := a.call("POST", "/signal", signalRequest{Signal: "SIGKILL", LeftBehind: true}, &answer); refusal != nil {
			t.Fatal(refusal)
		}
		return a.run(argv("sh", "-c", "ps -e -o args= | grep -c '^sleep 100[0]'")).stdout == "0\n"
	})
	equal(t, "of those that run", a.run(argv("sh", "-c", "ps -e -o args= | grep -c '^sleep 1001'")).stdout, "4\n")
	var answer signalResult
	a.call("POST", "/signal", signalRequest{Signal: "SIGKILL", LeftBehind: true}, &answer)
	equal(t, "nobody is left", answer.Signalled, 0)
	a.call("POST", "/signal", signalRequest{Signal: "SIGKILL"}, &answer)
	equal(t, "background", background.rest(t).end.Signal, "SIGKILL")
	equal(t, "foreground", foreground.rest(t).end.Signal, "SIGKILL")
}

func TestTheAgentSurvivesSignalsFromInside(t *testing.T) {
	a := startAgent(t)
	a.run(script(`for s in HUP INT QUIT ILL TRAP ABRT BUS FPE USR1 SEGV PIPE ALRM TERM STKFLT XCPU XFSZ VTALRM PROF SYS KILL STOP; do kill -$s 1; done`))
	equal(t, "still there", a.run(argv("echo", "here")).stdout, "here\n")
}

func TestInputIsWhatWasGiven(t *testing.T) {
	a := startAgent(t)
	equal(t, "none", a.run(argv("cat")).stdout, "")
	big := strings.Repeat("0123456789", 100_000)
	bytes := func(text string) change {
		return func(s *processSpec) { s.Stdin = stdinSpec{Kind: "bytes", Bytes: []byte(text)} }
	}
	equal(t, "bytes", a.run(argv("cat"), bytes(big)).stdout == big, true)
	equal(t, "no bytes", a.run(argv("cat"), bytes("")).stdout, "")
	equal(t, "unwanted bytes", a.run(argv("true"), bytes(big)).end.ExitCode, 0)

	spec := makeSpec(argv("cat"), piped)
	log := a.start(spec)
	path := "/processes/" + spec.ID + "/stdin"
	if refusal := a.call("PUT", path, strings.NewReader("one\n"), nil); refusal != nil {
		t.Fatal(refusal)
	}
	log.until(t, "one\n")
	// An upload that is cut off leaves the pipe open.
	reader, writer := io.Pipe()
	cut := make(chan error)
	go func() {
		_, err := a.request("PUT", path, reader)
		cut <- err
	}()
	io.WriteString(writer, "two\n")
	log.until(t, "two\n")
	writer.CloseWithError(io.ErrClosedPipe)
	if <-cut == nil {
		t.Error("the upload was not cut off")
	}
	if refusal := a.call("PUT", path+"?end=1", strings.NewReader("three\n"), nil); refusal != nil {
		t.Fatal(refusal)
	}
	equal(t, "the rest", log.rest(t).stdout, "three\n")
	equal(t, "after the end", a.call("PUT", path, strings.NewReader("x"), nil).Code, "PROCESS_NOT_FOUND")

	spec = makeSpec(script("exec <&-; echo closed; sleep 1000"), piped)
	log = a.start(spec)
	log.until(t, "closed\n")
	equal(t, "input closed by the process", a.call("PUT", "/processes/"+spec.ID+"/stdin", strings.NewReader("x"), nil).Code, "STALE_HANDLE")
	a.call("POST", "/processes/"+spec.ID+"/signal", signalRequest{Signal: "SIGKILL"}, nil)
	log.rest(t)

	// Back-pressure: a process that does not read holds the upload, its end frees it.
	spec = makeSpec(argv("sleep", "1000"), piped)
	log = a.start(spec)
	answer := make(chan string)
	go func() {
		response, err := a.request("PUT", "/processes/"+spec.ID+"/stdin", strings.NewReader(big))
		if err != nil {
			answer <- err.Error()
			return
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		answer <- string(body)
	}()
	a.call("POST", "/processes/"+spec.ID+"/signal", signalRequest{Signal: "SIGKILL"}, nil)
	if text := <-answer; !strings.Contains(text, "PROCESS_NOT_FOUND") {
		t.Error(text)
	}
	log.rest(t)
}

const gigabyte = 1 << 30

func TestAGigabyteWaitsForItsReaderAndLosesNothing(t *testing.T) {
	a := startAgent(t)
	size := int64(gigabyte)
	if testing.Short() || raceEnabled {
		size = 64 << 20
	}
	// Bytes that differ everywhere, made cheaply: a counter in every 8 bytes would cost too much in a shell.
	program := fmt.Sprintf(`openssl enc -aes-128-ctr -K 00 -iv 00 -nosalt </dev/zero 2>/dev/null | head -c %d`, size)
	if got := a.run(script("command -v openssl")); got.end.ExitCode != 0 {
		t.Skip("needs openssl to make bytes")
	}
	want := a.run(script(program + " | sha256sum")).stdout[:64]
	spec := makeSpec(script(program))
	sum := sha256.New()
	read := int64(0)
	take := func(log *logReader, stop int64) bool {
		defer log.body.Close()
		for {
			f, err := log.next()
			if err != nil {
				t.Fatalf("at %d: %v", read, err)
			}
			switch f.kind {
			case frameStdout:
				if f.offset != read {
					t.Fatalf("frame at %d, want %d", f.offset, read)
				}
				sum.Write(f.payload)
				read += int64(len(f.payload))
				if read >= stop {
					return false
				}
			case frameEnded:
				return true
			case frameTruncated:
				t.Fatalf("lost: %s", f.payload)
			}
		}
	}
	if take(a.start(spec), 40<<20) {
		t.Fatal("it ended early")
	}
	// The reader is away: the writer stops, and the agent's memory does not grow with what it could print.
	var state agentProcess
	until(t, "the writer waits", func() bool {
		before := state.Offset
		a.call("GET", "/processes/"+spec.ID, nil, &state)
		return state.Offset == before
	})
	if held := state.Offset - state.WindowStart; held > replayLimitBytes+4*unsentLimitBytes {
		t.Errorf("%d bytes are held", held)
	}
	for stop := read + size/4; ; stop += size / 4 {
		log, refusal := a.open(fmt.Sprintf("/processes?after=%d", read), spec)
		if refusal != nil {
			t.Fatal(refusal)
		}
		if take(log, stop) {
			break
		}
	}
	equal(t, "bytes", read, size)
	equal(t, "hash", fmt.Sprintf("%x", sum.Sum(nil)), want)
	if peak := a.peakMemory(); peak > 160<<20 && !raceEnabled {
		t.Errorf("the agent took %d MiB", peak>>20)
	}
}

func (a *testAgent) peakMemory() int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.process.Pid))
	if err != nil {
		a.t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "VmHWM:")
	count, _ := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
	return count << 10
}

func TestAReaderThatStaysAwayGetsARing(t *testing.T) {
	a := startAgent(t, "-reader-away", "100ms")
	spec := makeSpec(script(`head -c 50000000 /dev/zero; echo; echo the end`))
	a.start(spec).body.Close()
	until(t, "it has ended without a reader", func() bool {
		var state agentProcess
		a.call("GET", "/processes/"+spec.ID, nil, &state)
		return state.End != nil && state.Mode == "roll"
	})
	got := a.start(spec).rest(t)
	if len(got.lost) != 1 || got.lost[0].From != 0 || got.lost[0].To+int64(len(got.stdout)) != 50000009 {
		t.Errorf("lost %v, read %d", got.lost, len(got.stdout))
	}
	equal(t, "the last line", strings.HasSuffix(got.stdout, "\nthe end\n"), true)
}

func TestAReaderThatComesBackReadsOnFromItsOffset(t *testing.T) {
	a := startAgent(t)
	spec := makeSpec(script(`echo one; read; echo two; echo three >&2`), piped)
	log := a.start(spec)
	log.until(t, "one\n")
	log.body.Close()
	a.call("PUT", "/processes/"+spec.ID+"/stdin?end=1", strings.NewReader("\n"), nil)
	log, _ = a.open("/processes?after=2", spec)
	got := log.rest(t)
	equal(t, "stdout", got.stdout, "e\ntwo\n")
	equal(t, "stderr", got.stderr, "three\n")
	equal(t, "id", got.started.ID, spec.ID)
	_, refusal := a.open("/processes?after=1000", spec)
	equal(t, "an offset beyond the end", refusal.Code, "VALIDATION_FAILED")
	_, refusal = a.open("/processes?after=5", makeSpec(argv("touch", a.folder+"/never")))
	equal(t, "reading on what was never started", refusal.Code, "PROCESS_NOT_FOUND")
	if _, err := os.Stat(a.folder + "/never"); err == nil {
		t.Error("it was started")
	}
}

func TestAForgottenCommandIsNotStartedAgain(t *testing.T) {
	a := startAgent(t, "-keep-delivered", "1ms")
	spec := makeSpec(script("echo x >>" + a.folder + "/count"))
	a.start(spec).rest(t)
	until(t, "it is forgotten", func() bool { return a.call("GET", "/processes/"+spec.ID, nil, nil) != nil })
	_, refusal := a.open("/processes", spec)
	equal(t, "again", refusal.Code, "PROCESS_NOT_FOUND")
	text, _ := os.ReadFile(a.folder + "/count")
	equal(t, "runs", string(text), "x\n")
}

func TestANewReaderTakesTheFormersPlace(t *testing.T) {
	a := startAgent(t)
	spec := makeSpec(script(`echo up; read; echo done`), piped)
	first := a.start(spec)
	first.until(t, "up\n")
	observer, _ := a.open("/processes/"+spec.ID+"/log?follow=1", nil)
	second := a.start(spec)
	equal(t, "the first reader", first.rest(t).failure.Code, "OPERATION_INTERRUPTED")
	a.call("PUT", "/processes/"+spec.ID+"/stdin?end=1", strings.NewReader("\n"), nil)
	equal(t, "the second reader", second.rest(t).stdout, "up\ndone\n")
	equal(t, "an observer", observer.rest(t).stdout, "up\ndone\n")
	equal(t, "delete", a.call("DELETE", "/processes/"+spec.ID, nil, nil) == nil, true)
	equal(t, "gone", a.call("GET", "/processes/"+spec.ID, nil, nil).Code, "PROCESS_NOT_FOUND")
}

func TestRollNeverMakesTheWriterWait(t *testing.T) {
	a := startAgent(t)
	spec := makeSpec(script(`head -c 20000000 /dev/zero; echo end; sleep 1000`), roll, func(s *processSpec) { s.RingBytes = 100_000 })
	log := a.start(spec) // nobody reads it
	var state agentProcess
	until(t, "all is written", func() bool {
		a.call("GET", "/processes/"+spec.ID, nil, &state)
		return state.Offset == 20_000_004
	})
	if held := state.Offset - state.WindowStart; held < 100_000 || held > 100_000+2*chunkBytes {
		t.Errorf("the ring holds %d", held)
	}
	now, _ := a.open("/processes/"+spec.ID+"/log?follow=0", nil)
	got := now.rest(t)
	equal(t, "no end", got.end == nil, true)
	equal(t, "what is there", strings.HasSuffix(got.stdout, "end\n"), true)
	equal(t, "busy", a.call("DELETE", "/processes/"+spec.ID, nil, nil).Code, "RESOURCE_BUSY")
	log.body.Close()
	a.call("POST", "/processes/"+spec.ID+"/signal", signalRequest{Signal: "SIGKILL"}, nil)
}

func TestTenThousandProcessesLeaveNothingBehind(t *testing.T) {
	a := startAgent(t)
	count := 10_000
	if testing.Short() || raceEnabled {
		count = 2_000
	}
	before := a.descriptors()
	var group sync.WaitGroup
	for worker := 0; worker < 8; worker++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := 0; i < count/16; i++ {
				if got := a.run(argv("true")); got.end == nil || got.end.ExitCode != 0 {
					t.Errorf("%+v", got)
					return
				}
			}
		}()
	}
	group.Wait()
	// The other half are orphans: their parents are gone before they are.
	a.run(script(fmt.Sprintf(`for ((i=0;i<%d;i++)); do (true &) ; done`, count/2)))
	until(t, "no zombie is left", func() bool { return a.run(script(`ps -e -o stat= | grep -c Z`)).stdout == "0\n" })
	a.client.CloseIdleConnections()
	until(t, "no descriptor is left", func() bool { return a.descriptors() <= before+2 })
}

func (a *testAgent) descriptors() int {
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", a.process.Pid))
	if err != nil {
		a.t.Fatal(err)
	}
	return len(names)
}

func TestAForkBombLeavesTheAgentItsThreads(t *testing.T) {
	a := startAgent(t, "-pids-limit", "300")
	a.confine(t, 1000) // should the limit under test fail, this holds the bomb
	equal(t, "the limit", a.run(script("ulimit -u; ulimit -Hu")).stdout, "236\n236\n")
	bomb := makeSpec(script(`f () { f | f & }; f; sleep 1000`), roll)
	log := a.start(bomb)
	until(t, "the bomb has gone off", func() bool {
		return a.processCount() > 200
	})
	if count := a.processCount(); count > 300 {
		t.Errorf("%d processes", count)
	}
	for i := 0; i < 20; i++ {
		equal(t, "the agent answers", a.call("GET", "/hello", nil, &agentHello{}) == nil, true)
	}
	a.call("POST", "/processes/"+bomb.ID+"/stop", stopRequest{Reason: "killed", GraceMs: new(int64)}, nil)
	log.rest(t)
	until(t, "the bomb is gone", func() bool { return a.processCount() < 5 })
}

func TestTooManyProcessesAreRefusedWithTheLimit(t *testing.T) {
	a := prepareAgent(t, "-pids-limit", "100")
	must(os.Mkdir(a.folder+"/cgroup", 0o755))
	a.begin()
	count := func(tasks string) {
		must(os.WriteFile(a.folder+"/cgroup/pids.current", []byte(tasks), 0o644))
	}
	count("49\n")
	equal(t, "below", a.run(argv("echo", "fine")).stdout, "fine\n")
	count("50\n")
	refusal := a.refused(argv("true"))
	equal(t, "code", refusal.Code, "LIMIT_REACHED")
	equal(t, "the limit is named", strings.Contains(refusal.Message, "pids limit 100"), true)
	// The kernel's own refusal: a user that has as many as it may.
	a.kill()
	must(os.RemoveAll(a.folder + "/cgroup"))
	a.begin()
	crowded := func(s *processSpec) { s.User = "4242" }
	for i := 0; ; i++ {
		log, refusal := a.open("/processes", makeSpec(argv("sleep", "1000"), crowded, roll))
		if refusal != nil {
			equal(t, "code", refusal.Code, "LIMIT_REACHED")
			equal(t, "as many as it may", i == 50 || i == 51, true) // kernels count the one that execs differently
			return
		}
		defer log.body.Close()
		if i > 100 {
			t.Fatal("the limit does not hold")
		}
	}
}

// confine puts the agent in a pids cgroup of its own, or skips the test.
func (a *testAgent) confine(t *testing.T, limit int) {
	for _, root := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		group := fmt.Sprintf("%s/atoll-agent-test-%d", root, a.process.Pid)
		if os.Mkdir(group, 0o755) != nil {
			continue
		}
		t.Cleanup(func() {
			a.kill()
			until(t, "the cgroup is given back", func() bool { return syscall.Rmdir(group) == nil })
		})
		if os.WriteFile(group+"/pids.max", []byte(strconv.Itoa(limit)), 0) == nil &&
			os.WriteFile(group+"/cgroup.procs", []byte(strconv.Itoa(a.process.Pid)), 0) == nil {
			return
		}
	}
	t.Skip("needs a pids cgroup")
}

// processCount looks into the agent's pid namespace from outside.
func (a *testAgent) processCount() int {
	own, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", a.process.Pid))
	count := 0
	all, _ := filepath.Glob("/proc/[0-9]*/ns/pid")
	for _, name := range all {
		if link, err := os.Readlink(name); err == nil && link == own {
			count++
		}
	}
	return count
}

func TestEventsTellEnds(t *testing.T) {
	a := startAgent(t, "-heartbeat", "20ms")
	response, err := a.request("GET", "/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	spec := makeSpec(argv("true"))
	a.start(spec).rest(t)
	seen := map[string]bool{}
	var line []byte
	one := make([]byte, 1)
	for !(seen["heartbeat"] && seen["processEnded"]) {
		if _, err := io.ReadFull(response.Body, one); err != nil {
			t.Fatal(err)
		}
		if line = append(line, one...); one[0] != '\n' {
			continue
		}
		var event agentEvent
		strictly(t, line, &event)
		if event.ID == spec.ID || event.Type == "heartbeat" {
			seen[event.Type] = true
		}
		line = nil
	}
}

func TestAMemoryKillIsToldWithTheLimit(t *testing.T) {
	a := startAgent(t)
	cgroup := a.folder + "/cgroup"
	for _, one := range []struct{ events, limit, max string }{
		{"memory.events", "memory.max", "268435456\n"},
		{"memory/memory.oom_control", "memory/memory.limit_in_bytes", "268435456\n"},
	} {
		os.RemoveAll(cgroup)
		must(os.MkdirAll(cgroup+"/memory", 0o755))
		must(os.Chown(cgroup, hostUID, hostUID))
		must(os.Chown(cgroup+"/memory", hostUID, hostUID))
		must(os.WriteFile(filepath.Join(cgroup, one.limit), []byte(one.max), 0o644))
		must(os.WriteFile(filepath.Join(cgroup, one.events), []byte("oom 0\noom_kill 3\n"), 0o644))
		must(os.Chown(filepath.Join(cgroup, one.events), hostUID, hostUID))
		got := a.run(script("printf 'oom 1\\noom_kill 4\\n' >" + filepath.Join(cgroup, one.events) + "; kill -9 $$"))
		equal(t, "reason", got.end.Reason, "memory")
		equal(t, "line", got.stderr, "Killed: the memory of the sandbox is used up (limit 256 MiB)\n")
		equal(t, "no kill", a.run(script("kill -9 $$")).end.Reason, "")
		got = a.run(script("printf 'oom 1\\noom_kill 5\\n' >" + filepath.Join(cgroup, one.events) + "; exit 2"))
		equal(t, "one of its own", got.end.Reason, "")
		equal(t, "line", got.stderr, "Killed: the memory of the sandbox is used up (limit 256 MiB)\n")
	}
}

func TestCPUTimeIsThatOfTheCommandAndItsChildren(t *testing.T) {
	a := startAgent(t)
	got := a.run(script("sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'"))
	if got.end.CPUTimeMs < 20 || got.end.CPUTimeMs > got.end.DurationMs*2 {
		t.Errorf("%+v", got.end)
	}
}

func TestSlowAndBrokenClientsHarmNobody(t *testing.T) {
	a := startAgent(t)
	for i := 0; i < 50; i++ {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(fd)
		if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: a.socket}); err != nil {
			t.Fatal(err)
		}
		syscall.Write(fd, []byte("POST /processes HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"))
	}
	request, _ := http.NewRequest("GET", "http://agent/hello", nil)
	request.Header.Set("x-long", strings.Repeat("x", 100_000))
	response, err := a.client.Do(request)
	if err == nil {
		equal(t, "a huge header", response.StatusCode, 431)
		response.Body.Close()
	}
	equal(t, "others", a.run(argv("echo", "fine")).stdout, "fine\n")
	info, err := os.Stat(a.socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
}

func TestAsManyAtOnceStayApart(t *testing.T) {
	a := startAgent(t)
	var group sync.WaitGroup
	for i := 0; i < 24; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			text := bytes.Repeat([]byte{byte('a' + i%26)}, 300_000)
			got := a.run(argv("base64", "-w0"), func(s *processSpec) { s.Stdin = stdinSpec{Kind: "bytes", Bytes: text} })
			if got.stdout != base64.StdEncoding.EncodeToString(text) {
				t.Errorf("%d got %d bytes", i, len(got.stdout))
			}
		}(i)
	}
	group.Wait()
}
