package main

import (
	"sync"
	"syscall"
	"time"
)

const processMarker = "ATOLL_PROCESS"

// A tree that is still growing after this long grows faster than it can be frozen: what was found is signalled.
const freezeLimit = 2 * time.Second

// A killed process goes at once unless it hangs in the kernel: after this long nobody waits for it.
const uninterruptibleLimit = 5 * time.Second

// tree is a process with everything it started: its descendants, the members of its session and whatever carries its
// marker in the environment.
type tree struct {
	leader     int
	startTicks uint64
	marker     string
}

func (t tree) members() []procStat {
	return belonging(readProcesses(), map[int]uint64{t.leader: t.startTicks}, map[string]bool{t.marker: true})
}

// belonging gives those of `all` that are in the trees of these leaders, who are told with their start times, or carry one of
// these markers.
func belonging(all []procStat, leaders map[int]uint64, markers map[string]bool) []procStat {
	children := map[int][]procStat{}
	var members []procStat
	inTree := map[int]bool{}
	add := func(one procStat) {
		if !inTree[one.pid] {
			inTree[one.pid] = true
			members = append(members, one)
		}
	}
	reused := map[int]bool{}
	for _, one := range all {
		children[one.parent] = append(children[one.parent], one)
		if ticks, leads := leaders[one.pid]; leads {
			if ticks != 0 && one.startTicks != ticks {
				reused[one.pid] = true
			} else {
				add(one)
			}
		}
	}
	for _, one := range all {
		if _, leads := leaders[one.session]; leads && !reused[one.session] {
			add(one)
		}
	}
	followed := 0
	follow := func() {
		for ; followed < len(members); followed++ {
			for _, child := range children[members[followed].pid] {
				add(child)
			}
		}
	}
	follow()
	for _, one := range all {
		if !inTree[one.pid] && markers[markerOf(one.pid)] {
			add(one)
		}
	}
	follow()
	return members
}

// freezeGroup stops the leader's process group at once, which no fork escapes: a fork bomb leaves the agent so little
// of the processor that finding its members one by one would take minutes. Only while the leader is there, as its number
// may be another's afterwards.
func (t tree) freezeGroup() {
	if t.startTicks != 0 && startTicks(t.leader) == t.startTicks {
		_ = syscall.Kill(-t.leader, syscall.SIGSTOP) // it may have ended meanwhile
	}
}

// signal gives one signal to each process of the tree, once, and returns how many there were.
func (t tree) signal(signal syscall.Signal) int {
	if signal == syscall.SIGKILL {
		t.freezeGroup()
	}
	return signalAll(t.members, signal)
}

// freezing: one at a time, or one would take what another has just stopped for stopped by its user, and leave it so.
var freezing sync.Mutex

// signalAll freezes what `members` finds, in rounds until nobody new was found by a round and by one more that began when all
// had really stopped: a fork that was under way when its parent was told to stop still makes its child. Then it gives each the
// signal and lets it go on. So neither a fork between looking and signalling escapes, nor is a cleanup hit that a handler
// starts afterwards.
func signalAll(members func() []procStat, signal syscall.Signal) int {
	freezing.Lock()
	defer freezing.Unlock()
	type identity struct {
		pid   int
		start uint64
	}
	seen := map[identity]bool{}
	var found []procStat
	freeze := signal != syscall.SIGSTOP && signal != syscall.SIGCONT
	deadline := time.Now().Add(freezeLimit)
	allStopped := !freeze
	for {
		grown, moving := false, false
		for _, one := range members() {
			key := identity{one.pid, one.startTicks}
			if seen[key] {
				moving = moving || one.state == 'R' || one.state == 'S'
				continue
			}
			seen[key], grown = true, true
			found = append(found, one)
			if freeze {
				_ = syscall.Kill(one.pid, syscall.SIGSTOP) // it may have ended meanwhile
			}
		}
		if !grown && allStopped || time.Now().After(deadline) {
			break
		}
		allStopped = !freeze || !grown && !moving
	}
	signalled := 0
	for i := len(found) - 1; i >= 0; i-- {
		if syscall.Kill(found[i].pid, signal) == nil {
			signalled++
		}
	}
	// Children before parents: a shell must not see its child stopped. Who was stopped before stays so.
	for i := len(found) - 1; i >= 0; i-- {
		if freeze && found[i].state != 'T' && signal != syscall.SIGKILL {
			_ = syscall.Kill(found[i].pid, syscall.SIGCONT)
		}
	}
	return signalled
}

// end gives SIGTERM, waits until the tree is empty or the grace is over, and gives SIGKILL to the rest.
func (t tree) end(grace time.Duration) {
	if grace > 0 {
		signalAll(t.members, syscall.SIGTERM)
		deadline := time.Now().Add(grace)
		pause := 2 * time.Millisecond
		for len(t.members()) > 0 {
			left := time.Until(deadline)
			if left <= 0 {
				break
			}
			if pause > left {
				pause = left
			}
			time.Sleep(pause)
			if pause < 50*time.Millisecond {
				pause *= 2
			}
		}
	}
	t.freezeGroup()
	deadline := time.Now().Add(uninterruptibleLimit)
	for signalAll(t.members, syscall.SIGKILL) > 0 && time.Now().Before(deadline) {
		time.Sleep(2 * time.Millisecond) // a killed process is listed until it has gone
	}
}
