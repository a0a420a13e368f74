"""Ways out of a sandbox through its files, kernel objects and capabilities. Each says "done" or the errno it met."""
import ctypes, errno, json, os, socket, stat, sys

libc = ctypes.CDLL(None, use_errno=True)
said = {}


def try_(name, work):
    try:
        work()
        said[name] = "done"
    except OSError as error:
        said[name] = errno.errorcode.get(error.errno, str(error.errno))


def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def namespaces():
    for name, flag in {"user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "net": 0x40000000, "ipc": 0x8000000,
                       "uts": 0x4000000, "cgroup": 0x2000000, "time": 0x80}.items():
        try_(f"unshare {name}", lambda: call(libc.unshare(flag)))
        if name == "time":
            continue  # clone has no such flag

        def clone():
            pid = libc.syscall(ctypes.c_long(56 if os.uname().machine == "x86_64" else 220),
                               ctypes.c_long(flag | 17), ctypes.c_long(0), ctypes.c_long(0), ctypes.c_long(0), ctypes.c_long(0))
            if pid == 0:
                os._exit(0)
            os.waitpid(call(pid), 0)
        try_(f"clone {name}", clone)
    for name in os.listdir("/proc/self/ns"):
        def join():
            fd = os.open(f"/proc/1/ns/{name}", os.O_RDONLY)
            call(libc.setns(fd, 0))
        try_(f"setns {name}", join)
    def plain():
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    try_("control: fork", plain)


def mounts():
    def mount(source, target, kind, flags, data=None):
        call(libc.mount(source, target, kind, flags, data))
    os.makedirs("/tmp/m", exist_ok=True)
    for kind in [b"proc", b"tmpfs", b"sysfs", b"overlay", b"devpts", b"cgroup", b"fuse"]:
        try_(f"mount {kind.decode()}", lambda: mount(b"none", b"/tmp/m", kind, 0))
    try_("bind mount", lambda: mount(b"/proc", b"/tmp/m", None, 0x1000))
    try_("remount read-write", lambda: mount(None, b"/proc/sys", None, 0x1020))
    for path in [b"/proc/kcore", b"/proc/sys", b"/sys", b"/run/atoll/agent", b"/dev"]:
        try_(f"unmount {path.decode()}", lambda: call(libc.umount2(path, 2)))
    try_("pivot_root", lambda: call(libc.syscall(ctypes.c_long(155 if os.uname().machine == "x86_64" else 41), b"/tmp", b"/tmp")))

    def climb():  # the old way out of a chroot, which needs nothing but the capability that a sandbox has
        pid = os.fork()
        if pid == 0:
            os.makedirs("/tmp/m/deep", exist_ok=True)
            root = os.open("/", os.O_RDONLY)
            os.chroot("/tmp/m/deep")
            os.fchdir(root)
            for _ in range(64):
                os.chdir("..")
            os.chroot(".")
            os._exit(0 if os.path.exists("/run/atoll/link") and not os.path.exists("/run/netns") else 1)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
            raise OSError(errno.EXDEV, "the top is the sandbox's own root")
    try_("climb out of a chroot", climb)
    try_("control: chroot", lambda: os.waitpid(os.fork() or (os.chroot("/tmp"), os._exit(0)), 0))


def devices():
    nodes = {"mem": (stat.S_IFCHR, 1, 1), "null": (stat.S_IFCHR, 1, 3), "kmsg": (stat.S_IFCHR, 1, 11),
             "disk": (stat.S_IFBLK, 254, 0), "sda": (stat.S_IFBLK, 8, 0), "loop-control": (stat.S_IFCHR, 10, 237),
             "fuse": (stat.S_IFCHR, 10, 229), "kvm": (stat.S_IFCHR, 10, 232), "vhost-vsock": (stat.S_IFCHR, 10, 241)}
    for directory in ["/tmp", "/dev", "/dev/shm", "/run/atoll/link", "/workspace"]:
        for name, (kind, major, minor) in nodes.items():
            path = f"{directory}/escape-{name}"
            def make():
                os.mknod(path, kind | 0o600, os.makedev(major, minor))
                os.unlink(path)
            try_(f"mknod {path}", make)
        def fifo():
            os.mkfifo(f"{directory}/escape-fifo")
            os.unlink(f"{directory}/escape-fifo")
        try_(f"control: mkfifo in {directory}", fifo)
    for path in ["/dev/mem", "/dev/kmsg", "/dev/vda", "/dev/loop-control", "/dev/fuse", "/dev/kvm", "/dev/net/tun", "/dev/vsock"]:
        try_(f"open {path}", lambda: os.close(os.open(path, os.O_RDWR)))
    for path in ["/dev/null", "/dev/zero", "/dev/tty", "/dev/urandom"]:
        try_(f"chmod {path}", lambda: os.chmod(path, 0o600))
        try_(f"unlink {path}", lambda: os.unlink(path))
    try_("control: open /dev/null", lambda: os.close(os.open("/dev/null", os.O_RDWR)))


