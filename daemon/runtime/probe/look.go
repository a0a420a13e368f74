package main

import (
	"os"
	"sort"
	"strings"
	"syscall"
)

// look says what the sandbox sees of itself.
func look() map[string]any {
	seen := map[string]any{
		"pid":      os.Getpid(),
		"args":     os.Args,
		"env":      os.Environ(),
		"hostname": hostname(),
		"status":   status("CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb", "NoNewPrivs", "Seccomp"),
	}
	for _, file := range []string{
		"/proc/self/uid_map", "/proc/self/gid_map", "/proc/self/oom_score_adj", "/proc/self/limits", "/proc/self/mountinfo",
		"/proc/self/cgroup", "/proc/sys/user/max_user_namespaces", "/proc/sys/user/max_inotify_instances",
		"/proc/sys/user/max_inotify_watches", "/proc/keys", "/proc/kcore", "/proc/timer_list", "/proc/interrupts",
		"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run/atoll/ca.pem",
		"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max",
		"/sys/fs/cgroup/pids/pids.max", "/sys/fs/cgroup/pids.max",
		"/sys/fs/cgroup/cpu/cpu.shares", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu.weight", "/sys/fs/cgroup/cpu.max",
	} {
		seen[file] = read(file)
	}
	for _, dir := range []string{"/", "/sys", "/sys/fs", "/sys/fs/cgroup", "/dev", "/run/atoll", "/proc/self/fd"} {
		seen[dir+"/"] = list(dir)
	}
	for _, kind := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		seen["ns/"+kind], _ = os.Readlink("/proc/self/ns/" + kind)
	}
	for _, dir := range []string{"/dev/shm", "/dev", "/run/atoll/link"} {
		var stat syscall.Statfs_t
		if syscall.Statfs(dir, &stat) == nil {
			seen[dir+" bytes"] = int64(stat.Blocks) * stat.Bsize
		}
	}
	return seen
}

func hostname() string {
	name, _ := os.Hostname()
	return name
}

// status gives fields of /proc/self/status.
func status(names ...string) map[string]string {
	found := map[string]string{}
	for _, line := range strings.Split(read("/proc/self/status"), "\n") {
		name, value, ok := strings.Cut(line, ":")
		for _, wanted := range names {
			if ok && name == wanted {
				found[name] = strings.TrimSpace(value)
			}
		}
	}
	return found
}

// read gives a file's content, or why it cannot be had.
func read(file string) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return "error: " + errorOf(err)
	}
	return string(content)
}

func list(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return []string{"error: " + errorOf(err)}
	}
	names := []string{}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	sort.Strings(names)
	return names
}
