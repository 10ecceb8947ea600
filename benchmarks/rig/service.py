"""A service that `sidecar run -- COMMAND` supervises. Run as a program: `service.py PORT [DATABASE_PORT]`.

Every path answers its process id; `/health` 503 while the database's port takes no connection. One request at a time:
after SIGUSR1 it holds its port, accepts nothing and hears no SIGTERM, as a deadlocked service does.
"""

import os
import signal
import socket
import sys
import time


def hang(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)


def healthy(database: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", database), timeout=0.5).close()
    except OSError:
        return False
    return True


def main() -> None:
    port, database = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    signal.signal(signal.SIGUSR1, hang)
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", port))
    server.listen(256)
    body = str(os.getpid()).encode()
    while True:
        peer, _ = server.accept()
        with peer:
            peer.settimeout(1)
            try:
                request = peer.recv(65536)
                well = not database or b"/health" not in request or healthy(database)
                status = b"200 OK" if well else b"503 Service Unavailable"
                head = b"HTTP/1.1 %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (status, len(body))
                peer.sendall(head + body)
            except OSError:
                pass


main()
