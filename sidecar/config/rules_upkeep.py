"""Shared state, dependencies, recovery, incidents, backup: names that must exist, values that contradict each other."""

import re
from collections.abc import Iterator
from ipaddress import ip_address

from sidecar.config.address import parse_address
from sidecar.config.backup import Backup, Drill, RestoreRules, Source
from sidecar.config.dependencies import HttpCheck, timing
from sidecar.config.document import Config, Service
from sidecar.config.faults import Path
from sidecar.config.incidents import FIELDS, PLACEHOLDER, Incidents, Notify
from sidecar.config.problem import Problem, duplicates, probe_headers, unknown
from sidecar.config.redis import Redis, Registration
from sidecar.config.upstreams import Discovery, Upstream

_SHORTEST_TTL, _LONGEST_TTL = 1.0, 600.0


def problems(config: Config) -> Iterator[Problem]:
    """Yield what contradicts itself beside the traffic."""
    if config.shared_state:
        yield from _redis(config.shared_state.redis, ("shared_state", "redis"))
        if config.shared_state.registry:
            yield from _registration(config.shared_state.registry, ("shared_state", "registry"), config)
    for i, upstream in enumerate(config.upstreams):
        yield from _own_service(upstream, ("upstreams", i), config)
        if upstream.discovery:
            yield from _discovery(upstream.discovery, ("upstreams", i, "discovery"), config)
    if config.service.name == Service().name and (config.shared_state or config.incidents or config.backup):
        yield Problem(("service",), "give the service a name: others will see it", warning=True)
    yield from duplicates((dependency.name for dependency in config.dependencies), ("dependencies",))
    for i, dependency in enumerate(config.dependencies):
        path: Path = ("dependencies", i)
        if dependency.check.redis:
            yield from _redis(dependency.check.redis, (*path, "check", "redis"))
        if dependency.check.http:
            yield from _http(dependency.check.http, (*path, "check", "http"))
        if dependency.check.command and not dependency.check.command.argv:
            yield Problem((*path, "check", "command", "argv"), "which program?")
        figures = timing(dependency)
        if figures.timeout > figures.interval:
            yield Problem((*path, "timeout"), "timeout is longer than interval: checks would overlap")
        if dependency.degraded_above is not None and dependency.degraded_above >= figures.timeout:
            yield Problem((*path, "degraded_above"), "degraded_above is not below timeout: it would never be seen")
    if config.incidents:
        yield from _incidents(config.incidents, ("incidents",))
    if config.backup:
        yield from _backup(config.backup, ("backup",))
        yield from _restore(config.backup.restore, ("backup", "restore"), config)


def _own_service(upstream: Upstream, path: Path, config: Config) -> Iterator[Problem]:
    """A breaker that replicas share though its upstream is each one's own."""
    registration = config.shared_state.registry if config.shared_state else None
    shared = upstream.breaker.shared and upstream.breaker.mode != "disabled"
    if shared and registration and registration.upstream == upstream.name:
        text = "the service itself is each replica's own (shared_state.registry.upstream): write shared: false, or "
        yield Problem((*path, "breaker"), f"{text}failures of others refuse it here", warning=True)


def _redis(redis: Redis, path: Path) -> Iterator[Problem]:
    if not redis.url and not redis.sentinel:
        yield Problem(path, "url or sentinel is expected: where is it?")
    if redis.sentinel and redis.cluster:
        yield Problem((*path, "cluster"), "cluster and sentinel exclude each other")
    if redis.sentinel and not redis.sentinel.addresses:
        yield Problem((*path, "sentinel", "addresses"), "at least one sentinel is needed")
    if redis.ca_file and not (redis.url or "").startswith("rediss://"):
        yield Problem((*path, "ca_file"), "ca_file counts only with a url that begins with rediss://")


