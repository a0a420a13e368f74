package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
)

// start makes a process of a spec and gives its watch beside it. A program that cannot be found or executed is a
// process too: it ends with 127 or 126 and says why on stderr.
func (a *agent) start(spec *processSpec) (*process, func(), error) {
	if err := checkSpec(spec); err != nil {
		return nil, nil, err
	}
	who, err := findAccount(spec.User)
	if err != nil {
		return nil, nil, err
	}
	p := &process{
		agent: a, id: spec.ID, note: spec.Note,
		moved: make(chan struct{}, 1), done: make(chan struct{}),
		kills: a.limits.memoryKills(),
	}
	l := &launch{agent: a, spec: spec, account: who, process: p}
	defer l.closeChildEnds()
	if err := l.prepare(); err != nil {
		l.abandon()
		return nil, nil, err
	}
	p.log = newProcessLog(spec.Mode == "keep", spec.RingBytes)
	p.startedAt = time.Now()
	pid, exited, err := l.fork()
	if err != nil {
		return l.failed(err)
	}
	p.pid = pid
	p.tree = tree{leader: pid, startTicks: startTicks(pid), marker: processMarker + "=" + spec.ID}
	for _, pump := range p.pumps {
		go pump.run()
	}
	if p.session != nil {
		go p.session.pump.run()
	}
	if len(spec.Stdin.Bytes) > 0 {
		go p.stdin.feed(spec.Stdin.Bytes)
	}
	if spec.TimeoutMs > 0 {
		p.timeout = time.AfterFunc(time.Duration(spec.TimeoutMs)*time.Millisecond, func() { p.stop("timeout", timeoutGrace) })
	}
	return p, func() { p.watch(exited) }, nil
}

// fork starts the program; one without a first line that names its interpreter is run by sh, as execvp does.
func (l *launch) fork() (int, <-chan exitStatus, error) {
	if l.unfound != nil {
		return 0, nil, l.unfound
	}
	if l.agent.limits.full() {
		return 0, nil, &forkFailure{stepFork, syscall.EAGAIN}
	}
	pid, exited, err := l.agent.reaper.start(l.program)
	var failure *forkFailure
	if errors.As(err, &failure) && failure.step == stepExec && failure.errno == syscall.ENOEXEC && executable("/bin/sh") {
		byShell := l.program
		byShell.path = "/bin/sh"
		byShell.argv = append([]string{"/bin/sh", l.program.path}, l.program.argv[1:]...)
		return l.agent.reaper.start(byShell)
	}
	return pid, exited, err
}

// An id travels in an environment and in log lines.
const idLimitBytes = 256

func checkSpec(spec *processSpec) error {
	bad := func(format string, values ...any) error {
		return refuse("VALIDATION_FAILED", "Cannot start a process: "+format, values...)
	}
	switch {
	case spec.ID == "" || len(spec.ID) > idLimitBytes || strings.IndexByte(spec.ID, 0) >= 0:
		return bad("its id must be 1 to %d bytes without NUL", idLimitBytes)
	case (len(spec.Command.Argv) > 0) == (spec.Command.Script != nil):
		return bad("the command is either argv or a script")
	case spec.Mode != "keep" && spec.Mode != "roll":
		return bad("mode %q is neither keep nor roll", spec.Mode)
	case spec.Stderr != "separate" && spec.Stderr != "merge":
		return bad("stderr %q is neither separate nor merge", spec.Stderr)
	case spec.Stdin.Kind == "":
		return bad("stdin is missing")
	case !path.IsAbs(spec.DefaultCwd):
		return bad("defaultCwd %q is no absolute path", spec.DefaultCwd)
	case spec.RingBytes < 0 || spec.TimeoutMs < 0:
		return bad("ringBytes and timeoutMs must be positive")
	case spec.Pty != nil && (spec.Mode != "roll" || spec.Stdin.Kind != "none"):
		return bad("a terminal is read in mode roll, and is an input itself")
	}
	for _, argument := range spec.Command.Argv {
		if strings.IndexByte(argument, 0) >= 0 {
			return refuse("INVALID_COMMAND", "Cannot start a process: an argument holds a NUL byte")
		}
	}
	if script := spec.Command.Script; script != nil && strings.IndexByte(*script, 0) >= 0 {
		return refuse("INVALID_COMMAND", "Cannot start a process: the script holds a NUL byte")
	}
	for name, value := range spec.Env {
		if !validEntry(name, value) {
			return bad("the variable %q cannot be in an environment", name)
		}
	}
	for name, value := range spec.CallEnv {
		if value == nil {
			value = new(string)
		}
		if !validEntry(name, *value) {
			return bad("the variable %q cannot be in an environment", name)
		}
	}
	if spec.Cwd != nil && (strings.IndexByte(*spec.Cwd, 0) >= 0 || *spec.Cwd == "") {
		return bad("cwd %q is no path", *spec.Cwd)
	}
	return nil
}

