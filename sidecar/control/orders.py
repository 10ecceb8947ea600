"""Orders to breakers: `POST /api/v1/breakers/NAME/open|close|reset`, and what its JSON body may say.

The body may be absent, or an object with `for_seconds` (a number; absent: until reset), `by` and `why` (text for those
who wonder later) and `fleet` (true: everywhere that shares state with us). Anything else is refused, not ignored.
"""

from typing import NamedTuple

import msgspec

PREFIX = "/api/v1/breakers/"
ACTIONS = ("open", "close", "reset")
MAX_SECONDS = 30 * 24 * 3600.0


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """What an order may say beside its name and action."""

    for_seconds: float | None = None
    by: str = ""
    why: str = ""
    fleet: bool = False


class Order(NamedTuple):
    """An order as it is carried out."""

    name: str
    action: str
    body: Body


def parse_order(path: str, body: bytes) -> Order:
    """The order that `path` and `body` give; raises ValueError with advice."""
    name, _, action = path.removeprefix(PREFIX).rpartition("/")
    if action not in ACTIONS or not name:
        raise ValueError(f"write {PREFIX}NAME/ and one of {', '.join(ACTIONS)}")
    try:
        said = msgspec.json.decode(body, type=Body) if body.strip() else Body()
    except msgspec.DecodeError as error:
        raise ValueError(f"the body may hold for_seconds, by, why and fleet: {error}") from None
    if said.for_seconds is not None and not 0.0 < said.for_seconds <= MAX_SECONDS:
        raise ValueError("for_seconds is more than 0 and at most 30 days")
    if action == "reset" and said.for_seconds is not None:
        raise ValueError("a reset has no end: leave for_seconds out")
    return Order(name, action, Body(said.for_seconds, said.by[:100], said.why[:500], said.fleet))
