"""Segments of PostgreSQL's log, as far as anybody here looks into them."""

BLOCK, SIZE = 8192, 1 << 20


def segment(start: int, pages: int) -> bytes:
    """As PostgreSQL writes it: each page begins with its address, the first one tells how large they are."""
    content = bytearray(SIZE)
    for page in range(pages):
        content[page * BLOCK + 8 : page * BLOCK + 16] = (start + page * BLOCK).to_bytes(8, "little")
    content[36:40] = BLOCK.to_bytes(4, "little")
    return bytes(content)
