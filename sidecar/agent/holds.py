"""Holds: points that stay until somebody lets them go, each with who, when and why.

They are kept in the repository, sealed, `sidecar/holds/ID`: what is held stays held when this machine's state is lost,
and for every agent that prunes there. A hold that cannot be read holds all the same.
"""

from datetime import UTC, datetime

import msgspec

from sidecar.agent.faults import Damaged, Unknown
from sidecar.agent.repository.repository import Repository
from sidecar.agent.repository.store import Missing

HOLDS = "sidecar/holds"


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Why a point stays."""

    point: str
    why: str
    by: str
    at: datetime


def hold(repository: Repository, point: str, why: str, by: str) -> Hold:
    """From now on it stays; again: with another reason. Raises Unknown."""
    with repository.lease("hold", patience=60.0):
        if point not in repository.ids():
            raise Unknown(f"there is no backup {point!r}; see: sidecar backup list")
        one = Hold(point=point, why=why, by=by, at=datetime.now(UTC))
        place = f"{HOLDS}/{point}"
        repository.store.put(place, repository.keys.seal(place, msgspec.json.encode(one)))
        return one


def release(repository: Repository, point: str) -> None:
    """The rules decide again. One that is not held is no error."""
    with repository.lease("release", patience=60.0):
        repository.store.delete(f"{HOLDS}/{point}")


def holds(repository: Repository) -> dict[str, Hold]:
    """All of them by point."""
    found: dict[str, Hold] = {}
    for one in repository.store.list(HOLDS):
        point = one.name.rpartition("/")[2]
        try:
            found[point] = msgspec.json.decode(
                repository.keys.unseal(one.name, repository.store.get(one.name)), type=Hold
            )  # fmt: skip
        except Missing:
            continue
        except (Damaged, msgspec.DecodeError):
            found[point] = Hold(point=point, why="its reason cannot be read", by="", at=datetime.fromtimestamp(0, UTC))
    return found
