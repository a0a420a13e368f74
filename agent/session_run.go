package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
)

// More than this is no state: the rest is read and dropped, and the session stays as it was.
const stateLimitBytes = 32 << 20

// sessionRun is one command of a session: what it started from, and what it will leave behind.
type sessionRun struct {
	sessions *sessions
	session  *session
	start    shellState
	nonce    string
	parse    parser
	discard  bool   // its state is not saved
	gone     string // a temporary directory, stood in for the session's own that is not there
	pump     *pump
	moved    chan struct{}
	mutex    sync.Mutex
	dump     []byte
}

func (l *launch) prepareSession() error {
	shell, isBash := findShell()
	if shell == "" {
		return noShell()
	}
	found, err := l.agent.sessions.find(*l.spec.Command.Session)
	if err != nil {
		return err
	}
	dialect := bashDialect
	if !isBash {
		dialect = posixDialect
	}
	base, err := l.agent.freshState(shell, dialect)
	if err != nil {
		return err
	}
	// What runs in the background may go on for weeks: what it leaves behind at some late moment must not change the session.
	background := l.spec.Mode == "roll"
	l.limitBy(found)
	run := &sessionRun{sessions: l.agent.sessions, session: found, nonce: newNonce(), parse: dialect.parse, discard: background, moved: make(chan struct{}, 1)}
	l.process.session = run
	proven := run.begin(base, l)
	directory, err := l.sessionDirectory(run)
	if err != nil {
		return err
	}
	l.program.dir = directory
	restored := dialect.restore(base, run.start, proven, *l.spec.Command.Script, run.nonce, run.gone)
	l.program.path = shell
	l.program.argv = []string{dialect.name, "-c", dialect.wrapper, dialect.name}
	l.program.env = append(restored.env, "PWD="+directory, processMarker+"="+l.spec.ID)
	if err := l.passText(dialect.close(restored.script)); err != nil {
		return err
	}
	return l.openState(run)
}

// limitBy gives a command that somebody waits for its session's time limit, unless it has one of its own.
func (l *launch) limitBy(found *session) {
	if l.spec.TimeoutMs == 0 && l.spec.Mode != "roll" {
		l.spec.TimeoutMs = found.commandTimeoutMs
	}
}

// parser reads what a shell saved; `former` is what it started from.
type parser func(dump []byte, nonce string, former shellState) (shellState, bool)

// dialect is how one kind of shell is given a state and gives it back.
type dialect struct {
	name, wrapper string
	restore       func(base, state shellState, proven map[string]string, command, nonce, gone string) restoration
	parse         parser
	close         func(script []byte) []byte
}

var bashDialect = dialect{
	name: "bash", wrapper: bashWrapper, restore: restoreBash, parse: parseBash,
	close: func(script []byte) []byte { return append(script, 0) },
}

func newNonce() string {
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		panic(err) // the kernel's generator does not fail
	}
	return hex.EncodeToString(random[:])
}

// begin makes the state that the command starts from: a fresh shell's, the sandbox's environment, what the session
// changed, what this call adds.
func (r *sessionRun) begin(base shellState, l *launch) (proven map[string]string) {
	state := base.clone()
	state["s:expand_aliases"] = "on"
	for name, value := range l.baseEnvironment() {
		if !skipVariable(name) {
			key, line := environmentKey(name, value)
			state[key] = line
		}
	}
	r.session.mutex.Lock()
	state.apply(r.session.changes)
	state["cwd"] = r.session.cwd
	proven = make(map[string]string, len(r.session.proven))
	for key, text := range r.session.proven {
		proven[key] = text
	}
	r.session.mutex.Unlock()
	for name, value := range l.spec.CallEnv {
		if skipVariable(name) {
			continue
		}
		key, line := environmentKey(name, text(value))
		if value == nil {
			delete(state, key)
		} else {
			state[key] = line
		}
	}
	r.start = state
	return proven
}

// sessionDirectory is where the command starts. When the session's own directory is not there it is one that is
// removed under the shell, like a living shell's: never the parent, where `rm -rf *` would hit something else.
func (l *launch) sessionDirectory(run *sessionRun) (string, error) {
	directory := run.start["cwd"]
	if directory == l.agent.settings.workspace {
		if err := os.MkdirAll(directory, 0o755); err != nil {
			return "", cwdError(directory, err)
		}
	}
	if l.spec.Cwd != nil {
		directory = filepath.Clean(joinPath(directory, *l.spec.Cwd))
		run.start["cwd"] = directory
		return directory, checkDirectory(directory)
	}
	err := checkDirectory(directory)
	var refusal *agentError
	if err == nil || !errors.As(err, &refusal) || refusal.Code != "FILE_NOT_FOUND" && refusal.Code != "NOT_DIRECTORY" {
		return directory, err
	}
	for _, parent := range []string{"/tmp", "/dev/shm", "/run", "/"} {
		run.gone = filepath.Join(parent, ".atoll-"+newNonce())
		if os.Mkdir(run.gone, 0o755) == nil {
			if user := l.account.credential; user != nil {
				_ = os.Chown(run.gone, int(user.uid), int(user.gid)) // else it stays until the command has ended
			}
			run.start["cwd"] = run.gone
			return run.gone, nil
		}
	}
	return "", err
}

