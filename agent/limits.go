package main

import (
	"os"
	"strconv"
	"strings"
)

// Of a pids limit these many stay for the agent's threads: a fork bomb must not take the last one.
const reservedForAgent = 64

// limits are what the sandbox may use, as its own cgroup tells (version 1 or 2, read-only below /sys/fs/cgroup). They are
// read when they are needed: who the sandbox belongs to, and so how much it may have, can be decided after the agent's start.
type limits struct {
	root string
	// told is the pids limit where the cgroup does not tell it.
	told string
}

// pids is 0 when there is no limit.
func (l limits) pids() int {
	texts := []string{l.told, readSmall(l.root + "/pids.max"), readSmall(l.root + "/pids/pids.max")}
	for _, text := range texts {
		if count, err := strconv.Atoi(strings.TrimSpace(text)); err == nil && count > 0 {
			return count
		}
	}
	return 0
}

// processLimit is RLIMIT_NPROC of every process but the agent; 0 means none.
func (l limits) processLimit() uint64 {
	pids := l.pids()
	if pids == 0 {
		return 0
	}
	if pids <= 2*reservedForAgent {
		return uint64(pids+1) / 2
	}
	return uint64(pids - reservedForAgent)
}

// full tells whether one more process would take what is reserved for the agent's threads: RLIMIT_NPROC binds its
// children, not itself. Where the count cannot be read the cgroup's own limit is all there is.
func (l limits) full() bool {
	limit := l.processLimit()
	if limit == 0 {
		return false
	}
	for _, path := range []string{"/pids.current", "/pids/pids.current"} {
		if count, err := strconv.ParseUint(strings.TrimSpace(readSmall(l.root+path)), 10, 64); err == nil {
			return count >= limit
		}
	}
	return false
}

// memoryKills counts the processes killed because the sandbox's memory was used up; -1 where that cannot be known.
func (l limits) memoryKills() int64 {
	for _, path := range []string{"/memory.events", "/memory/memory.oom_control"} {
		for _, line := range strings.Split(readSmall(l.root+path), "\n") {
			if strings.HasPrefix(line, "oom_kill ") {
				if count, err := strconv.ParseInt(strings.TrimSpace(line[len("oom_kill "):]), 10, 64); err == nil {
					return count
				}
			}
		}
	}
	return -1
}

// memoryBytes is the memory limit, 0 when there is none.
func (l limits) memoryBytes() int64 {
	for _, path := range []string{"/memory.max", "/memory/memory.limit_in_bytes"} {
		count, err := strconv.ParseInt(strings.TrimSpace(readSmall(l.root+path)), 10, 64)
		// Version 1 says "none" by a number close to the largest.
		if err == nil && count > 0 && count < 1<<60 {
			return count
		}
	}
	return 0
}

func readSmall(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(text)
}
