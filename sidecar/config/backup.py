"""What the agent backs up, where to, how often, how long it is kept, and how it is proved."""

from typing import Annotated

from sidecar.config.kinds import (
    Bind,
    Count,
    Doc,
    Duration,
    Flag,
    HttpUrl,
    Name,
    Path,
    PositiveDuration,
    Ratio,
    RepositoryUrl,
    Section,
    Statuses,
    Text,
    UrlPath,
    pattern,
    words,
)
from sidecar.config.redis import Redis
from sidecar.config.upstreams import SUCCESSES


class AgentAdmin(Section, frozen=True, kw_only=True):
    """Where the agent answers: probes, metrics and commands."""

    bind: Annotated[Bind, Doc("Probes, metrics and status over TCP.")] = "127.0.0.1:9903"
    socket: Annotated[Path, Doc("The Unix socket of the commands.")] = "/run/sidecar/agent.sock"
    token_file: Annotated[
        Path | None, Doc("A file with the bearer token for changes over TCP. null: only by socket.")
    ] = None


class S3(Section, frozen=True, kw_only=True):
    """Access to an object store."""

    endpoint: Annotated[HttpUrl | None, Doc("The store's URL. null: AWS.")] = None
    region: Annotated[Text | None, Doc("The region.")] = None
    access_key_id_file: Annotated[Path | None, Doc("A file with the key's id. null: the pod's own identity.")] = None
    secret_access_key_file: Annotated[Path | None, Doc("A file with the secret key.")] = None
    session_token_file: Annotated[Path | None, Doc("A file with a session token.")] = None


class Repository(Section, frozen=True, kw_only=True):
    """Where backups go."""

    url: Annotated[RepositoryUrl, Doc("A directory, or s3://bucket/prefix.")]
    engine: Annotated[
        Annotated[str, words("restic", "sealed")],
        Doc("restic deduplicates and needs its binary; sealed needs none."),
    ] = "restic"
    password_file: Annotated[Path, Doc("A file with the passphrase that encrypts everything. Keep a copy elsewhere.")]
    s3: Annotated[S3 | None, Doc("How to reach an s3:// repository. Absent: the environment's defaults.")] = None


class SqliteSource(Section, frozen=True, kw_only=True):
    """An SQLite database, copied while in use: the copy is the state of one moment."""

    path: Annotated[Path, Doc("The database file.")]


class PostgresSource(Section, frozen=True, kw_only=True):
    """A PostgreSQL cluster: a base backup a day, and the log as it is written, while the agent runs."""

    dsn_file: Annotated[Path, Doc("A file with the connection string of a role with REPLICATION.")]
    programs: Annotated[
        Path | None, Doc("Where pg_basebackup, pg_receivewal and the rest are. null: where Debian keeps them, PATH.")
    ] = None
    slot: Annotated[
        Annotated[str, pattern("slot name", r"[a-z0-9_]{1,63}", "lower-case letters, digits and _")],
        Doc("The replication slot that keeps the log for us; it is made when it is not there."),
    ] = "sidecar"
    stream: Annotated[Flag, Doc("Whether the agent streams the log. false: a base backup each run.")] = True
    max_lag: Annotated[
        PositiveDuration, Doc("The copy of the log further behind than this is told as replication_behind.")
    ] = 60.0
    resync: Annotated[
        Flag, Doc("Begin anew, with a base backup, when the server no longer has the log where we were.")
    ] = True


class FilesSource(Section, frozen=True, kw_only=True):
    """Files and directories as they are."""

    paths: Annotated[tuple[Path, ...], Doc("What is backed up. A missing one fails the run.")]
    exclude: Annotated[tuple[Text, ...], Doc("Shell patterns of names to leave out.")] = ()


class Source(Section, frozen=True, kw_only=True):
    """One thing that is backed up: exactly one sort."""

    one_of = ("sqlite", "postgres", "redis", "files")

    name: Annotated[Name, Doc("Names it in commands and restores; unique.")]
    sqlite: Annotated[SqliteSource | None, Doc("An SQLite database.")] = None
    postgres: Annotated[PostgresSource | None, Doc("A PostgreSQL cluster.")] = None
    redis: Annotated[Redis | None, Doc("A Redis: BGSAVE, then its RDB.")] = None
    files: Annotated[FilesSource | None, Doc("Files and directories.")] = None


class Retention(Section, frozen=True, kw_only=True):
    """What is kept. A point is forgotten when no rule keeps it; the newest verified one never is."""

    keep_within: Annotated[Duration, Doc("Everything younger than this.")] = 604_800.0
    daily: Annotated[Count, Doc("The last point of so many days.")] = 14
    weekly: Annotated[Count, Doc("The last point of so many weeks.")] = 8
    monthly: Annotated[Count, Doc("The last point of so many months.")] = 12


