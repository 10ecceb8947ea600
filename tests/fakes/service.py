"""A service as `sidecar run -- COMMAND` starts it, with the manners and the bad habits of real ones. Run as a program.

    service.py PORT DIRECTORY [HABIT …]

Answers `/pid`, `/held` (when the file `go` is in DIRECTORY), `/exit/N`, `/orphans/N` (leaves so many dead orphans of
other sessions) and everything else with `ok`. Signals that come are written to `signals` in DIRECTORY. Habits:
`deaf` ignores SIGTERM; `fork` has a child in its group that ignores SIGTERM and keeps the listening socket open;
`daemon` one of the same kind in a session of its own; `flood` fills stdout and stderr for ever.
"""

import os
import signal
import socket
import sys
import threading
import time

PORT, DIRECTORY, HABITS = int(sys.argv[1]), sys.argv[2], sys.argv[3:]


def note(name: str, text: str) -> None:
    with open(os.path.join(DIRECTORY, name), "a") as stream:
        stream.write(text + "\n")


def on_signal(number: int, _: object) -> None:
    note("signals", signal.Signals(number).name)
    if "deaf" not in HABITS:
        os._exit(0)


def stay() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)


def leave_orphans(count: int) -> None:
    for _ in range(count):
        middle = os.fork()
        if middle == 0:
            if os.fork() == 0:
                os.setsid()
                parent = os.getppid()
                while os.getppid() == parent == middle:
                    time.sleep(0.001)
                os._exit(7)
            os._exit(0)
        os.waitpid(middle, 0)


def answer(peer: socket.socket) -> None:
    with peer:
        request = b""
        while b"\r\n\r\n" not in request:
            piece = peer.recv(65536)
            if not piece:
                return
            request += piece
        words = request.split()[1].decode().strip("/").split("/")
        body = "ok"
        match words:
            case ["pid"]:
                body = str(os.getpid())
            case ["held"]:
                note("held", "here")
                while not os.path.exists(os.path.join(DIRECTORY, "go")):
                    time.sleep(0.01)
            case ["exit", code]:
                os._exit(int(code))
            case ["orphans", count]:
                leave_orphans(int(count))
        peer.sendall(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode())


def flood(descriptor: int) -> None:
    while True:
        os.write(descriptor, b"flood\n" * 1000)


def main() -> None:
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(one, on_signal)
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", PORT))
    server.listen()
    if "fork" in HABITS and os.fork() == 0:
        stay()
    if "daemon" in HABITS and os.fork() == 0:
        os.setsid()
        stay()
    if "flood" in HABITS:
        for descriptor in (1, 2):
            threading.Thread(target=flood, args=(descriptor,), daemon=True).start()
    while True:
        peer, _ = server.accept()
        threading.Thread(target=answer, args=(peer,), daemon=True).start()


main()
