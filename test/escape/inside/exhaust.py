"""Takes as much of one thing as there is, says how much that was, and keeps it until its input ends."""
import ctypes, errno, fcntl, json, os, select, sys

libc = ctypes.CDLL(None, use_errno=True)
what = sys.argv[1]
kept, count, why = [], 0, "enough"
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def watches():
    fd = call(libc.inotify_init())
    top = "/tmp/watched"
    os.makedirs(top, exist_ok=True)
    number = 0
    while True:
        path = f"{top}/{number}"
        if not os.path.exists(path):
            os.mkdir(path)
        call(libc.inotify_add_watch(fd, path.encode(), 2))
        number += 1
        yield


def pipes():
    while True:
        pair = os.pipe()
        kept.append(pair)
        fcntl.fcntl(pair[0], 1031, 1 << 20)  # F_SETPIPE_SZ
        os.set_blocking(pair[1], False)
        yield


def terminals():
    while True:
        kept.append(os.openpty())
        yield


def instances():
    while True:
        kept.append(call(libc.inotify_init()))
        yield


def keys():
    while True:
        call(libc.syscall(ctypes.c_long(248 if os.uname().machine == "x86_64" else 217), b"user", f"k{count}".encode(), b"x", ctypes.c_long(1), ctypes.c_long(-2)))
        yield


def files():
    while True:
        kept.append(os.open("/dev/null", os.O_RDONLY))
        yield


most = {"watches": 20_000, "pipes": 2_000}.get(what, 100_000)
try:
    for _ in {work.__name__: work for work in [watches, pipes, terminals, instances, keys, files]}[what]():
        count += 1
        if count == most:
            break
except OSError as error:
    why = errno.errorcode[error.errno]
print(json.dumps({"count": count, "why": why}), flush=True)
sys.stdin.read()
