package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// isKernels tells whether a file lies on one of the kernel's own file systems, where sizes mean nothing, nothing can be
// renamed and a walk finds no end of it.
func isKernels(file *os.File) bool {
	var stat syscall.Statfs_t
	err := withDescriptor(file, func(descriptor int) error { return syscall.Fstatfs(descriptor, &stat) })
	return err == nil && kernelFileSystems[int64(stat.Type)]
}

// withDescriptor lends a file's descriptor. Unlike file.Fd it leaves the file able to wait without holding a thread.
func withDescriptor(file *os.File, use func(descriptor int) error) error {
	connection, err := file.SyscallConn()
	if err != nil {
		return err
	}
	if failed := connection.Control(func(descriptor uintptr) { err = use(int(descriptor)) }); failed != nil {
		return failed
	}
	return err
}

// The magic numbers of statfs(2).
var kernelFileSystems = map[int64]bool{
	0x9fa0:     true, // proc
	0x62656572: true, // sysfs
	0x27e0eb:   true, // cgroup
	0x63677270: true, // cgroup2
	0x64626720: true, // debugfs
	0x74726163: true, // tracefs
	0x73636673: true, // securityfs
	0x62656570: true, // configfs
	0x6165676c: true, // pstore
	0xcafe4a11: true, // bpf
	0x1cd1:     true, // devpts
	0x19800202: true, // mqueue
	0x6e736673: true, // nsfs
	0x42494e4d: true, // binfmt_misc
}

// mountOf names the mount that an open file was reached by: files can be renamed within one mount only, and two mounts
// can show the same device. Where the kernel does not tell (gVisor) it is the device.
func mountOf(file *os.File) string {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", file.Fd()))
	if err == nil {
		for _, line := range strings.Split(string(info), "\n") {
			if strings.HasPrefix(line, "mnt_id:") {
				return line
			}
		}
	}
	var stat syscall.Stat_t
	if err := syscall.Fstat(int(file.Fd()), &stat); err != nil {
		return "unknown"
	}
	return fmt.Sprintf("device %d", stat.Dev)
}

// mountWithin gives a mount point that is path or lies beneath it, or "". The last component of path is not followed.
func mountWithin(path string) (string, error) {
	parent, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	real := filepath.Join(parent, filepath.Base(path))
	table, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer table.Close()
	lines := bufio.NewScanner(table)
	lines.Buffer(nil, 1<<20) // a line holds two paths and the options, of which overlay has many
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		point := unescapeMount(fields[4])
		if point == real || strings.HasPrefix(point, strings.TrimSuffix(real, "/")+"/") {
			return point, nil
		}
	}
	return "", lines.Err()
}

// The kernel writes space, tab, newline and backslash in mountinfo as three octal digits.
var unescapeMount = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace
