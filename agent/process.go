package main

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// A process substitution writes its last lines up to 20 ms after its shell has exited (exec.md A.6).
	graceQuiet = 50 * time.Millisecond
	graceLimit = time.Second
	// Between SIGTERM and SIGKILL after a timeout.
	timeoutGrace = 5 * time.Second

	exitTimedOut      = 124
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignalled     = 128
)

// process is one started by the link: a leader, the tree below it, and the log of what it printed.
type process struct {
	agent     *agent
	id        string
	note      []byte
	pid       int
	startedAt time.Time
	tree      tree
	log       *processLog
	pumps     []*pump
	moved     chan struct{}
	session   *sessionRun // nil without one
	stdin     *stdinPipe  // nil unless it is a pipe
	terminal  *terminal   // nil without one
	kills     int64       // memory kills in the sandbox when it started
	timeout   *time.Timer

	// done is closed when end is set.
	done chan struct{}

	mutex     sync.Mutex
	reason    string
	asked     syscall.Signal // the last that was asked for by POST signal
	stopping  sync.WaitGroup
	exited    bool
	end       *processEnd
	endOffset int64
	delivered bool
	reader    *reader // the foreground one
	away      *time.Timer
	forget    *time.Timer
}

// reader is the foreground reader's place: closed when another takes it.
type reader struct{ replaced chan struct{} }

// attach makes a foreground reader, in place of the one before, that has everything before `after`.
func (p *process) attach(after int64) *reader {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.reader != nil {
		close(p.reader.replaced)
	}
	p.reader = &reader{make(chan struct{})}
	if p.away != nil {
		p.away.Stop()
		p.away = nil
	}
	p.log.advance(after)
	return p.reader
}

// detach starts the time after which the process no longer waits for its reader.
func (p *process) detach(gone *reader) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.reader != gone {
		return
	}
	p.reader = nil
	if p.end == nil {
		p.away = time.AfterFunc(p.agent.times.readerAway, p.log.roll)
	}
}

// watch waits for the process's exit and what it still had to say, and closes it. It runs once per process.
func (p *process) watch(exited <-chan exitStatus) {
	status := <-exited
	endedAt := time.Now()
	p.mutex.Lock()
	p.exited = true
	p.mutex.Unlock()
	if p.terminal != nil {
		close(p.terminal.left)
	}
	if p.timeout != nil {
		p.timeout.Stop()
	}
	if p.stdin != nil {
		p.stdin.abandon()
	}
	// Somebody is ending the tree: it has not ended before all of it has.
	p.stopping.Wait()
	background := p.drain()
	end := p.describe(status, endedAt)
	end.Background = background
	if p.session != nil {
		saved := p.session.finish(end.Signal == "" && end.Reason == "")
		end.StateSaved = &saved
		p.session = nil // its states are far larger than a log that waits for its reader
	}
	p.finish(end)
}

// drain waits until all that was written before the exit is in the log, then for a short time, while somebody still
// holds a pipe open, until nothing new comes. It tells whether somebody still does.
func (p *process) drain() bool {
	targets := make([]int64, len(p.pumps))
	for i, pump := range p.pumps {
		targets[i] = pump.pending()
	}
	for !p.reached(targets) {
		<-p.moved
	}
	limit := time.NewTimer(graceLimit)
	quiet := time.NewTimer(graceQuiet)
	defer limit.Stop()
	defer quiet.Stop()
	for p.held() {
		select {
		case <-p.moved:
			quiet.Reset(graceQuiet)
		case <-quiet.C:
			return p.held()
		case <-limit.C:
			return p.held()
		}
	}
	return false
}

func (p *process) reached(targets []int64) bool {
	for i, pump := range p.pumps {
		if total, ended := pump.progress(); !ended && total < targets[i] {
			return false
		}
	}
	return true
}

func (p *process) held() bool {
	for _, pump := range p.pumps {
		if _, ended := pump.progress(); !ended {
			return true
		}
	}
	return false
}

