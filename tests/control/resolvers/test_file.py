"""Endpoints from a watched file."""

import asyncio
import os

from sidecar.control.resolvers.file import MAX_BYTES, FileSource
from sidecar.machines.membership import Member
from tests.fakes.reports import watching


def write(path, text):
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def test_a_file_is_read_watched_and_a_bad_one_is_told(tmp_path):
    path = tmp_path / "endpoints.yaml"

    async def story():
        async with watching(FileSource(str(path), 0.02)) as reports:
            assert "No such file" in await reports.fail()
            write(path, "[{address: '10.0.0.1:80', weight: 3, priority: 1}]")
            await reports.see("10.0.0.1:80")
            assert reports.answers[-1].members == (Member("10.0.0.1:80", 3, 1),)
            write(path, '[{"address": "10.0.0.2:80"}]')
            await reports.see("10.0.0.2:80")
            write(path, "- {address: nowhere}\n- {adress: 1}")
            assert await reports.fail() == (
                f"{path}:1:13: [0].address: 'nowhere' is not an address: write host:port, [::1]:port or unix:/path; "
                "and 2 more"
            )
            assert reports.last == ["10.0.0.2:80"]
            path.unlink()
            await reports.until(lambda: "No such file" in reports.failures[-1])
            write(path, "[]")
            await reports.see()
            path.write_bytes(b"#" * (MAX_BYTES + 1))
            await reports.until(lambda: "larger than 1 MiB" in reports.failures[-1])

    asyncio.run(story())


def test_a_swapped_symlink_is_noticed(tmp_path):
    """As the kubelet swaps a ConfigMap."""
    for name, port in (("old", 1), ("new", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "list").write_text(f"[{{address: '10.0.0.1:{port}'}}]")
    (tmp_path / "data").symlink_to("old")

    async def story():
        async with watching(FileSource(str(tmp_path / "data" / "list"), 0.02)) as reports:
            await reports.see("10.0.0.1:1")
            (tmp_path / "next").symlink_to("new")
            os.rename(tmp_path / "next", tmp_path / "data")
            await reports.see("10.0.0.1:2")

    asyncio.run(story())


def test_an_unchanged_file_is_an_answer_at_each_look(tmp_path):
    path = tmp_path / "list"
    path.write_text("[{address: '10.0.0.1:1'}]")

    async def story():
        async with watching(FileSource(str(path), 0.01)) as reports:
            await reports.until(lambda: len(reports.answers) >= 3)
            assert reports.failures == []

    asyncio.run(story())