class RestoreHealth(Section, frozen=True, kw_only=True):
    """When a restored service counts as well."""

    url: Annotated[HttpUrl, Doc("Must answer with 200–299.")]
    within: Annotated[PositiveDuration, Doc("How long it may take until it does.")] = 60.0


class RestoreRules(Section, frozen=True, kw_only=True):
    """What is done around a restore in place, so that nobody writes while data is exchanged."""

    fence: Annotated[
        tuple[Name, ...], Doc("Upstreams that get no call meanwhile: their breakers are held open in the proxy.")
    ] = ()
    stop: Annotated[
        tuple[Text, ...] | None,
        Doc("A command that stops the service. Absent: the proxy stops it when it supervises it, else nobody does."),
    ] = None
    start: Annotated[tuple[Text, ...] | None, Doc("A command that starts it again.")] = None
    health: Annotated[RestoreHealth | None, Doc("What must answer afterwards. Absent: nothing is asked.")] = None


class DrillStart(Section, frozen=True, kw_only=True):
    """The service, started on the restored copy: its command finds the copy and a free port."""

    command: Annotated[
        tuple[Text, ...],
        Doc("Program and arguments; no shell. {restored}: the copy's directory, {port}: a free port on loopback."),
    ]
    ready: Annotated[UrlPath, Doc("It is up once a GET of this answers 2xx.")] = "/"
    timeout: Annotated[PositiveDuration, Doc("Not up after this is a failure.")] = 60.0


class DrillHttp(Section, frozen=True, kw_only=True):
    """A GET that the started service must answer."""

    path: Annotated[UrlPath, Doc("What is asked for.")]
    expect: Annotated[Statuses, Doc("Statuses that are right.")] = SUCCESSES
    contains: Annotated[Text | None, Doc("Text that must stand in the body's first 1 MiB. null: any body.")] = None


class DrillCheck(Section, frozen=True, kw_only=True):
    """What must hold in a restored copy: exactly one of sql, exists, http, command."""

    one_of = ("sql", "exists", "http", "command")

    source: Annotated[Name | None, Doc("The source whose copy is asked. null: the whole, for http and command.")] = None
    sql: Annotated[Text | None, Doc("A query whose first value must be true.")] = None
    exists: Annotated[Path | None, Doc("A path, as it was backed up, that must be there.")] = None
    http: Annotated[DrillHttp | None, Doc("A GET to the service that drill.start started.")] = None
    command: Annotated[
        tuple[Text, ...] | None,
        Doc(
            "A program that must end with 0; no shell. {restored} and {port} as in start; it runs in the source's copy."
        ),
    ] = None
    timeout: Annotated[PositiveDuration, Doc("No answer after this is a failure.")] = 60.0


class Drill(Section, frozen=True, kw_only=True):
    """Restores into an empty place on schedule, to know that it works and how long it takes."""

    every: Annotated[PositiveDuration, Doc("How often.")] = 86_400.0
    random: Annotated[Ratio, Doc("The share of drills that restore any point, not the newest.")] = 0.2
    scratch: Annotated[
        Path | None, Doc("An existing directory in which copies are made and removed. null: below state_dir.")
    ] = None
    start: Annotated[DrillStart | None, Doc("The service, started on the copy. null: it is not started.")] = None
    checks: Annotated[tuple[DrillCheck, ...], Doc("What must hold afterwards.")] = ()


class Backup(Section, frozen=True, kw_only=True):
    """The agent's work."""

    rpo: Annotated[
        PositiveDuration, Doc("At most so much may be lost; the schedule follows from it.", "the requirement: 15 min")
    ] = 900.0
    rto: Annotated[PositiveDuration, Doc("A restore may take so long; drills measure it.", "the requirement: 4 h")] = (
        14_400.0
    )
    full_every: Annotated[
        PositiveDuration, Doc("By schedule, everything is stored anew after so long; incremental points lean on it.")
    ] = 604_800.0
    differential_every: Annotated[
        PositiveDuration, Doc("By schedule, what changed since the last full point is stored after so long.")
    ] = 86_400.0
    state_dir: Annotated[Path, Doc("The catalog, the journal and the staging area.", "FHS")] = "/var/lib/sidecar/agent"
    admin: Annotated[AgentAdmin, Doc("Where the agent answers.")] = AgentAdmin()
    repository: Annotated[Repository, Doc("Where backups go.")]
    sources: Annotated[tuple[Source, ...], Doc("What is backed up; one run is one point over all of them.")]
    retention: Annotated[Retention, Doc("What is kept.")] = Retention()
    restore: Annotated[RestoreRules, Doc("What is done around a restore in place.")] = RestoreRules()
    drill: Annotated[Drill | None, Doc("Restores that prove themselves. Absent: none.")] = None
