package main

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"strconv"
	"syscall"
)

// procStat is what the tree of a process is found by.
type procStat struct {
	pid, parent, session int
	state                byte
	startTicks           uint64
}

// parseStat reads /proc/PID/stat. The name in parentheses is the process's own choice: it may hold anything, also ")".
func parseStat(text []byte) (procStat, bool) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 1 || end < open {
		return procStat{}, false
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(text[:open])))
	fields := bytes.Fields(text[end+1:])
	if err != nil || pid <= 0 || len(fields) < 20 || len(fields[0]) != 1 {
		return procStat{}, false
	}
	parent, err1 := strconv.Atoi(string(fields[1]))
	session, err2 := strconv.Atoi(string(fields[3]))
	start, err3 := strconv.ParseUint(string(fields[19]), 10, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return procStat{}, false
	}
	return procStat{pid, parent, session, fields[0][0], start}, true
}

// readProcesses gives every process but the agent that is not dead yet.
func readProcesses() []procStat {
	directory, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer directory.Close()
	names, _ := directory.Readdirnames(-1) // what was read before an error counts
	self := os.Getpid()
	var found []procStat
	for _, name := range names {
		if name[0] < '1' || name[0] > '9' {
			continue
		}
		text, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // it has ended meanwhile
		}
		stat, ok := parseStat(text)
		if ok && stat.pid != self && stat.state != 'Z' && stat.state != 'X' {
			found = append(found, stat)
		}
	}
	return found
}

// markerOf is the entry by which the environment that a process was started with says what it belongs to; "" without one.
func markerOf(pid int) string {
	process := "/proc/" + strconv.Itoa(pid)
	environment, err := os.ReadFile(process + "/environ")
	if errors.Is(err, syscall.EACCES) {
		asOwner(process, func() { environment, err = os.ReadFile(process + "/environ") })
	}
	if err != nil {
		return ""
	}
	return markerIn(environment)
}

// asOwner looks at a process of another user as that user: the kernel shows what is in a process to its own user alone, also
// to root, whose capability for it (CAP_SYS_PTRACE) a sandbox does not have.
func asOwner(process string, look func()) {
	var owner syscall.Stat_t
	if syscall.Stat(process, &owner) != nil {
		return
	}
	if int(owner.Uid) == os.Geteuid() && int(owner.Gid) == os.Getegid() {
		look()
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	become := func(uid, gid uint32) {
		// the thread's alone; root may become anybody, and who it was again
		_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSGID, uintptr(gid), 0, 0)
		_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, uintptr(uid), 0, 0)
	}
	become(owner.Uid, owner.Gid)
	defer become(uint32(os.Geteuid()), uint32(os.Getegid()))
	look()
}

func markerIn(environment []byte) string {
	prefix := []byte(processMarker + "=")
	for len(environment) > 0 {
		entry := environment
		if i := bytes.IndexByte(environment, 0); i >= 0 {
			entry, environment = environment[:i], environment[i+1:]
		} else {
			environment = nil
		}
		if bytes.HasPrefix(entry, prefix) {
			return string(entry)
		}
	}
	return ""
}
