"""gRPC: the health service of the gRPC project (grpc.health.v1) must say SERVING.

One unary call over HTTP/2, by prior knowledge or, with TLS, by ALPN. Framing and header compression are h2's, the two
messages are small enough to be written out here: the request is one string field, the answer one number. What else a
target sends (pings, settings, pushes that we forbid, fields we do not know) is answered or passed over, within the byte
limit.
"""

from collections.abc import Callable

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from sidecar import __version__
from sidecar.config.address import Address
from sidecar.control.probes.probe import ProbeFailure
from sidecar.control.probes.stream import Stream, dial
from sidecar.runtime.calling import Calling

_SERVING = 1
_STATES = {0: "UNKNOWN", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_CODES = {
    "5": "NOT_FOUND: it does not know this service",
    "7": "PERMISSION_DENIED",
    "12": "UNIMPLEMENTED: it has no health service",
    "14": "UNAVAILABLE",
    "16": "UNAUTHENTICATED",
}
_MAX_MESSAGE = 4096


class GrpcProbe:
    """Asks `target` about `service`; empty: about the server as a whole."""

    def __init__(
        self, target: Address, *, authority: str, service: str = "", tls: Callable[[], Calling | None] | None = None
    ) -> None:
        self._target = target
        self._tls = tls
        self._authority = authority
        name = service.encode()
        message = b"\n" + _varint(len(name)) + name if name else b""
        self._request = b"\0" + len(message).to_bytes(4, "big") + message

    async def __call__(self) -> str:
        tls = None if self._tls is None else self._tls()
        self._scheme = "http" if tls is None else "https"
        async with dial(self._target, tls) as stream:
            try:
                return await self._call(stream)
            except ProtocolError:
                raise ProbeFailure("answered what is not HTTP/2") from None

    async def _call(self, stream: Stream) -> str:
        connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        connection.local_settings = Settings(client=True, initial_values={SettingCodes.ENABLE_PUSH: 0})
        connection.initiate_connection()
        number = connection.get_next_available_stream_id()
        connection.send_headers(
            number,
            [
                (":method", "POST"),
                (":scheme", self._scheme),
                (":path", "/grpc.health.v1.Health/Check"),
                (":authority", self._authority),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                ("user-agent", f"sidecar/{__version__}"),
            ],
        )
        connection.send_data(number, self._request, end_stream=True)
        await stream.send(connection.data_to_send())
        fields: dict[str, str] = {}
        body = bytearray()
        while True:
            data = await stream.some()
            if not data:
                raise ProbeFailure("hung up without an answer")
            for event in connection.receive_data(data):
                match event:
                    case ResponseReceived() | TrailersReceived():
                        fields |= {str(name): str(value) for name, value in event.headers or ()}
                    case DataReceived():
                        body += event.data or b""
                        if len(body) > _MAX_MESSAGE:
                            raise ProbeFailure("answered what is no health message")
                    case StreamEnded():
                        return _judge(fields, bytes(body))
                    case StreamReset() | ConnectionTerminated():
                        raise ProbeFailure("refused the call")
            if answer := connection.data_to_send():
                await stream.send(answer)


def _judge(fields: dict[str, str], body: bytes) -> str:
    """What a finished call says. Raises ProbeFailure for everything but SERVING."""
    if fields.get(":status") != "200":
        raise ProbeFailure("answered what is not gRPC")
    status = fields.get("grpc-status", "")
    if status != "0":
        known = status.isascii() and status.isdigit() and len(status) <= 2
        raise ProbeFailure(f"gRPC status {_CODES.get(status, status)}" if known else "answered what is not gRPC")
    if len(body) < 5 or body[0] or int.from_bytes(body[1:5], "big") != len(body) - 5:
        raise ProbeFailure("answered what is no health message")
    state = _first_number(body[5:])
    if state != _SERVING:
        raise ProbeFailure(f"says {_STATES.get(state, 'a state nobody knows')}")
    return "SERVING"


def _first_number(message: bytes) -> int:
    """Field 1 of a protobuf message, a number; 0 when it is not there. Other fields are passed over."""
    at, found = 0, 0
    while at < len(message):
        key, at = _read_varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _read_varint(message, at)
            found = value if key >> 3 == 1 else found
        elif kind == 2:
            size, at = _read_varint(message, at)
            at += size
        elif kind in {1, 5}:
            at += 8 if kind == 1 else 4
        else:
            raise ProbeFailure("answered what is no health message")
    if at > len(message):
        raise ProbeFailure("answered what is no health message")
    return found


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends."""
    number = 0
    for place, byte in enumerate(data[at : at + 10]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, at + place + 1
    raise ProbeFailure("answered what is no health message")
