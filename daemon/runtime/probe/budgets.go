package main

import (
	"os"
	"strconv"
	"syscall"
)

// budgets takes of what the host shares until it is refused, says how much there was, and gives it back.
func budgets() map[string]string {
	full := os.WriteFile(linkDir+"/full", make([]byte, 1<<20), 0o600)
	_ = os.Remove(linkDir + "/full")
	return map[string]string{
		"bytes in the link directory": errorOf(full),
		"inotify instances":           takeAll(syscall.InotifyInit),
		"terminals":                   takeAll(func() (int, error) { return syscall.Open("/dev/ptmx", syscall.O_RDWR|syscall.O_NOCTTY, 0) }),
	}
}

func takeAll(take func() (int, error)) string {
	taken := []int{}
	defer func() {
		for _, fd := range taken {
			syscall.Close(fd)
		}
	}()
	for {
		fd, err := take()
		if err != nil {
			return strconv.Itoa(len(taken)) + " then " + errorOf(err)
		}
		taken = append(taken, fd)
	}
}
