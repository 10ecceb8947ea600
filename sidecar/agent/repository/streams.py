"""Long plain text as a row of sealed segments, `PREFIX/00000000`, `PREFIX/00000001`, ….

Each segment is 4 MiB of the stream, compressed by itself (zstandard) and sealed under its own name, which holds its
number: any place of the stream is reached by reading its segment only, an upload that fails is repeated by the
segment, and memory stays bounded. One thread reads while another compresses, seals and puts.

How many segments there are is not told here but by whoever names the stream; `Reader` is told the length.
"""

import contextlib
import mmap
import queue
import threading
from collections.abc import Iterator

import zstandard

from sidecar.agent.faults import Damaged
from sidecar.agent.repository.seal import Keys
from sidecar.agent.repository.store import Missing, Store

SEGMENT = 4 << 20
"""Bytes of plain text."""
_LEVEL = 3


class Writer:
    """Takes the stream in pieces. Leaving the context after an error stops its thread and leaves orphans behind."""

    def __init__(self, store: Store, keys: Keys, prefix: str) -> None:
        self._store = store
        self._keys = keys
        self._prefix = prefix
        self._buffer, self._other = mmap.mmap(-1, SEGMENT), mmap.mmap(-1, SEGMENT)
        self._filled = 0
        self.length = 0
        self.sizes: list[int] = []
        """Of the sealed segments, once `close` returned."""
        self._waiting: queue.Queue[memoryview | None] = queue.Queue(maxsize=1)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="seal", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def write(self, data: bytes | memoryview) -> None:
        """Raises what the store raised."""
        self.length += len(data)
        view = memoryview(data)
        while view:
            count = min(len(view), SEGMENT - self._filled)
            self._buffer[self._filled : self._filled + count] = view[:count]
            self._filled += count
            view = view[count:]
            if self._filled == SEGMENT:
                self._hand_over()

    def close(self) -> None:
        """The last segment too is stored when this returns."""
        if self._filled or not self.length:
            self._hand_over()
        self._end()
        if self._failure is not None:
            raise self._failure

    def _hand_over(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._waiting.join()  # the other buffer is free again
        self._waiting.put(memoryview(self._buffer)[: self._filled])
        self._buffer, self._other, self._filled = self._other, self._buffer, 0

    def _end(self) -> None:
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()

    def _work(self) -> None:
        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True)
        while (plain := self._waiting.get()) is not None:
            try:
                if self._failure is None:
                    self._keep(plain, compressor)
            except BaseException as error:  # noqa: BLE001 - it is raised to whoever writes
                self._failure = error
            finally:
                self._waiting.task_done()

    def _keep(self, plain: memoryview, compressor: zstandard.ZstdCompressor) -> None:
        """Store one segment; as few copies of it as can be are held at a time."""
        packed = compressor.compress(plain)
        name = segment_name(self._prefix, len(self.sizes))
        sealed = self._keys.seal(name, packed)
        del packed
        self._store.put(name, sealed, durable=False)
        self.sizes.append(len(sealed))


class Reader:
    """Gives pieces of a stream of `length` bytes; keeps the segment that it read last."""

    def __init__(self, store: Store, keys: Keys, prefix: str, length: int) -> None:
        self._store = store
        self._keys = keys
        self._prefix = prefix
        self.length = length
        self._number = -1
        self._segment = b""

    def read(self, start: int, count: int) -> Iterator[memoryview]:
        """The bytes from `start`, in pieces. Raises Damaged."""
        if start < 0 or start + count > self.length:
            raise Damaged(f"{self._prefix} ends before it should")
        while count > 0:
            number, within = divmod(start, SEGMENT)
            piece = memoryview(self._load(number))[within : within + count]
            if not piece:
                raise Damaged(f"{segment_name(self._prefix, number)} is shorter than it should be")
            yield piece
            start += len(piece)
            count -= len(piece)

    def _load(self, number: int) -> bytes:
        if number != self._number:
            self._segment = b""
            self._segment = load_segment(self._store, self._keys, self._prefix, number)
            self._number = number
        return self._segment


def load_segment(store: Store, keys: Keys, prefix: str, number: int) -> bytes:
    """The plain text of one segment. Raises Damaged."""
    name = segment_name(prefix, number)
    try:
        packed = keys.unseal(name, store.get(name))
    except Missing:
        raise Damaged(f"{name} is missing in {store.url}") from None
    with contextlib.suppress(zstandard.ZstdError):
        if zstandard.frame_content_size(packed) <= SEGMENT:
            return zstandard.ZstdDecompressor().decompress(packed, max_output_size=SEGMENT)
    raise Damaged(f"{name} is damaged: it cannot be unpacked")


def segment_name(prefix: str, number: int) -> str:
    """What the segment is called."""
    return f"{prefix}/{number:08d}"
