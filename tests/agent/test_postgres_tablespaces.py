"""Tablespaces of a copy: that they are its own after a restore that was killed, and that none is made in secret."""

import os
from pathlib import Path

import pytest

from sidecar.agent.faults import SourceFailure
from sidecar.agent.sources.postgres_tablespaces import link, made
from sidecar.agent.wal import name_of
from tests.fakes.wal import BLOCK, SIZE, laid

START = 5 * SIZE


def record(path: bytes) -> bytes:
    """As PostgreSQL 15 writes it: length, transaction, the one before, what it is, a checksum; then the data."""
    data = (16385).to_bytes(4, "little") + path + b"\0"
    length = b"\xff" + bytes([len(data)]) if len(data) < 256 else b"\xfe" + len(data).to_bytes(4, "little")
    head = (24 + len(length) + len(data)).to_bytes(4, "little") + bytes(12) + b"\0\x05\0\0"
    return head + os.urandom(4) + length + data


@pytest.mark.parametrize("path", [b"/a", b"/srv/" + b"x" * 90, b"/srv/" + b"y" * 900])
def test_where_a_tablespace_is_made_is_found_wherever_the_record_lies(tmp_path: Path, path: bytes):
    names = [name_of("00000001", number, SIZE) for number in (5, 6)]
    for border in (BLOCK - 40, SIZE - 40 - 24 * (SIZE // BLOCK - 1)):
        one = record(path)
        for before in range((border - len(one)) & -8, border + 16, 8 if len(one) < 200 else 120):
            for name, content in zip(names, laid(bytes(before) + one, START), strict=False):
                (tmp_path / name).write_bytes(content)
            assert made(str(tmp_path), names, SIZE) == path.decode(), before


def test_what_is_no_such_record_is_none(tmp_path: Path):
    name = name_of("00000001", 5, SIZE)
    for wrong in (record(b"/a").replace(b"/a", b"/ab"), record(b"/a").replace(b"\x05", b"\x04"), record(b"a")):
        (tmp_path / name).write_bytes(laid(wrong, START)[0])
        assert made(str(tmp_path), [name], SIZE) == ""


def copy_of(directory: Path) -> Path:
    """As it is kept: no link."""
    for oid in ("16385", "16386"):
        (directory / "pg_tblspc" / oid / "PG_15").mkdir(parents=True)
        (directory / "pg_tblspc" / oid / "PG_15" / "file").write_text(oid)
    return directory


def test_links_lead_into_the_copy_however_far_a_killed_one_came(tmp_path: Path):
    copy, final = copy_of(tmp_path / "beside"), tmp_path / "final"
    (copy / "tablespaces").mkdir()
    (copy / "pg_tblspc" / "16385").rename(copy / "tablespaces" / "16385")
    for _ in range(2):
        link("pg", str(copy), str(final), ["16385", "16386"])
    copy.rename(final)
    for oid in ("16385", "16386"):
        assert (final / "pg_tblspc" / oid).readlink() == final / "tablespaces" / oid
        assert (final / "pg_tblspc" / oid / "PG_15" / "file").read_text() == oid


def test_a_link_that_leads_elsewhere_is_refused(tmp_path: Path):
    copy = copy_of(tmp_path / "beside")
    (copy / "pg_tblspc" / "16387").symlink_to(tmp_path)
    with pytest.raises(SourceFailure, match="16387 leads to"):
        link("pg", str(copy), str(copy), ["16385", "16386"])
