"""The access log: one JSON line per request, written off the hot path.

Theory. `record` encodes a line into a buffer in memory and returns; a thread of its own writes the buffer to the file
or to stdout when it holds FLUSH_BYTES or FLUSH_SECONDS have gone by. So a slow disk or a reader that has stalled costs
memory up to LIMIT_BYTES, then lines (counted in `sidecar_access_log_dropped_total`), and never a request.

Rules. `time` is the moment of recording, the end of the request. Lines are whole: a file is opened for appending, and
when several workers share a pipe (`shared`) each write fits PIPE_BUF, which the kernel keeps together. What came from
the network need not be UTF-8: stray bytes are shown by their hexadecimal number behind a backslash. Sampling is even,
not random: 0.1 logs every tenth request; answers of our own and 5xx are always logged.
"""

import os
import select
import stat
import threading
import time

import msgspec

from sidecar.base.errors import ConfigError
from sidecar.runtime.logs import Log
from sidecar.runtime.series import Counter

FLUSH_BYTES = 64 * 1024
FLUSH_SECONDS = 0.25
LIMIT_BYTES = 4 * 1024 * 1024
STANDARD = {"stdout": 1, "stderr": 2}

_log = Log(__name__)
_encoder = msgspec.json.Encoder()


class Line(msgspec.Struct, gc=False, frozen=True):
    """The fields of a line, in their order."""

    time: str
    listener: str
    route: str
    upstream: str
    endpoint: str
    method: str
    path: str
    host: str
    status: int
    decision: str
    duration_ms: float
    bytes_in: int
    bytes_out: int
    request_id: str
    traceparent: str
    client: str
    attempts: int


class AccessLog:
    """Buffered lines to one destination. `record` belongs to the event loop's thread, the file to the writer's."""

    def __init__(self, path: str, sample: float, dropped: Counter, *, shared: bool = False) -> None:
        self._path = path
        self._sample = sample
        self._dropped = dropped
        self._shared = shared
        self._due = 0.0
        self._second = 0
        self._prefix = ""
        self._buffer = bytearray()
        self._writing = 0
        self._lock = threading.Lock()  # held for the append and the swap only
        self._wake = threading.Event()
        self._reopen = False
        self._stopping = False
        self._fd = -1
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)

    def start(self) -> None:
        """Open the destination and start writing; ConfigError when it cannot be opened."""
        try:
            self._fd = self._open()
        except OSError as error:
            raise ConfigError(f"access_log: cannot open {self._path}: {error.strerror}") from None
        self._thread.start()

    def reopen(self) -> None:
        """Open the path anew before the next write, as log rotation asks (SIGHUP)."""
        self._reopen = True
        self._wake.set()

    def stop(self, within: float = 2.0) -> None:
        """Write what is buffered, for at most so many seconds, and close. Blocks: for the end of the program."""
        self._stopping = True
        self._wake.set()
        self._thread.join(within)

    def record(
        self,
        listener: str,
        route: str,
        upstream: str,
        endpoint: str,
        method: bytes | str,
        path: bytes | str,
        host: bytes | str,
        status: int,
        decision: str,
        duration: float,
        bytes_in: int,
        bytes_out: int,
        request_id: bytes | str,
        traceparent: bytes | str,
        client: str,
        attempts: int,
    ) -> None:
        """Take one line. `path` is the request target as it came, `duration` is in seconds; status 0: no answer.

        What the network sent is given as bytes; a str is taken to be sound text.
        """
        if self._sample < 1.0 and status < 500 and not decision:
            self._due += self._sample
            if self._due < 1.0:
                return
            self._due -= 1.0
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        try:
            verb = method if isinstance(method, str) else method.decode()
            target = path if isinstance(path, str) else path.decode()
            name = host if isinstance(host, str) else host.decode()
            request = request_id if isinstance(request_id, str) else request_id.decode()
            trace = traceparent if isinstance(traceparent, str) else traceparent.decode()
        except UnicodeDecodeError:
            verb, target, name = _text(method), _text(path), _text(host)
            request, trace = _text(request_id), _text(traceparent)
        line = Line(
            "%s.%03dZ" % (self._prefix, (now - second) * 1000),  # noqa: UP031 - half the time of an f-string here
            listener,
            route,
            upstream,
            endpoint,
            verb,
            target,
            name,
            status,
            decision,
            int(duration * 1e6) / 1000,
            bytes_in,
            bytes_out,
            request,
            trace,
            client,
            attempts,
        )
        with self._lock:
            buffer = self._buffer
            if len(buffer) + self._writing >= LIMIT_BYTES:
                self._dropped.value += 1
                return
            _encoder.encode_into(line, buffer, -1)
            buffer += b"\n"
            full = len(buffer) >= FLUSH_BYTES
        if full and not self._wake.is_set():
            self._wake.set()

    # The writer's thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            stopping = self._stopping
            if not stopping:
                self._wake.wait(FLUSH_SECONDS)
                self._wake.clear()
            if self._reopen:
                self._reopen = False
                self._open_again()
            with self._lock:
                taken, self._buffer = self._buffer, bytearray()
                self._writing = len(taken)
            if taken:
                self._write(taken)
                with self._lock:
                    self._writing = 0
            if stopping:
                self._close()
                return

    def _write(self, taken: bytearray) -> None:
        view = memoryview(taken)
        done = 0
        try:
            while done < len(view):
                done += self._write_some(taken, view, done)
        except OSError as error:
            lost = taken.count(b"\n", done)
            with self._lock:
                self._dropped.value += lost
            _log.warning("access_log_failed", every=60.0, path=self._path, error=error.strerror, lines_lost=lost)

    def _write_some(self, taken: bytearray, view: memoryview, done: int) -> int:
        end = len(view)
        if self._shared and end - done > select.PIPE_BUF:
            last = taken.rfind(b"\n", done, done + select.PIPE_BUF)
            end = last + 1 if last >= 0 else taken.find(b"\n", done) + 1
        try:
            return os.write(self._fd, view[done:end])
        except BlockingIOError:  # someone else made the pipe non-blocking
            select.select((), (self._fd,), (), FLUSH_SECONDS)
            return 0

    def _open(self) -> int:
        fd = STANDARD.get(self._path, -1)
        if fd < 0:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._shared = self._shared and stat.S_ISFIFO(os.fstat(fd).st_mode)
        return fd

    def _open_again(self) -> None:
        before = self._fd
        try:
            self._fd = self._open()
        except OSError as error:
            _log.error("access_log_reopen_failed", path=self._path, reason=error.strerror)
            return
        if before != self._fd:
            os.close(before)

    def _close(self) -> None:
        if self._path not in STANDARD:
            os.close(self._fd)


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")
