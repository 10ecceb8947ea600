"""Keeping everybody away from the data while it is exchanged, and letting them back.

By the proxy's admin socket: the breakers of the upstreams that `backup.restore.fence` names are held open (callers get
503 and Retry-After, or a fallback), recovery is paused so that it does not start what is meant to stand still, and
what was under way gets time to end. Then the service is stopped: by the command that the configuration names, or by the
proxy when it supervises it. Last, no process that we can see may still have the data open.

Without a proxy there is nobody to fence off. One that is there and does not obey is a reason to give up. One that
starts meanwhile finds a mark beside its socket and keeps fenced what is fenced (`runtime/fence_mark.py`).
"""

import contextlib
import json
import os
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

from sidecar.agent.faults import AgentFault
from sidecar.config.backup import RestoreRules
from sidecar.runtime import fence_mark
from sidecar.runtime.fence_mark import Mark
from sidecar.runtime.unix_http import Absent, ask

DRAIN_WITHIN, CLOSE_WITHIN, COMMAND_WITHIN, PATIENCE = 30.0, 15.0, 120.0, 0.1
"""Seconds: for calls under way, for files to be closed, for a command; and between two looks."""
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")
"""What a command of the configuration gets to see of ours."""


_WHY = "its data is being restored"


class Unfenced(AgentFault):
    """Somebody could still write."""


