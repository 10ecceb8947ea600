"""A worker that is asked before it serves: the admin interface answers while the program starts."""

from sidecar.app.worker import Worker


def test_before_the_start_there_is_nothing_to_show() -> None:
    worker = Worker()
    assert worker.breakers() == []
    assert worker.endpoints() == {}
