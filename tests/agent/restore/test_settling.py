"""What is restored goes to the disk while the rest is fetched, and a disk that fails then is not forgotten."""

import threading
from pathlib import Path

import pytest

from sidecar.agent.faults import StorageFailure
from sidecar.agent.restore import exchange
from sidecar.agent.restore.exchange import settling

PATIENCE = 30.0


def test_it_goes_to_the_disk_beside_the_work_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    gone, real = threading.Semaphore(0), exchange.settle

    def settle(directory: str) -> None:
        real(directory)
        gone.release()

    monkeypatch.setattr(exchange, "settle", settle)
    before = threading.active_count()
    with settling(str(tmp_path)):
        for _ in range(2):
            (tmp_path / "file").write_bytes(b"x" * 1_000_000)
            assert gone.acquire(timeout=PATIENCE)
    assert threading.active_count() == before, "nobody goes on when the work is done"


def test_what_the_disk_said_meanwhile_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The kernel says it once: whoever asks later hears that all is well."""
    said = threading.Event()

    def settle(_: str) -> None:
        said.set()
        raise StorageFailure("Input/output error")

    monkeypatch.setattr(exchange, "settle", settle)
    with pytest.raises(StorageFailure, match="Input/output error"), settling(str(tmp_path)):
        assert said.wait(PATIENCE)
