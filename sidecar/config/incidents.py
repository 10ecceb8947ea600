"""Where incidents are kept, who hears of them, and who next."""

from typing import Annotated

from sidecar.config.kinds import Doc, HttpUrl, Name, Path, PositiveDuration, Section
from sidecar.config.recovery import Webhook


class Alertmanager(Section, frozen=True, kw_only=True):
    """Prometheus Alertmanager, API v2."""

    url: Annotated[HttpUrl, Doc("Its base URL.")]


class PagerDuty(Section, frozen=True, kw_only=True):
    """PagerDuty Events API v2."""

    routing_key_file: Annotated[Path, Doc("A file with the integration's key.")]
    url: Annotated[HttpUrl, Doc("Where events go.", "PagerDuty")] = "https://events.pagerduty.com/v2/enqueue"


class Slack(Section, frozen=True, kw_only=True):
    """A Slack incoming webhook."""

    url_file: Annotated[Path, Doc("A file with the webhook's URL.")]


class Notify(Section, frozen=True, kw_only=True):
    """Someone who hears of incidents: exactly one way."""

    one_of = ("webhook", "alertmanager", "pagerduty", "slack")

    name: Annotated[Name, Doc("Names it for escalate; unique.")]
    webhook: Annotated[Webhook | None, Doc("A JSON POST.")] = None
    alertmanager: Annotated[Alertmanager | None, Doc("Alertmanager.")] = None
    pagerduty: Annotated[PagerDuty | None, Doc("PagerDuty.")] = None
    slack: Annotated[Slack | None, Doc("Slack.")] = None


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
    notify: Annotated[tuple[Notify, ...], Doc("Who hears of every incident.")] = ()
    escalate: Annotated[tuple[Escalation, ...], Doc("Who hears when nobody acknowledges.")] = ()
