"""An access log of ours as traffic and as world: what came then, comes again; what upstreams did then, they do again.

A line says how a request ended, so it says what the upstream did to it: it answered with that status after that time,
or it refused the connection, broke it, kept silent. That is what the request meets again, at the endpoint that served
it then. Where a line cannot know, because the proxy answered by itself or another endpoint is picked now, the
endpoint does what it was last seen doing in the log. A line with several attempts says nothing of the first ones:
they meet a refused connection.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from math import inf
from statistics import median

import msgspec

from sidecar.base.names import Decision
from sidecar.config.document import Config
from sidecar.config.faults import Fault, InvalidConfig, Mark
from sidecar.simulate.call import Asked, Call
from sidecar.simulate.network import Endpoint, Network
from sidecar.simulate.traffic import asked_for
from sidecar.simulate.world import Outcome

MOST_LINES = 2_000_000
_MOST_FAULTS = 10
_CONNECT = 0.001
_USUAL = 0.01
_BODY = bytes(1024)

_FAILED: dict[str, Outcome] = {
    Decision.TIMEOUT: Outcome(inf),
    Decision.CONNECT_FAILURE: Outcome(_CONNECT, fault=Decision.CONNECT_FAILURE),
    Decision.RESET: Outcome(_CONNECT, fault=Decision.RESET),
    Decision.BAD_RESPONSE: Outcome(_CONNECT, fault=Decision.BAD_RESPONSE),
}
_NOT_SERVED = frozenset({Decision.BAD_REQUEST, Decision.CLIENT_TIMEOUT, Decision.DRAINING})
"""Lines that tell of the client or of us; nobody would have been asked."""


class Entry(msgspec.Struct, frozen=True):
    """What a line must have, and what it may."""

    time: str
    status: int
    duration_ms: float
    decision: str = ""
    listener: str = ""
    route: str = ""
    upstream: str = ""
    endpoint: str = ""
    method: str = "GET"
    path: str = "/"
    host: str = ""
    client: str = ""
    attempts: int = 1


class Logged:
    """A log that was read: its requests in the order in which they came."""

    def __init__(self, entries: list[tuple[float, Entry]], skipped: int) -> None:
        """`entries`: seconds since the epoch at which each came in."""
        entries.sort(key=lambda one: one[0])
        self.begin = entries[0][0] if entries else 0.0
        self.entries = [(came - self.begin, entry) for came, entry in entries]
        self.skipped = skipped
        """Lines of requests that never reached a route."""

    @property
    def seconds(self) -> float:
        """From the first request to the last."""
        return max(0.001, self.entries[-1][0]) if self.entries else 0.001

    def endpoints(self, config: Config) -> dict[str, list[str]]:
        """The endpoints of upstreams that the configuration leaves to discovery."""
        found: dict[str, dict[str, None]] = {one.name: {} for one in config.upstreams if not one.endpoints}
        for _, entry in self.entries:
            if entry.endpoint and entry.upstream in found and not entry.decision:
                found[entry.upstream][entry.endpoint] = None
        return {name: sorted(addresses) for name, addresses in found.items()}

    def streams(self, network: Network) -> Iterator[Iterator[Call]]:
        """One stream: all of it."""
        yield self._calls(network)

    def _calls(self, network: Network) -> Iterator[Call]:
        known: dict[tuple[str, str, str, str, str], Asked] = {}
        only = next(iter(network.listeners), "")
        for came, entry in self.entries:
            listener = entry.listener if entry.listener in network.listeners else only
            key = (listener, entry.route, entry.method, entry.host, entry.path)
            asked = known.get(key)
            if asked is None:
                asked = known[key] = asked_for(0, network, *key, {})
            yield Call(asked, came, entry.path.encode(), entry.client.encode(), entry)


def read_log(file: str) -> Logged:
    """Read an access log; raises `InvalidConfig` with the first lines that are none."""
    decoder = msgspec.json.Decoder(Entry)
    entries: list[tuple[float, Entry]] = []
    faults: list[Fault] = []
    skipped = 0
    try:
        with open(file, "rb") as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                try:
                    entry = decoder.decode(line)
                    ended = datetime.fromisoformat(entry.time).timestamp()
                except (ValueError, msgspec.MsgspecError) as error:
                    if line.endswith(b"\n"):  # else it was cut off while being written
                        faults.append(Fault(file, Mark(number), "", f"not a line of an access log: {error}"))
                    if len(faults) >= _MOST_FAULTS:
                        break
                    continue
                if entry.status == 0 or entry.decision in _NOT_SERVED:
                    skipped += 1
                else:
                    entries.append((ended - entry.duration_ms / 1000, entry))
                if number > MOST_LINES:
                    faults.append(Fault(file, Mark(number), "", f"more than {MOST_LINES:,} lines: give a part of it"))
                    break
    except OSError as error:
        faults = [Fault(file, Mark(), "", error.strerror or str(error))]
    if not entries and not faults:
        faults = [Fault(file, Mark(), "", "no request in it")]
    if faults:
        raise InvalidConfig(faults)
    return Logged(entries, skipped)


class LoggedWorld:
    """What the log says that upstreams did."""

    def __init__(self, logged: Logged) -> None:
        good: dict[str, list[float]] = {}
        for _, entry in logged.entries:
            if not entry.decision:
                good.setdefault(entry.upstream, []).append(entry.duration_ms / 1000)
        self._usual = {name: Outcome(median(seconds), 200) for name, seconds in good.items()}
        self._last: dict[tuple[str, str], Outcome] = {}

    def edges(self, network: Network) -> Iterator[tuple[float, Callable[[], None]]]:  # noqa: ARG002
        return iter(())

    def has_left(self, call: Call, endpoint: Endpoint) -> bool:
        return self._met_again(call, endpoint).fault is Decision.CONNECT_FAILURE

    def connects(self, call: Call, endpoint: Endpoint) -> Outcome:
        outcome = self._met_again(call, endpoint)
        if outcome.fault is Decision.CONNECT_FAILURE:
            return outcome
        return Outcome(_CONNECT, 200)

    def answers(self, call: Call, endpoint: Endpoint) -> Outcome:
        return self._met_again(call, endpoint)

    def body(self, endpoint: Endpoint) -> bytes:  # noqa: ARG002
        return _BODY

    def _met_again(self, call: Call, endpoint: Endpoint) -> Outcome:
        name, entry = endpoint.upstream.name, call.seen
        assert entry is not None, "every call comes from a line"
        if entry.upstream == name:
            self._learn(entry)
            if call.attempt < entry.attempts:
                return _FAILED[Decision.CONNECT_FAILURE]
            own = _outcome(entry)
            if own is not None and entry.endpoint in ("", endpoint.address):
                return own
        last = self._last.get((name, endpoint.address)) or self._last.get((name, ""))
        return last or self._usual.get(name) or Outcome(_USUAL, 200)

    def _learn(self, entry: Entry) -> None:
        outcome = _outcome(entry)
        if outcome is not None:
            self._last[entry.upstream, entry.endpoint] = self._last[entry.upstream, ""] = outcome


def _outcome(entry: Entry) -> Outcome | None:
    """What the upstream did; None where the line does not know."""
    if not entry.decision:
        return Outcome(entry.duration_ms / 1000, entry.status)
    return _FAILED.get(entry.decision)