// openState gives the child descriptor 4, by which its shell's state comes back.
func (l *launch) openState(run *sessionRun) error {
	file, end, err := newPipe()
	if err != nil {
		return asShortage(err)
	}
	l.childEnds = append(l.childEnds, end)
	l.program.files = append(l.program.files, end)
	run.pump = &pump{file: file, moved: run.moved, sink: run.take}
	return nil
}

func (r *sessionRun) take(bytes []byte) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if len(r.dump)+len(bytes) <= stateLimitBytes {
		r.dump = append(r.dump, bytes...)
	}
}

// finish merges what the shell left behind. clean: it ended by itself. Whether the session has it now.
func (r *sessionRun) finish(clean bool) bool {
	defer r.abandon()
	target := r.pump.pending()
	for {
		if total, ended := r.pump.progress(); ended || total >= target {
			break
		}
		<-r.moved
	}
	if !clean || r.discard {
		return false
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	after, ok := survive(r.parse, r.dump, r.nonce, r.start)
	if !ok {
		return false
	}
	for key, value := range r.start {
		if len(key) > 2 && key[:2] == "e:" {
			after[key] = value // the shell passes these on but cannot show them
		}
	}
	proven := map[string]string{}
	for key, value := range after {
		if len(key) > 2 && key[:2] == "f:" && r.start[key] == value {
			proven[key] = value
		}
	}
	return r.sessions.merge(r.session, r.start.changes(after), proven)
}

// survive makes a bug in reading what a shell wrote cost that command's state, not the whole sandbox.
func survive(parse parser, dump []byte, nonce string, former shellState) (state shellState, ok bool) {
	defer func() {
		if bug := recover(); bug != nil {
			fmt.Fprintf(os.Stderr, "Cannot read a shell's state: %v\n%s", bug, debug.Stack())
			state, ok = nil, false
		}
	}()
	return parse(dump, nonce, former)
}

// abandon gives back what the run holds.
func (r *sessionRun) abandon() {
	if r.pump != nil {
		r.pump.close()
	}
	if r.gone != "" {
		_ = os.Remove(r.gone) // the shell has done it, or was killed before
	}
}

// freshState is what a shell of the image has by itself, asked once.
func (a *agent) freshState(shell string, d dialect) (shellState, error) {
	a.sessions.mutex.Lock()
	known := a.sessions.bases[shell]
	a.sessions.mutex.Unlock()
	if known != nil {
		return known, nil
	}
	run := &sessionRun{start: shellState{"cwd": "/"}, nonce: newNonce(), moved: make(chan struct{}, 1)}
	restored := d.restore(shellState{}, run.start, nil, ":", run.nonce, "")
	text, err := memoryFile(d.close(restored.script))
	if err != nil {
		return nil, asShortage(err)
	}
	file, end, err := newPipe()
	if err != nil {
		closeAll([]int{text})
		return nil, asShortage(err)
	}
	run.pump = &pump{file: file, moved: run.moved, sink: run.take}
	defer run.abandon()
	shellRun, err := a.reaper.start(program{
		path: shell, argv: []string{d.name, "-c", d.wrapper, d.name}, env: append(restored.env, "PWD=/"), dir: "/",
		files: []int{a.null, a.null, a.null, text, end}, oomScoreAdj: a.settings.oomScoreAdj,
	})
	closeAll([]int{text, end})
	if err != nil {
		var failure *forkFailure
		if errors.As(err, &failure) && failure.errno == syscall.EAGAIN {
			return nil, refuse("LIMIT_REACHED", "Cannot start a shell: the sandbox has as many processes as it may. End some, or choose a larger instance")
		}
		return nil, fmt.Errorf("Cannot start %s: %w", shell, err)
	}
	go run.pump.run()
	<-shellRun.exited
	target := run.pump.pending()
	for {
		if total, ended := run.pump.progress(); ended || total >= target {
			break
		}
		<-run.moved
	}
	run.mutex.Lock()
	base, ok := d.parse(run.dump, run.nonce, run.start)
	run.mutex.Unlock()
	if !ok {
		return nil, refuse("INVALID_COMMAND", "Cannot start a session: %s of the image does not tell its state", shell)
	}
	delete(base, "cwd")
	a.sessions.mutex.Lock()
	a.sessions.bases[shell] = base
	a.sessions.mutex.Unlock()
	return base, nil
}
