"""The program's own log: stable names, fields, one line each, and no flood."""

import io
import json
import logging

import pytest

from sidecar.runtime import logs
from sidecar.runtime.logs import Log


@pytest.fixture(autouse=True)
def logging_as_before():
    root, own = logging.getLogger(), logging.getLogger("sidecar")
    handlers, levels = list(root.handlers), (root.level, own.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    own.setLevel(levels[1])
    logging.captureWarnings(False)


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    return now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_its_fields():
    stream = io.StringIO()
    logs.setup("info", "json", stream)
    Log("proxy.accept").info("listener_bound", listener="inbound", port=8080)
    (line,) = lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {"level": "info", "event": "listener_bound", "listener": "inbound", "port": 8080}


def test_nobody_forges_a_line():
    for form in ("json", "text"):
        stream = io.StringIO()
        logs.setup("info", form, stream)
        Log("x").warning("odd", value='a\n{"event": "forged"}\x1b[31m\udc80')
        assert stream.getvalue().count("\n") == 1
        assert "\x1b" not in stream.getvalue()


def test_an_error_brings_its_traceback():
    stream = io.StringIO()
    logs.setup("info", "json", stream)
    try:
        raise KeyError("gone")
    except KeyError as error:
        Log("x").error("task_failed", error=error, task="watch")
    (line,) = lines(stream)
    assert line["task"] == "watch"
    assert "KeyError: 'gone'" in line["traceback"]


def test_the_level_decides_what_is_said():
    stream = io.StringIO()
    logs.setup("warning", "json", stream)
    Log("x").info("quiet")
    Log("x").warning("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]


def test_a_repeated_event_is_held_back_and_the_next_says_how_often(clock):
    stream = io.StringIO()
    logs.setup("info", "json", stream)
    log = Log("x")
    for _ in range(100):
        log.warning("accept_paused", every=10.0, about="inbound")
    log.warning("accept_paused", every=10.0, about="outbound")
    clock[0] += 10.0
    log.warning("accept_paused", every=10.0, about="inbound")
    assert [line.get("held_back", 0) for line in lines(stream)] == [0, 0, 99]


def test_the_memory_of_what_was_said_is_bounded(clock):
    logs.setup("info", "json", io.StringIO())
    log = Log("x")
    for number in range(5000):
        log.warning("odd", every=10.0, about=str(number))
    assert len(log._said) <= 1001


def test_a_terminal_gets_readable_lines_and_a_pipe_json(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        logs.setup("info", "auto", stream)
        Log("x").warning("config_reload_failed", reason="line 3: no such key")
    assert "\x1b[33mwarning" in terminal.getvalue()
    assert 'config_reload_failed     reason="line 3: no such key"' in terminal.getvalue()
    assert lines(pipe)[0]["event"] == "config_reload_failed"


def test_no_color_is_honoured(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    logs.setup("info", "auto", terminal)
    Log("x").error("odd")
    assert "\x1b" not in terminal.getvalue()


def test_libraries_speak_up_only_when_something_is_wrong():
    stream = io.StringIO()
    logs.setup("debug", "json", stream)
    logging.getLogger("asyncio").info("Using selector")
    logging.getLogger("asyncio").error("Task exception was never retrieved")
    (line,) = lines(stream)
    assert (line["event"], line["library"]) == ("library_message", "asyncio")
