package main

import (
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// account is whom a process runs as. The image's own files say it: its C library is not ours.
type account struct {
	name, home, shell string
	// nil: as the agent itself.
	credential *credential
}

// An account file is read whole; a larger one is no such file.
const accountFileLimitBytes = 4 << 20

// findAccount finds a user by name or number, "" being root. A number that the image does not know has no home.
func findAccount(user string) (account, error) {
	return lookupAccount(user, readAccountFile("/etc/passwd"), readAccountFile("/etc/group"))
}

func lookupAccount(user, passwd, group string) (account, error) {
	if user == "" {
		user = "root"
	}
	number, numeric := parseID(user)
	for _, line := range strings.Split(passwd, "\n") {
		field := strings.Split(strings.TrimSuffix(line, "\r"), ":")
		if len(field) < 4 {
			continue
		}
		uid, uidOk := parseID(field[2])
		gid, gidOk := parseID(field[3])
		if !uidOk || !gidOk || field[0] == "" || (field[0] != user && !(numeric && uid == number)) {
			continue
		}
		found := account{name: field[0], home: "/", shell: "/bin/sh"}
		if len(field) > 5 && strings.HasPrefix(field[5], "/") {
			found.home = field[5]
		}
		if len(field) > 6 && strings.HasPrefix(field[6], "/") {
			found.shell = field[6]
		}
		if uid != 0 || gid != 0 {
			found.credential = &credential{uid, gid, memberships(field[0], gid, group)}
		}
		return found, nil
	}
	switch {
	case user == "root" || (numeric && number == 0):
		return account{name: "root", home: "/root", shell: "/bin/sh"}, nil
	case numeric:
		return account{name: user, home: "/", shell: "/bin/sh", credential: &credential{number, number, []uint32{number}}}, nil
	}
	return account{}, refuse("VALIDATION_FAILED", "Cannot run as %q: /etc/passwd of the sandbox has no such user", user)
}

func memberships(user string, primary uint32, group string) []uint32 {
	groups := []uint32{primary}
	for _, line := range strings.Split(group, "\n") {
		field := strings.Split(strings.TrimSuffix(line, "\r"), ":")
		if len(field) < 4 {
			continue
		}
		gid, ok := parseID(field[2])
		if !ok || gid == primary {
			continue
		}
		for _, member := range strings.Split(field[3], ",") {
			if member == user && len(groups) < 65536 {
				groups = append(groups, gid)
				break
			}
		}
	}
	return groups
}

// parseID reads a uid or gid; the largest number means "no id" to the kernel.
func parseID(text string) (uint32, bool) {
	number, err := strconv.ParseUint(text, 10, 32)
	if err != nil || number == 1<<32-1 || text[0] == '+' {
		return 0, false
	}
	return uint32(number), true
}

// readAccountFile gives "" for what cannot be read: an image needs no such file. The sandbox may have put a FIFO there.
func readAccountFile(path string) string {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	text, err := io.ReadAll(io.LimitReader(file, accountFileLimitBytes))
	if err != nil {
		return ""
	}
	return string(text)
}
