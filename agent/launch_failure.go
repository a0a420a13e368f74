package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"
)

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