def runtime():
    for path in ["/run/atoll/agent", "/run/atoll/ca.pem", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/proc/1/exe"]:
        try_(f"write {path}", lambda: os.close(os.open(path, os.O_WRONLY)))
        try_(f"chmod {path}", lambda: os.chmod(path, 0o777))
        try_(f"chown {path}", lambda: os.chown(path, 0, 0))
        try_(f"link {path}", lambda: os.link(path, "/tmp/escape-link", follow_symlinks=True))
        try_(f"xattr {path}", lambda: os.setxattr(path, "user.escape", b"1"))
        if path != "/proc/1/exe":
            try_(f"unlink {path}", lambda: os.unlink(path))
            try_(f"rename {path}", lambda: os.rename(path, "/tmp/escape-renamed"))
    try_("make in /run/atoll", lambda: os.mkdir("/run/atoll/escape"))
    try_("rename /run/atoll", lambda: os.rename("/run/atoll", "/run/other"))
    try_("overlay attribute", lambda: os.setxattr("/tmp", "trusted.overlay.redirect", b"/"))
    def own():
        os.close(os.open("/tmp/escape-own", os.O_CREAT | os.O_WRONLY))
        os.chmod("/tmp/escape-own", 0o600)
        os.unlink("/tmp/escape-own")
    try_("control: a file of one's own", own)


def settings():
    """Opens for writing whatever is below /proc/sys and /sys, and the places of /proc that act on the machine."""
    count = 0
    for top in ["/proc/sys", "/sys", "/proc/irq", "/proc/bus", "/proc/fs"]:
        for directory, names, files in os.walk(top):
            for name in files:
                count += 1
                path = os.path.join(directory, name)
                try:
                    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                    said[f"write {path}"] = "done"
                except OSError:
                    pass
            for name in ["escape"] if top == "/sys" else []:
                try:
                    os.mkdir(os.path.join(directory, name))
                    said[f"mkdir {directory}/{name}"] = "done"
                except OSError:
                    pass
    for path in ["/proc/sysrq-trigger", "/proc/self/uid_map", "/proc/1/uid_map", "/proc/self/gid_map", "/proc/mtrr",
                 "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hostname",
                 "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids/pids.max",
                 "/sys/fs/cgroup/memory/release_agent", "/sys/fs/cgroup/cgroup.procs"]:
        def write():
            with open(path, "w") as file:
                file.write("0 0 1")
        try_(f"write {path}", write)
    for path in ["/proc/kcore", "/proc/kmsg", "/proc/kpagecount", "/proc/kpageflags", "/proc/keys", "/proc/timer_list",
                 "/proc/sched_debug", "/proc/vmallocinfo", "/proc/slabinfo", "/proc/iomem", "/proc/kallsyms"]:
        try:
            with open(path, "rb") as file:
                text = file.read(100_000)
            zeros = all(set(line.split(b"-")[0].split(b" ")[0].strip()) <= set(b"0 ") for line in text.splitlines())
            said[f"read {path}"] = "empty" if not text or zeros else "done"
        except OSError as error:
            said[f"read {path}"] = errno.errorcode[error.errno]
    def lower():
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("-500")
    try_("lower oom_score_adj", lower)
    for name, resource, value in [("nproc", 6, 1 << 30), ("nofile", 7, 1 << 30), ("memlock", 8, 1 << 60)]:
        import resource as limits
        def raise_():
            try:
                limits.setrlimit(resource, (value, value))
            except ValueError:
                raise OSError(errno.EPERM, "")
        try_(f"raise {name}", raise_)
    said["settings looked at"] = str(count)
    def comm():
        with open("/proc/self/comm", "w") as file:
            file.write("escape")
    try_("control: write /proc/self/comm", comm)


def sockets():
    families = {"packet": 17, "vsock": 40, "alg": 38, "tipc": 30, "rds": 21, "bluetooth": 31, "can": 29, "xdp": 44,
                "key": 15, "nfc": 39, "kcm": 41, "qipcrtr": 42, "smc": 43, "ax25": 3, "x25": 9, "appletalk": 5, "llc": 26}
    for name, family in families.items():
        for kind in [1, 2, 3, 5]:
            try_(f"socket {name} {kind}", lambda: os.close(call(libc.socket(family, kind, 0))))
            def pair():
                fds = (ctypes.c_int * 2)()
                call(libc.socketpair(family, kind, 0, fds))
            try_(f"socketpair {name} {kind}", pair)
    for name, family, protocol in [("icmp", 2, 1), ("tcp", 2, 6), ("any", 2, 255), ("icmpv6", 10, 58)]:
        try_(f"raw {name}", lambda: os.close(call(libc.socket(family, 3, protocol))))
    try_("control: tcp socket", lambda: socket.socket().close())
    try_("control: unix pair", lambda: socket.socketpair())
    def transparent():
        one = socket.socket()
        one.setsockopt(0, 19, 1)
    try_("transparent socket", transparent)
    def device():
        one = socket.socket()
        one.setsockopt(1, 36, 1)  # SO_MARK
    try_("marked socket", device)


{work.__name__: work for work in [namespaces, mounts, devices, runtime, settings, sockets]}[sys.argv[1]]()
print(json.dumps(said))
