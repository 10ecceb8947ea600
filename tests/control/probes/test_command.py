"""Command probes: by exit code, without a shell, and nothing that they started outlives them."""

import asyncio
import sys
from pathlib import Path

import pytest
import uvloop

from sidecar.control.probes.command import CommandProbe
from sidecar.control.probes.probe import Result, ask
from tests.real.test_supervised import MARK, marked


def run(*argv: str, timeout: float = 10.0) -> Result:
    return asyncio.run(ask(CommandProbe(argv), timeout))


def python(code: str, timeout: float = 10.0) -> Result:
    return run(sys.executable, "-S", "-c", code, timeout=timeout)


@pytest.mark.parametrize(
    ("code", "ok", "detail"),
    [
        ("", True, "exited with 0"),
        ("print('fine')", True, "exited with 0"),
        ("raise SystemExit(7)", False, "exited with 7"),
        ("print('no disk\\nmore'); raise SystemExit(2)", False, "exited with 2: no disk"),
        ("import sys; sys.exit('on stderr')", False, "exited with 1: on stderr"),
        ("import os; os.kill(os.getpid(), 9)", False, "was killed by SIGKILL"),
        ("print('x' * 65536)", False, "wrote more than 64 KiB"),
        ("import sys\nwhile True: sys.stdout.buffer.write(bytes(65536))", False, "wrote more than 64 KiB"),
        ("import sys; sys.stdout.buffer.write(b'\\xff\\0\\n'); sys.exit(3)", False, "exited with 3: \ufffd\0"),
        ("import sys; sys.exit(sys.stdin.read() != '')", True, "exited with 0"),
    ],
)
def test_what_it_says(code: str, ok: bool, detail: str) -> None:
    assert python(code)[::2] == (ok, detail)


def test_words_stay_words() -> None:
    assert run("test", "$HOME; exit 1", "=", "$HOME; exit 1").ok


def test_what_cannot_be_run() -> None:
    assert run("/none").detail == "No such file or directory"
    assert run("/etc/passwd").detail == "Permission denied"


FAMILY = """
import os, sys, time
if os.fork() == 0:
    open(sys.argv[1], 'w').write(f'{os.getpid()} {os.getppid()}')
    time.sleep(60)
while not os.path.exists(sys.argv[1]) or not open(sys.argv[1]).read():
    time.sleep(0.01)
%s
"""


def gone(pid: int) -> bool:
    """Whether the process has ended: there is none, or it waits for its new parent to reap it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_gone(pids: list[int]) -> None:
    async def poll() -> None:
        while not all(gone(pid) for pid in pids):
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(poll(), 10.0))


@pytest.mark.parametrize(
    ("end", "timeout", "detail"),
    [("time.sleep(60)", 0.7, "no answer within 700ms"), ("os._exit(5)", 10.0, "exited with 5")],
)
def test_its_whole_group_goes_with_it(tmp_path: Path, end: str, timeout: float, detail: str) -> None:
    """Out of time or at its own end; a child that holds the pipe open delays nothing."""
    pids = tmp_path / "pids"
    result = run(sys.executable, "-S", "-c", FAMILY % end, str(pids), timeout=timeout)
    assert result.detail == detail
    wait_gone([int(pid) for pid in pids.read_text().split()])


def test_a_cancelled_check_leaves_nothing(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    async def cancel() -> None:
        asking = asyncio.ensure_future(
            CommandProbe([sys.executable, "-S", "-c", FAMILY % "time.sleep(60)", str(pids)])()
        )
        while not pids.exists() or not pids.read_text():
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait({asking})

    asyncio.run(cancel())
    wait_gone([int(pid) for pid in pids.read_text().split()])


def test_out_of_time_before_it_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time may be over while the process is being started; it must not live on unseen, nor what it started."""
    monkeypatch.setenv(MARK, str(tmp_path))

    async def story() -> None:
        for step in range(40):
            await ask(CommandProbe(["sh", "-c", "sleep 1000 & sleep 1000"]), step * 0.0002)
        async with asyncio.timeout(20):
            while marked(tmp_path):
                await asyncio.sleep(0.02)

    uvloop.run(story())
