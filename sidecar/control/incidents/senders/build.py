"""From the configuration to a sender."""

from sidecar.config.incidents import Notify
from sidecar.control.incidents.senders.post import Poster
from sidecar.control.incidents.senders.sender import Sender


def build(config: Notify, post: Poster) -> Sender:
    """The way that the entry names; its module is loaded only when it is used."""
    if config.webhook is not None:
        from sidecar.control.incidents.senders.webhook import WebhookSender

        return WebhookSender(config.webhook, post)
    if config.alertmanager is not None:
        from sidecar.control.incidents.senders.alertmanager import AlertmanagerSender

        return AlertmanagerSender(config.alertmanager, post)
    if config.pagerduty is not None:
        from sidecar.control.incidents.senders.pagerduty import PagerDutySender

        return PagerDutySender(config.pagerduty, post)
    if config.slack is not None:
        from sidecar.control.incidents.senders.slack import SlackSender

        return SlackSender(config.slack, post)
    from sidecar.control.incidents.senders.email import EmailSender

    assert config.email is not None, "exactly one is given"
    return EmailSender(config.email)
