package main

import (
	"syscall"
	"unsafe"
)

// program is what a child becomes. Unlike os/exec this sets the child's own resource limit and oom score before the
// program's first instruction: done from outside afterwards, a child that forks at once would escape both, and done on
// the agent itself a fork bomb would take the agent's next thread, which kills PID 1.
type program struct {
	path string
	argv []string
	env  []string
	// dir is entered with the rights of the child's user.
	dir string
	// files become the child's descriptors 0, 1, 2, ...
	files []int
	user  *credential
	// terminal: descriptor 0 becomes the terminal that controls the child's session.
	terminal bool
	// processLimit is RLIMIT_NPROC; 0 leaves it as it is.
	processLimit uint64
	oomScoreAdj  string
}

type credential struct {
	uid, gid uint32
	groups   []uint32
}

// forkFailure says at which step a child failed to become its program.
type forkFailure struct {
	step  forkStep
	errno syscall.Errno
}

type forkStep int32

const (
	stepFork forkStep = iota
	stepSession
	stepLimit
	stepUser
	stepDirectory
	stepFiles
	stepTerminal
	stepExec
)

func (f *forkFailure) Error() string { return f.errno.Error() }
func (f *forkFailure) Unwrap() error { return f.errno }

// lowestParkedFd is above every descriptor that a child gets, so that none is overwritten while they are put in place.
const lowestParkedFd = 32

// childPlan is everything the child needs, as plain memory: between fork and exec nothing may allocate. The child tells
// its failure here too, as it shares the parent's memory.
type childPlan struct {
	path, dir *byte
	argv, env []*byte
	files     []int
	parked    []int
	terminal  bool
	hasUser   bool
	uid, gid  uintptr
	groups    []uint32
	limit     *[2]uint64
	oomPath   *byte
	oom       []byte

	failedAt forkStep
	errno    syscall.Errno
}

//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

//go:linkname runtimeAfterForkInChild syscall.runtime_AfterForkInChild
func runtimeAfterForkInChild()

// rawVfork is clone(2) whose child shares the parent's memory and stack while the parent's thread waits for its exec.
func rawVfork(trap, flags uintptr) (pid, errno uintptr)

// startProgram starts a program in a session of its own and returns its pid when it runs. A child that failed on the
// way is already waited for. The caller keeps its files.
func startProgram(p program) (int, error) {
	plan, err := planChild(p)
	if err != nil {
		return 0, err
	}
	syscall.ForkLock.Lock()
	pid, errno := forkChild(plan)
	runtimeAfterFork()
	syscall.ForkLock.Unlock()
	if errno != 0 {
		return 0, &forkFailure{stepFork, errno}
	}
	if plan.errno != 0 {
		for {
			if _, err := syscall.Wait4(pid, nil, 0, nil); err != syscall.EINTR {
				break
			}
		}
		return 0, &forkFailure{plan.failedAt, plan.errno}
	}
	return pid, nil
}

func planChild(p program) (*childPlan, error) {
	plan := &childPlan{files: p.files, terminal: p.terminal, parked: make([]int, len(p.files))}
	var err error
	if plan.path, err = syscall.BytePtrFromString(p.path); err != nil {
		return nil, err
	}
	if p.dir != "" {
		if plan.dir, err = syscall.BytePtrFromString(p.dir); err != nil {
			return nil, err
		}
	}
	if plan.argv, err = syscall.SlicePtrFromStrings(p.argv); err != nil {
		return nil, err
	}
	if plan.env, err = syscall.SlicePtrFromStrings(p.env); err != nil {
		return nil, err
	}
	if p.user != nil {
		plan.hasUser, plan.uid, plan.gid, plan.groups = true, uintptr(p.user.uid), uintptr(p.user.gid), p.user.groups
	}
	if p.processLimit > 0 {
		plan.limit = &[2]uint64{p.processLimit, p.processLimit}
	}
	if p.oomScoreAdj != "" {
		plan.oom = []byte(p.oomScoreAdj)
		if plan.oomPath, err = syscall.BytePtrFromString("/proc/self/oom_score_adj"); err != nil {
			return nil, err
		}
	}
	return plan, nil
}

