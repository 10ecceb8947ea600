"""The wall clock jumps an hour ahead, and two back: nothing that is decided may change.

libfaketime stands between the program and the clock; the monotonic clock stays true, as it does when a real one jumps.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.fakes.upstream import ScriptedUpstream, says
from tests.real.documents import document, free_port, listener, route, upstream
from tests.real.harness import Sidecar

HOUR = 3600
CHECK = {"tcp": {}, "interval": "200ms", "timeout": "200ms", "unhealthy_after": 1}


EJECT = {"max_ejected": 0.5, "base_ejection": "5m"}


def faked(clock: Path) -> list[str]:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return [
        "env",
        f"LD_PRELOAD={library}",
        f"FAKETIME_TIMESTAMP_FILE={clock}",
        "FAKETIME_NO_CACHE=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
        "FAKETIME_DONT_RESET=1",
    ]


def jump(clock: Path, seconds: int) -> None:
    new = clock.with_suffix(".new")
    new.write_text(f"{seconds:+d}\n")
    new.rename(clock)


def test_jumps_of_an_hour_change_nothing(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    jump(clock, 0)
    with ScriptedUpstream() as good, ScriptedUpstream() as bad:
        good.otherwise(says(b"fine", fields=[("cache-control", "max-age=60")]))
        bad.otherwise(says(b"bad", "500 Internal Server Error"))
        kept: dict[str, Any] = {"fallback": [{"cache": {"max_age": "10m"}}]}
        tree = document(
            [
                listener(
                    "in",
                    [
                        route("sick", "sick", "/sick"),
                        route("hand", "hand", "/hand", **kept),
                        route("checked", "checked", "/checked"),
                        route("pair", "pair"),
                    ],
                )
            ],
            [
                upstream("sick", bad.address, breaker={"open_for": "5m"}),
                upstream("hand", good.address, breaker={}),
                upstream("pair", good.address, bad.address, balance="round_robin", outlier=EJECT),
                upstream("checked", good.address, f"127.0.0.1:{free_port()}", health_check=CHECK),
            ],
        )
        with Sidecar(tree, prefix=faked(clock)) as proxy:
            assert proxy.get("in", "/hand").body == b"fine"
            for _ in range(10):
                proxy.get("in", "/sick")
                proxy.get("in")
            proxy.command("breaker", "open", "hand", "--for", "10m")
            calls = len(bad.requests("/"))
            before = stand(proxy)
            assert before == {"sick": "open", "hand": "open", "pair": "closed", "checked": "closed", "out": 1}
            for seconds in (HOUR, -HOUR, 0):
                jump(clock, seconds)
                assert proxy.metrics().sum("sidecar_breaker_state", upstream="sick", state="open") == 1
                refused = proxy.get("in", "/sick")
                assert refused.decision == "breaker_open"
                assert 200 <= int(refused.get("retry-after") or 0) <= 300
                again = proxy.get("in", "/hand")
                assert (again.body, again.decision) == (b"fine", "fallback_cache")
                assert int(again.get("age") or 0) < 120
                shown = next(one for one in proxy.status()["breakers"] if one["name"] == "hand")
                assert 500 <= shown["remaining_seconds"] <= 600
                for _ in range(4):
                    assert proxy.get("in").body == b"fine", "who is ejected stays out"
                checks = good.connections
                good.wait_until(lambda before=checks: good.connections > before + 2, "checks that go on")
                assert stand(proxy) == before
                told = max(one["last_check"] for one in proxy.admin("/api/v1/health").json())
                off = (datetime.fromisoformat(told) - datetime.now(UTC)).total_seconds()
                assert abs(off - seconds) < 120, "the program's wall clock did jump"
            assert len(bad.requests("/")) == calls


def stand(proxy: Sidecar) -> dict[str, Any]:
    """Every breaker's state, and how many endpoints are ejected."""
    status = proxy.status()
    found: dict[str, Any] = {one["name"]: one["state"] for one in status["breakers"]}
    found["out"] = sum(bool(one["ejected"]) for upstream_ in status["upstreams"] for one in upstream_["endpoints"])
    return found
