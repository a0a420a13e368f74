"""Every signal, by every call that sends one, to PID 1 and each of its threads."""
import ctypes, json, os, platform, signal

libc = ctypes.CDLL(None, use_errno=True)
TGKILL, SIGQUEUE = (131, 138) if platform.machine() == "aarch64" else (234, 129)
ROUNDS = 100
SI_QUEUE = -1


def kill(number):
    os.kill(1, number)


def tgkill(number):
    for thread in os.listdir("/proc/1/task"):
        if libc.syscall(TGKILL, 1, int(thread), number) != 0 and ctypes.get_errno() != 3:  # one that has ended
            raise OSError(ctypes.get_errno(), "tgkill")


def sigqueue(number):
    info = (ctypes.c_int * 32)(number, 0, SI_QUEUE)
    if libc.syscall(SIGQUEUE, 1, number, ctypes.byref(info)) != 0:
        raise OSError(ctypes.get_errno(), "sigqueue")


said = {}
for send in (kill, tgkill, sigqueue):
    try:
        for _ in range(ROUNDS):
            for number in range(1, 65):
                send(number)
        said[send.__name__] = "sent"
    except OSError as error:
        said[send.__name__] = str(error)

# The same ends another process.
child = os.fork()
if child == 0:
    signal.pause()
os.kill(child, 9)
said["another process"] = str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) * -1)
print(json.dumps(said))
