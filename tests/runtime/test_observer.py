"""What happened is told once, to the log and to everybody who listens."""

import logging

import msgspec

from sidecar.runtime.observer import Happening, Kind, Level, Observer


def test_it_stands_in_the_log_with_its_fields_and_reaches_every_subscriber(caplog):
    observer, first, second = Observer(), [], []
    observer.subscribe(first.append)
    observer.subscribe(second.append)
    with caplog.at_level(logging.INFO, "sidecar"):
        observer.tell(
            Kind.BREAKER_CHANGED, "pay", level=Level.WARNING, reason="failure_rate", upstream="pay", new="open"
        )
    (line,) = caplog.records
    assert (line.message, line.levelno) == ("breaker_changed", logging.WARNING)
    assert line.fields == {"upstream": "pay", "new": "open", "reason": "failure_rate"}
    (heard,) = first
    assert second == [heard]
    assert (heard.kind, heard.subject, heard.level, heard.reason) == (
        "breaker_changed",
        "pay",
        "warning",
        "failure_rate",
    )
    assert heard.fields == {"upstream": "pay", "new": "open"}
    assert heard.at > 1.7e9
    assert heard.pid > 0


def test_what_is_given_stands_in_the_line_though_it_is_empty(caplog):
    """The lines of a kind have the same fields, so that a reader may rely on them."""
    with caplog.at_level(logging.INFO, "sidecar"):
        Observer().tell(Kind.BREAKER_CHANGED, "pay", reason="open_period_over", detail="")
        Observer().tell(Kind.CONFIG_RELOADED, "file")
    assert [line.fields for line in caplog.records] == [{"reason": "open_period_over", "detail": ""}, {}]


def test_one_subscriber_that_fails_takes_nothing_from_the_others(caplog):
    def broken(_):
        raise LookupError("no such thing")

    observer, heard = Observer(), []
    observer.subscribe(broken)
    observer.subscribe(heard.append)
    observer.tell(Kind.CHILD_DIED, "app")
    observer.tell(Kind.CHILD_STARTED, "app")
    assert [one.kind for one in heard] == [Kind.CHILD_DIED, Kind.CHILD_STARTED]
    assert [one.message for one in caplog.records].count("subscriber_failed") == 2  # once a minute for each kind


def test_who_ended_the_subscription_hears_no_more_even_while_it_is_told():
    observer, heard = Observer(), []

    def once(happening):
        heard.append(happening.kind)
        end()

    end = observer.subscribe(once)
    observer.subscribe(lambda happening: heard.append(happening.subject))
    observer.tell(Kind.CHILD_DIED, "app")
    observer.tell(Kind.CHILD_STARTED, "web")
    end()
    assert heard == [Kind.CHILD_DIED, "app", "web"]


def test_the_log_is_limited_and_the_subscribers_are_not(caplog):
    observer, heard = Observer(), []
    observer.subscribe(heard.append)
    for _ in range(3):
        observer.tell(Kind.SHARED_STATE_UNREACHABLE, "shared_state", level=Level.WARNING, every=60.0, about="here")
    assert len(heard) == 3
    assert len(caplog.records) == 1


def test_it_crosses_process_borders_and_is_not_logged_twice(caplog):
    there, here, sent, heard = Observer(), Observer(), [], []
    there.subscribe(lambda happening: sent.append(msgspec.msgpack.encode(happening)))
    here.subscribe(heard.append)
    there.tell(Kind.ENDPOINTS_CHANGED, "app", level=Level.WARNING, count=2, came=["a:1"], went=[], upstream="app")
    here.hear(msgspec.msgpack.decode(sent[0], type=Happening))
    assert heard[0].fields == {"count": 2, "came": ["a:1"], "went": [], "upstream": "app"}
    assert heard[0].kind is Kind.ENDPOINTS_CHANGED
    assert len(caplog.records) == 1
