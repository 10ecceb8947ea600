"""`python -m benchmarks.instructions`: instructions per request, counted and not timed.

Seconds on a shared machine differ by a fifth from run to run; the number of instructions that the same requests take
does not differ by a hundredth, so this is what a change of a few per cent is judged by, and what the tests hold a
budget to. The proxy runs under callgrind, uncounted until it is warm; then the counter is read before and after a fixed
number of requests that one client sends one after another, so that nothing depends on what arrives together.

The count depends on the interpreter's build and the event loop's, which the budget therefore names; it is not
comparable between two machines that differ in them, nor does it see what the kernel does.
"""

import argparse
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks.rig import results, routes
from benchmarks.rig.certificate import trusting_anybody
from benchmarks.rig.machine import ROOT, build_facts
from benchmarks.rig.origin import origins
from benchmarks.rig.peers import Running, peer_named, started

BUDGET = ROOT / "benchmarks/results/instructions.json"
TOLERANCE = 0.03
_WARM_UP = 300
_BATCHES = 10
"""The least of so many counts: what happens by the clock, or because a busy machine delivered an answer in two pieces,
stays out."""

WORKS = {
    "get-1k": b"k" * 1024,
    "post-1k": b"stored\n",
    "chunked-16x1k": b"\r\n0\r\n\r\n",
    "get-1k-tls": b"k" * 1024,
}
"""The counted requests (`routes.REQUESTS`) and how their answers end."""


class Budget(msgspec.Struct, frozen=True):
    """Instructions per request by work, as recorded on the build that `build` names."""

    build: dict[str, str]
    per_request: dict[str, float]


def measure(works: list[str], peer: str = "sidecar", requests: int = 1000) -> dict[str, float]:
    """Instructions per request of the whole process tree, for each of `works`."""
    with origins() as (scratch, origin):
        # Hashes of strings decide how dictionaries collide; fixed, so that two runs take the same steps.
        with started(peer_named(peer), scratch, origin, tracer(scratch), {"PYTHONHASHSEED": "0"}) as running:
            return {work: _count(running, scratch, work, requests) for work in works}


def tracer(scratch: Path) -> tuple[str, ...]:
    """What goes before a command whose instructions `count` counts; its dumps go to `scratch`."""
    return (
        "valgrind",
        "-q",
        "--tool=callgrind",
        "--instr-atstart=no",
        "--trace-children=yes",
        f"--callgrind-out-file={scratch}/counts.%p",
    )


def _count(running: Running, scratch: Path, work: str, requests: int) -> float:
    assert running.process is not None
    secure = work.endswith("-tls")
    port = running.ports.tls if secure else running.ports.streams if work == "chunked-16x1k" else running.ports.files
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        spoken = trusting_anybody().wrap_socket(connection) if secure else connection
        send = sender(spoken, routes.REQUESTS[work], WORKS[work])
        return count(running.process.tree(), scratch, send, requests)


def count(
    pids: list[int],
    scratch: Path,
    send: Callable[[], None],
    requests: int,
    warm_up: int = _WARM_UP,
    batches: int = _BATCHES,
) -> float:
    """Instructions that the traced `pids` take for each `send`, once warm: the least of the `batches`."""
    _control(pids, "-i", "on")
    for _ in range(warm_up):
        send()
    _control(pids, "-d", "before")
    each = max(1, requests // batches)
    counts = []
    for _ in range(batches):
        for _ in range(each):
            send()
        _control(pids, "-d", "after")  # which begins the next count at nothing
        counts.append(_counted(scratch, "after") / each)
    _control(pids, "-i", "off")
    return min(counts)


def sender(connection: socket.socket, request: bytes, ending: bytes) -> Callable[[], None]:
    """Sends `request` and reads a 200 up to its `ending`; RuntimeError when something else comes."""

    def send() -> None:
        connection.sendall(request)
        answer = connection.recv(65536)
        while not answer.endswith(ending):
            piece = connection.recv(65536)
            if not piece:
                raise RuntimeError(f"closed after {answer[:80]!r}")
            answer += piece
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"answered {answer[:80]!r}")

    return send


def _control(pids: list[int], *arguments: str) -> None:
    for pid in pids:
        subprocess.run(["callgrind_control", *arguments, str(pid)], check=True, capture_output=True, timeout=60)


def _counted(scratch: Path, label: str) -> int:
    """The sum over the processes of what was counted up to the newest dump called `label`; the dumps are consumed."""
    total = 0
    for dump in scratch.glob("counts.*"):
        text = dump.read_text(errors="replace")
        if f"Trigger: dump {label}" in text:
            found = re.search(r"^totals: (\d+)", text, re.MULTILINE)
            total += int(found.group(1)) if found else 0
        if "Trigger: dump" in text:
            dump.unlink()
    if not total:
        raise RuntimeError("callgrind wrote no count")
    return total


def budget() -> Budget | None:
    """The recorded budget, or None when none was recorded."""
    return msgspec.json.decode(BUDGET.read_bytes(), type=Budget) if BUDGET.exists() else None


def over(counted: dict[str, float], allowed: Budget) -> list[str]:
    """One sentence for each work that takes more than its budget and tolerance."""
    return [
        f"{work}: {count:,.0f} instructions, budget {allowed.per_request[work]:,.0f} "
        f"({count / allowed.per_request[work] - 1:+.1%}, tolerance {TOLERANCE:.0%})"
        for work, count in counted.items()
        if work in allowed.per_request and count > allowed.per_request[work] * (1 + TOLERANCE)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--works", default=",".join(WORKS), help=f"comma-separated, of {','.join(WORKS)}")
    parser.add_argument("--peer", default="sidecar", help="any that benchmarks.load knows")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--record", action="store_true", help="write the counts as the new budget")
    asked = parser.parse_args()
    counted = measure(asked.works.split(","), asked.peer, asked.requests)
    for work, count in counted.items():
        print(f"{work}: {count:,.0f} instructions a request")
    allowed = budget()
    if asked.record:
        earlier = allowed.per_request if allowed and allowed.build == build_facts() else {}
        recorded = Budget(build_facts(), {**earlier, **{work: round(count) for work, count in counted.items()}})
        results.write(recorded, BUDGET)
        return 0
    if allowed is None or asked.peer != "sidecar":
        return 0
    if allowed.build != build_facts():
        print(f"no budget for this build ({build_facts()}); recorded for {allowed.build}")
        return 0
    excess = over(counted, allowed)
    print("\n".join(excess) or "within budget")
    return 1 if excess else 0


if __name__ == "__main__":
    sys.exit(main())
