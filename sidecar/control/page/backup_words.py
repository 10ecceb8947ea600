"""The backups in words, for the page and for `sidecar status`. Pure."""

from typing import Any

from sidecar.control.page.words import UNKNOWN, Level, figure, moment


def state(found: dict[str, Any]) -> tuple[str, Level]:
    """In a word."""
    if not found["reachable"]:
        return "no answer", "bad"
    if found["rpo"]["state"] != "kept":
        return "RPO missed", "bad"
    if found["rpo"]["age_seconds"] is None:
        return "no verified backup yet", "warn"
    return ("kept, with trouble", "warn") if found["conditions"] else ("kept", "good")


def facts(found: dict[str, Any]) -> list[tuple[str, str]]:
    """What there is to know of them, as pairs."""
    if not found["reachable"]:
        return [("Agent", found["error"] or UNKNOWN)]
    rpo, run, repository = found["rpo"], found["run"], found["repository"]
    last = run["last"]
    outcome = "none yet"
    if last is not None:
        word = "verified" if last["verified"] else "failed" if last["why"] else "of some sources only,"
        outcome = f"{word} in {last['seconds']:.1f} s ({last['asked']})"
    following = "running now" if run["running"] else f"in {figure(run['next_in_seconds'], 'seconds')}"
    waiting = [("Pruning waits", run["prune_waits"])] if run.get("prune_waits") else []
    return [
        ("Newest verified point", rpo["point"] or UNKNOWN),
        ("Its age", figure(rpo["age_seconds"], "seconds")),
        ("Allowed (RPO)", figure(rpo["target_seconds"], "seconds")),
        ("Last run", outcome),
        ("Next run", following),
        ("Last drill", _drill(found.get("drill"))),
        ("Repository", f"{repository['url']} ({repository['engine']})"),
        ("A copy of its password", _proved(repository.get("key_copy_proved_at"))),
        *waiting,
    ]


def _drill(last: dict[str, Any] | None) -> str:
    """What the last restore drill showed."""
    if last is None:
        return "none yet"
    when = moment(last["at"])
    if not last["passed"]:
        return f"{when}: failed: {last['why']}"
    back, lost = figure(last["rto_seconds"], "seconds"), figure(last["rpo_seconds"], "seconds")
    return f"{when}: passed, back in {back}, {'an older state' if last['rpo_seconds'] is None else f'{lost} lost'}"


def _proved(at: str | None) -> str:
    """Whether a copy that is kept elsewhere was ever tried."""
    return f"opened it: {moment(at)}" if at else "never tried: sidecar backup verify --key-file FILE"