class Fence:
    """Around the data of one service."""

    def __init__(self, rules: RestoreRules, proxy: str, who: str) -> None:
        """`proxy`: its admin socket; `who`: named as the one who orders."""
        self._rules = rules
        self._proxy = proxy
        self._who = who

    def close(self) -> None:
        """Nobody gets through any more, and what was under way has ended. Raises Unfenced."""
        if not self._shut(service=False):
            return
        until = time.monotonic() + DRAIN_WITHIN
        while busy := self._busy():
            if time.monotonic() > until:
                raise Unfenced(f"{busy} calls are still under way after {DRAIN_WITHIN:.0f} s; nothing was changed")
            time.sleep(PATIENCE)

    def open(self) -> None:
        """Everybody may come again."""
        if self._present():
            for breaker in self._breakers():
                self._post(f"/api/v1/breakers/{breaker}/reset", {"by": self._who, "why": "its data is restored"})
            self._post("/api/v1/recovery/resume", {"by": self._who, "why": "restored"}, tolerated=(404, 409))
        with self._marking():
            fence_mark.erase(self._proxy)

    def keep_closed(self) -> None:
        """A proxy that was started anew lets nobody through either, nor starts the service. Raises Unfenced."""
        if self._shut(service=self._rules.stop is None) and self._supervised():
            self._post("/api/v1/service/hold", self._order)

    def _shut(self, *, service: bool) -> bool:
        """Callers are kept away, and recovery rests; False: there is no proxy."""
        with self._marking():
            if os.path.isdir(os.path.dirname(self._proxy)):
                mark = Mark(upstreams=self._rules.fence, service=service, by=self._who, why=_WHY)
                fence_mark.write(self._proxy, mark)
        if not self._present():
            return False
        self._post("/api/v1/recovery/pause", self._order, tolerated=(404, 409))
        for breaker in self._breakers():
            self._post(f"/api/v1/breakers/{breaker}/open", self._order)
        return True

    @property
    def _order(self) -> dict[str, Any]:
        return {"by": self._who, "why": _WHY}

    @contextlib.contextmanager
    def _marking(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unfenced(f"the mark beside {self._proxy} cannot be written: {error.strerror}") from None

    def stop(self, paths: Sequence[str]) -> None:
        """The service stands still, and nobody has one of `paths`, or what is below, open. Raises Unfenced."""
        if self._rules.stop is not None:
            run(self._rules.stop)
        else:
            self.keep_closed()
        until = time.monotonic() + CLOSE_WITHIN
        while holders := list(_holders(paths)):
            if time.monotonic() > until:
                said = ", ".join(f"{name} (pid {pid}) has {path} open" for pid, name, path in holders[:5])
                raise Unfenced(f"{said}; stop it, or say in backup.restore.stop how it is stopped")
            time.sleep(PATIENCE)

    def start(self) -> None:
        """The service runs again. Raises Unfenced."""
        if self._rules.start is not None:
            run(self._rules.start)
        else:
            with self._marking():
                fence_mark.lift(self._proxy, service=True)
            if self._supervised():
                self._post("/api/v1/service/release", {"by": self._who, "why": "its data is restored"})

    def healthy(self) -> None:
        """The service answers well, within its time. Raises Unfenced."""
        health = self._rules.health
        if health is None:
            return
        until, said = time.monotonic() + health.within, ""
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(health.url, timeout=5.0):  # noqa: S310 - the operator's own URL, http(s) only
                    return
            except (OSError, ValueError) as error:
                said = str(error)
            time.sleep(PATIENCE)
        raise Unfenced(f"the service does not answer well at {health.url} within {health.within:g} s: {said}")

    # The proxy ----------------------------------------------------------------------------------------------------

    def _present(self) -> bool:
        if not os.path.exists(self._proxy):
            return False
        try:
            ask(self._proxy, "GET", "/livez")
        except Absent as fault:
            if "refused" in str(fault).lower():
                return False  # the socket of one that is dead
            raise Unfenced(f"the proxy does not answer: {fault}; end it, or let it answer") from None
        return True

    def _status(self) -> dict[str, Any]:
        found: dict[str, Any] = self._asked("/api/v1/status")
        return found

    def _asked(self, target: str) -> Any:
        try:
            return json.loads(ask(self._proxy, "GET", target)[1])
        except (Absent, ValueError) as fault:
            raise Unfenced(f"the proxy does not answer: {fault}") from None

    def _breakers(self) -> list[str]:
        """Of the upstreams that are fenced off, those of their routes included."""
        wanted = Mark(upstreams=self._rules.fence)
        return [one["name"] for one in self._asked("/api/v1/breakers") if wanted.covers(one["name"])]

    def _supervised(self) -> bool:
        return self._present() and self._status().get("child") is not None

    def _busy(self) -> int:
        return sum(one["inflight"] for one in self._status()["upstreams"] if one["name"] in self._rules.fence)

    def _post(self, target: str, body: dict[str, Any], tolerated: Sequence[int] = ()) -> None:
        try:
            status, answer = ask(self._proxy, "POST", target, json.dumps(body).encode(), timeout=40.0)
        except Absent as fault:
            raise Unfenced(f"the proxy does not answer: {fault}") from None
        if status != 200 and status not in tolerated:
            raise Unfenced(f"the proxy refused {target}: {answer.decode('utf-8', 'replace').strip()}")


def run(argv: Sequence[str]) -> None:
    """Run a command of the configuration; it sees little of our environment. Raises Unfenced."""
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    with tempfile.TemporaryFile() as said:  # no pipe: what it starts may live on and hold it
        try:
            done = subprocess.run(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
                timeout=COMMAND_WITHIN, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Unfenced(f"{argv[0]} took longer than {COMMAND_WITHIN:.0f} s") from None
        except OSError as error:
            raise Unfenced(f"{argv[0]} cannot be run: {error.strerror}") from None
        if done.returncode:
            said.seek(0)
            last = said.read(65_536).decode("utf-8", "replace").strip()[-500:]
            raise Unfenced(f"{argv[0]} ended with {done.returncode}: {last}")


def _holders(paths: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """(pid, name, path) of other processes that have one of the paths, or something below, open."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            for fd in os.scandir(f"{entry.path}/fd"):
                target = os.readlink(fd.path).removesuffix(" (deleted)")
                if any(target == path or target.startswith(f"{path}/") for path in paths):
                    with open(f"{entry.path}/comm", encoding="utf-8", errors="replace") as file:
                        yield int(entry.name), file.read().strip(), target
                    break
        except OSError:
            continue  # it ended, or is none of our business
