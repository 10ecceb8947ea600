"""What the status says to people: words, figures and troubles, the same on the page and in `sidecar status`. Pure.

A trouble is what somebody on call wants to see first: what does not work, where, and why, in one sentence.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

UNKNOWN = "–"
MOST_TRIES = 3
"""Of a recovery rule, on the page."""
MOST_NAMED = 3
"""Endpoints of an upstream that need attention, each in a sentence of its own; of more there is one sentence."""
Level = Literal["good", "warn", "bad", "off"]
"""How it goes: well, to be watched, not at all, or switched off."""

_HEALTH_LEVELS: dict[str, Level] = {
    "ready": "good",
    "starting": "warn",
    "draining": "warn",
    "stopping": "warn",
    "healthy": "good",
    "unchecked": "off",
    "unknown": "off",
    "degraded": "warn",
    "ejected": "bad",
    "unhealthy": "bad",
}


class Trouble(NamedTuple):
    """Something that needs attention."""

    level: Level
    text: str
    place: str
    """The id, on the page, of what it is about; empty: nowhere."""


# Figures --------------------------------------------------------------------------------------------------------------


def figure(value: Any, form: Literal["count", "rate", "ms", "seconds"] = "count") -> str:
    """A figure for people: a count, a rate (per second), milliseconds or a duration in seconds; None is unknown."""
    if value is None:
        return UNKNOWN
    match form:
        case "rate":
            return f"{value:,.1f}"
        case "ms":
            return f"{value:,.2f} ms" if value < 10 else f"{value:,.0f} ms"
        case "seconds":
            return duration(int(value))
        case _:
            return f"{value:,}"


def duration(seconds: int) -> str:
    """`3d 4h`, `4h 5m`, `5m 6s`, `6s`: the two largest units."""
    sizes = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    first = next((place for place, (_, size) in enumerate(sizes) if seconds >= size), 3)
    words = []
    for unit, size in sizes[first : first + 2]:
        count, seconds = divmod(seconds, size)
        words.append(f"{count}{unit}")
    return " ".join(words)


def count(number: int, noun: str) -> str:
    """`1 worker`, `2 workers`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def seconds_since(status: dict[str, Any], moment: str | None) -> float | None:
    """Seconds from `moment` (UTC, ISO) to the moment of the status."""
    if moment is None:
        return None
    return max(0.0, (datetime.fromisoformat(status["at"]) - datetime.fromisoformat(moment)).total_seconds())


def moment(when: str) -> str:
    """A moment (UTC, ISO) for people: `2026-01-02 05:00:00 UTC`."""
    return f"{when[:10]} {when[11:19]} UTC"


def level_of(state: str) -> Level:
    """How an endpoint, a dependency or the program goes."""
    return _HEALTH_LEVELS.get(state, "warn")


def incident_impact(one: dict[str, Any]) -> list[str]:
    """What callers had of an incident, and how often it came back."""
    found = one.get("impact") or {}
    failed = found.get("failed_requests")
    return ([f"{failed:,.0f} of {found['requests']:,.0f} requests failed"] if failed else []) + (
        [count(one["relapses"], "relapse")] if one.get("relapses") else []
    )


# Breakers -------------------------------------------------------------------------------------------------------------


def breaker_state(one: dict[str, Any]) -> str:
    """What the breaker does, in a word or two."""
    machine = str(one["machine"])
    if machine in {"forced_open", "forced_closed"}:
        return machine.replace("forced_", "held ")
    if one["mode"] == "disabled":
        return "disabled"
    word = machine.replace("_", "-")
    return f"would be {word}" if one["mode"] == "observe" and machine != "closed" else word


def breaker_level(one: dict[str, Any]) -> Level:
    """How it goes: refusing is bad, trying or held or only observed is to be watched."""
    machine = one["machine"]
    if machine == "forced_open":
        return "bad"
    if machine == "closed" or (one["mode"] == "disabled" and machine != "forced_closed"):
        return "off" if one["mode"] == "disabled" else "good"
    return "bad" if machine == "open" and one["mode"] == "enforce" else "warn"


def breaker_why(one: dict[str, Any]) -> str:
    """Why it is in its state: who ordered it, or what was seen; empty when it never changed."""
    if one["machine"] in {"forced_open", "forced_closed"}:
        why = f": {one['ordered_why']}" if one["ordered_why"] else ""
        return f"ordered by {one['ordered_by'] or 'somebody'}{why}"
    return str(one["detail"] or one["reason"].replace("_", " "))


def breaker_next(one: dict[str, Any]) -> tuple[str, float | None]:
    """What comes next, and in how many seconds when that is known; empty: nothing is to come."""
    machine, left = one["machine"], one["remaining_seconds"]
    if machine in {"forced_open", "forced_closed"}:
        return ("until it is reset", None) if left is None else ("order ends in", left)
    if machine == "half_open":
        return f"{count(one['trials'], 'trial call')} under way, {one['trial_successes']} succeeded", None
    if machine == "open":
        return ("next trial in", left) if left else ("next trial with the next call", None)
    return "", None


