package main

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// reaper waits for every child of the agent: those it started and, as PID 1, every orphan of the sandbox.
type reaper struct {
	// Held for reading from fork until the pid is in `waiting`, so that no child is reaped before somebody expects it.
	starting sync.RWMutex
	mutex    sync.Mutex
	waiting  map[int]chan<- exitStatus
}

type exitStatus struct {
	status syscall.WaitStatus
	usage  syscall.Rusage
}

func newReaper() *reaper {
	r := &reaper{waiting: map[int]chan<- exitStatus{}}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGCHLD)
	go func() {
		for range signals {
			r.reap()
		}
	}()
	return r
}

// child is a program that was started. Its number may be another's once it has ended, its number and start together never.
type child struct {
	pid        int
	startTicks uint64
	exited     <-chan exitStatus // gives one
}

func (r *reaper) start(p program) (child, error) {
	r.starting.RLock()
	defer r.starting.RUnlock()
	pid, err := startProgram(p)
	if err != nil {
		return child{}, err
	}
	ticks := startTicks(pid) // now: one that has ended already is not reaped before the lock is given back
	exited := make(chan exitStatus, 1)
	r.mutex.Lock()
	r.waiting[pid] = exited
	r.mutex.Unlock()
	return child{pid, ticks, exited}, nil
}

// whileNothingStarts holds back starts, and reaping. A child that is stopped before its exec keeps a thread of the agent in
// the kernel, and with it at the next garbage collection everybody: who would let it go on too.
func (r *reaper) whileNothingStarts(do func()) {
	r.starting.Lock()
	defer r.starting.Unlock()
	do()
}

// reap takes all that have ended: several ends may come as one SIGCHLD.
func (r *reaper) reap() {
	for {
		var end exitStatus
		r.starting.Lock()
		pid, err := syscall.Wait4(-1, &end.status, syscall.WNOHANG, &end.usage)
		r.starting.Unlock()
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		r.mutex.Lock()
		exited := r.waiting[pid]
		delete(r.waiting, pid)
		r.mutex.Unlock()
		if exited != nil {
			exited <- end
		}
	}
}