const (
	atFdCwd     = ^uintptr(99) // AT_FDCWD, -100
	rlimitNproc = 6
	prlimitTrap = syscall.SYS_PRLIMIT64
)

// forkChild returns only in the parent, at once: the child goes on in this stack frame, which the parent must not touch
// again. So nothing here may allocate, be preempted, or call what is not assembly or a raw system call.
//
//go:noinline
//go:norace
//go:nocheckptr
func forkChild(plan *childPlan) (int, syscall.Errno) {
	var (
		pid, failure, fd, groups uintptr
		errno                    syscall.Errno
		i                        int
	)
	if len(plan.groups) > 0 {
		groups = uintptr(unsafe.Pointer(&plan.groups[0]))
	}
	runtimeBeforeFork()
	pid, failure = rawVfork(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD)|syscall.CLONE_VFORK|syscall.CLONE_VM)
	if failure != 0 || pid != 0 {
		return int(pid), syscall.Errno(failure)
	}

	runtimeAfterForkInChild()

	plan.failedAt = stepSession
	if _, _, errno = syscall.RawSyscall(syscall.SYS_SETSID, 0, 0, 0); errno != 0 {
		goto failed
	}
	// Without /proc, or where raising is refused, the program runs all the same: this only ranks victims.
	if plan.oomPath != nil {
		fd, _, errno = syscall.RawSyscall6(syscall.SYS_OPENAT, atFdCwd, uintptr(unsafe.Pointer(plan.oomPath)), syscall.O_WRONLY|syscall.O_CLOEXEC, 0, 0, 0)
		if errno == 0 {
			_, _, _ = syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(&plan.oom[0])), uintptr(len(plan.oom)))
			_, _, _ = syscall.RawSyscall(syscall.SYS_CLOSE, fd, 0, 0)
		}
	}
	plan.failedAt = stepLimit
	if plan.limit != nil {
		if _, _, errno = syscall.RawSyscall6(prlimitTrap, 0, rlimitNproc, uintptr(unsafe.Pointer(plan.limit)), 0, 0, 0); errno != 0 {
			goto failed
		}
	}
	plan.failedAt = stepFiles
	for i = 0; i < len(plan.files); i++ {
		fd, _, errno = syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(plan.files[i]), syscall.F_DUPFD_CLOEXEC, lowestParkedFd)
		if errno != 0 {
			goto failed
		}
		plan.parked[i] = int(fd)
	}
	for i = 0; i < len(plan.files); i++ {
		if _, _, errno = syscall.RawSyscall(syscall.SYS_DUP3, uintptr(plan.parked[i]), uintptr(i), 0); errno != 0 {
			goto failed
		}
	}
	plan.failedAt = stepTerminal
	if plan.terminal {
		if _, _, errno = syscall.RawSyscall(syscall.SYS_IOCTL, 0, syscall.TIOCSCTTY, 0); errno != 0 {
			goto failed
		}
	}
	plan.failedAt = stepUser
	if plan.hasUser {
		if _, _, errno = syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(plan.groups)), groups, 0); errno != 0 {
			goto failed
		}
		if _, _, errno = syscall.RawSyscall(syscall.SYS_SETGID, plan.gid, 0, 0); errno != 0 {
			goto failed
		}
		if _, _, errno = syscall.RawSyscall(syscall.SYS_SETUID, plan.uid, 0, 0); errno != 0 {
			goto failed
		}
	}
	plan.failedAt = stepDirectory
	if plan.dir != nil {
		if _, _, errno = syscall.RawSyscall(syscall.SYS_CHDIR, uintptr(unsafe.Pointer(plan.dir)), 0, 0); errno != 0 {
			goto failed
		}
	}
	plan.failedAt = stepExec
	_, _, errno = syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(plan.path)), uintptr(unsafe.Pointer(&plan.argv[0])), uintptr(unsafe.Pointer(&plan.env[0])))

failed:
	plan.errno = errno
	for {
		_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 253, 0, 0)
	}
}
