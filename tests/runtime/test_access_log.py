"""The access log: every field, whole lines, no exception for odd bytes, bounds when nobody reads, rotation."""

import json
import os
import threading
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.base.errors import ConfigError
from sidecar.runtime import access_log
from sidecar.runtime.access_log import AccessLog
from sidecar.runtime.series import Counter


def record(log: AccessLog, **changes) -> None:
    fields = {
        "listener": "inbound",
        "route": "all",
        "upstream": "app",
        "endpoint": "127.0.0.1:8000",
        "method": b"GET",
        "path": b"/orders/17?x=1",
        "host": b"orders.internal",
        "status": 200,
        "decision": "",
        "duration": 0.0012345,
        "bytes_in": 10,
        "bytes_out": 20,
        "request_id": "abc",
        "traceparent": b"",
        "client": "10.0.0.1:40000",
        "attempts": 1,
    }
    log.record(*(fields | changes).values())


def written(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "access.log"


def test_a_line_has_every_field(path):
    log = AccessLog(str(path), 1.0, Counter())
    log.start()
    record(log)
    log.stop()
    (line,) = written(path)
    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line == {
        "listener": "inbound",
        "route": "all",
        "upstream": "app",
        "endpoint": "127.0.0.1:8000",
        "method": "GET",
        "path": "/orders/17?x=1",
        "host": "orders.internal",
        "status": 200,
        "decision": "",
        "duration_ms": 1.234,
        "bytes_in": 10,
        "bytes_out": 20,
        "request_id": "abc",
        "traceparent": "",
        "client": "10.0.0.1:40000",
        "attempts": 1,
    }


@given(path=st.binary(), host=st.binary(), request_id=st.text(max_size=20))
def test_no_bytes_make_it_fail_or_break_a_line(path, host, request_id):
    log = AccessLog("stdout", 1.0, Counter())  # not started: what was encoded stays in the buffer
    record(log, path=path, host=host, request_id=request_id)
    record(log, path=b"/next")
    first, second = bytes(log._buffer).splitlines()
    assert json.loads(first)["path"] == path.decode("utf-8", "backslashreplace")
    assert json.loads(second)["path"] == "/next"


def test_sampling_is_even_and_never_skips_what_went_wrong():
    log = AccessLog("stdout", 0.25, Counter())
    for number in range(100):
        record(log, path=f"/{number}")
    record(log, status=500)
    record(log, status=404, decision="no_route")
    lines = [json.loads(line) for line in log._buffer.splitlines()]
    assert [line["path"] for line in lines[:3]] == ["/3", "/7", "/11"]
    assert len(lines) == 27
    assert [line["status"] for line in lines[-2:]] == [500, 404]


def test_sampling_counts_odd_bytes_once():
    log = AccessLog("stdout", 0.5, Counter())
    for _ in range(10):
        record(log, path=b"\xff")
    assert len(log._buffer.splitlines()) == 5


def test_it_writes_before_it_is_stopped(path):
    log = AccessLog(str(path), 1.0, Counter())
    log.start()
    record(log)
    deadline = threading.Event()
    while not path.read_bytes():
        deadline.wait(0.01)  # pytest's own time-out ends a wait in vain
    log.stop()


def test_a_reader_that_stalls_costs_lines_and_neither_time_nor_memory(monkeypatch):
    monkeypatch.setattr(access_log, "LIMIT_BYTES", 256 * 1024)
    reading, writing = os.pipe()
    dropped = Counter()
    log = AccessLog(f"/dev/fd/{writing}", 1.0, dropped)
    log.start()
    sent = 5000
    for _ in range(sent):
        record(log)  # nobody reads: were this to block, the test would hang
    assert dropped.value > 0
    assert len(log._buffer) <= 256 * 1024 + 1000
    os.close(writing)
    received = bytearray()

    def read_all() -> None:
        while piece := os.read(reading, 65536):
            received.extend(piece)

    reader = threading.Thread(target=read_all)
    reader.start()
    log.stop()
    reader.join()
    os.close(reading)
    lines = [json.loads(line) for line in received.splitlines()]
    assert len(lines) + dropped.value == sent


def test_a_reader_that_is_gone_is_counted_and_survived():
    reading, writing = os.pipe()
    dropped = Counter()
    log = AccessLog(f"/dev/fd/{writing}", 1.0, dropped)
    log.start()
    os.close(writing)
    os.close(reading)
    record(log)
    log.stop()
    assert dropped.value == 1


def test_reopening_follows_a_rotated_file(path, tmp_path):
    log = AccessLog(str(path), 1.0, Counter())
    log.start()
    record(log, path="/before")
    while not path.read_bytes():
        threading.Event().wait(0.01)
    path.rename(tmp_path / "access.log.1")
    log.reopen()
    while not path.exists():
        threading.Event().wait(0.01)
    record(log, path="/after")
    log.stop()
    assert [line["path"] for line in written(tmp_path / "access.log.1")] == ["/before"]
    assert [line["path"] for line in written(path)] == ["/after"]


def test_workers_that_share_a_pipe_write_whole_lines():
    reading, writing = os.pipe()
    workers = [AccessLog(f"/dev/fd/{writing}", 1.0, Counter(), shared=True) for _ in range(2)]
    for log in workers:
        log.start()
    os.close(writing)
    received = bytearray()

    def read_all() -> None:
        while piece := os.read(reading, 65536):
            received.extend(piece)

    reader = threading.Thread(target=read_all)
    reader.start()
    for number in range(2000):
        for log in workers:
            record(log, path=f"/{number}")
    for log in workers:
        log.stop()
    reader.join()
    os.close(reading)
    assert len([json.loads(line) for line in received.splitlines()]) == 4000


def test_a_destination_that_cannot_be_opened_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match="no-such-directory"):
        AccessLog(str(tmp_path / "no-such-directory" / "x.log"), 1.0, Counter()).start()
