"""Orders to recovery: `POST /api/v1/recovery/pause|resume` and `/api/v1/recovery/RULE/run`, and their JSON body.

The body may be absent, or an object with `by` and `why` (text for those who wonder later) and, for a run, `dry_run`.
"""

from typing import NamedTuple

import msgspec

PREFIX = "/api/v1/recovery/"


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """What an order may say."""

    by: str = ""
    why: str = ""
    dry_run: bool = False


class Order(NamedTuple):
    """An order as it is carried out. `rule` is empty for pause and resume."""

    action: str
    rule: str
    body: Body


def parse_order(path: str, body: bytes) -> Order:
    """The order that `path` and `body` give; raises ValueError with advice."""
    rule, _, action = path.removeprefix(PREFIX).rpartition("/")
    if (action, bool(rule)) not in {("pause", False), ("resume", False), ("run", True)}:
        raise ValueError(f"write {PREFIX}pause, {PREFIX}resume or {PREFIX}RULE/run")
    try:
        said = msgspec.json.decode(body, type=Body) if body.strip() else Body()
    except msgspec.DecodeError as error:
        raise ValueError(f"the body is not an order: {error}") from None
    if said.dry_run and action != "run":
        raise ValueError("dry_run goes with run only")
    return Order(action, rule, Body(said.by[:100], said.why[:500], said.dry_run))