def _registration(registration: Registration, path: Path, config: Config) -> Iterator[Problem]:
    if registration.advertise.startswith("unix:"):
        yield Problem((*path, "advertise"), "others cannot reach a Unix socket: write host:port")
    if not _SHORTEST_TTL <= registration.ttl <= _LONGEST_TTL:
        yield Problem((*path, "ttl"), "ttl is not within 1s to 10m")
    names = [upstream.name for upstream in config.upstreams]
    yield from unknown(registration.upstream or "", names, "upstream", (*path, "upstream"))


def _discovery(discovery: Discovery, path: Path, config: Config) -> Iterator[Problem]:
    if discovery.registry and not config.shared_state:
        yield Problem((*path, "registry"), "the registry is in the shared Redis: shared_state is missing")
    if discovery.server and not (discovery.dns or discovery.srv):
        yield Problem((*path, "server"), "server counts only with dns or srv")
    elif discovery.server and not _is_ip(discovery.server):
        yield Problem((*path, "server"), "a DNS server is named by its IP address and port, like 10.0.0.2:53")


def _is_ip(text: str) -> bool:
    try:
        ip_address(parse_address(text).host)
    except ValueError:
        return False
    return True


def _http(check: HttpCheck, path: Path) -> Iterator[Problem]:
    yield from probe_headers(check.headers, (*path, "headers"), "name the token's file in token_file")
    seen: set[str] = set()
    for i, url in enumerate(check.urls or ()):
        if url in seen:
            yield Problem((*path, "urls", i), "given twice: it would count twice")
        seen.add(url)
    if check.urls == ():
        yield Problem((*path, "urls"), "at least one URL is needed")
    if check.ca_file and not any(url.startswith("https://") for url in (check.url or "", *(check.urls or ()))):
        yield Problem((*path, "ca_file"), "ca_file counts only with https://")


def _incidents(incidents: Incidents, path: Path) -> Iterator[Problem]:
    names = [notify.name for notify in incidents.notify]
    yield from duplicates(names, (*path, "notify"))
    for i, escalation in enumerate(incidents.escalate):
        yield from unknown(escalation.to, names, "notify entry", (*path, "escalate", i, "to"))
    if incidents.objective == 1.0:
        yield Problem((*path, "objective"), "1 leaves no budget: every failed request would be an incident")
    for i, notify in enumerate(incidents.notify):
        yield from _notify(notify, (*path, "notify", i), {one.to for one in incidents.escalate})


def _notify(notify: Notify, path: Path, escalated: set[str]) -> Iterator[Problem]:
    if notify.hears == "escalated" and notify.name not in escalated:
        yield Problem((*path, "hears"), "never hears anything: no incidents.escalate entry names it", warning=True)
    for way, of in (("webhook", notify.webhook), ("alertmanager", notify.alertmanager)):
        if of and of.ca_file and (of.url or "https://").startswith("http://"):
            yield Problem((*path, way, "ca_file"), "ca_file counts only with https://")
    if notify.webhook and notify.webhook.body is not None:
        for name in re.findall(PLACEHOLDER, notify.webhook.body):
            yield from unknown(name, sorted(FIELDS), "field", (*path, "webhook", "body"))
    email = notify.email
    if email and not email.to:
        yield Problem((*path, "email", "to"), "at least one address is needed")
    if email and bool(email.username) != bool(email.password_file):
        yield Problem((*path, "email"), "username and password_file go together: give both or none")
    if email and email.tls == "none" and email.password_file:
        yield Problem((*path, "email", "tls"), "the password of password_file would go unencrypted", warning=True)
    if email and email.ca_file and email.tls == "none":
        yield Problem((*path, "email", "ca_file"), "ca_file counts only with tls")


