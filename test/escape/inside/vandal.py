"""Puts something in the place of the agent's socket until a file named "go" appears beside it; then all is as it was.
Arguments: what, and where it leads."""
import ctypes, os, socket, sys, threading, time

what, target = sys.argv[1], sys.argv[2]
link = "/run/atoll/link"
os.chdir(link)
name, real = "agent.sock", "real.sock"
libc = ctypes.CDLL(None, use_errno=True)


def wait():
    while not os.path.exists("go"):
        time.sleep(0.01)
    os.unlink("go")


def replaced(make, remove):
    os.rename(name, real)
    make()
    print("ready", flush=True)
    wait()
    remove()
    os.rename(real, name)


def race():
    """The real socket and the link change places as fast as the kernel does it."""
    os.symlink(target, real)
    print("ready", flush=True)
    while not os.path.exists("go"):
        for _ in range(1000):
            libc.renameat2(-100, name.encode(), -100, real.encode(), 2)  # RENAME_EXCHANGE
    os.unlink("go")
    links = [one for one in [name, real] if os.path.islink(one)]
    if links == [name]:
        os.rename(real, name)
    else:
        os.unlink(real)


def fill():
    said = []
    os.mkdir("d")
    try:
        for index in range(1000):
            open(f"d/{index}", "x").close()
    except OSError as error:
        said.append(f"{index} files: {error.strerror}")
    for file in os.listdir("d"):
        os.unlink(f"d/{file}")
    written = 0
    try:
        with open("d/large", "wb", buffering=0) as file:
            while written < 1 << 30:
                written += file.write(bytes(4096))
    except OSError as error:
        said.append(f"{written} bytes: {error.strerror}")
    for index in range(1000):
        try:
            open(f"d/{index}", "x").close()
        except OSError:
            break
    print("; ".join(said), flush=True)
    wait_without_file()
    for file in os.listdir("d"):
        os.unlink(f"d/{file}")
    os.rmdir("d")


def wait_without_file():
    """No name fits into the directory any more: the sign is that it is readable by others."""
    while os.stat(".").st_mode & 0o777 == 0o700:
        time.sleep(0.01)
    os.chmod(".", 0o700)


def listen():
    """A socket, but nobody takes what comes."""
    global server
    server = socket.socket(socket.AF_UNIX)
    server.bind(name)
    server.listen(0)


if what == "race":
    race()
elif what == "fill":
    fill()
elif what == "symlink":
    replaced(lambda: os.symlink(target, name), lambda: os.unlink(name))
elif what == "directory":
    replaced(lambda: os.mkdir(name), lambda: os.rmdir(name))
elif what == "fifo":
    replaced(lambda: os.mkfifo(name), lambda: os.unlink(name))
elif what == "file":
    replaced(lambda: open(name, "x").close(), lambda: os.unlink(name))
elif what == "nothing":
    replaced(lambda: None, lambda: None)
elif what == "datagram":
    def bind():
        global server
        server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        server.bind(name)
    replaced(bind, lambda: os.unlink(name))
