"""The tablespaces of a PostgreSQL cluster: directories outside its own, to which the links in `pg_tblspc` lead.

A base backup puts each where its link would stand. What is kept is one tree without a link, so nothing that is restored
of it leads to the server's own directories. When a copy is made ready for a server, its tablespaces move to
`tablespaces/OID` in it, and the links lead there: a directory in place of a link is not for all versions of PostgreSQL.

The log in which a tablespace is made names the directory, and who replays that empties the directory first, whosever it
is. So it is looked for in the log before a server gets to replay it.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence

from sidecar.agent.faults import SourceFailure
from sidecar.agent.sources.postgres_tools import Server
from sidecar.agent.wal import number_of, pages

LINKS, BESIDE = "pg_tblspc", "tablespaces"
_ASKED = """SELECT coalesce(json_object_agg(oid, pg_tablespace_location(oid)), '{}')
 FROM pg_tablespace WHERE oid NOT IN (1663, 1664)"""
_MADE = re.compile(rb"\x05\0\0(?=.{4}(?:\xff(.)|\xfe(.{4})).{4}(/[^\0]{1,1023})\0)", re.DOTALL)
"""A record of RM_TBLSPC_ID (5): the end of its header, a checksum, how long its data is, an OID, the path (since 9.5:
xlogrecord.h, tablespace.h). That of a removal has no path, and what merely looks so would need its length, too."""
_LONGEST = 2048
"""Bytes that such a record has at most."""


def outside(server: Server, scratch: str) -> dict[str, str]:
    """The directory of each by OID; those that are within the data directory are no concern of ours."""
    ((found,),) = server.query(scratch, _ASKED)
    return {oid: path for oid, path in json.loads(found).items() if os.path.isabs(path)}


def mapping(found: Mapping[str, str], aside: str) -> list[str]:
    """The words for pg_basebackup, so that each comes to the directory `aside`, as its OID."""
    pairs = ((path, os.path.join(os.path.abspath(aside), oid)) for oid, path in found.items())
    return [f"--tablespace-mapping={'='.join(one.replace('=', chr(92) + '=') for one in pair)}" for pair in pairs]


def bring_in(name: str, data: str, found: Iterable[str], aside: str) -> None:
    """Put each where its link stands. Raises SourceFailure when there is another one."""
    for oid in found:
        link = os.path.join(data, LINKS, oid)
        os.unlink(link)
        os.rename(os.path.join(aside, oid), link)
    _look(name, data)


def link(name: str, data: str, at: str, oids: Sequence[str]) -> None:
    """Make the copy in `data` ready for a server, which will find it at the absolute path `at`. Again is no error."""
    for oid in oids:
        place = os.path.join(data, LINKS, oid)
        if os.path.isdir(place) and not os.path.islink(place):
            os.makedirs(os.path.join(data, BESIDE), mode=0o700, exist_ok=True)
            os.rename(place, os.path.join(data, BESIDE, oid))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place)
    _look(name, data)
    for oid in oids:
        os.symlink(os.path.join(at, BESIDE, oid), os.path.join(data, LINKS, oid))


def _look(name: str, data: str) -> None:
    for entry in os.scandir(os.path.join(data, LINKS)):
        if entry.is_symlink():
            raise SourceFailure(f"{name}: {entry.path} leads to {os.readlink(entry)}, the server's own")


def made(wal: str, names: Sequence[str], segment_bytes: int) -> str:
    """The directory of a tablespace that is made in these segments, which follow each other; "": none is."""
    before = b""
    for name in names:
        with open(os.path.join(wal, name), "rb") as file:
            content = file.read()
        # a page begins with 24 bytes of its own, the first one of a segment with 40; records go on behind them
        parts = pages(content, number_of(name, segment_bytes) * segment_bytes)
        stream = b"".join([before, *(page[24 if place else 40 :] for place, page in enumerate(parts))])
        for found in _MADE.finditer(stream):
            short, long, path = found.groups()
            if len(path) + 5 in {int.from_bytes(short or long, order) for order in ("little", "big")}:
                return os.fsdecode(path)
        before = stream[-_LONGEST:]
    return ""
