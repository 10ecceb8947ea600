"""The whole file: `Config`, the tree that everything else receives. Frozen; a reload makes a new one."""

from typing import Annotated

from sidecar.config.backup import Backup
from sidecar.config.dependencies import Dependency
from sidecar.config.incidents import Incidents
from sidecar.config.kinds import (
    Bind,
    Doc,
    Duration,
    Name,
    Path,
    Ratio,
    Section,
    Text,
    pattern,
    whole,
    words,
)
from sidecar.config.listeners import Codec, Listener
from sidecar.config.recovery import Recovery
from sidecar.config.redis import SharedState
from sidecar.config.tracing import Tracing
from sidecar.config.upstreams import Upstream

Output = Annotated[str, pattern("output", "stdout|stderr|/.+", "stdout, stderr or an absolute path")]


class Service(Section, frozen=True, kw_only=True):
    """Who the service beside us is."""

    name: Annotated[Name, Doc("The service's name, the same in all its replicas.")] = "service"
    instance: Annotated[Text | None, Doc("This replica's name. null: the host's name, which is the pod's.")] = None


class Probes(Section, frozen=True, kw_only=True):
    """A second port with probes and metrics only, for the kubelet and Prometheus."""

    bind: Annotated[Bind, Doc("Where it listens.")]


class Admin(Section, frozen=True, kw_only=True):
    """Where the proxy answers about itself and takes commands."""

    bind: Annotated[Bind, Doc("Status page, API, probes and metrics over TCP.", "loopback: the pod only")] = (
        "127.0.0.1:9901"
    )
    socket: Annotated[Path, Doc("The Unix socket of the commands.")] = "/run/sidecar/admin.sock"
    token_file: Annotated[
        Path | None, Doc("A file with the bearer token for changes over TCP. null: only by socket.")
    ] = None
    probes: Annotated[Probes | None, Doc("Probes and metrics on a port of their own. Absent: none.")] = None


class AccessLog(Section, frozen=True, kw_only=True):
    """One JSON line per request."""

    path: Annotated[Output, Doc("stdout, stderr or a file (reopened on SIGHUP).", "the twelve-factor app")] = "stdout"
    sample: Annotated[
        Ratio, Doc("The share of requests that is logged. Answers of our own and 5xx are always logged.")
    ] = 1.0


class Log(Section, frozen=True, kw_only=True):
    """What the program says about itself."""

    level: Annotated[Annotated[str, words("debug", "info", "warning", "error")], Doc("The least that is said.")] = (
        "info"
    )
    format: Annotated[
        Annotated[str, words("auto", "json", "text")],
        Doc("JSON lines for machines, text for terminals; auto looks which it is."),
    ] = "auto"


class Shutdown(Section, frozen=True, kw_only=True):
    """How the proxy stops."""

    delay: Annotated[
        Duration, Doc("After SIGTERM it goes on as before for so long, while load balancers take note.")
    ] = 0.0
    drain_timeout: Annotated[
        Duration, Doc("Requests under way may take so long to end.", "Kubernetes terminationGracePeriodSeconds: 30 s")
    ] = 30.0


class Config(Section, frozen=True, kw_only=True):
    """The configuration file."""

    version: Annotated[Annotated[int, whole(1, 1)], Doc("The version of this format.")] = 1
    service: Annotated[Service, Doc("Who the service beside us is.")] = Service()
    admin: Annotated[Admin, Doc("Where the proxy answers about itself.")] = Admin()
    access_log: Annotated[AccessLog | None, Doc("One line per request. Absent: off.")] = None
    tracing: Annotated[Tracing | None, Doc("Spans of requests. Absent: none, traceparent passes untouched.")] = None
    log: Annotated[Log, Doc("The program's own log, on stderr.")] = Log()
    shutdown: Annotated[Shutdown, Doc("How it stops.")] = Shutdown()
    workers: Annotated[
        Annotated[int, whole(1, 64)],
        Doc(
            "Processes that serve; one parent owns the listening sockets. Breakers agree across them: each counts for "
            "itself, and one that trips opens it for all. Limits hold for each of them."
        ),
    ] = 1
    codec: Annotated[Codec, Doc("The HTTP parser: fast, or h11, the reference.")] = "fast"
    shared_state: Annotated[SharedState | None, Doc("What replicas agree about. Absent: each on its own.")] = None
    listeners: Annotated[tuple[Listener, ...], Doc("Where the proxy listens.")] = ()
    upstreams: Annotated[tuple[Upstream, ...], Doc("What it calls.")] = ()
    dependencies: Annotated[tuple[Dependency, ...], Doc("What must be alive though it is not proxied.")] = ()
    recovery: Annotated[tuple[Recovery, ...], Doc("What it may do on its own. Absent: nothing.")] = ()
    incidents: Annotated[Incidents | None, Doc("Where incidents are kept and who hears. Absent: in memory.")] = None
    backup: Annotated[Backup | None, Doc("What the agent backs up. Absent: nothing.")] = None