def _backup(backup: Backup, path: Path) -> Iterator[Problem]:
    if not backup.sources:
        yield Problem((*path, "sources"), "there is nothing to back up")
    yield from duplicates((source.name for source in backup.sources), (*path, "sources"))
    for i, source in enumerate(backup.sources):
        yield from _source(source, (*path, "sources", i), backup)
    repository = backup.repository
    if repository.s3 and not repository.url.startswith("s3://"):
        yield Problem((*path, "repository", "s3"), "s3 counts only with a url that begins with s3://")
    if repository.s3 and bool(repository.s3.access_key_id_file) != bool(repository.s3.secret_access_key_file):
        yield Problem(
            (*path, "repository", "s3"), "access_key_id_file and secret_access_key_file go together: give both or none"
        )
    retention = backup.retention
    if not (retention.keep_within or retention.daily or retention.weekly or retention.monthly):
        yield Problem((*path, "retention"), "keep_within, daily, weekly and monthly are all 0: nothing would be kept")
    if backup.drill:
        yield from _drill(backup.drill, (*path, "drill"), backup)


def _drill(drill: Drill, path: Path, backup: Backup) -> Iterator[Problem]:
    sources = {source.name: source for source in backup.sources}
    if drill.start and not drill.start.command:
        yield Problem((*path, "start", "command"), "which program?")
    for source in backup.sources if drill.scratch else ():
        for directory in source.files.paths if source.files else ():
            if _within(drill.scratch or "", directory):
                yield Problem((*path, "scratch"), f"lies in what {source.name} backs up: copies would be backed up")
    for i, check in enumerate(drill.checks):
        here: Path = (*path, "checks", i)
        if check.source is None and (check.sql or check.exists):
            yield Problem(here, "source is missing: whose copy is asked?")
        if check.http and not drill.start:
            yield Problem((*here, "http"), "http needs drill.start: nothing else would answer")
        if check.command is not None and not check.command:
            yield Problem((*here, "command"), "which program?")
        yield from unknown(check.source or "", sources, "source", (*here, "source"))
        asked = sources.get(check.source or "")
        if asked and check.sql and not (asked.sqlite or asked.postgres):
            yield Problem((*here, "sql"), f"{check.source} is not a database: only exists can be asked of it")
        if asked and check.exists and not asked.files:
            yield Problem((*here, "exists"), f"{check.source} holds no files: only sql can be asked of it")


def _restore(rules: RestoreRules, path: Path, config: Config) -> Iterator[Problem]:
    upstreams = {upstream.name: upstream for upstream in config.upstreams}
    for i, name in enumerate(rules.fence):
        yield from unknown(name, upstreams, "upstream", (*path, "fence", i))
        if name in upstreams and upstreams[name].breaker.mode == "disabled":
            yield Problem(
                (*path, "fence", i), f"the breaker of {name} is disabled (breaker.mode): it cannot be held open"
            )
    for key in ("stop", "start"):
        if getattr(rules, key) == ():
            yield Problem((*path, key), "which program?")
    exchanged = [one.name for one in config.backup.sources if one.sqlite or one.files] if config.backup else []
    if exchanged and not rules.fence and rules.stop is None:
        yield Problem(
            path,
            f"a restore in place of {', '.join(exchanged)} would keep nobody away: name the service's upstream in "
            "fence, or how it is stopped in stop and start; restore plan --target needs neither",
            warning=True,
        )
    if (rules.stop is None) != (rules.start is None):
        yield Problem(path, "stop and start go together: what is stopped is to run again")


def _source(source: Source, path: Path, backup: Backup) -> Iterator[Problem]:
    if source.redis:
        yield from _redis(source.redis, (*path, "redis"))
    if not source.files:
        return
    if not source.files.paths:
        yield Problem((*path, "files", "paths"), "there is nothing to back up")
    for i, directory in enumerate(source.files.paths):
        here = (*path, "files", "paths", i)
        if _within(backup.repository.url, directory):
            yield Problem(here, "holds backup.repository.url: the backup would back itself up")
        if _within(backup.state_dir, directory):
            yield Problem(here, "holds backup.state_dir, which changes during the backup", warning=True)


def _within(inner: str, outer: str) -> bool:
    return (inner.rstrip("/") + "/").startswith(outer.rstrip("/") + "/")
