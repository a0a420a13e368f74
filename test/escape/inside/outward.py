"""Ways to reach something that is not the public internet, tried with plain sockets. Arguments: a JSON object."""
import errno, json, os, socket, struct, subprocess, sys

about = json.loads(sys.argv[1])
said = {}


def try_(name, work):
    try:
        said[name] = work() or "done"
    except socket.timeout:
        said[name] = "silence"
    except OSError as error:
        said[name] = errno.errorcode.get(error.errno, str(error))


def tcp(address, port, text=b"", read=False):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as one:
        one.settimeout(4)
        one.connect((address, port))
        if not read:
            return "connected"
        one.sendall(text)
        answer = b""
        while more := one.recv(4096):
            answer += more
        return answer.decode("latin1")


def udp(address, port, data=b"x", source=None):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.settimeout(0.3)
        if source:
            one.setsockopt(0, 15, 1)  # IP_FREEBIND, which needs no right: any source can be written on a datagram
            one.bind((source, 0))
        one.connect((address, port))
        one.send(data)
        return "answer " + one.recv(512).hex()


def question(name):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack(">6H", 7, 256, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)


def forged_tcp(source, address, port):
    with socket.socket() as one:
        one.settimeout(1)
        one.setsockopt(0, 15, 1)
        one.bind((source, 0))
        one.connect((address, port))
        return "connected"


service = socket.gethostbyname(about["service"])
try_("control: the service by its name", lambda: "done" if "hello" in tcp(service, about["port"], f"GET / HTTP/1.1\r\nHost: {about['service']}\r\n\r\n".encode(), True) else "nothing")
try_("control: DNS", lambda: "done" if udp("198.18.0.1", 53, question(about["service"])).startswith("answer") else "nothing")
for address in about["addresses"]:
    for port in about["ports"]:
        # an address that no name has may be taken by the gateway, which then hangs up
        try_(f"tcp {address} {port}", lambda: tcp(address, port, b"x", address.startswith("198.19.")) or "nothing")
    try_(f"udp {address}", lambda: udp(address, about["udpPort"]))
for port in [1, 22, 80, 443, 15001, 15053, 65535]:
    try_(f"gateway {port}", lambda: tcp("198.18.0.1", port))
for resolver in ["8.8.8.8", "1.1.1.1", "127.0.0.53", "198.18.0.2", about["neighbour"]]:
    try_(f"resolver {resolver} udp", lambda: udp(resolver, 53, question(about["service"])))
    try_(f"resolver {resolver} tcp", lambda: tcp(resolver, 53))
for source in [about["neighbour"], "198.18.0.1", "127.0.0.2", "203.0.113.7", "10.0.0.1"]:
    try_(f"forged {source} udp", lambda: udp("198.18.0.1", 53, question("forged." + about["service"]), source))
    try_(f"forged {source} tcp", lambda: forged_tcp(source, service, about["port"]))
for name in ["localhost", "host.local", "127.0.0.1", "1.0.0.127.in-addr.arpa", "metadata"]:
    def ask():
        reply = bytes.fromhex(udp("198.18.0.1", 53, question(name)).split()[1])
        return "NXDOMAIN" if reply[3] & 15 else "answered"
    try_(f"name {name}", ask)
try_("Host of another", lambda: tcp(service, about["port"], b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", True)[:12])
try_("second Host", lambda: tcp(service, about["port"], f"GET / HTTP/1.1\r\nHost: {about['service']}\r\nHost: evil.example\r\n\r\n".encode(), True)[:12])
try_("absolute target", lambda: tcp(service, about["port"], f"GET http://evil.example/ HTTP/1.1\r\nHost: {about['service']}\r\n\r\n".encode(), True)[:12])


def hello():
    import ssl
    context = ssl._create_unverified_context()
    with socket.create_connection((service, about["port"]), 4) as one:
        try:
            context.wrap_socket(one, server_hostname="evil.example")
            return "connected"
        except ssl.SSLError as error:
            return "alert" if "ALERT_ACCESS_DENIED" in str(error).upper().replace(" ", "_") else str(error)


try_("TLS name of another", hello)
for command in ["ip addr add 198.18.1.77/32 dev eth0", "ip addr del $(hostname -I) dev eth0", "ip link set eth0 down", "ip link set eth0 address 02:00:00:00:00:09",
                "ip link set lo down", "ip route add 10.0.0.0/8 dev eth0", "ip route del default", "ip rule add from all lookup 1", "ip neigh add 198.18.0.9 dev eth0 lladdr 02:00:00:00:00:09",
                "ip link add x type dummy", "ip netns add x", "ip -6 addr add fd00::5/64 dev eth0"]:
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    said[command] = "done" if done.returncode == 0 else "EPERM" if "not permitted" in done.stderr or "denied" in done.stderr else done.stderr
print(json.dumps(said))
