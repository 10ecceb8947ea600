"""Clients that keep asking, as careful clients do: connections kept alive, `Connection: close` obeyed, every answer
checked against its request.

Every request that does not get its own whole answer is a failure. Only when the test says that the proxy may leave
(`may_leave`) are two ends allowed, because HTTP allows them: a connection that is refused, and a kept-alive one that
closes without a byte of an answer. Both are counted in `turned_away` and end that client.
"""

import threading
from collections import Counter
from typing import Self

from tests.fakes.wire import PATIENCE, Message, NotCanonical, Truncated, Wire
from tests.real.harness import ask, dial


class Load:
    """`clients` threads that ask one listener until told to stop."""

    def __init__(self, port: int, clients: int = 8, *, fresh: bool = False) -> None:
        """`fresh`: each request on a connection of its own."""
        self._port = port
        self._fresh = fresh
        self._stopping = False
        self._changed = threading.Condition()
        self.may_leave = False
        self.answered = 0
        self.closed = 0
        """Answers that said Connection: close."""
        self.turned_away = 0
        self.statuses: Counter[int] = Counter()
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=[number], daemon=True) for number in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Every client finishes the request it has begun."""
        self._stopping = True
        for thread in self._threads:
            thread.join(PATIENCE)

    def go_on_for(self, answers: int) -> None:
        """Wait until so many more answers have come."""
        with self._changed:
            wanted = self.answered + answers
            assert self._changed.wait_for(lambda: self.answered >= wanted or self.failures, PATIENCE), "the load stalls"

    def _run(self, number: int) -> None:
        wire: Wire | None = None
        count = 0
        while not self._stopping:
            count += 1
            target = f"/load/{number}/{count}"
            method, body = ("POST", b"x" * (count % 3000)) if count % 4 == 0 else ("GET", b"")
            reused = wire is not None
            try:
                wire = wire or dial(self._port)
                got = wire.send(ask(target, method=method, body=body)).read_answer()
                self._check(got, target, len(body))
                if self._fresh or not got.keeps:
                    wire.close()
                    wire = None
            except (OSError, EOFError, NotCanonical, AssertionError) as error:
                untouched = reused and isinstance(error, EOFError | BrokenPipeError | ConnectionResetError | Truncated)
                self._failed(error, target, excused=isinstance(error, ConnectionRefusedError) or untouched)
                return
        if wire is not None:
            wire.close()

    def _check(self, got: Message, target: str, length: int) -> None:
        if got.status == 200:
            told = got.json()
            assert (told["target"], told["length"]) == (target, length), "the answer to another request"
        else:
            raise AssertionError(f"{got.status} {got.decision}")
        with self._changed:
            self.answered += 1
            self.closed += not got.keeps
            self.statuses[got.status] += 1
            self._changed.notify_all()

    def _failed(self, error: BaseException, target: str, *, excused: bool) -> None:
        with self._changed:
            if excused and self.may_leave:
                self.turned_away += 1
            else:
                self.failures.append(f"{target}: {error!r}")
            self._changed.notify_all()
