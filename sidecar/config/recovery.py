"""What the sidecar may do on its own when something is sick, and how often."""

from typing import Annotated

from sidecar.config.kinds import (
    Doc,
    Duration,
    Flag,
    HttpUrl,
    Name,
    Path,
    Positive,
    PositiveDuration,
    Ratio,
    Section,
    Text,
    pattern,
    words,
)


class ErrorRatio(Section, frozen=True, kw_only=True):
    """The share of an upstream's requests that fail (5xx, or no whole answer), over a sliding window."""

    upstream: Annotated[Name, Doc("Whose requests.")]
    above: Annotated[Ratio, Doc("Failed requests by all requests: this share or more.", "resilience4j: 50 %")] = 0.5
    window: Annotated[
        PositiveDuration, Doc("Looked at so far back: long enough to see what flaps, short enough to forget.")
    ] = 60.0
    minimum_requests: Annotated[Positive, Doc("Fewer requests than this say nothing.", "Hystrix: 20")] = 20


class Crashes(Section, frozen=True, kw_only=True):
    """The supervised process dies again and again."""

    count: Annotated[Positive, Doc("So many deaths …")] = 3
    within: Annotated[PositiveDuration, Doc("… within this time.")] = 600.0


class MemoryPressure(Section, frozen=True, kw_only=True):
    """The container's memory runs out, as its control group (version 2) counts it. No limit: never true."""

    above: Annotated[Ratio, Doc("Memory used by its limit: this share or more.")] = 0.9
    cgroup: Annotated[Path, Doc("The directory with memory.current and memory.max.", "a container sees its own")] = (
        "/sys/fs/cgroup"
    )


class AgentTrouble(Section, frozen=True, kw_only=True):
    """The backup agent reports that something is wrong."""

    condition: Annotated[Text | None, Doc("Its word, like rpo_missed or replication_behind. null: any.")] = None
    subject: Annotated[Text | None, Doc("What it is about: a source, repository, drill. null: anything.")] = None


class Trigger(Section, frozen=True, kw_only=True):
    """What has to be true: exactly one thing watched, sick for so long."""

    one_of = ("upstream", "dependency", "error_ratio", "crashes", "event_loop_lag", "memory", "agent")

    upstream: Annotated[Name | None, Doc("An upstream is unhealthy or its breaker is open.")] = None
    dependency: Annotated[Name | None, Doc("A dependency is unhealthy.")] = None
    error_ratio: Annotated[ErrorRatio | None, Doc("An upstream's requests fail, in a row or not.")] = None
    crashes: Annotated[Crashes | None, Doc("The supervised process dies again and again.")] = None
    event_loop_lag: Annotated[
        PositiveDuration | None, Doc("The proxy's own event loop runs what is due so late, on the average of a second.")
    ] = None
    memory: Annotated[MemoryPressure | None, Doc("The container's memory runs out.")] = None
    agent: Annotated[AgentTrouble | None, Doc("The backup agent reports trouble with backups or replication.")] = None
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


class Eviction(Section, frozen=True, kw_only=True):
    """Whom restart: evict asks, and for which pod. Needs create on pods/eviction."""

    pod: Annotated[Text | None, Doc("The pod's name. null: service.instance, else the host's name.")] = None
    namespace: Annotated[Name | None, Doc("Its namespace. null: the pod's own.")] = None
    api: Annotated[HttpUrl | None, Doc("The API server. null: the one that the pod's environment names.")] = None
    token_file: Annotated[
        Path | None, Doc("A file with the bearer token, read at each call. null: the one mounted into the pod.")
    ] = None
    ca_file: Annotated[
        Path | None, Doc("Authorities to trust for the API server, PEM. null: those mounted into the pod.")
    ] = None


class Action(Section, frozen=True, kw_only=True):
    """What is done: exactly one of these."""

    one_of = ("restart", "reroute", "shift", "drain", "flush_pool", "clear_cache", "webhook")

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
    eviction: Annotated[Eviction, Doc("Details of restart: evict.")] = Eviction()
    timeout: Annotated[
        PositiveDuration, Doc("A command, webhook or eviction that takes longer is given up, and has failed.")
    ] = 30.0
    reroute: Annotated[Reroute | None, Doc("Sends an upstream's requests to another.")] = None
    shift: Annotated[
        Name | None,
        Doc("Sends this upstream's requests to its endpoints of the next priority, until those of the first are well."),
    ] = None
    drain: Annotated[
        Name | None,
        Doc("Takes this upstream's unhealthy endpoints out, also in a panic, and closes what idles, until it is well."),
    ] = None
    flush_pool: Annotated[Name | None, Doc("Closes this upstream's idle connections.")] = None
    clear_cache: Annotated[Name | None, Doc("Forgets the answers kept for fallbacks of this upstream.")] = None
    webhook: Annotated[Webhook | None, Doc("Asks someone else.")] = None


class Budget(Section, frozen=True, kw_only=True):
    """How often the action may run at all, over all faults."""

    runs: Annotated[Positive, Doc("So many runs …", "restart storms are worse than the fault")] = 2
    per: Annotated[PositiveDuration, Doc("… within this time.")] = 600.0


_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Maintenance(Section, frozen=True, kw_only=True):
    """A time, in UTC, at which people are at work: nothing is done then."""

    days: Annotated[tuple[Annotated[str, words(*_DAYS)], ...], Doc("On which days it begins. Empty: every day.")] = ()
    start: Annotated[
        Annotated[str, pattern("time", "(?:[01][0-9]|2[0-3]):[0-5][0-9]", "hours and minutes in UTC, like 02:30")],
        Doc("When it begins, UTC."),
    ]
    lasts: Annotated[PositiveDuration, Doc("How long; past midnight too.")]


class Recovery(Section, frozen=True, kw_only=True):
    """One rule: when this, do that."""

    name: Annotated[Name, Doc("Names the rule in commands and metrics; unique.")]
    when: Annotated[Trigger, Doc("What has to be true.")]
    do: Annotated[Action, Doc("What is done then.")]
    attempts: Annotated[Positive, Doc("So many tries per fault; then people take over.")] = 3
    backoff: Annotated[Duration, Doc("The wait before the second try; doubles each time.")] = 2.0
    budget: Annotated[Budget, Doc("The limit across faults.")] = Budget()
    verify_within: Annotated[
        PositiveDuration | None,
        Doc(
            "No proof of recovery after this fails the attempt; and so long a service that was started is left alone, "
            "unless it was well already. null: 30s; 5m where others do it: liveness, evict, webhook."
        ),
    ] = None
    dry_run: Annotated[Flag, Doc("Only tells what would be done.")] = False
    maintenance: Annotated[
        tuple[Maintenance, ...], Doc("When nothing is done, because people are at work. Deaths are answered still.")
    ] = ()
