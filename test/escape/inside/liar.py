"""A server in the place of the agent's socket that lies, each request as its path, process id or signal says.
Ends, and puts the agent's socket back, when a file named "go" appears beside it."""
import json, os, re, socket, struct, threading, time, urllib.parse

link = "/run/atoll/link"
os.chdir(link)
FILE = {"name": "liar", "absolutePath": "/liar", "relativePath": "", "type": "file", "size": 1, "modifiedAtMs": 1, "mode": 420}
END = {"exitCode": 0, "endedAtMs": 1, "durationMs": 1, "cpuTimeMs": 1, "background": False}
forever = {"ended": False}


def http(body, status="200 OK", headers=""):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\n{headers}content-length: {len(data)}\r\n\r\n".encode() + data


def chunk(data):
    return b"%x\r\n" % len(data) + data + b"\r\n"


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"  # until the connection ends


def frame(kind, offset, payload=b"", length=None):
    return struct.pack("<B3xIQ", kind, len(payload) if length is None else length, offset) + payload


STARTED = frame(16, 0, json.dumps({"id": "x", "pid": 2, "startedAtMs": 1}).encode())


def repeat(one, pause=0.0):
    block = one if pause else one * max(1, 65536 // len(one))
    while not forever["ended"]:
        yield block
        if pause:
            time.sleep(pause)


def rest():
    """Says nothing more, and does not hang up."""
    while not forever["ended"]:
        time.sleep(0.05)
        yield b""


def answers(mode):
    simple = {
        "honest": http(FILE),
        "garbage": os.urandom(4096),
        "hangup": b"",
        "no-json": http(b"<html>"),
        "wrong-types": http({"name": 1, "size": "x", "mode": -1e300}),
        "infinite": http(b'{"name":"x","absolutePath":"x","relativePath":"","type":"file","size":1e999,"modifiedAtMs":1e999,"mode":1}'),
        "proto": http(b'{"__proto__":{"code":"NO_SPACE"},"constructor":{"prototype":{"x":1}}}'),
        "short": b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{",
        "long": http(FILE) + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}" * 100,
        "negative": b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n{}",
        "two-lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{} ",
        "both-lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "chunk-size": CHUNKED + b"ffffffffffffffff\r\n" + b"x" * 1000,
        "chunk-cut": CHUNKED + b"10\r\nabc",
        "deep": http(b"[" * 900_000),
        "switching": b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nhello",
        "no-content": b"HTTP/1.1 204 No Content\r\n\r\n",
        "reset-content": b"HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n",
        "not-modified": b"HTTP/1.1 304 Not Modified\r\n\r\n",
        "status-999": http(FILE, "999 What"),
        "status-1000": http(FILE, "1000 What"),
        "redirect": http(FILE, "302 Found", "location: http://127.0.0.1:1/\r\n"),
        "unknown-code": http({"code": "NOPE", "message": "x"}, "400 Bad"),
        "huge-refusal": http({"code": "NO_SPACE", "message": "x" * 50_000}, "507 No"),
        "endless-refusal": http({"code": "NO_SPACE", "message": "x" * 500_000}, "507 No"),
        "file-header": HEAD[:-2] + b"atoll-file: {\"name\":\r\n\r\n",
        "length-lie": b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nx",
        "range-lie": b"HTTP/1.1 206 Partial\r\ncontent-range: \x80\xff\r\ncontent-length: 1\r\n\r\nx",
        "list-cut": HEAD + b'{"file":',
        "list-nonsense": HEAD + b'{"fil":1}\n',
        "f-kind": HEAD + STARTED + frame(99, 0),
        "f-length": HEAD + STARTED + frame(1, 0, b"x", 0xFFFFFFFF),
        "f-backwards": HEAD + STARTED + frame(1, 0, b"abc") + frame(1, 1, b"x"),
        "f-jump": HEAD + STARTED + frame(1, 0, b"abc") + frame(2, 1 << 40, b"x"),
        "f-offset": HEAD + STARTED + frame(1, (1 << 64) - 1, b"x"),
        "f-gap": HEAD + STARTED + frame(18, 0, b'{"from":0,"to":-5}'),
        "f-cut": HEAD + STARTED + frame(1, 0, b"abc", 10),
        "f-end": HEAD + STARTED + frame(17, 0, b'{"exitCode":"zero"}'),
        "f-json": HEAD + frame(16, 0, b"{" * 1000),
        "f-time": HEAD + frame(16, 0, b'{"id":"x","pid":2,"startedAtMs":1e300}'),
        "f-endtime": HEAD + STARTED + frame(17, 0, json.dumps({**END, "endedAtMs": 1e300}).encode()),
        "f-error": HEAD + STARTED + frame(20, 0, b'{"code":7}'),
    }
    if mode in simple:
        yield simple[mode]
    elif mode == "headers":
        yield b"HTTP/1.1 200 OK\r\n"
        yield from repeat(b"x-lie: 1\r\n")
    elif mode == "long-header":
        yield b"HTTP/1.1 200 OK\r\nx-lie: "
        yield from repeat(b"x")
    elif mode == "slow-header":
        yield b"HTTP/1.1 200 OK\r\n"
        yield from repeat(b"x-lie: 1\r\n", 1)
    elif mode == "status-line":
        yield from repeat(b"H")
    elif mode == "continues":
        yield from repeat(b"HTTP/1.1 100 Continue\r\n\r\n")
    elif mode == "hints":
        yield from repeat(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n")
    elif mode == "slow-continues":
        yield from repeat(b"HTTP/1.1 100 Continue\r\n\r\n", 0.5)
    elif mode == "trailers":
        yield CHUNKED + chunk(json.dumps(FILE).encode()) + b"0\r\n"
        yield from repeat(b"x-lie: 1\r\n")
    elif mode == "chunk-extension":
        yield CHUNKED + b"5;x="
        yield from repeat(b"x")
    elif mode == "tiny-chunks":
        yield CHUNKED
        yield from repeat(chunk(b" "))
    elif mode == "huge-json":
        yield HEAD + b'{"name":"'
        yield from repeat(b"x")
    elif mode == "silent":
        yield from rest()
    elif mode == "silent-body":
        yield HEAD
        yield from rest()
    elif mode == "drip":
        yield HEAD + b'{"name":"'
        yield from repeat(b"x", 1)
    elif mode == "silent-refusal":
        yield b"HTTP/1.1 500 No\r\n\r\n"
        yield from rest()
    elif mode == "list-line":
        yield HEAD
        yield from repeat(b"x")
    elif mode == "f-silent":
        yield HEAD + STARTED
        yield from rest()
    elif mode == "f-heartbeats":
        yield HEAD + STARTED
        yield from repeat(frame(19, 0))
    elif mode == "e-flood":
        yield HEAD
        number = 0
        while not forever["ended"]:
            lines = [json.dumps({"type": "processEnded", "id": f"lie-{number + index}-" + "x" * 1000, "end": END}) for index in range(50)]
            number += 50
            yield ("\n".join(lines) + "\n").encode()
            if number == 2000:  # 2 MB are gone, more than a socket holds: somebody has read them
                open("sent", "w").close()
    elif mode == "e-heartbeats":
        yield HEAD
        yield from repeat(b'{"type":"heartbeat","at":1}\n')
    elif mode == "hello":
        yield http({"link": 3, "pid": 1, "startedAtMs": 1})
    else:
        yield http({"code": "VALIDATION_FAILED", "message": f"no mode {mode}"}, "400 Bad")


def mode_of(head, body):
    path = head.split(b" ")[1].decode()
    url = urllib.parse.urlparse(path)
    query = urllib.parse.parse_qs(url.query)
    if "path" in query:
        return query["path"][0]
    if url.path == "/hello":
        return open("/tmp/hello-mode").read() if os.path.exists("/tmp/hello-mode") else "hello"
    if url.path == "/events":
        return open("/tmp/events-mode").read() if os.path.exists("/tmp/events-mode") else "silent-body"
    if url.path == "/signal":
        return "silent-body"
    if match := re.match(r"/processes/([^/]+)/log", url.path):
        return "garbage" if match[1] == "f-silent" else match[1]
    said = json.loads(body or b"{}")
    return said.get("id") or said.get("path") or "garbage"


def serve(one):
    with one:
        one.settimeout(60)
        try:
            while True:
                data = b""
                while b"\r\n\r\n" not in data:
                    more = one.recv(65536)
                    if not more:
                        return
                    data += more
                head, body = data.split(b"\r\n\r\n", 1)
                length = re.search(rb"(?i)content-length: (\d+)", head)
                while length and len(body) < int(length[1]):
                    body += one.recv(65536)
                mode = mode_of(head, body)
                for part in answers(mode):
                    one.sendall(part)
                if mode not in ("honest", "hello"):
                    return
        except OSError:
            pass


os.rename("agent.sock", "real.sock")
server = socket.socket(socket.AF_UNIX)
server.bind("agent.sock")
server.listen(128)
server.settimeout(0.1)
print("ready", flush=True)
while not os.path.exists("go"):
    try:
        threading.Thread(target=serve, args=[server.accept()[0]], daemon=True).start()
    except TimeoutError:
        pass
forever["ended"] = True
os.unlink("go")
os.unlink("agent.sock")
os.rename("real.sock", "agent.sock")
os._exit(0)