func validEntry(name, value string) bool {
	return name != "" && !strings.ContainsAny(name, "=\x00") && strings.IndexByte(value, 0) < 0
}

// launch is a process on its way to its start.
type launch struct {
	agent     *agent
	spec      *processSpec
	account   account
	process   *process
	program   program
	childEnds []int
	// unfound is why there is no program to start: its end is told as a process's.
	unfound *missing
}

// missing is a program that cannot be run: the exit code and the words a shell would have for it.
type missing struct {
	exitCode int
	text     string
}

func (m *missing) Error() string { return m.text }

func (l *launch) prepare() error {
	if err := l.openPipes(); err != nil {
		return asShortage(err)
	}
	l.program.user = l.account.credential
	l.program.processLimit = l.agent.limits.processLimit()
	l.program.oomScoreAdj = l.agent.settings.oomScoreAdj
	switch {
	case l.spec.Command.Script == nil:
		return l.prepareArgv()
	case l.spec.Command.Session == nil:
		return l.prepareScript()
	default:
		return l.prepareSession()
	}
}

// asShortage words what may run out while a process is started.
func asShortage(err error) error {
	switch {
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return refuse("LIMIT_REACHED", "Cannot start a process: too many files are open (%v). End some processes", err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return refuse("NO_SPACE", "Cannot start a process: the disk is full (%v). Remove files", err)
	}
	return err
}

func (l *launch) openPipes() error {
	p := l.process
	if l.spec.Pty != nil {
		opened, end, err := openTerminal(*l.spec.Pty, l.account.credential)
		if err != nil {
			return err
		}
		p.terminal = opened
		p.pumps = append(p.pumps, opened.pump(p))
		l.childEnds = append(l.childEnds, end)
		l.program.files = append(l.program.files, end, end, end)
		l.program.terminal = true
		return nil
	}
	switch l.spec.Stdin.Kind {
	case "none":
		l.program.files = append(l.program.files, l.agent.null)
	default:
		pipe, end, err := newStdinPipe(l.spec.Stdin.Kind == "bytes")
		if err != nil {
			return err
		}
		l.childEnds = append(l.childEnds, end)
		l.program.files = append(l.program.files, end)
		p.stdin = pipe
		if l.spec.Stdin.Kind == "bytes" && len(l.spec.Stdin.Bytes) == 0 {
			pipe.abandon()
		}
	}
	out, err := l.output(frameStdout)
	if err != nil {
		return err
	}
	errorOut := out
	if l.spec.Stderr == "separate" {
		if errorOut, err = l.output(frameStderr); err != nil {
			return err
		}
	}
	l.program.files = append(l.program.files, out, errorOut)
	return nil
}

func (l *launch) output(kind byte) (int, error) {
	file, end, err := newPipe()
	if err != nil {
		return 0, err
	}
	p := l.process
	l.childEnds = append(l.childEnds, end)
	p.pumps = append(p.pumps, &pump{
		file: file, moved: p.moved,
		sink: func(bytes []byte) { p.log.append(kind, bytes) },
		room: func() <-chan struct{} { return p.log.room() },
	})
	return end, nil
}

func (l *launch) closeChildEnds() { closeAll(l.childEnds) }

// abandon closes what the agent held for a process that did not come to be.
func (l *launch) abandon() {
	for _, pump := range l.process.pumps {
		pump.close()
	}
	if l.process.stdin != nil {
		l.process.stdin.abandon()
	}
	if l.process.session != nil {
		l.process.session.abandon()
	}
}

func (l *launch) prepareArgv() error {
	directory := l.spec.DefaultCwd
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return cwdError(directory, err)
	}
	if session := l.spec.Command.Session; session != nil {
		current, err := l.agent.sessions.directory(*session)
		if err != nil {
			return err
		}
		directory = current
	}
	if l.spec.Cwd != nil {
		directory = joinPath(directory, *l.spec.Cwd)
	}
	if err := checkDirectory(directory); err != nil {
		return err
	}
	env := l.environment()
	l.program.dir = directory
	l.program.env = envList(env)
	l.program.argv = l.spec.Command.Argv
	l.program.path, l.unfound = findProgram(l.spec.Command.Argv[0], env["PATH"], directory)
	return nil
}

