// The agent: PID 1 of a sandbox. It offers mechanism and no policy: processes, files, events, over HTTP/1.1 on a unix
// socket. The contract is protocol/agent.ts and protocol/frame.ts.
//
// Without arguments it is what a sandbox needs. ATOLL_PIDS_LIMIT tells the pids limit where the cgroup does not.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
)

func init() {
	// The thread on which os/signal waits blocks the signals that it does not wait for, and what PID 1's first thread
	// blocks the kernel cannot drop: so that one is kept from it.
	runtime.LockOSThread()
}

func main() {
	chosen := defaultSettings()
	flag.StringVar(&chosen.socket, "socket", chosen.socket, "the unix socket to listen on")
	flag.StringVar(&chosen.sessions, "sessions", chosen.sessions, "the directory of the sessions' saved state")
	flag.StringVar(&chosen.cgroup, "cgroup", chosen.cgroup, "where the sandbox's own cgroup can be read")
	flag.StringVar(&chosen.workspace, "workspace", chosen.workspace, "the directory of the default session")
	flag.StringVar(&chosen.pidsLimit, "pids-limit", os.Getenv("ATOLL_PIDS_LIMIT"), "the sandbox's pids limit")
	flag.DurationVar(&chosen.times.readerAway, "reader-away", chosen.times.readerAway, "how long a process waits for its reader")
	flag.DurationVar(&chosen.times.keepDelivered, "keep-delivered", chosen.times.keepDelivered, "how long a delivered log is kept")
	flag.DurationVar(&chosen.times.keepUndelivered, "keep-undelivered", chosen.times.keepUndelivered, "how long an undelivered log is kept")
	flag.DurationVar(&chosen.times.heartbeat, "heartbeat", chosen.times.heartbeat, "the longest silence on a stream")
	flag.Parse()
	surviveSignals()
	runtime.UnlockOSThread()
	closeOnExec()
	if err := serve(chosen); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// closeOnExec keeps from children what the agent was handed by accident by whoever started it.
func closeOnExec() {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return // without /proc nothing is known to be there
	}
	for _, name := range names {
		if fd, err := strconv.Atoi(name.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}
