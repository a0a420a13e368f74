package main

import (
	"os"
	"strconv"
	"strings"
)

// What the agent starts carries its marker only after its exec, in USER_HZ ticks of 10 ms.
const unmarkedTicks = 100

// leftBehind are the processes that belong to nothing that runs: what commands, services and terminals left in the
// background when they ended.
func (a *agent) leftBehind() []procStat {
	all := readProcesses() // before the table is looked at: of what is not in that yet, nothing is in here
	leaders, markers := a.processes.underWay()
	children := map[int][]int{}
	for _, one := range all {
		children[one.parent] = append(children[one.parent], one.pid)
	}
	belongs := map[int]bool{}
	add := func(pid int) {
		for next := []int{pid}; len(next) > 0; {
			at := next[len(next)-1]
			next = next[:len(next)-1]
			if !belongs[at] {
				belongs[at] = true
				next = append(next, children[at]...)
			}
		}
	}
	here := map[int]bool{} // leaders that are still the ones that were started
	for _, one := range all {
		if ticks, leads := leaders[one.pid]; leads && ticks == one.startTicks {
			here[one.pid] = true
			add(one.pid)
		}
	}
	self, now := os.Getpid(), uptimeTicks()
	var left []procStat
	for _, one := range all {
		marker := markerOf(one.pid)
		isStarting := marker == "" && one.parent == self && now < one.startTicks+unmarkedTicks
		if here[one.session] || markers[marker] || isStarting {
			add(one.pid)
		}
	}
	for _, one := range all {
		if !belongs[one.pid] {
			left = append(left, one)
		}
	}
	return left
}

func uptimeTicks() uint64 {
	whole, _, _ := strings.Cut(readSmall("/proc/uptime"), " ")
	seconds, _ := strconv.ParseFloat(whole, 64) // the kernel's own number
	return uint64(seconds * 100)
}
