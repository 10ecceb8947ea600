"""The stages of a recovery and every change between them, as data; docs/reference/recovery.md is drawn from it."""

from enum import StrEnum


class Stage(StrEnum):
    """Where one rule stands with the fault that it watches for."""

    WELL = "well"
    SICK = "sick"
    CHECKING = "checking"
    HELD = "held"
    ACTING = "acting"
    DEAD = "dead"
    PROVING = "proving"
    WAITING = "waiting"
    HEALED = "healed"
    QUIET = "quiet"
    ESCALATED = "escalated"


MEANING = {
    Stage.WELL: "Nothing is wrong, and no earlier fault counts any more.",
    Stage.SICK: "Its condition is true, but not for `unhealthy_for` yet.",
    Stage.CHECKING: "About to act: the state is looked at once more.",
    Stage.HELD: "It would act, and something forbids it; asked again every few seconds.",
    Stage.ACTING: "The action runs.",
    Stage.DEAD: "The supervised process is gone; its supervisor starts it again.",
    Stage.PROVING: "The action is done, or the process was started again: proof is being gathered.",
    Stage.WAITING: "The last attempt did not help; the next one comes after the backoff.",
    Stage.HEALED: "Proved. Sick again within five minutes, the success counts as a failure in the record.",
    Stage.QUIET: "The fault went away without proof; what was tried still counts until ten minutes have been good.",
    Stage.ESCALATED: "Attempts or budget are used up: people take over. Told once.",
}


class Hold(StrEnum):
    """Why it does not act though it would."""

    PAUSED = "paused"
    DRY_RUN = "dry_run"
    MAINTENANCE = "maintenance"
    LEAVING = "leaving"
    DEPENDENCY_DOWN = "dependency_down"
    STARTING = "starting"
    NO_TOKEN = "no_token"  # noqa: S105 - the fleet's leave to act, not a secret


_SEEN = ("seen",)
_GONE = ("gone",)
_DIED = ("died",)
_ORDERED = ("ordered",)
_USED_UP = ("attempts_used", "budget_used", "known")  # known: people were told of this fault before
_WELL_AGAIN = ("stayed_well",)

CHANGES: dict[tuple[Stage, Stage], tuple[str, ...]] = {
    (Stage.WELL, Stage.SICK): _SEEN,
    (Stage.SICK, Stage.WELL): _GONE,
    (Stage.SICK, Stage.QUIET): _GONE,
    (Stage.SICK, Stage.CHECKING): ("lasts",),
    (Stage.CHECKING, Stage.HELD): tuple(Hold),
    (Stage.CHECKING, Stage.WELL): _GONE,
    (Stage.CHECKING, Stage.QUIET): _GONE,
    (Stage.HELD, Stage.WELL): _GONE,
    (Stage.HELD, Stage.QUIET): _GONE,
    (Stage.ACTING, Stage.PROVING): ("done",),
    (Stage.ACTING, Stage.WAITING): ("action_failed",),
    (Stage.ACTING, Stage.ESCALATED): _USED_UP,
    (Stage.PROVING, Stage.HEALED): ("proved",),
    (Stage.PROVING, Stage.WAITING): ("not_proved",),
    (Stage.PROVING, Stage.DEAD): _DIED,
    (Stage.DEAD, Stage.PROVING): ("reborn",),
    (Stage.WAITING, Stage.CHECKING): ("wait_over",),
    (Stage.WAITING, Stage.QUIET): _GONE,
    (Stage.HEALED, Stage.SICK): (*_SEEN, "relapsed"),
    (Stage.HEALED, Stage.DEAD): (*_DIED, "relapsed"),
    (Stage.HEALED, Stage.WELL): _WELL_AGAIN,
    (Stage.QUIET, Stage.SICK): _SEEN,
    (Stage.QUIET, Stage.WELL): _WELL_AGAIN,
    (Stage.QUIET, Stage.ESCALATED): _USED_UP,
    (Stage.ESCALATED, Stage.QUIET): _GONE,
    **{
        (stage, Stage.DEAD): _DIED
        for stage in (Stage.WELL, Stage.SICK, Stage.CHECKING, Stage.HELD, Stage.WAITING, Stage.QUIET)
    },
    **{
        (stage, Stage.ESCALATED): _USED_UP
        for stage in (Stage.WELL, Stage.SICK, Stage.CHECKING, Stage.HELD, Stage.PROVING, Stage.WAITING, Stage.HEALED)
    },
    **{
        (stage, Stage.ACTING): _ORDERED
        for stage in (Stage.WELL, Stage.SICK, Stage.WAITING, Stage.HEALED, Stage.QUIET, Stage.ESCALATED)
    },
    **{(stage, Stage.ACTING): ("confirmed", *_ORDERED) for stage in (Stage.CHECKING, Stage.HELD)},
}
"""Every allowed change, and the reasons that bring it about."""
