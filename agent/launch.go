package main

import (
	"errors"
	"fmt"
	"os"
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
	started, err := l.fork()
	if err != nil {
		return l.failed(err)
	}
	p.pid = started.pid
	p.tree = tree{leader: started.pid, startTicks: started.startTicks, marker: processMarker + "=" + spec.ID}
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
	return p, func() { p.watch(started.exited) }, nil
}

// fork starts the program; one without a first line that names its interpreter is run by sh, as execvp does.
func (l *launch) fork() (child, error) {
	if l.unfound != nil {
		return child{}, l.unfound
	}
	if l.agent.limits.full() {
		return child{}, &forkFailure{stepFork, syscall.EAGAIN}
	}
	started, err := l.agent.reaper.start(l.program)
	var failure *forkFailure
	if errors.As(err, &failure) && failure.step == stepExec && failure.errno == syscall.ENOEXEC && executable("/bin/sh") {
		byShell := l.program
		byShell.path = "/bin/sh"
		byShell.argv = append([]string{"/bin/sh", l.program.path}, l.program.argv[1:]...)
		return l.agent.reaper.start(byShell)
	}
	return started, err
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

func startTicks(pid int) uint64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	stat, _ := parseStat(text)
	return stat.startTicks
}
