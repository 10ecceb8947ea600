"""Rules between recovery's keys, and between them and the rest of the file."""

from collections.abc import Iterator

from sidecar.config.document import Config
from sidecar.config.faults import Path
from sidecar.config.problem import Problem, duplicates, unknown
from sidecar.config.recovery import Action, Eviction, Recovery


def problems(config: Config) -> Iterator[Problem]:
    """Yield what contradicts itself in the rules of recovery."""
    yield from duplicates((rule.name for rule in config.recovery), ("recovery",))
    lasting: dict[tuple[str, str], str] = {}
    for i, rule in enumerate(config.recovery):
        yield from _recovery(rule, ("recovery", i), config)
        for key in ("reroute", "shift", "drain"):
            target = getattr(rule.do, key)
            name = target if target is None or isinstance(target, str) else target.upstream
            other = None if name is None else lasting.setdefault((key, name), rule.name)
            if other not in {None, rule.name}:
                why = f"{other} does it to {name} too: whoever is done first undoes it for both"
                yield Problem(("recovery", i, "do", key), why, warning=True)


def _recovery(rule: Recovery, path: Path, config: Config) -> Iterator[Problem]:
    upstreams = [upstream.name for upstream in config.upstreams]
    dependencies = [dependency.name for dependency in config.dependencies]
    yield from unknown(rule.when.upstream or "", upstreams, "upstream", (*path, "when", "upstream"))
    yield from unknown(rule.when.dependency or "", dependencies, "dependency", (*path, "when", "dependency"))
    if rule.when.error_ratio:
        here: Path = (*path, "when", "error_ratio")
        yield from unknown(rule.when.error_ratio.upstream, upstreams, "upstream", (*here, "upstream"))
        if not rule.when.error_ratio.above:
            yield Problem((*here, "above"), "above: 0 is always true")
    for key in ("shift", "drain", "flush_pool", "clear_cache"):
        yield from unknown(getattr(rule.do, key) or "", upstreams, "upstream", (*path, "do", key))
    if rule.do.reroute:
        here = (*path, "do", "reroute")
        yield from unknown(rule.do.reroute.upstream, upstreams, "upstream", (*here, "upstream"))
        yield from unknown(rule.do.reroute.to, upstreams, "upstream", (*here, "to"))
        if rule.do.reroute.to == rule.do.reroute.upstream:
            yield Problem((*here, "to"), "loops: it is the upstream that is sick")
    shifted = next((one for one in config.upstreams if one.name == rule.do.shift), None)
    if shifted and not shifted.discovery and len({one.priority for one in shifted.endpoints}) < 2:
        yield Problem((*path, "do", "shift"), f"all endpoints of {shifted.name} have the same priority")
    yield from _action(rule.do, (*path, "do"))
    yield from _sense(rule, path, config)


def _sense(rule: Recovery, path: Path, config: Config) -> Iterator[Problem]:
    """Yield what works as written, but hardly as meant."""
    when, do = rule.when, rule.do
    if when.dependency and do.restart:
        yield Problem(
            (*path, "do", "restart"),
            f"never done: a restart does not heal {when.dependency}; reroute, flush_pool or webhook may help",
            warning=True,
        )
    watched = next((one for one in config.upstreams if one.name == when.upstream), None)
    if watched and not watched.health_check:
        yield Problem(
            (*path, "when", "upstream"),
            f"upstreams.{watched.name} has no health_check: only its open breaker is seen, and only with traffic",
            warning=True,
        )
    if watched and not watched.health_check and watched.breaker.mode != "enforce":
        yield Problem(
            (*path, "when", "upstream"),
            f"never true: upstreams.{watched.name} has no health_check, and breaker.mode is {watched.breaker.mode}",
            warning=True,
        )
    if do.restart and watched and config.shared_state and watched.breaker.shared and watched.breaker.mode == "enforce":
        yield Problem(
            (*path, "do", "restart"),
            f"upstreams.{watched.name}.breaker.shared: what a restart heals is this replica's own; set it to false, "
            "or what other replicas see of theirs keeps it from answering",
            warning=True,
        )
    if do.reroute and when.upstream and do.reroute.upstream != when.upstream:
        yield Problem(
            (*path, "do", "reroute", "upstream"),
            f"when.upstream watches {when.upstream}, and the requests of {do.reroute.upstream} are rerouted",
            warning=True,
        )


def _action(action: Action, path: Path) -> Iterator[Problem]:
    if action.restart == "command" and not action.command:
        yield Problem(path, "restart: command needs a command")
    if action.command and action.restart != "command":
        yield Problem((*path, "command"), "command counts only with restart: command")
    if action.restart == "signal" and not action.process:
        yield Problem(path, "restart: signal needs a process, the name of the one to signal")
    if action.process and action.restart != "signal":
        yield Problem((*path, "process"), "process counts only with restart: signal")
    if action.eviction != Eviction() and action.restart != "evict":
        yield Problem((*path, "eviction"), "eviction counts only with restart: evict")
