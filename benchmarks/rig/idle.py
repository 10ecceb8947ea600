"""Load that does nothing: keep-alive connections that each asked once and now stay.

`python -m benchmarks.rig.idle PORT PATH COUNT` opens COUNT connections, gets one answer on each, says so, and holds
them until it is told to go; then prints, as JSON, how many stood and how many the other side had closed meanwhile.
Connections come from several loopback addresses, so that no address runs out of ports.
"""

import json
import resource
import select
import socket
import sys

from benchmarks.rig.client import await_go
from benchmarks.rig.routes import request

_PER_ADDRESS = 4000


def _main(port: int, path: str, count: int) -> dict[str, int]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    message = request("GET", path)
    held: list[socket.socket] = []
    for number in range(count):
        source = (f"127.0.0.{2 + number // _PER_ADDRESS}", 0)
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=5, source_address=source)
            connection.sendall(message)
            answer = connection.recv(65536)
        except OSError:
            continue
        if answer.startswith(b"HTTP/1.1 200 "):
            held.append(connection)
    await_go()
    poll = select.poll()
    for connection in held:
        poll.register(connection.fileno(), select.POLLHUP | select.POLLRDHUP)
    closed = len(poll.poll(0))
    for connection in held:
        connection.close()
    return {"held": len(held) - closed, "closed": closed}


if __name__ == "__main__":
    print(json.dumps(_main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
