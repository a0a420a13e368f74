// The agent: PID 1 of a sandbox. It offers mechanism and no policy: processes, files, events, over HTTP/1.1 on a unix
// socket. The contract is protocol/agent.ts and protocol/frame.ts.
//
// Without arguments it is what a sandbox needs. ATOLL_PIDS_LIMIT tells the pids limit where the cgroup does not.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

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

// surviveSignals handles every signal that would end this program or that children would inherit ignored: also PID 1
// gets those that it has handlers for, and Go's runtime has one for most, so any process of the sandbox could end it.
func surviveSignals() {
	var all []os.Signal
	for number := syscall.Signal(1); number < 32; number++ {
		if number != syscall.SIGURG && number != syscall.SIGCHLD { // the runtime's and the reaper's
			all = append(all, number)
		}
	}
	signal.Notify(make(chan os.Signal, 1), all...)
}
