package main

import (
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"
)

// Where images keep bash; the last is a static one that the host may bring along.
var bashPaths = []string{"/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash", "/run/atoll/bash"}

// findShell gives the shell of the image, "" when there is none, and whether it is bash.
func findShell() (string, bool) {
	for _, candidate := range bashPaths {
		if executable(candidate) {
			return candidate, true
		}
	}
	for _, candidate := range []string{"/bin/sh", "/usr/bin/sh"} {
		if executable(candidate) {
			return candidate, false
		}
	}
	return "", false
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// quoteShell makes one word of any text, in the form that every POSIX shell reads.
func quoteShell(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// memoryFile gives a descriptor that reads the text from its start and lies in no file system.
func memoryFile(text []byte) (int, error) {
	trap, ok := map[string]uintptr{"amd64": 319, "arm64": 279}[runtime.GOARCH]
	if !ok {
		return 0, syscall.ENOSYS
	}
	name := []byte("script\x00")
	fd, _, errno := syscall.Syscall(trap, uintptr(unsafe.Pointer(&name[0])), 1 /* MFD_CLOEXEC */, 0)
	if errno != 0 {
		return 0, errno
	}
	for offset := 0; offset < len(text); {
		n, err := syscall.Pwrite(int(fd), text[offset:], int64(offset))
		if err != nil && err != syscall.EINTR {
			_ = syscall.Close(int(fd))
			return 0, err
		}
		if n > 0 {
			offset += n
		}
	}
	return int(fd), nil
}
