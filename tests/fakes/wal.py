"""Segments of PostgreSQL's log, as far as anybody here looks into them."""

BLOCK, SIZE = 8192, 1 << 20


def segment(start: int, pages: int) -> bytes:
    """As PostgreSQL writes it: each page begins with its address, the first one tells how large they are."""
    content = bytearray(SIZE)
    for page in range(pages):
        content[page * BLOCK + 8 : page * BLOCK + 16] = (start + page * BLOCK).to_bytes(8, "little")
    content[36:40] = BLOCK.to_bytes(4, "little")
    return bytes(content)


def laid(stream: bytes, start: int) -> list[bytes]:
    """Segments from `start` on with these records: their pages begin with 24 bytes of their own, the first with 40."""
    made = []
    while stream:
        content = bytearray(segment(start, SIZE // BLOCK))
        for page in range(0, SIZE, BLOCK):
            head = 24 if page else 40
            piece, stream = stream[: BLOCK - head], stream[BLOCK - head :]
            content[page + head : page + head + len(piece)] = piece
        made.append(bytes(content))
        start += SIZE
    return made
