package main

import (
	"errors"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// try calls what the sandbox must not be able to do and gives what the kernel said: an errno's name or "done".
func try() map[string]string {
	said := map[string]string{}
	for name, call := range refusedCalls {
		_, _, errno := syscall.RawSyscall6(call.number, call.args[0], call.args[1], call.args[2], call.args[3], call.args[4], call.args[5])
		said[name] = errnoName(errno)
	}
	for name, flag := range namespaceFlags {
		said["clone "+name] = cloneWith(flag)
	}
	_, _, errno := syscall.RawSyscall(sysClone3, 0, 0, 0)
	said["clone3"] = errnoName(errno)

	for name, family := range map[string]int{"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16, "AF_PACKET": 17, "AF_ALG": 38, "AF_VSOCK": 40, "AF_XDP": 44} {
		fd, err := syscall.Socket(family, map[bool]int{true: syscall.SOCK_RAW, false: syscall.SOCK_STREAM}[family == 16], 0)
		if err == nil {
			syscall.Close(fd)
		}
		said["socket "+name] = errorOf(err)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_ICMP)
	if err == nil {
		syscall.Close(fd)
	}
	said["raw socket"] = errorOf(err)

	said["mknod block device"] = errorOf(syscall.Mknod("/tmp/disk", syscall.S_IFBLK|0o600, 254<<8))
	said["mknod mem"] = errorOf(syscall.Mknod("/tmp/mem", syscall.S_IFCHR|0o600, 1<<8|1))
	said["mknod in /dev"] = errorOf(syscall.Mknod("/dev/kmsg", syscall.S_IFCHR|0o600, 1<<8|11))
	said["mkfifo"] = errorOf(syscall.Mkfifo("/tmp/fifo", 0o600))
	said["chown"] = errorOf(chowned("/tmp/owned", 1000))
	said["chown beyond the map"] = errorOf(chowned("/tmp/beyond", 70_000))
	for _, file := range []string{
		"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/user/max_user_namespaces",
		"/proc/sys/net/ipv4/ip_forward", "/proc/sysrq-trigger", "/proc/self/uid_map", "/proc/1/oom_score_adj",
		"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids/cgroup.procs", "/sys/fs/cgroup/cgroup.procs",
		"/run/atoll/agent", "/run/atoll/ca.pem", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf",
	} {
		said["write "+file] = errorOf(writeTo(file))
	}
	for _, file := range []string{"/run/atoll/agent", "/etc/hosts", "/proc/kcore", "/run/atoll/link"} {
		said["remove "+file] = errorOf(os.Remove(file))
	}
	said["make /run/atoll/more"] = errorOf(os.Mkdir("/run/atoll/more", 0o755))
	said["make /sys/more"] = errorOf(os.Mkdir("/sys/more", 0o755))
	said["sethostname"] = errorOf(syscall.Sethostname([]byte("other")))
	said["chroot"] = errorOf(chrootAndBack())
	said["nice -5"] = errorOf(syscall.Setpriority(syscall.PRIO_PROCESS, 0, -5))
	said["more open files"] = errorOf(moreOpenFiles())
	said["threads"] = threads()
	said["child process"] = runChild("nothing")
	return said
}

type rawCall struct {
	number uintptr
	args   [6]uintptr
}

var namespaceFlags = map[string]uintptr{
	"NEWNS": 0x00020000, "NEWCGROUP": 0x02000000, "NEWUTS": 0x04000000, "NEWIPC": 0x08000000,
	"NEWUSER": 0x10000000, "NEWPID": 0x20000000, "NEWNET": 0x40000000, "NEWUSER|NEWNS": 0x10020000,
}

// cloneWith is fork with flags. A child that should never have been leaves at once.
func cloneWith(flags uintptr) string {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, flags|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno == 0 && pid == 0 {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
	return errnoName(errno)
}

func chowned(file string, id int) error {
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	return os.Chown(file, id, id)
}

func writeTo(file string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	text := "0"
	if file == "/proc/1/oom_score_adj" {
		text = "-1"
	}
	_, err = f.WriteString(text)
	return err
}

func chrootAndBack() error {
	root, err := os.Open("/")
	if err != nil {
		return err
	}
	defer root.Close()
	if err := syscall.Chroot("/tmp"); err != nil {
		return err
	}
	if err := root.Chdir(); err != nil {
		return err
	}
	return syscall.Chroot(".")
}

func moreOpenFiles() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Max++
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}

// threads starts kernel threads, which C libraries and Go make by clone.
func threads() string {
	done := make(chan bool)
	for i := 0; i < 8; i++ {
		go func() {
			var nap = syscall.Timespec{Nsec: int64(time.Millisecond)}
			syscall.Nanosleep(&nap, nil)
			done <- true
		}()
	}
	for i := 0; i < 8; i++ {
		<-done
	}
	return "done"
}

func pointer(text string) uintptr {
	bytes := append([]byte(text), 0)
	return uintptr(unsafe.Pointer(&bytes[0]))
}

func errorOf(err error) string {
	if err == nil {
		return "done"
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errnoName(errno)
	}
	return err.Error()
}

func errnoName(errno syscall.Errno) string {
	names := map[syscall.Errno]string{
		0: "done", syscall.EPERM: "EPERM", syscall.EACCES: "EACCES", syscall.ENOSYS: "ENOSYS", syscall.EROFS: "EROFS",
		syscall.EAFNOSUPPORT: "EAFNOSUPPORT", syscall.EINVAL: "EINVAL", syscall.ENOENT: "ENOENT", syscall.EBUSY: "EBUSY",
		syscall.EAGAIN: "EAGAIN", syscall.EFAULT: "EFAULT", syscall.EBADF: "EBADF", syscall.ETXTBSY: "ETXTBSY", syscall.EMFILE: "EMFILE", syscall.ENOSPC: "ENOSPC", syscall.ENOTDIR: "ENOTDIR",
	}
	if name, ok := names[errno]; ok {
		return name
	}
	return errno.Error()
}
