"""Where incidents are kept, who hears of them, and who next."""

from typing import Annotated

from sidecar.config.kinds import (
    Address,
    Doc,
    HttpUrl,
    Name,
    Path,
    PositiveDuration,
    Ratio,
    Section,
    Text,
    pattern,
    words,
)

PLACEHOLDER = r"\{\{\s*([a-z_]+)\s*\}\}"
"""How a template names a field."""
FIELDS = frozenset(
    {"what", "text", "headline", "id", "service", "instance", "fingerprint", "failure", "subject", "title", "severity",
     "status", "started", "detected", "acknowledged", "acknowledged_by", "resolved", "resolved_by", "relapses",
     "reopened", "down_seconds", "holds"}
)  # fmt: skip
"""What a template may name."""
MailAddress = Annotated[str, pattern("mail address", r"[^\s<>@,\"]+@[^\s<>@,\"]+", "like ops@example.test")]


class Webhook(Section, frozen=True, kw_only=True):
    """Someone else's door to knock at, with a JSON description of the incident or what a template makes of it."""

    one_of = ("url", "url_file")

    url: Annotated[HttpUrl | None, Doc("Where it is POSTed.")] = None
    url_file: Annotated[Path | None, Doc("A file with the URL, when the URL itself is a secret.")] = None
    token_file: Annotated[Path | None, Doc("A file with a bearer token. null: none is sent.")] = None
    ca_file: Annotated[Path | None, Doc("Authorities to trust with https://, PEM. null: the system's.")] = None
    content_type: Annotated[Text, Doc("What the body is said to be.")] = "application/json"
    body: Annotated[
        Text | None,
        Doc("A template: {{title}}, {{severity}}, {{what}} and the like are filled in. null: everything, as JSON."),
    ] = None


class Alertmanager(Section, frozen=True, kw_only=True):
    """Prometheus Alertmanager, API v2."""

    url: Annotated[HttpUrl, Doc("Its base URL.")]
    token_file: Annotated[Path | None, Doc("A file with a bearer token. null: none is sent.")] = None
    ca_file: Annotated[Path | None, Doc("Authorities to trust with https://, PEM. null: the system's.")] = None


class PagerDuty(Section, frozen=True, kw_only=True):
    """PagerDuty Events API v2."""

    routing_key_file: Annotated[Path, Doc("A file with the integration's key.")]
    url: Annotated[HttpUrl, Doc("Where events go.", "PagerDuty")] = "https://events.pagerduty.com/v2/enqueue"


class Slack(Section, frozen=True, kw_only=True):
    """A Slack incoming webhook."""

    url_file: Annotated[Path, Doc("A file with the webhook's URL.")]


class Email(Section, frozen=True, kw_only=True):
    """Mail through one server."""

    server: Annotated[Address, Doc("The mail server, like smtp.example.test:587.")]
    tls: Annotated[
        Annotated[str, words("starttls", "tls", "none")],
        Doc("starttls (port 587 as a rule), tls from the first byte (465), or none.", "RFC 8314"),
    ] = "starttls"
    ca_file: Annotated[Path | None, Doc("Who vouches for the server. null: the system's authorities.")] = None
    username: Annotated[Text | None, Doc("Whom to log in as. null: nobody.")] = None
    password_file: Annotated[Path | None, Doc("A file with the password.")] = None
    sender: Annotated[MailAddress, Doc("Who it is from.")]
    to: Annotated[tuple[MailAddress, ...], Doc("Who gets it.")]


class Notify(Section, frozen=True, kw_only=True):
    """Someone who hears of incidents: exactly one way."""

    one_of = ("webhook", "alertmanager", "pagerduty", "slack", "email")

    name: Annotated[Name, Doc("Names it for escalate; unique.")]
    least: Annotated[
        Annotated[str, words("warning", "error", "critical")], Doc("The least severity of which it hears.")
    ] = "warning"
    hears: Annotated[
        Annotated[str, words("all", "escalated")],
        Doc("all: of every incident; escalated: only of those that are escalated to it."),
    ] = "all"
    webhook: Annotated[Webhook | None, Doc("A POST, JSON or a template.")] = None
    alertmanager: Annotated[Alertmanager | None, Doc("Alertmanager.")] = None
    pagerduty: Annotated[PagerDuty | None, Doc("PagerDuty.")] = None
    slack: Annotated[Slack | None, Doc("Slack.")] = None
    email: Annotated[Email | None, Doc("Mail.")] = None


class Escalation(Section, frozen=True, kw_only=True):
    """Who hears next when nobody acknowledged."""

    after: Annotated[PositiveDuration, Doc("Unacknowledged for so long.", "the requirement: response within 5 min")]
    to: Annotated[Name, Doc("The notify entry that then hears of it.")]


class Incidents(Section, frozen=True, kw_only=True):
    """The incidents' book. Absent: kept in memory only."""

    store: Annotated[
        Path | None, Doc("The SQLite file that keeps them and what is still to be sent. null: memory.")
    ] = None
    resolve_after: Annotated[
        PositiveDuration,
        Doc("What is gone has to stay gone for so long before its incident is resolved; doubled at each relapse."),
    ] = 15.0
    reopen_within: Annotated[
        PositiveDuration, Doc("What comes back so soon after the resolution is the same incident, reopened.")
    ] = 900.0
    objective: Annotated[
        Ratio | None,
        Doc(
            "The share of requests that must not fail. Burning the rest 14.4 times too fast over 1 h and 5 min, or 6 "
            "times over 6 h and 30 min, is an incident. null: none.",
            "99.9 %; Google, The Site Reliability Workbook, chapter 5",
        ),
    ] = 0.999
    notify: Annotated[tuple[Notify, ...], Doc("Who hears of incidents.")] = ()
    escalate: Annotated[tuple[Escalation, ...], Doc("Who hears when nobody acknowledges.")] = ()