// A script without a session: its shell gets the text by descriptor 3, so that it has no length limit and stands in no
// argument list, and runs it as `bash -c` would.
const (
	bashScript = `{ IFS= read -rd '' -u 3 __sb_c; exec 3<&-; builtin eval "builtin unset -v __sb_c;$__sb_c"; }`
	shScript   = `{ . /proc/self/fd/3; exec 3<&-; eval "unset -v __sb_c;$__sb_c"; }`
)

func (l *launch) prepareScript() error {
	if err := l.prepareShell(); err != nil {
		return err
	}
	text, wrapper := append([]byte(*l.spec.Command.Script), 0), bashScript
	name := "bash"
	shell, isBash := findShell()
	if shell == "" {
		return noShell()
	}
	if !isBash {
		text, wrapper, name = []byte("__sb_c="+quoteShell(*l.spec.Command.Script)+"\n"), shScript, "sh"
	}
	l.program.path = shell
	l.program.argv = []string{name, "-c", wrapper, name}
	return l.passText(text)
}

// prepareShell is what a fresh shell shares with a program: directory and environment.
func (l *launch) prepareShell() error {
	command := l.spec.Command
	l.spec.Command = processCommand{Argv: []string{"/"}}
	defer func() { l.spec.Command = command }()
	err := l.prepareArgv()
	l.unfound = nil
	return err
}

// passText gives the child a text as descriptor 3.
func (l *launch) passText(text []byte) error {
	fd, err := memoryFile(text)
	if err != nil {
		return asShortage(fmt.Errorf("Cannot hand the script over: %w", err))
	}
	l.childEnds = append(l.childEnds, fd)
	l.program.files = append(l.program.files, fd)
	return nil
}

func noShell() error {
	return refuse("INVALID_COMMAND", "Cannot run a script: the image has neither bash nor sh. Run a program with its arguments instead")
}

// environment is that of a process without a session.
func (l *launch) environment() map[string]string {
	env := l.baseEnvironment()
	for name, value := range l.spec.CallEnv {
		if value == nil {
			delete(env, name)
		} else {
			env[name] = *value
		}
	}
	env[processMarker] = l.spec.ID
	return env
}

// baseEnvironment is what the sandbox and the user give.
func (l *launch) baseEnvironment() map[string]string {
	env := map[string]string{
		"HOME": l.account.home, "USER": l.account.name, "LOGNAME": l.account.name, "SHELL": l.account.shell,
	}
	if l.spec.Pty != nil {
		env["TERM"] = defaultTerm
	}
	for name, value := range l.spec.Env {
		env[name] = value
	}
	return env
}

func envList(env map[string]string) []string {
	list := make([]string, 0, len(env))
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	return list
}

func joinPath(base, name string) string {
	if path.IsAbs(name) {
		return name
	}
	return strings.TrimSuffix(base, "/") + "/" + name
}

func checkDirectory(directory string) error {
	info, err := os.Stat(directory)
	if err != nil {
		return cwdError(directory, err)
	}
	if !info.IsDir() {
		return cwdError(directory, syscall.ENOTDIR)
	}
	return nil
}