func (p *process) describe(status exitStatus, endedAt time.Time) *processEnd {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	end := &processEnd{
		ExitCode:   status.status.ExitStatus(),
		Reason:     p.reason,
		EndedAtMs:  endedAt.UnixMilli(),
		DurationMs: milliseconds(endedAt.Sub(p.startedAt)),
		CPUTimeMs:  milliseconds(time.Duration(status.usage.Utime.Nano() + status.usage.Stime.Nano())),
	}
	if status.status.Signaled() {
		signal := status.status.Signal()
		end.ExitCode = exitSignalled + int(signal)
		end.Signal = signalNames[signal]
		if end.Signal == "" {
			end.Signal = fmt.Sprintf("SIGRT%d", int(signal))
		}
		if end.Reason == "" && signal == p.asked {
			end.Reason = "killed"
		}
	}
	if end.Reason == "timeout" {
		end.ExitCode = exitTimedOut
	}
	// Who was killed may have been started by what failed of it: the line says so, only its own end is of memory.
	if end.Reason == "" && end.ExitCode != 0 && p.agent.limits.memoryKills() > p.kills {
		if end.ExitCode == exitSignalled+int(syscall.SIGKILL) {
			end.Reason = "memory"
		}
		p.say(memoryLine(p.agent.limits.memoryBytes()))
	}
	return end
}

// say adds a line of the agent's own to what the process printed.
func (p *process) say(line string) {
	if p.terminal != nil {
		p.log.append(frameStdout, []byte(line+"\r\n"))
	} else {
		p.log.append(frameStderr, []byte(line+"\n"))
	}
}

func memoryLine(limitBytes int64) string {
	if limitBytes == 0 {
		return "Killed: the memory of the sandbox is used up"
	}
	return fmt.Sprintf("Killed: the memory of the sandbox is used up (limit %d MiB)", limitBytes>>20)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (p *process) finish(end *processEnd) {
	p.mutex.Lock()
	p.endOffset = p.log.seal()
	p.end = end
	if p.away != nil {
		p.away.Stop()
		p.away = nil
	}
	close(p.done)
	p.mutex.Unlock()
	p.agent.processes.ended(p)
	p.agent.events.publish(agentEvent{Type: "processEnded", ID: p.id, End: end})
}

// stop ends the whole tree: SIGTERM, grace, SIGKILL. The first reason stays.
func (p *process) stop(reason string, grace time.Duration) {
	p.mutex.Lock()
	if !p.exited {
		if p.reason == "" {
			p.reason = reason
		}
		p.stopping.Add(1)
		defer p.stopping.Done()
	}
	p.mutex.Unlock()
	p.tree.end(grace)
}

func (p *process) signal(signal syscall.Signal) int {
	p.mutex.Lock()
	p.asked = signal
	p.mutex.Unlock()
	return p.tree.signal(signal)
}

func (p *process) describeNow() agentProcess {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	state := p.log.state()
	mode := "roll"
	if state.keep {
		mode = "keep"
	}
	return agentProcess{
		ID: p.id, Pid: p.pid, StartedAtMs: p.startedAt.UnixMilli(), Mode: mode,
		Offset: state.offset, WindowStart: state.windowStart, End: p.end, Note: p.note,
	}
}

// stdinPipe is the agent's end of a process's input.
type stdinPipe struct {
	file *os.File
	// fixed: its bytes came with the process, nothing can be added.
	fixed   bool
	writing sync.Mutex // one upload at a time: their bytes must not mix
}

func newStdinPipe(fixed bool) (*stdinPipe, int, error) {
	var ends [2]int
	if err := syscall.Pipe2(ends[:], syscall.O_CLOEXEC); err != nil {
		return nil, 0, err
	}
	if err := syscall.SetNonblock(ends[1], true); err != nil {
		closeAll(ends[:])
		return nil, 0, err
	}
	return &stdinPipe{file: os.NewFile(uintptr(ends[1]), "stdin"), fixed: fixed}, ends[0], nil
}

// abandon fails the upload under way and every later one.
func (s *stdinPipe) abandon() {
	_ = s.file.Close() // closing twice is an error that says so, no more
}
