"""The fleet in words, for the page and `sidecar status`: what replicas agree on, who votes, who tries, who is there.

Pure. `fleet` is a breaker's (`FleetShell.view` with the voices of `fleet_redis.Shown`), `shared` the status's own.
Seconds come apart from the words, since the page makes clocks of them; `plain` puts them together.
"""

from typing import Any, Literal, NamedTuple

from sidecar.control.page.words import Level, count, figure

MOST_VOICES = 8
"""Replicas of a breaker that are told by name; the others are counted."""
STALE = 5.0
"""Seconds after which what Redis told is said to be old."""


class Said(NamedTuple):
    """Words, and seconds that go on: `word` tells what they are of."""

    text: str
    level: Level = "off"
    clock: str = "{}"
    """Where in the words the seconds stand."""
    seconds: float | None = None
    way: Literal["up", "down"] = "up"


def plain(told: Said) -> str:
    """All of it as one text."""
    timed = "" if told.seconds is None else told.clock.format(figure(told.seconds, "seconds"))
    return ", ".join(word for word in (told.text, timed) if word)


def verdict(fleet: dict[str, Any]) -> Said:
    """What the replicas agree on about a breaker."""
    state, by = fleet["state"], fleet["by"]
    if fleet["alone"]:
        return Said("out of reach: decides alone", "warn", "last heard {} ago", fleet["heard_seconds_ago"])
    match state:
        case "closed":
            votes, needed = len(fleet.get("votes", ())), fleet["quorum"]
            told = f"{votes} of {count(needed, 'vote')} that open it" if votes else _traffic(fleet)
            return Said(f"closed; {told}", "warn" if votes else "good")
        case "half_open":
            good = fleet.get("trial_successes")
            return Said("half-open" + ("" if good is None else f"; {count(good, 'trial call')} succeeded"), "warn")
        case "open":
            return Said("open", "bad")
    held = f"held {state.removeprefix('forced_')} in all replicas" + (f", by {by}" if by else "")
    return Said(held, "bad" if state == "forced_open" else "warn")


def restless(fleet: dict[str, Any]) -> bool:
    """Whether there is more to tell than that it is closed."""
    return bool(fleet["alone"] or fleet["fault"] or fleet["state"] != "closed" or fleet.get("votes"))


def voices(fleet: dict[str, Any], shared: dict[str, Any]) -> list[tuple[str, list[Said]]]:
    """What each replica says of a breaker, by its name: first who votes, then who tries, then who does neither.

    Nothing while nobody says anything, or while nobody can be heard.
    """
    if fleet["alone"] or fleet["state"] not in {"closed", "open", "half_open"}:
        return []
    found: dict[str, list[Said]] = {}
    for vote in fleet.get("votes", ()):
        why = vote["detail"] or vote["reason"].replace("_", " ")
        found.setdefault(vote["replica"], []).append(
            Said(f"votes to open: {why}", "bad", "for {} more", vote["remaining_seconds"], "down")
        )
    if fleet["state"] != "closed" and fleet["by"]:
        for voter in fleet["by"].split(", "):
            found.setdefault(voter, []).append(Said("voted to open"))
    for lease in fleet.get("leases", ()):
        tries = Said("makes a trial call", "warn", "{} at most", lease["remaining_seconds"], "down")
        found.setdefault(lease["replica"], []).append(tries)
    for name in fleet.get("let_others_try", ()):
        found.setdefault(name, []).append(Said("its trial failed: lets the others try", "warn"))
    if not found:
        return []
    for peer in shared["peers"]:
        found.setdefault(peer["replica"], [Said("no vote" if peer["carrying"] else "no traffic")])
    told = [("this one" if name == shared["me"] else name, found[name]) for name in list(found)[:MOST_VOICES]]
    more = max(len(found), fleet["replicas"] or 0) - min(len(found), MOST_VOICES)
    return told + ([(f"and {more:,} more", [Said("")])] if more else [])


def notes(fleet: dict[str, Any]) -> list[Said]:
    """What else there is to say: votes that are not known, a fault of its page."""
    told = age(fleet)
    return ([told] if told else []) + ([Said(fleet["fault"], "warn")] if fleet["fault"] else [])


def age(fleet: dict[str, Any]) -> Said | None:
    """That votes are not known, or old; None: they are as they were just now."""
    seconds = fleet["looked_seconds_ago"]
    if fleet["alone"] or (seconds is not None and seconds < STALE):
        return None
    return Said("votes are not known: Redis does not say", "warn", "last told {} ago", seconds)


def peers(shared: dict[str, Any]) -> list[tuple[str, Said]]:
    """The replicas that show themselves in Redis, and when each did last."""
    return [
        (f"{one['replica']} (this one)" if one["replica"] == shared["me"] else one["replica"],
         Said("with traffic" if one["carrying"] else "no traffic", "good" if one["carrying"] else "off",
              "heard {} ago", one["heard_seconds_ago"]))
        for one in sorted(shared["peers"], key=lambda one: str(one["replica"]))
    ]  # fmt: skip


def facts(shared: dict[str, Any] | None) -> list[tuple[str, Said]]:
    """What replicas share; empty without `shared_state`."""
    if shared is None:
        return []
    link = (
        Said("connected", "good") if shared["connected"] else Said(f"away: {shared['error'] or 'no answer yet'}", "bad")
    )
    told = [("Redis", link)]
    if shared["replicas"] is not None:
        told.append(("Fleet", Said(_traffic(shared))))
    if shared["heard_seconds_ago"] is not None:
        told.append(("Last heard of them", Said("", "off", "{} ago", shared["heard_seconds_ago"])))
    if (own := shared["own"]) is not None:
        told.append(("Registered", Said(f"{own['address']} as {own['told'] or 'not told yet'}")))
    return told


def _traffic(known: dict[str, Any]) -> str:
    """How many carry traffic. Company is expected for a while, so at first it may count more than there are."""
    replicas = known["replicas"] or 1
    return f"{min(known['carrying'], replicas):,} of {count(replicas, 'replica')} with traffic"
