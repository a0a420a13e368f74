"""Runs a program in a terminal of its own, as a person would: `own-terminal.py COLS ROWS PROGRAM ARGS...`.

Standard input has commands, a JSON object a line: {"type": TEXT}, {"resize": [COLS, ROWS]}, {"hangup": true}.
Standard output is what the screen shows. When the program has ended a JSON object on standard error tells its exit code,
and whether lines are edited and echoed again, as a shell needs it.
"""

import fcntl, json, os, select, struct, sys, termios


def resize(fd, cols, rows):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", int(rows), int(cols), 0, 0))


screen, near = os.openpty()
resize(near, sys.argv[1], sys.argv[2])
pid = os.fork()
if pid == 0:
    os.close(screen)
    os.setsid()
    fcntl.ioctl(near, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(near, fd)
    os.close(near)
    os.execvp(sys.argv[3], sys.argv[3:])

asked = b""
code = None
reading = [screen, 0]
hung_up = False
while code is None:
    ready, _, _ = select.select([] if hung_up else reading, [], [], 0.02)
    if screen in ready:
        os.write(1, os.read(screen, 65536))
    if 0 in ready:
        more = os.read(0, 65536)
        if not more:
            reading = [screen]
        asked += more
        while b"\n" in asked:
            line, asked = asked.split(b"\n", 1)
            for verb, value in json.loads(line).items():
                if verb == "type":
                    os.write(screen, value.encode())
                elif verb == "resize":
                    resize(near, *value)
                elif verb == "hangup":
                    hung_up = True
                    os.close(near)
                    os.close(screen)
    ended, status = os.waitpid(pid, os.WNOHANG)
    if ended:
        code = os.waitstatus_to_exitcode(status)

told = {"code": code}
if not hung_up:
    while select.select([screen], [], [], 0)[0]:
        os.write(1, os.read(screen, 65536))
    modes = termios.tcgetattr(near)[3]
    told["cooked"] = bool(modes & termios.ICANON and modes & termios.ECHO)
sys.stderr.write(json.dumps(told))
