"""One WebSocket message of 1 KiB each way: masked from the client, plain from the server (RFC 6455, section 5.2)."""

_MESSAGE = b"m" * 1024
_MASK = b"\x11\x22\x33\x44"

CLIENT_FRAME = (
    b"\x82\xfe" + len(_MESSAGE).to_bytes(2, "big") + _MASK + bytes(b ^ _MASK[i % 4] for i, b in enumerate(_MESSAGE))
)
SERVER_FRAME = b"\x82\x7e" + len(_MESSAGE).to_bytes(2, "big") + _MESSAGE
