"""A stream for the log that never makes the event loop wait.

The log shares stderr with whoever else writes there: a service that floods it, a reader that stalls. A write to a full
pipe blocks, and a blocked loop serves nobody. So a thread writes, from a bounded queue; what does not fit is lost, and
how many lines that were is said once there is room again. (O_NONBLOCK would hold for all who share the pipe.)
"""

import atexit
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TextIO

QUEUE_LINES = 1000
LAST_SECONDS = 1.0
"""So long the end of the process waits for the last lines."""


class LogWriter:
    """What `logging.StreamHandler` needs of a stream: `write` and `flush`, without waiting."""

    def __init__(self, stream: TextIO, lost: Callable[[int], None]) -> None:
        """`lost` is told, from the writing thread, how many lines found no room; it may write itself."""
        self._stream = stream
        self._lost = lost
        self._lines: deque[bytes] = deque()
        self._dropped = 0
        self._changed = threading.Condition()
        self._writing = False
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.finish)

    def write(self, text: str) -> int:
        """Queue one or several whole lines, or lose them."""
        with self._changed:
            if len(self._lines) < QUEUE_LINES:
                self._lines.append(text.encode(errors="backslashreplace"))
                self._changed.notify()
            else:
                self._dropped += 1
        return len(text)

    def flush(self) -> None:
        """Nothing: the thread writes at once."""

    def finish(self) -> None:
        """Wait until all is written, but not for ever."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines and not self._writing, LAST_SECONDS)

    def _work(self) -> None:
        descriptor = self._stream.fileno()
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines)
                line = self._lines.popleft()
                self._writing = True
                dropped, self._dropped = self._dropped, 0
            with contextlib.suppress(OSError):  # a reader that is gone: nobody is left to be told
                while line:
                    line = line[os.write(descriptor, line) :]
            if dropped:
                self._lost(dropped)
