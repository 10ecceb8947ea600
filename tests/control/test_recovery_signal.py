"""Processes signalled by name: who is meant, and whether it is another one than before."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys

import pytest

from sidecar.control.recovery.actions.signal import SignalProcess, find
from sidecar.control.recovery.ports import ActionFailed

LISTEN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"


@pytest.fixture
def named(tmp_path):
    """Starts processes of a name that nobody else has."""
    name = f"svc{os.getpid()}"
    (tmp_path / name).symlink_to(os.path.realpath(sys.executable))
    started = []

    def start(*words, code=LISTEN):
        argv = [str(tmp_path / name), "-S", "-c", code, *words]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"\n"
        started.append(process)
        return process

    yield name, start
    for one in started:
        with contextlib.suppress(ProcessLookupError):
            one.kill()
        one.wait()
        one.stdout.close()


def test_who_is_deaf_is_killed_and_only_another_one_is_proof(named):
    name, start = named
    deaf = start()
    action = SignalProcess(name, "SIGTERM")
    assert action.restarts
    assert asyncio.run(action.run()) == f"SIGTERM to {deaf.pid}"
    assert deaf.wait(10) == -signal.SIGKILL
    assert not action.renewed(), "nobody is there"
    start()
    assert action.renewed()


def test_the_dead_are_not_found_and_a_harmless_signal_proves_nothing_new(named):
    name, start = named
    one, dead = start(), start()
    dead.kill()
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)  # dead, and not buried yet
    assert {pid for pid, _ in find(name)} == {one.pid}
    action = SignalProcess(name, "SIGWINCH")
    asyncio.run(action.run())
    assert not action.restarts
    assert action.renewed()
    assert one.poll() is None


def test_nobody_of_that_name_and_no_such_signal():
    with pytest.raises(ActionFailed, match="shareProcessNamespace"):
        asyncio.run(SignalProcess("nobody-has-this-name", "SIGTERM").run())
    with pytest.raises(ActionFailed, match="knows no SIGNOTHING"):
        asyncio.run(SignalProcess("x", "SIGNOTHING").run())


def test_we_ourselves_are_never_meant():
    name = os.path.basename(sys.executable)
    ours = subprocess.Popen([sys.executable, "-c", LISTEN, "sidecar.app.process"], stdout=subprocess.PIPE)
    try:
        assert ours.stdout.readline() == b"\n"
        assert ours.pid not in {pid for pid, _ in find(name)}
    finally:
        ours.kill()
        ours.wait()
        ours.stdout.close()
