package main

import (
	"os"
	"os/exec"
	"strconv"
	"time"
)

// runChild runs this program again and says how it ended, with what it printed.
func runChild(what string) string {
	output, err := exec.Command("/proc/self/exe", "child", what).CombinedOutput()
	if err != nil {
		return string(output) + err.Error()
	}
	return string(output) + "done"
}

func child(args []string) {
	switch args[0] {
	case "memory":
		takeMemory()
	case "pids":
		takePids()
	case "wait":
		time.Sleep(time.Hour)
	}
}

// takeMemory touches memory until the kernel ends it; 64 GiB is beyond any test's limit.
func takeMemory() {
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("500"), 0o600)
	kept := [][]byte{}
	for i := 0; i < 64*1024; i++ {
		block := make([]byte, 1<<20)
		for at := 0; at < len(block); at += 4096 {
			block[at] = 1
		}
		kept = append(kept, block)
	}
	os.Exit(len(kept) & 1)
}

// takePids starts processes until one is refused, says how many there were, and ends them.
func takePids() {
	children := []*exec.Cmd{}
	for {
		command := exec.Command("/proc/self/exe", "child", "wait")
		if err := command.Start(); err != nil {
			os.Stdout.WriteString(strconv.Itoa(len(children)) + " then " + errorOf(err) + " ")
			break
		}
		children = append(children, command)
	}
	for _, command := range children {
		_ = command.Process.Kill()
		_ = command.Wait()
	}
}
