"""What the sidecar may do on its own when something is sick, and how often."""

from typing import Annotated

from sidecar.config.kinds import (
    Doc,
    Duration,
    HttpUrl,
    Name,
    Path,
    Positive,
    PositiveDuration,
    Section,
    Text,
    pattern,
    words,
)


class Trigger(Section, frozen=True, kw_only=True):
    """What has to be true: exactly one thing watched, sick for so long."""

    one_of = ("upstream", "dependency")

    upstream: Annotated[Name | None, Doc("An upstream is unhealthy or its breaker is open.")] = None
    dependency: Annotated[Name | None, Doc("A dependency is unhealthy.")] = None
    unhealthy_for: Annotated[PositiveDuration, Doc("For so long without a break.", "5 s: short of any kubelet")] = 5.0


class Reroute(Section, frozen=True, kw_only=True):
    """Sends an upstream's requests elsewhere until it is well."""

    upstream: Annotated[Name, Doc("Whose requests.")]
    to: Annotated[Name, Doc("The upstream that takes them.")]


class Webhook(Section, frozen=True, kw_only=True):
    """Someone else's door to knock at."""

    one_of = ("url", "url_file")

    url: Annotated[HttpUrl | None, Doc("Where a JSON description is POSTed.")] = None
    url_file: Annotated[Path | None, Doc("A file with the URL, when the URL itself is a secret.")] = None


class Action(Section, frozen=True, kw_only=True):
    """What is done: exactly one of these."""

    one_of = ("restart", "reroute", "flush_pool", "clear_cache", "webhook")

    restart: Annotated[
        Annotated[str, words("process", "liveness", "signal", "command", "evict")] | None,
        Doc(
            "Restarts the service: process (our own child), liveness (/livez/service fails, the kubelet acts), signal "
            "(in a shared PID namespace), command, evict (the pod, through the Kubernetes API)."
        ),
    ] = None
    signal: Annotated[
        Annotated[str, pattern("signal", "SIG[A-Z0-9]+", "like SIGTERM")],
        Doc("The signal of restart: signal.", "the polite one"),
    ] = "SIGTERM"
    process: Annotated[Text | None, Doc("The name of the process that restart: signal looks for.")] = None
    command: Annotated[tuple[Text, ...], Doc("The program and arguments of restart: command; no shell.")] = ()
    reroute: Annotated[Reroute | None, Doc("Sends an upstream's requests to another.")] = None
    flush_pool: Annotated[Name | None, Doc("Closes this upstream's idle connections.")] = None
    clear_cache: Annotated[Name | None, Doc("Forgets the answers kept for fallbacks of this upstream.")] = None
    webhook: Annotated[Webhook | None, Doc("Asks someone else.")] = None


class Budget(Section, frozen=True, kw_only=True):
    """How often the action may run at all, over all faults."""

    runs: Annotated[Positive, Doc("So many runs …", "restart storms are worse than the fault")] = 2
    per: Annotated[PositiveDuration, Doc("… within this time.")] = 600.0


class Recovery(Section, frozen=True, kw_only=True):
    """One rule: when this, do that."""

    name: Annotated[Name, Doc("Names the rule in commands and metrics; unique.")]
    when: Annotated[Trigger, Doc("What has to be true.")]
    do: Annotated[Action, Doc("What is done then.")]
    attempts: Annotated[Positive, Doc("So many tries per fault; then people take over.")] = 3
    backoff: Annotated[Duration, Doc("The wait before the second try; doubles each time.")] = 2.0
    budget: Annotated[Budget, Doc("The limit across faults.")] = Budget()
