package main

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sort"
	"syscall"
	"time"
)

func (a *agent) postProcess(w http.ResponseWriter, r *http.Request, _ []string) error {
	var spec processSpec
	if err := readRequest(w, r, &spec); err != nil {
		return err
	}
	after, err := position(r)
	if err != nil {
		return err
	}
	attempt := spec.Attempt
	if after > 0 {
		attempt = "" // who has read of a process means that one
	}
	p, err := a.processes.findOrStart(spec.ID, attempt, func() (*process, func(), error) {
		if after > 0 {
			return nil, nil, refuse("PROCESS_NOT_FOUND", "Cannot read process %q from %d: there is no such process", spec.ID, after)
		}
		return a.start(&spec)
	})
	if err != nil {
		return err
	}
	if err := beyond(p, after); err != nil {
		return err
	}
	f := follower{process: p, writer: w, position: after, wait: true}
	if spec.Mode == "keep" { // a ring waits for nobody: it may have many readers
		f.foreground = p.attach(after)
		defer p.detach(f.foreground)
	}
	if f.run(r.Context().Done(), a.times.heartbeat) {
		a.processes.delivered(p)
	}
	return nil
}

func (a *agent) getProcesses(w http.ResponseWriter, _ *http.Request, _ []string) error {
	list := processList{Processes: []agentProcess{}}
	for _, p := range a.processes.all() {
		list.Processes = append(list.Processes, p.describeNow())
	}
	sort.Slice(list.Processes, func(i, j int) bool {
		return list.Processes[i].StartedAtMs < list.Processes[j].StartedAtMs
	})
	writeJSON(w, http.StatusOK, list)
	return nil
}

func (a *agent) getProcess(w http.ResponseWriter, _ *http.Request, names []string) error {
	p, err := a.processes.find(names[0])
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, p.describeNow())
	return nil
}

func (a *agent) getLog(w http.ResponseWriter, r *http.Request, names []string) error {
	p, err := a.processes.find(names[0])
	if err != nil {
		return err
	}
	after, err := position(r)
	if err == nil {
		err = beyond(p, after)
	}
	if err != nil {
		return err
	}
	follow, err := queryFlag(r, "follow")
	if err != nil {
		return err
	}
	f := follower{process: p, writer: w, position: after, wait: follow}
	f.run(r.Context().Done(), a.times.heartbeat)
	return nil
}

func queryFlag(r *http.Request, name string) (bool, error) {
	switch text := r.URL.Query().Get(name); text {
	case "", "0":
		return false, nil
	case "1":
		return true, nil
	default:
		return false, refuse("VALIDATION_FAILED", "Cannot read %s=%q: it is 0 or 1", name, text)
	}
}

func (a *agent) putStdin(w http.ResponseWriter, r *http.Request, names []string) error {
	p, err := a.processes.find(names[0])
	if err != nil {
		return err
	}
	end, err := queryFlag(r, "end")
	if err != nil {
		return err
	}
	if p.stdin == nil || p.stdin.fixed {
		return refuse("VALIDATION_FAILED", "Cannot write to process %q: it was started without an input pipe", p.id)
	}
	if err := p.stdin.write(r.Body, end); err != nil {
		if errors.Is(err, syscall.EPIPE) || errors.Is(err, errClosed) {
			// The kernel closes a dying process's files before its parent hears of its death.
			select {
			case <-p.done:
				return refuse("PROCESS_NOT_FOUND", "Cannot write to process %q: it has ended", p.id)
			case <-time.After(graceQuiet):
			}
			return refuse("STALE_HANDLE", "Cannot write to process %q: its input is closed", p.id)
		}
		return err
	}
	writeJSON(w, http.StatusOK, struct{}{})
	return nil
}

var errClosed = errors.New("closed")

