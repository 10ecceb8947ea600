"""What must hold between the codecs for any bytes at all. Each function raises AssertionError where it does not."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import h11

from sidecar.base.errors import RequestFault
from sidecar.proxy.codec import FAST, REFERENCE, Codec
from sidecar.proxy.codec.body import BadBody
from sidecar.proxy.codec.head import CHUNKED, Limits, RequestHead, ResponseHead

LIMITS = Limits(max_head=4096, max_target=1024, max_fields=40)

Outcome = tuple[Any, ...]
MORE: Outcome = ("more",)


def contents(head: RequestHead | ResponseHead) -> Outcome:
    """What a head means; `raw` is a codec's own memory and means nothing."""
    return ("head", *((name, getattr(head, name)) for name in head.__slots__ if name != "raw"))


def request_outcome(codec: Codec, data: bytes, limits: Limits = LIMITS, last: RequestHead | None = None) -> Outcome:
    try:
        head = codec.request(data, limits, last)
    except RequestFault as fault:
        return ("fault", type(fault), fault.status, fault.decision)
    return MORE if head is None else contents(head)


def response_outcome(codec: Codec, data: bytes, method: bytes = b"GET", limits: Limits = LIMITS) -> Outcome:
    try:
        head = codec.response(data, method, limits)
    except RequestFault as fault:
        return ("fault", type(fault), fault.status, fault.decision)
    return MORE if head is None else contents(head)


def cuts_agree(outcomes: Iterable[Outcome], whole: Outcome) -> None:
    """However often a growing head was looked at, there was one verdict, and once it was there it stayed."""
    decided = False
    for outcome in outcomes:
        assert outcome == whole or (outcome == MORE and not decided), (outcome, whole)
        decided = outcome != MORE


def memory_changes_nothing(first: bytes, second: bytes, limits: Limits = LIMITS) -> None:
    """A head means the same whatever came before it on its connection."""
    try:
        last = FAST.request(first, Limits(1 << 20, 1 << 20, 1000))
    except RequestFault:
        return
    assert request_outcome(FAST, second, limits, last) == request_outcome(REFERENCE, second, limits)


def request_agrees(data: bytes, limits: Limits = LIMITS, cuts: Sequence[int] = ()) -> Outcome:
    outcome = request_outcome(FAST, data, limits)
    assert outcome == request_outcome(REFERENCE, data, limits)
    cuts_agree((request_outcome(FAST, data[:cut], limits) for cut in sorted(cuts)), outcome)
    if outcome[0] == "head":
        said = dict(outcome[1:])
        again = said["wire"] + b"\r\n"
        for codec in (FAST, REFERENCE):
            head = codec.request(again, Limits(2 * limits.max_head, limits.max_target, limits.max_fields + 1))
            assert head is not None
            assert head.wire == said["wire"], "what leaves is a fixed point"
            assert head.size == len(again)
            same = ("method", "target", "path", "host", "length", "expect_continue", "request_id")
            assert all(getattr(head, name) == said[name] for name in same)
            assert (head.upgrade, head.claims) == (None, None)
    return outcome


def response_agrees(data: bytes, method: bytes = b"GET", limits: Limits = LIMITS, cuts: Sequence[int] = ()) -> Outcome:
    outcome = response_outcome(FAST, data, method, limits)
    assert outcome == response_outcome(REFERENCE, data, method, limits)
    cuts_agree((response_outcome(FAST, data[:cut], method, limits) for cut in sorted(cuts)), outcome)
    if outcome[0] == "head" and dict(outcome[1:])["status"] != 101:
        said = dict(outcome[1:])
        again = said["wire"] + b"\r\n"
        for codec in (FAST, REFERENCE):
            head = codec.response(again, method, Limits(2 * limits.max_head, limits.max_target, limits.max_fields))
            assert head is not None
            assert head.wire == said["wire"], "what leaves is a fixed point"
            assert (head.status, head.length, head.size) == (said["status"], said["length"], len(again))
    return outcome


def read_body(codec: Codec, data: bytes, cuts: Sequence[int] = (), *, decode: bool = False) -> Outcome:
    """("done" | "more", what was let out, bytes taken, bytes of payload) or ("bad",)."""
    reader = codec.body(CHUNKED, decode)
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    out = []
    taken = 0
    try:
        for start, end in pairwise(edges):
            if reader.done:
                break
            wire, count = reader.feed(data[start:end])
            assert reader.done or count == end - start, "everything is taken until the body is over"
            out.append(wire)
            taken += count
    except BadBody:
        return ("bad",)
    return ("done" if reader.done else "more", b"".join(out), taken, reader.received)


def chunked_agrees(data: bytes, cuts: Sequence[int] = ()) -> Outcome:
    outcome = read_body(FAST, data)
    assert read_body(REFERENCE, data) == outcome
    assert read_body(FAST, data, cuts) == outcome, "the cuts do not matter"
    assert read_body(REFERENCE, data, cuts) == outcome, "the cuts do not matter"
    decoded = read_body(FAST, data, decode=True)
    assert decoded[0] == outcome[0]
    assert read_body(FAST, data, cuts, decode=True) == decoded
    assert read_body(REFERENCE, data, cuts, decode=True) == decoded
    if outcome[0] == "bad":
        return outcome
    state, wire, taken, received = outcome
    assert decoded == (state, decoded[1], taken, received)
    assert len(decoded[1]) == received
    payload, ended = _h11_reads(data[:taken])
    assert payload == decoded[1], "h11 finds the same payload in what came"
    assert ended in (None, state == "done"), "h11 finds the same end"
    if state == "done":
        assert read_body(FAST, wire) == ("done", wire, len(wire), received), "what leaves is a fixed point"
        assert _h11_reads(wire) == (decoded[1], True)
    return outcome


def _h11_reads(data: bytes) -> tuple[bytes, bool | None]:
    """Payload and end of a chunked body as h11 alone sees them; an end of None where h11 refuses the trailer."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=65536)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    connection.next_event()
    connection.receive_data(data)
    payload = b""
    ended: bool | None = False
    try:
        while isinstance(event := connection.next_event(), (h11.Data, h11.EndOfMessage)):
            if isinstance(event, h11.EndOfMessage):
                return payload, True
            payload += bytes(event.data)
    except h11.RemoteProtocolError:
        ended = None
    return payload, ended
