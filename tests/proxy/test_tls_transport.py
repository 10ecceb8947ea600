"""TLS in memory against a plain pipe: whatever is said, however it is cut, both sides read what the other wrote.

The peer is Python's own SSLObject; the socket's transport is a list. What is checked: nothing is lost, doubled or
reordered; nothing is told before the handshake; an end is told if and only if the peer said close_notify; a byte that
is changed on the way ends everything and is never passed on.
"""

import asyncio
import contextlib
import gc
import ssl
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.proxy.tls import ANSWERS_BYTES, HANDSHAKE_BYTES, TlsTransport
from tests.fakes.trust import Authority


class Raw(asyncio.Transport):
    """A socket's transport that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.paused = self.closed = self.aborted = self.ended = False
        self.waiting = 0

    def write(self, data):
        assert not self.closed
        assert not self.ended
        self.sent += data

    def take(self):
        sent, self.sent = self.sent, b""
        return sent

    def pause_reading(self):
        self.paused = True

    def resume_reading(self):
        self.paused = False

    def write_eof(self):
        self.ended = True

    def close(self):
        self.closed = True

    def abort(self):
        self.closed = self.aborted = True

    def is_closing(self):
        return self.closed

    def get_write_buffer_size(self):
        return self.waiting

    def set_write_buffer_limits(self, high=None, low=None):
        self.limits = (high, low)


class Told(asyncio.Protocol):
    """Our protocol: notes what it hears."""

    def __init__(self, *, holds_open=False):
        self.read = b""
        self.events = []
        self.holds_open = holds_open

    def connection_made(self, transport):
        self.events.append("made")
        self.transport = transport

    def data_received(self, data):
        assert data
        assert not self.transport._raw.paused
        self.read += data

    def eof_received(self):
        self.events.append("eof")
        return self.holds_open

    def connection_lost(self, exc):
        self.events.append("lost")
        self.fault = exc

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")


class Pair:
    """Our end as a server, and a peer."""

    def __init__(self, contexts, *, holds_open=False):
        server, client = contexts
        self.told = Told(holds_open=holds_open)
        self.ends = ends = []
        self.ours = TlsTransport(self.told, server, lambda _, error: ends.append(error))
        self.raw = Raw()
        self.ours.connection_made(self.raw)
        self.into, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.peer = client.wrap_bio(self.into, self.out, server_hostname="localhost")
        self.peer_read = b""

    def peer_says(self, data):
        self.peer.write(data)

    def peer_reads(self):
        self.into.write(self.raw.take())
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while data := self.peer.read(65536):
                self.peer_read += data

    def deliver(self, cut):
        """What the peer has written, in pieces of `cut` bytes, as long as our end reads."""
        wire = self.out.read()
        while wire and not self.raw.paused and not self.raw.closed:
            piece, wire = wire[:cut], wire[cut:]
            self.ours.data_received(piece)
        return wire

    def shake(self, cut=1 << 20):
        for _ in range(10):
            self.into.write(self.raw.take())
            with contextlib.suppress(ssl.SSLWantReadError):
                self.peer.do_handshake()
            self.deliver(cut)
            if self.ends:
                self.peer_reads()
                return self
        raise AssertionError("no end of the handshake")


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("trust"))
    server = authority.server(authority.issue("server", "localhost"))
    server.options |= ssl.OP_NO_RENEGOTIATION
    return {
        version: (server, authority.client(maximum_version=version))
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    }


VERSIONS = st.sampled_from([ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
CUTS = st.one_of(st.integers(1, 40), st.integers(41, 100_000))
SIZES = st.one_of(st.integers(1, 100), st.sampled_from([16383, 16384, 16385, 32768, 32769, 65536, 150_000]))
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("peer says"), SIZES),
        st.tuples(st.just("we say"), SIZES),
        st.tuples(st.just("deliver"), CUTS),
        st.tuples(st.sampled_from(["peer reads", "pause", "resume"]), st.just(0)),
    ),
    max_size=12,
)


def pattern(size, start):
    """Bytes that show what was swapped or left out: no record's length is a multiple of 251."""
    return (b"%d:" % start + bytes(range(251)) * (size // 251 + 1))[:size]


@settings(max_examples=80, deadline=None)
@given(version=VERSIONS, cut=CUTS, actions=ACTIONS, end=st.sampled_from(["goodbye", "cut", "none"]))
def test_both_sides_read_what_the_other_wrote(contexts, version, cut, actions, end):
    pair = Pair(contexts[version]).shake(cut)
    assert pair.ends == [None]
    assert pair.told.events == ["made"]
    to_us, to_peer, owed = b"", b"", b""

    def deliver(size):
        nonlocal owed
        owed += pair.out.read()
        while owed and not pair.raw.paused and not pair.raw.closed:
            piece, owed = owed[:size], owed[size:]
            pair.ours.data_received(piece)

    for number, (action, size) in enumerate(actions):
        if action == "peer says":
            to_us += pattern(size, number)
            pair.peer_says(pattern(size, number))
        elif action == "we say":
            to_peer += pattern(size, number)
            pair.ours.write(pattern(size, number))
        elif action == "deliver":
            deliver(size)
        elif action == "peer reads":
            pair.peer_reads()
        elif action == "pause":
            pair.ours.pause_reading()
        else:
            pair.ours.resume_reading()
        assert to_us.startswith(pair.told.read)
    if pair.raw.paused:
        pair.ours.resume_reading()
    if end == "goodbye":
        with contextlib.suppress(ssl.SSLError):
            pair.peer.unwrap()
    deliver(cut)
    assert pair.told.read == to_us
    if end == "cut":
        assert pair.ours.eof_received() is False
        pair.ours.connection_lost(None)
        assert pair.told.events == ["made", "lost"]
        assert isinstance(pair.told.fault, ssl.SSLEOFError)
    elif end == "goodbye":
        assert pair.told.events == ["made", "eof"]
        assert pair.raw.closed
        pair.ours.connection_lost(None)
        assert pair.told.events == ["made", "eof", "lost"]
        assert pair.told.fault is None
    pair.peer_reads()
    assert pair.peer_read == to_peer


@settings(max_examples=60, deadline=None)
@given(version=VERSIONS, cut=CUTS, size=SIZES, at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_changed_byte_is_never_passed_on(contexts, version, cut, size, at, bit):
    pair = Pair(contexts[version]).shake()
    said = pattern(size, 7)
    pair.peer_says(said)
    wire = bytearray(pair.out.read())
    wire[int(at * len(wire))] ^= 1 << bit
    for start in range(0, len(wire), cut):
        if not pair.raw.closed:
            pair.ours.data_received(bytes(wire[start : start + cut]))
    if not pair.raw.closed:  # a length that grew: the rest of the record does not come any more
        pair.ours.eof_received()
    assert pair.raw.aborted
    pair.ours.connection_lost(None)
    assert pair.told.events == ["made", "lost"]
    assert isinstance(pair.told.fault, ssl.SSLError)
    assert said.startswith(pair.told.read)
    assert pair.told.read != said or not said


@settings(max_examples=60, deadline=None)
@given(said=st.binary(max_size=300), cut=CUTS)
def test_what_is_no_handshake_tells_nobody_but_the_greeter(contexts, said, cut):
    pair = Pair(contexts[ssl.TLSVersion.TLSv1_3])
    for start in range(0, len(said), cut):
        if not pair.raw.closed:
            pair.ours.data_received(said[start : start + cut])
    pair.ours.connection_lost(None)
    assert pair.told.events == []
    assert len(pair.ends) == 1
    assert pair.ends[0] is not None


def test_a_handshake_without_end_is_bounded(contexts):
    pair = Pair(contexts[ssl.TLSVersion.TLSv1_3])
    record = b"\x16\x03\x01\x40\x00" + b"\x01\x00\xff\xff" + b"\0" * (16384 - 4)
    sent = 0
    while not pair.raw.closed:
        pair.ours.data_received(record)
        sent += len(record)
        assert sent <= HANDSHAKE_BYTES + len(record)
    assert pair.told.events == []


def test_half_closed_by_the_peer_we_may_go_on(contexts):
    pair = Pair(contexts[ssl.TLSVersion.TLSv1_3], holds_open=True).shake()
    with contextlib.suppress(ssl.SSLError):
        pair.peer.unwrap()
    pair.deliver(1 << 20)
    assert pair.told.events == ["made", "eof"]
    assert not pair.raw.closed
    pair.ours.write(b"the answer")
    pair.ours.data_received(b"what follows goodbye is nobody's")
    assert pair.ours.eof_received() is True
    assert pair.raw.sent
    assert pair.told.read == b""
    pair.ours.close()
    pair.ours.connection_lost(None)
    assert pair.told.fault is None


def test_an_end_waits_while_we_do_not_read(contexts):
    pair = Pair(contexts[ssl.TLSVersion.TLSv1_3]).shake()
    pair.peer_says(b"last words")
    with contextlib.suppress(ssl.SSLError):
        pair.peer.unwrap()
    pair.told.data_received = lambda _: pair.ours.pause_reading()
    pair.ours.set_protocol(pair.told)
    pair.deliver(1 << 20)
    assert pair.told.events == ["made"]
    pair.ours.resume_reading()
    assert pair.told.events == ["made", "eof"]


def test_our_half_close_says_goodbye_and_reads_on(contexts):
    pair = Pair(contexts[ssl.TLSVersion.TLSv1_3]).shake()
    pair.ours.write(b"answer")
    pair.ours.write_eof()
    pair.ours.write(b"too late")
    assert pair.raw.ended
    pair.into.write(pair.raw.take())
    assert pair.peer.read(100) == b"answer"
    assert pair.peer.read(100) == b""
    pair.peer_says(b"still here")
    pair.deliver(3)
    assert pair.told.read == b"still here"


def test_backpressure_is_passed_on_once_the_protocol_knows_us(contexts):
    pair = Pair(contexts[ssl.TLSVersion.TLSv1_3])
    pair.ours.pause_writing()
    assert pair.told.events == []
    pair.shake()
    pair.ours.set_write_buffer_limits(1000)
    pair.ours.pause_writing()
    pair.ours.resume_writing()
    assert pair.told.events == ["made", "pause", "resume"]
    assert pair.raw.limits == (1000, None)


def test_a_peer_that_asks_and_does_not_read_is_cut_off(contexts):
    """Key updates are answered; the answers of one who never reads must not pile up."""
    pair = Pair(contexts[ssl.TLSVersion.TLSv1_3]).shake()
    pair.raw.waiting = ANSWERS_BYTES + 1
    pair.peer_says(b"x")
    pair.deliver(1 << 20)
    assert not pair.raw.closed  # a long answer of our protocol's waits, as it may
    pair.ours._outgoing.write(b"an answer of OpenSSL's")
    pair.peer_says(b"y")
    pair.deliver(1 << 20)
    assert pair.raw.aborted
    assert pair.told.read == b"xy"


def test_nobody_keeps_anybody_alive(contexts):
    pair = Pair(contexts[ssl.TLSVersion.TLSv1_3]).shake()
    gone = weakref.ref(pair.told)
    pair.ours.connection_lost(None)
    pair.ends.clear()
    gc.disable()
    try:
        del pair
        assert gone() is None
    finally:
        gc.enable()