// write passes bytes on as fast as the process takes them. An upload that is cut off leaves the pipe open.
func (s *stdinPipe) write(from io.Reader, end bool) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	buffer := pumpBuffers.Get().(*[64 << 10]byte)
	defer pumpBuffers.Put(buffer)
	for {
		n, err := from.Read(buffer[:])
		if n > 0 {
			if _, err := s.file.Write(buffer[:n]); err != nil {
				return asClosed(err)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return refuse("ABORTED", "Cannot read the input that was sent: %v", err)
		}
	}
	if end {
		return asClosed(s.file.Close())
	}
	return nil
}

func asClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return errClosed
	}
	return err
}

// feed gives the process its whole input, then the end. A process that does not want it is no error.
func (s *stdinPipe) feed(input []byte) {
	_, _ = s.file.Write(input)
	s.abandon()
}

func (a *agent) postSignal(w http.ResponseWriter, r *http.Request, names []string) error {
	p, err := a.processes.find(names[0])
	if err != nil {
		return err
	}
	signal, _, err := requestedSignal(w, r)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, signalResult{p.signal(signal)})
	return nil
}

func requestedSignal(w http.ResponseWriter, r *http.Request) (signal syscall.Signal, leftBehind bool, err error) {
	var request signalRequest
	if err := readRequest(w, r, &request); err != nil {
		return 0, false, err
	}
	signal, err = signalNamed(request.Signal)
	return signal, request.LeftBehind, err
}

func (a *agent) postStop(w http.ResponseWriter, r *http.Request, names []string) error {
	p, err := a.processes.find(names[0])
	if err != nil {
		return err
	}
	var request stopRequest
	if err := readRequest(w, r, &request); err != nil {
		return err
	}
	grace := 5 * time.Second
	if request.GraceMs != nil {
		grace = time.Duration(*request.GraceMs) * time.Millisecond
	}
	if request.Reason != "aborted" && request.Reason != "killed" && request.Reason != "stopped" || grace < 0 {
		return refuse("VALIDATION_FAILED", "Cannot stop a process: the reason is aborted, killed or stopped, the grace not negative")
	}
	go p.stop(request.Reason, grace)
	writeJSON(w, http.StatusAccepted, struct{}{})
	return nil
}

func (a *agent) deleteProcess(w http.ResponseWriter, _ *http.Request, names []string) error {
	p, err := a.processes.find(names[0])
	if err != nil {
		return err
	}
	select {
	case <-p.done:
	default:
		return refuse("RESOURCE_BUSY", "Cannot forget process %q: it is running. Stop it first", p.id)
	}
	a.processes.forget(p)
	writeJSON(w, http.StatusOK, struct{}{})
	return nil
}

// postSignalAll signals every process of the sandbox but the agent.
func (a *agent) postSignalAll(w http.ResponseWriter, r *http.Request, _ []string) error {
	signal, leftBehind, err := requestedSignal(w, r)
	if err != nil {
		return err
	}
	if !a.isInit {
		return refuse("NOT_SUPPORTED", "Cannot signal every process: this agent is not PID 1 and others' processes are beside it")
	}
	signalled := 0
	if leftBehind {
		a.reaper.whileNothingStarts(func() { signalled = signalAll(a.leftBehind, signal) })
		writeJSON(w, http.StatusOK, signalResult{signalled})
		return nil
	}
	for _, p := range a.processes.all() {
		p.mutex.Lock()
		p.asked = signal
		p.mutex.Unlock()
	}
	a.reaper.whileNothingStarts(func() {
		if signal == syscall.SIGKILL {
			_ = syscall.Kill(-1, syscall.SIGSTOP) // everybody but PID 1 at once, as in freezeGroup
		}
		signalled = signalAll(readProcesses, signal)
	})
	writeJSON(w, http.StatusOK, signalResult{signalled})
	return nil
}

func (a *agent) getHello(w http.ResponseWriter, _ *http.Request, _ []string) error {
	writeJSON(w, http.StatusOK, agentHello{linkVersion, a.pid, a.startedAt.UnixMilli()})
	return nil
}
