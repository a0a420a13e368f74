"""The neighbour's treasures: everything by which processes of one machine find each other. Says when they are all there."""
import ctypes, json, os, socket, sys, threading, time

libc = ctypes.CDLL(None, use_errno=True)
key = 0x41544F4C
abstract = socket.socket(socket.AF_UNIX)
abstract.bind("\0atoll-lair")
abstract.listen()
datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
datagrams.bind("\0atoll-lair-datagrams")
tcp = socket.create_server(("0.0.0.0", 7777))
local = socket.create_server(("127.0.0.1", 7778))
six = socket.create_server(("::", 7779), family=socket.AF_INET6, dualstack_ipv6=True)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("0.0.0.0", 7777))
memory = libc.shmget(key, 4096, 0o1666)
queue = libc.msgget(key, 0o1666)
semaphore = libc.semget(key, 1, 0o1666)
posix = ctypes.CDLL("librt.so.1", use_errno=True).mq_open(b"/atoll-lair", 0o102, 0o666, None)
open("/dev/shm/atoll-lair", "w").write("treasure")
assert min(memory, queue, semaphore, posix) >= 0
hits = []
lock = threading.Lock()


def tell():
    with open("/tmp/hits.new", "w") as file:
        file.write(json.dumps(hits))
    os.rename("/tmp/hits.new", "/tmp/hits")


for name, one in {"abstract": abstract, "datagrams": datagrams, "tcp": tcp, "local": local, "six": six, "udp": udp}.items():
    def wait(name=name, one=one):
        while True:
            guest = one.accept()[0] if one.type == socket.SOCK_STREAM else one.recvfrom(100) and None
            with lock:
                hits.append(name)
                tell()
            if guest and one.family != socket.AF_UNIX:
                guest.sendall(b"lair")
    threading.Thread(target=wait, daemon=True).start()
tell()
print(os.getpid(), flush=True)
time.sleep(3600)