def breaker_window(one: dict[str, Any]) -> str:
    """What the window holds: `5 of 7 failed (71 %)`, how many were slow, and the failures in a row."""
    window = one["window"]
    share = f" ({_share(window['failures'], window['total'])})" if window["failures"] else ""
    slow = f", {window['slow']:,} slow ({_share(window['slow'], window['total'])})" if window["slow"] else ""
    row = f", {one['consecutive_failures']:,} in a row" if one["consecutive_failures"] > 1 else ""
    return f"{window['failures']:,} of {window['total']:,} failed{share}{slow}{row}" if window["total"] else "no call"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.0f} %"


def tally(levels: Iterable[Level], names: Mapping[Level, str]) -> str:
    """How many there are of each level, the worst first: `1 open · 3 closed`."""
    found = Counter(levels)
    return " · ".join(f"{found[level]:,} {name}" for level, name in names.items() if found[level])


# Troubles -------------------------------------------------------------------------------------------------------------


def troubles(status: dict[str, Any]) -> list[Trouble]:
    """All that needs attention, the bad before what is to be watched."""
    found = [
        *_of_config(status["config"]),
        *_of_child(status.get("child")),
        *_of_recovery(status.get("recovery")),
        *_of_breakers(status["breakers"]),
        *_of_upstreams(status["upstreams"]),
        *_of_dependencies(status["dependencies"]),
        *_of_backups(status.get("backups")),
        *_of_shared(status.get("shared")),
        *_of_certificates(status.get("certificates", ())),
    ]
    return sorted(found, key=lambda one: one.level != "bad")


def all_well(status: dict[str, Any]) -> str:
    """What is said when there is no trouble."""
    endpoints = sum(len(one["endpoints"]) for one in status["upstreams"])
    said = [count(len(status["breakers"]), "breaker"), count(endpoints, "endpoint")]
    said += [f"{len(status['dependencies'])} dependencies"] if len(status["dependencies"]) > 1 else []
    return f"Nothing needs attention: {', '.join(said)}."


def _of_certificates(certificates: Iterable[dict[str, Any]]) -> Iterator[Trouble]:
    refused: set[str] = set()
    for one in certificates:
        owner, words = (
            one["owner"],
            {"expires_soon": "ends", "expired": "has ended", "not_yet_valid": "is not valid yet"},
        )
        if one["refused"] and owner not in refused:
            refused.add(owner)
            yield Trouble("bad", f"New certificate files of {owner} cannot be used: {one['refused']}", "certificates")
        if one["state"] in words:
            level: Level = "warn" if one["state"] == "expires_soon" else "bad"
            text = f"The certificate of {owner} {words[one['state']]} ({one['file']}, until {one['until']})"
            yield Trouble(level, text, "certificates")


def _of_config(config: dict[str, Any]) -> Iterator[Trouble]:
    if not config["last_reload_ok"]:
        reason = config["last_reload_error"] or "the log has the reason"
        yield Trouble("bad", f"The configuration file is invalid; the last good one runs: {reason}", "program")
    for change in config["restart_needed"]:
        yield Trouble("warn", f"Needs a restart: {change}", "program")


def _of_child(child: dict[str, Any] | None) -> Iterator[Trouble]:
    if child is not None and child["state"] == "backing_off":
        text = f"The service's process keeps dying ({child['last_exit']}), restarted {count(child['restarts'], 'time')}"
        yield Trouble("bad", text, "program")


def _of_recovery(recovery: dict[str, Any] | None) -> Iterator[Trouble]:
    if recovery is None:
        return
    if recovery["paused"] is not None and recovery["rules"]:
        yield Trouble("warn", f"Recovery is {recovery_paused(recovery['paused'])}", "recovery")
    for one in recovery["rules"]:
        if one["stage"] == "escalated":
            yield Trouble("bad", f"Recovery {one['name']} gave up: {recovery_said(one)}", "recovery")
        elif recovery_level(one) == "warn":
            yield Trouble("warn", f"Recovery {one['name']} is {recovery_state(one)}: {recovery_said(one)}", "recovery")


def _of_backups(backups: dict[str, Any] | None) -> Iterator[Trouble]:
    """Nothing without a backup section, or before the agent was asked."""
    if backups is not None and not backups["reachable"]:
        yield Trouble("bad", f"The backup agent does not answer: {backups['error']}", "backups")
    for one in (backups or {}).get("conditions") or ():
        level: Level = "warn" if one["level"] == "warning" else "bad"
        yield Trouble(
            level, f"Backups: {one['reason'].replace('_', ' ')} ({one['subject']}): {one['detail']}", "backups"
        )


def recovery_paused(paused: dict[str, Any]) -> str:
    """`paused by alice: we move`."""
    by = f" by {paused['by']}" if paused["by"] else ""
    return f"paused{by}: {paused['why']}" if paused["why"] else f"paused{by}"


def recovery_state(one: dict[str, Any]) -> str:
    """Where a rule stands, in a word or two."""
    if one["hold"] is not None:
        return f"held ({one['hold'].replace('_', ' ')})"
    return "in force" if one["in_force"] else str(one["stage"])