func cwdError(directory string, err error) error {
	var errno syscall.Errno
	errors.As(err, &errno)
	code, why := errnoCodes[errno], err.Error()
	switch errno {
	case syscall.ENOENT:
		why = "there is no such directory. Make it first"
	case syscall.ENOTDIR:
		why = "it is not a directory"
	case syscall.EACCES:
		why = "permission denied"
	}
	if code == "" {
		code = "INTERNAL_ERROR"
	}
	return &agentError{Code: code, Message: fmt.Sprintf("Cannot run in %q: %s", directory, why), Details: map[string]any{"path": directory}}
}

// findProgram looks a name up as execvp does. `path` is the process's own.
func findProgram(name, searchPath, directory string) (string, *missing) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	if searchPath == "" {
		searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	var refused string
	for _, entry := range strings.Split(searchPath, ":") {
		if entry == "" {
			entry = "."
		}
		candidate := joinPath(joinPath(directory, entry), name)
		info, err := os.Stat(candidate)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		if info.Mode()&0o111 != 0 {
			return candidate, nil
		}
		refused = candidate
	}
	if refused != "" {
		return "", &missing{exitNotExecutable, refused + ": Permission denied"}
	}
	return "", &missing{exitNotFound, name + ": command not found"}
}

// failed turns a start that did not happen into a refusal, or into a process that has ended with 126 or 127.
func (l *launch) failed(err error) (*process, func(), error) {
	if l.unfound == nil {
		if err = l.explain(err); err != nil {
			l.abandon()
			return nil, nil, err
		}
	}
	p := l.process
	l.abandon()
	p.say(l.unfound.text)
	var end exitStatus
	end.status = syscall.WaitStatus(l.unfound.exitCode << 8)
	return p, func() {
		exited := make(chan exitStatus, 1)
		exited <- end
		p.pumps = nil
		p.watch(exited)
	}, nil
}

// explain words a failed start. When the program itself is what is wrong it sets l.unfound and gives nil.
func (l *launch) explain(err error) error {
	var failure *forkFailure
	if !errors.As(err, &failure) {
		return err
	}
	name := l.program.argv[0]
	switch failure.step {
	case stepDirectory:
		return cwdError(l.program.dir, failure.errno)
	case stepExec:
		switch failure.errno {
		case syscall.ENOENT:
			l.unfound = &missing{exitNotFound, name + ": No such file or directory"}
			if _, err := os.Stat(joinPath(l.program.dir, l.program.path)); err == nil {
				l.unfound.text = name + ": cannot execute: required file not found"
			}
			return nil
		case syscall.ENOTDIR:
			l.unfound = &missing{exitNotFound, name + ": Not a directory"}
			return nil
		case syscall.EACCES, syscall.EPERM, syscall.ENOEXEC, syscall.E2BIG, syscall.ETXTBSY, syscall.ELOOP, syscall.ENAMETOOLONG, syscall.EINVAL, syscall.EISDIR, syscall.ELIBBAD:
			l.unfound = &missing{exitNotExecutable, name + ": " + sentence(failure.errno)}
			if info, err := os.Stat(joinPath(l.program.dir, l.program.path)); err == nil && info.IsDir() {
				l.unfound.text = name + ": Is a directory"
			}
			return nil
		}
	}
	switch failure.errno {
	case syscall.EAGAIN:
		if pids := l.agent.limits.pids(); pids > 0 {
			return refuse("LIMIT_REACHED", "Cannot start a process: the sandbox has as many as it may (pids limit %d). End some, or choose a larger instance", pids)
		}
		return refuse("LIMIT_REACHED", "Cannot start a process: the sandbox has as many as it may. End some, or choose a larger instance")
	case syscall.ENOMEM:
		return refuse("LIMIT_REACHED", "Cannot start a process: the memory of the sandbox is used up. End some processes, or choose a larger instance")
	}
	return asShortage(fmt.Errorf("Cannot start %q: %w", name, failure))
}

func sentence(errno syscall.Errno) string {
	text := []byte(errno.Error())
	return string(append(bytes.ToUpper(text[:1]), text[1:]...))
}

func startTicks(pid int) uint64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	stat, _ := parseStat(text)
	return stat.startTicks
}
