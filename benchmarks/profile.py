"""`python -m benchmarks.profile`: where the proxy's time goes, by line of Python and by function of C.

py-spy samples the Python stack while wrk loads the proxy; then, in a second run, perf samples the processor. The first
says which of our functions to look at, the second whether the time is ours at all or the kernel's and the event loop's.
"""

import argparse
import subprocess
import sys
from collections import Counter
from pathlib import Path

from benchmarks.load.works import CONNECTIONS
from benchmarks.rig import wrk
from benchmarks.rig.machine import PY_SPY, cores
from benchmarks.rig.origin import origins
from benchmarks.rig.peers import peer_named, started
from benchmarks.rig.routes import REQUESTS


def _python_profile(pid: int, seconds: float, output: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            *("taskset", "-c", str(cores()[0]), str(PY_SPY), "record", "--pid", str(pid)),
            *("--duration", str(round(seconds)), "--rate", "400", "--format", "raw", "--output", str(output)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _show(folded: str, top: int) -> None:
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for line in folded.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        own[frames[-1]] += int(count)
        for frame in {_function(frame) for frame in frames}:
            within[frame] += int(count)
    total = own.total()
    print(f"\n{total} samples\n\nown time, by line")
    for frame, samples in own.most_common(top):
        print(f"  {samples / total:6.1%}  {frame}")
    print("\nown and called, by function")
    for frame, samples in within.most_common(top):
        print(f"  {samples / total:6.1%}  {frame}")


def _function(frame: str) -> str:
    return frame.rpartition(":")[0] + ")" if ":" in frame else frame


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--work", default="get-1k", choices=list(REQUESTS))
    parser.add_argument("--peer", default="sidecar")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--top", type=int, default=40)
    asked = parser.parse_args()
    with origins() as (scratch, origin), started(peer_named(asked.peer), scratch, origin) as peer:
        assert peer.process is not None
        pid = peer.process.tree()[-1]
        script = wrk.write_script(scratch / "profile.lua", REQUESTS[asked.work])
        port, scheme = (peer.ports.tls, "https") if asked.work.endswith("-tls") else (peer.ports.files, "http")
        wrk.run(port, script, 1, CONNECTIONS, scheme)
        folded, sampled = scratch / "folded", scratch / "perf.data"
        sampler = _python_profile(pid, asked.seconds, folded)
        wrk.run(port, script, asked.seconds + 1, CONNECTIONS, scheme)
        sampler.wait(30)
        _show(folded.read_text(), asked.top)
        perf = subprocess.Popen(
            ["perf", "record", "-q", "-e", "cpu-clock", "-F", "999", "-p", str(pid), "-o", str(sampled)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wrk.run(port, script, asked.seconds, CONNECTIONS, scheme)
        perf.terminate()
        perf.wait(30)
        reported = subprocess.run(
            ["perf", "report", "-i", str(sampled), "--stdio", "--no-children", "-s", "dso,symbol"],
            capture_output=True,
            text=True,
            check=True,
        )
        lines = [line for line in reported.stdout.splitlines() if line.strip() and not line.startswith("#")]
        print("\nprocessor, by function of C and of the kernel")
        print("\n".join(lines[: asked.top]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
