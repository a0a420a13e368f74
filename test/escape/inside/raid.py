"""Looks for a neighbour's treasures (lair.py) and lays hands on processes by the numbers that the host knows them by.
Arguments: the lair's pid here, or on the host; addresses to try."""
import ctypes, errno, json, os, signal, socket, sys

libc = ctypes.CDLL(None, use_errno=True)
key = 0x41544F4C
pid = int(sys.argv[1])
addresses = sys.argv[2:]
arm = os.uname().machine == "aarch64"
said = {}


def try_(name, work):
    try:
        work()
        said[name] = "done"
    except OSError as error:
        said[name] = errno.errorcode.get(error.errno, str(error))


def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def abstract(name, kind):
    one = socket.socket(socket.AF_UNIX, kind)
    one.settimeout(2)
    one.connect(name)
    one.send(b"raid")


try_("abstract stream", lambda: abstract("\0atoll-lair", socket.SOCK_STREAM))
try_("abstract datagram", lambda: abstract("\0atoll-lair-datagrams", socket.SOCK_DGRAM))
try_("shared memory", lambda: call(libc.shmget(key, 0, 0)))
try_("message queue", lambda: call(libc.msgget(key, 0)))
try_("semaphore", lambda: call(libc.semget(key, 0, 0)))
try_("POSIX queue", lambda: call(ctypes.CDLL("librt.so.1", use_errno=True).mq_open(b"/atoll-lair", 2)))
try_("/dev/shm", lambda: open("/dev/shm/atoll-lair").close())
try_("/dev/mqueue", lambda: os.stat("/dev/mqueue/atoll-lair"))
try_("signal 0", lambda: os.kill(pid, 0))
try_("SIGCONT", lambda: os.kill(pid, signal.SIGCONT))
try_("pidfd", lambda: os.close(os.pidfd_open(pid)))
try_("/proc", lambda: os.stat(f"/proc/{pid}"))

try_("trace", lambda: call(libc.ptrace(0x4206, pid, 0, 0)))  # PTRACE_SEIZE


def read_memory():
    class Iovec(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
    buffer = ctypes.create_string_buffer(16)
    local = Iovec(ctypes.cast(buffer, ctypes.c_void_p), 16)
    # where every program has something: the address of the first mapping, when it can be seen
    start = int(open(f"/proc/{pid}/maps").readline().split("-")[0], 16) if os.path.exists(f"/proc/{pid}/maps") else 0x400000
    remote = Iovec(start, 16)
    call(libc.process_vm_readv(pid, ctypes.byref(local), ctypes.c_ulong(1), ctypes.byref(remote), ctypes.c_ulong(1), ctypes.c_ulong(0)))


try_("read memory", read_memory)
try_("scheduling", lambda: call(libc.sched_setaffinity(pid, 8, ctypes.byref(ctypes.c_ulong(1)))))
try_("priority", lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
try_("limits", lambda: __import__("resource").prlimit(pid, __import__("resource").RLIMIT_CORE))

for address in addresses:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for port in [7777, 7778, 7779]:
        def dial():
            with socket.socket(family) as one:
                one.settimeout(3)
                one.connect((address, port))
                assert one.recv(4) == b"lair"
        try_(f"tcp {address} {port}", dial)

    def datagram():
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            one.settimeout(0.3)
            one.connect((address, 7777))
            one.send(b"raid")
            try:
                one.recv(4)
            except socket.timeout:
                pass
    try_(f"udp {address}", datagram)
said["neighbours"] = json.dumps(sorted(int(name) for name in os.listdir("/proc") if name.isdigit()))
said["sockets"] = "seen" if "atoll-lair" in open("/proc/net/unix").read() else "none"
print(json.dumps(said))
