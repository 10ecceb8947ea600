"""Bodies by example: framing, bounds, what is dropped, and that nothing is copied that need not be."""

import pytest

from sidecar.proxy.codec import FAST, REFERENCE, Codec
from sidecar.proxy.codec.body import BadBody, ChunkedReader
from sidecar.proxy.codec.head import CHUNKED, UNTIL_CLOSE
from tests.proxy.codec import corpus
from tests.proxy.codec.oracle import chunked_agrees, read_body

CODECS = pytest.mark.parametrize("codec", [FAST, REFERENCE], ids=["fast", "reference"])


@CODECS
@pytest.mark.parametrize("name", corpus.CHUNKED)
def test_a_chunked_body_goes_on_canonically(name: str, codec: Codec) -> None:
    data, wire, payload = corpus.CHUNKED[name]
    assert read_body(codec, data + b"next") == ("done", wire, len(data), len(payload))
    assert read_body(codec, data + b"next", decode=True) == ("done", payload, len(data), len(payload))


@pytest.mark.parametrize("name", corpus.CHUNKED)
def test_the_readers_agree_however_a_body_is_cut(name: str) -> None:
    data = corpus.CHUNKED[name][0]
    for cut in range(len(data) + 1):
        assert chunked_agrees(data + b"next", [cut])[0] == "done"
    assert chunked_agrees(data + b"next", range(len(data)))[0] == "done"


@pytest.mark.parametrize("name", corpus.BAD_CHUNKED)
def test_a_body_that_breaks_its_framing_is_bad_however_it_is_cut(name: str) -> None:
    data = corpus.BAD_CHUNKED[name]
    for cut in range(0, len(data) + 1, 1 + len(data) // 100):
        assert chunked_agrees(data, [cut]) == ("bad",)
    assert read_body(FAST, data, range(len(data))) == ("bad",)


@pytest.mark.parametrize("name", corpus.BAD_CHUNKED)
def test_a_bad_body_never_looks_whole(name: str) -> None:
    reader = ChunkedReader()
    out = b""
    with pytest.raises(BadBody):
        for byte in corpus.BAD_CHUNKED[name]:
            out += reader.feed(bytes([byte]))[0]
    assert not reader.done
    assert read_body(FAST, out)[0] == "more", "what went out before is a right beginning, and only that"


def test_trailers_up_to_their_bounds_are_taken() -> None:
    assert chunked_agrees(b"0\r\n" + b"X: a\r\n" * 100 + b"\r\n")[0] == "done"
    largest = b"0\r\nX: " + b"a" * (8192 - 5) + b"\r\n\r\n"
    for cut in (3, 100, *range(len(largest) - 8, len(largest))):
        assert chunked_agrees(largest, [cut])[0] == "done"


@CODECS
@pytest.mark.parametrize("decode", [False, True])
def test_trailers_can_be_asked_for(codec: Codec, decode: bool) -> None:
    reader = codec.body(CHUNKED, decode)
    reader.feed(b"2\r\nok\r\n0\r\nGrpc-Status: 14\r\nA: 1\r\ngrpc-status:  x \r\n\r\n")
    assert reader.done
    assert reader.trailer(b"grpc-status") == [b"14", b"x"]
    assert reader.trailer(b"b") == []
    assert codec.body(0).trailer(b"a") == codec.body(UNTIL_CLOSE).trailer(b"a") == []


def test_a_size_line_up_to_its_bound_is_taken() -> None:
    line = b"1;" + b"a" * (1024 - 4) + b"\r\n"
    for cut in (1, len(line) - 1, len(line)):
        assert chunked_agrees(line + b"x\r\n0\r\n\r\n", [cut])[0] == "done"


def test_canonical_chunks_are_not_copied() -> None:
    whole = b"400\r\n" + b"x" * 1024 + b"\r\n"
    data = whole * 16 + b"0\r\n\r\n"
    reader = ChunkedReader()
    assert reader.feed(data)[0] is data
    assert reader.done
    assert reader.received == 16 * 1024


def test_the_inside_of_a_large_chunk_is_not_copied() -> None:
    reader = ChunkedReader()
    assert reader.feed(b"fffffff\r\nab") == (b"fffffff\r\nab", 11)
    piece = b"\r\n0\r\n\r\n" * 1000
    for _ in range(3):
        assert reader.feed(piece)[0] is piece
    assert reader.received == 2 + 3 * len(piece)


@CODECS
def test_what_is_held_back_is_only_an_unfinished_line(codec: Codec) -> None:
    reader = codec.body(CHUNKED)
    assert reader.feed(b"5\r\nhel") == (b"5\r\nhel", 6)
    assert reader.feed(b"lo\r") == (b"lo", 3)
    assert reader.feed(b"\n1") == (b"\r\n", 2)
    assert reader.feed(b"0\r\n") == (b"10\r\n", 3)
    with pytest.raises(BadBody):
        reader.eof()


@CODECS
def test_the_end_leaves_only_with_its_trailers(codec: Codec) -> None:
    reader = codec.body(CHUNKED)
    assert reader.feed(b"1\r\na\r\n0\r\nX: y\r\n") == (b"1\r\na\r\n", 15)
    assert not reader.done
    assert reader.feed(b"\r\nGET") == (b"0\r\nX: y\r\n\r\n", 2)
    assert reader.done
    assert reader.feed(b"GET") == (b"", 0)


@CODECS
@pytest.mark.parametrize("decode", [False, True])
def test_a_body_of_a_length(codec: Codec, decode: bool) -> None:
    reader = codec.body(5, decode)
    assert reader.feed(b"") == (b"", 0)
    assert reader.feed(b"hel") == (b"hel", 3)
    with pytest.raises(BadBody):
        reader.eof()
    assert reader.feed(b"loGET") == (b"lo", 2)
    assert (reader.done, reader.received) == (True, 5)
    assert reader.feed(b"GET") == (b"", 0)
    reader.eof()


@CODECS
def test_no_body_is_done_before_it_begins(codec: Codec) -> None:
    reader = codec.body(0)
    assert reader.done
    assert reader.feed(b"GET") == (b"", 0)


@CODECS
def test_a_body_until_the_connection_closes(codec: Codec) -> None:
    reader = codec.body(UNTIL_CLOSE)
    assert reader.feed(b"HTTP/1.1 200 OK\r\n\r\n") == (b"HTTP/1.1 200 OK\r\n\r\n", 19)
    assert not reader.done
    reader.eof()
    assert (reader.done, reader.received) == (True, 19)
    assert reader.feed(b"more") == (b"", 0)


@CODECS
def test_a_whole_chunked_body_may_meet_the_end_of_its_connection(codec: Codec) -> None:
    reader = codec.body(CHUNKED)
    reader.feed(b"0\r\n\r\n")
    reader.eof()
    assert reader.done


@CODECS
def test_the_last_chunks_line_end_does_not_wait_for_the_trailers(codec: Codec) -> None:
    """Found by Hypothesis: it left at once or with the end, depending on the cut."""
    reader = codec.body(CHUNKED)
    assert reader.feed(b"1\r\na\r\n0\r\n") == (b"1\r\na\r\n", 9)
    assert reader.feed(b"\r\n") == (b"0\r\n\r\n", 2)
