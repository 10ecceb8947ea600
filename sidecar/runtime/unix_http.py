"""A request to a program's admin socket, from its neighbour in the pod. Blocking: call it in a thread, or in a command.

Both programs of the pod speak to each other this way: the agent tells the proxy what happened and asks it to drain, the
proxy asks the agent how its backups are. Whoever is not there is `Absent`; that is nobody's fault.
"""

import http.client
import socket

LONGEST_ANSWER = 8 << 20
"""Bytes."""


class Absent(Exception):
    """Nobody answers at the socket; the message says what happened."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(
    socket_path: str, method: str, target: str, body: bytes | None = None, timeout: float = 5.0
) -> tuple[int, bytes]:
    """The status and the body of the answer. Raises Absent."""
    connection = _Connection(socket_path, timeout)
    try:
        connection.request(method, target, body)
        response = connection.getresponse()
        return response.status, response.read(LONGEST_ANSWER)
    except FileNotFoundError:
        raise Absent(f"{socket_path} does not exist") from None
    except TimeoutError:
        raise Absent(f"no answer at {socket_path} within {timeout:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Absent(f"{socket_path}: {said}") from None
    finally:
        connection.close()
