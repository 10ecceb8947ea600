"""A worker that is asked before it serves: the admin interface answers while the program starts."""

import resource

from sidecar.app.worker import Worker, resident_bytes


def test_before_the_start_there_is_nothing_to_show() -> None:
    worker = Worker()
    assert worker.breakers() == []
    assert worker.endpoints() == {}


def test_without_a_free_descriptor_memory_is_not_known() -> None:
    """The scrape goes on without it: when descriptors run out is when somebody looks."""
    assert (resident_bytes() or 0) > 1 << 20
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        assert resident_bytes() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert resident_bytes() is not None
