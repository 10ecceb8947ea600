"""wrk as the load generator for HTTP: closed loop, keep-alive, one thread on the load's core.

The request is handed over as finished bytes, in which case wrk sends the same buffer again and again and spends
nothing on making it.
"""

import json
import subprocess
from pathlib import Path
from typing import NamedTuple

from benchmarks.rig.machine import cores

_SCRIPT = """
local request = %s
wrk.format = function() return request end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests": %%d, "microseconds": %%d, "p50": %%d, "p99": %%d, "errors": %%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


class Load(NamedTuple):
    """One run of wrk. Latencies in microseconds; they are those of a closed loop, so compare CPU, not these."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    errors: int


def write_script(path: Path, request: bytes) -> Path:
    """A script for wrk that sends exactly `request`."""
    path.write_text(_SCRIPT % _lua_string(request))
    return path


def run(port: int, script: Path, seconds: float, connections: int, scheme: str = "http") -> Load:
    """Loads 127.0.0.1:`port` for about `seconds` (wrk counts whole ones, at least 1)."""
    duration = max(1, round(seconds))
    done = subprocess.run(
        [
            *("taskset", "-c", str(cores()[0])),
            *("wrk", "-t1", f"-c{connections}", f"-d{duration}s", "--timeout", "5s", "-s", str(script)),
            f"{scheme}://127.0.0.1:{port}/",
        ],
        capture_output=True,
        text=True,
        timeout=duration + 30,
        check=True,
    )
    told = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if told is None:
        raise RuntimeError(f"wrk said nothing: {done.stdout} {done.stderr}")
    result = json.loads(told.removeprefix("RESULT "))
    return Load(
        result["requests"], result["microseconds"] / 1e6, result["p50"], result["p99"], max(0, result["errors"])
    )


def _lua_string(data: bytes) -> str:
    return '"' + "".join(f"\\{byte:03d}" for byte in data) + '"'