def recovery_level(one: dict[str, Any]) -> Level:
    """How it goes: given up is bad, at it is to be watched."""
    if one["stage"] == "escalated":
        return "bad"
    return "good" if one["stage"] in {"well", "healed", "quiet"} and not one["in_force"] else "warn"


def recovery_said(one: dict[str, Any]) -> str:
    """What it saw and what came of it, in a few words."""
    tried = f"last try {_try(one['record'][-1])}" if one["record"] else ""
    return "; ".join(word for word in (recovery_seen(one), tried) if word) or "nothing so far"


def recovery_seen(one: dict[str, Any]) -> str:
    """What it sees, what forbids it to act, and whether what it did holds; empty: nothing."""
    in_force = "it stays until it is well" if one["in_force"] else ""
    return "; ".join(word for word in (one["why"], one["held_by"], in_force) if word)


def recovery_tries(one: dict[str, Any]) -> list[str]:
    """The last tries, newest first: when (UTC) and what came of each."""
    return [f"{each['at'][11:19]} {_try(each)}" for each in one["record"][: -MOST_TRIES - 1 : -1]]


def recovery_fleet(fleet: dict[str, int]) -> str:
    """How many replicas restart."""
    return f"{fleet['restarting']} of {count(fleet['replicas'], 'replica')} restarting, {fleet['allowed']} allowed"


def _try(each: dict[str, Any]) -> str:
    after = "" if each["seconds"] is None else f" after {figure(each['seconds'], 'seconds')}"
    told = ": ".join(word for word in (each["did"], each["detail"]) if word)
    return f"{each['result']}{after}" + (f" ({told})" if told else "")


def child_said(child: dict[str, Any]) -> str:
    """The supervised process in a few words."""
    process = "" if child["pid"] is None else f", process {child['pid']}"
    return f"{child['state'].replace('_', ' ')}{process}, {count(child['restarts'], 'restart')}"


def _of_breakers(breakers: list[dict[str, Any]]) -> Iterator[Trouble]:
    for one in breakers:
        level = breaker_level(one)
        if level in {"bad", "warn"}:
            why = breaker_why(one)
            text = f"Breaker {one['name']} {'' if one['mode'] == 'observe' else 'is '}{breaker_state(one)}"
            yield Trouble(level, f"{text}: {why}" if why else text, f"breaker-{one['name']}")


def _of_upstreams(upstreams: list[dict[str, Any]]) -> Iterator[Trouble]:
    for upstream in upstreams:
        name, place = upstream["name"], f"upstream-{upstream['name']}"
        if not upstream["endpoints"]:
            yield Trouble("bad", f"Upstream {name} has no endpoint", place)
        sick = [one for one in upstream["endpoints"] if level_of(one["state"]) in {"bad", "warn"}]
        if len(sick) > MOST_NAMED:
            yield Trouble(*_crowd(name, sick, len(upstream["endpoints"])), place)
        else:
            for one in sick:
                why = f": {one['why']}" if one["why"] else ""
                text = f"Endpoint {one['address']} of {name} is {one['state']}{why}"
                yield Trouble(level_of(one["state"]), text, place)
        discovery = upstream["discovery"]
        if discovery is not None and discovery["error"]:
            yield Trouble("warn", f"Discovery of {name} fails, the last answer stays: {discovery['error']}", place)


def _crowd(name: str, sick: list[dict[str, Any]], all_of_them: int) -> tuple[Level, str]:
    """Many sick endpoints in a sentence, so that they do not hide what else needs attention."""
    states = " or ".join(sorted({one["state"] for one in sick}))
    whys = Counter(one["why"] for one in sick if one["why"]).most_common(2)
    told = f": {whys[0][0]}" + (", and others" if len(whys) > 1 else "") if whys else ""
    level: Level = "bad" if any(level_of(one["state"]) == "bad" for one in sick) else "warn"
    return level, f"{len(sick):,} of {count(all_of_them, 'endpoint')} of {name} are {states}{told}"


def certificate_level(one: dict[str, Any]) -> Level:
    """How a certificate stands."""
    if one["state"] == "good":
        return "good"
    return "warn" if one["state"] == "expires_soon" else "bad"


def certificate_state(one: dict[str, Any]) -> str:
    """Its state as a person would say it."""
    known = {"good": "is good", "expires_soon": "expires soon", "expired": "has expired"}
    return known.get(one["state"], f"is {one['state'].replace('_', ' ')}")


def _of_shared(found: dict[str, Any] | None) -> Iterator[Trouble]:
    if found is not None and not found["connected"]:
        why = found["error"] or "no answer yet"
        yield Trouble("warn", f"Shared state is away, this replica decides alone: {why}", "shared")


def _of_dependencies(dependencies: list[dict[str, Any]]) -> Iterator[Trouble]:
    for one in dependencies:
        level = level_of(one["state"])
        if level in {"bad", "warn"}:
            detail = f": {one['detail']}" if one["detail"] else ""
            yield Trouble(level, f"Dependency {one['dependency']} is {one['state']}{detail}", "dependencies")
