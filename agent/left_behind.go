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
	belongs := map[int]bool{}
	for _, one := range belonging(all, leaders, markers) {
		belongs[one.pid] = true
	}
	self, now := os.Getpid(), uptimeTicks()
	var left []procStat
	for _, one := range all {
		isStarting := one.parent == self && now < one.startTicks+unmarkedTicks && markerOf(one.pid) == ""
		if !belongs[one.pid] && !isStarting {
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
