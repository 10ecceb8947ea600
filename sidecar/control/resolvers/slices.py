"""EndpointSlices as data: what the API server sends, and what it means for one port of one service. Pure.

A service's endpoints are spread over slices (discovery.k8s.io/v1). An endpoint that is ready takes requests; `ready`
that is absent means yes. One that is listed and not ready (starting, failing its readiness probe, terminating) is
withdrawn: the cluster knows it and wants no requests there. The same address may stand in two slices while it moves.
"""

from collections.abc import Iterable

import msgspec

from sidecar.config.address import parse_address
from sidecar.machines.membership import Answer, Member


class Metadata(msgspec.Struct, rename="camel"):
    """The part of an object's or list's metadata that counts here."""

    name: str = ""
    resource_version: str = ""
    next_page: str = msgspec.field(default="", name="continue")


class Conditions(msgspec.Struct):
    """How an endpoint is; None: not said."""

    ready: bool | None = None


class Endpoint(msgspec.Struct):
    """One pod, usually."""

    addresses: list[str] = []
    conditions: Conditions | None = None


class Port(msgspec.Struct):
    """A port of all the slice's endpoints; without a number it means every port."""

    name: str | None = None
    port: int | None = None


class Slice(msgspec.Struct, rename="camel"):
    """One EndpointSlice."""

    metadata: Metadata
    address_type: str = ""
    endpoints: list[Endpoint] | None = None
    ports: list[Port] | None = None


class SliceList(msgspec.Struct):
    """The answer to a list."""

    metadata: Metadata
    items: list[Slice] | None = None


class Event(msgspec.Struct):
    """One line of a watch; the object is read when the type says what it is."""

    type: str
    object: msgspec.Raw


class Status(msgspec.Struct):
    """What the API server says when it refuses."""

    code: int = 0
    message: str = ""


def endpoints_at(slices: Iterable[Slice], wanted: int | str) -> Answer:
    """Who serves the port, by its name or its number. Addresses that are none are left out."""
    ready: dict[str, Member] = {}
    listed: set[str] = set()
    for one in slices:
        number = _number(one, wanted)
        if number is None:
            continue
        for endpoint in one.endpoints or ():
            said = endpoint.conditions.ready if endpoint.conditions else None
            for host in endpoint.addresses[:1]:  # consumers use the first; more are reserved
                address = _address(host, number)
                if address and said is not False:
                    ready[address] = Member(address)
                elif address:
                    listed.add(address)
    return Answer(tuple(ready.values()), frozenset(listed - ready.keys()))


def ports_of(slices: Iterable[Slice]) -> list[str]:
    """The ports that the slices have, for a message."""
    return sorted({f"{port.name or '(no name)'}: {port.port}" for one in slices for port in one.ports or ()})


def _number(one: Slice, wanted: int | str) -> int | None:
    for port in one.ports or ():
        if port.port is not None and wanted in (port.name, port.port):
            return port.port
    return None


def _address(host: str, port: int) -> str:
    try:
        return str(parse_address(f"[{host}]:{port}" if ":" in host else f"{host}:{port}"))
    except ValueError:
        return ""
