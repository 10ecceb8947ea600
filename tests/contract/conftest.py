import pytest

from tests.contract.fleet_keepers import InProcess, InRedis
from tests.real.databases import Redis


@pytest.fixture(scope="session")
def redis_server():
    with Redis() as server:
        yield server


@pytest.fixture(params=["in process", "redis"])
def keeper(request):
    """A keeper with nothing in it, at some time."""
    one = InProcess() if request.param == "in process" else InRedis(request.getfixturevalue("redis_server"))
    one.now_us = 1_700_000_000_000_000
    one.fresh()
    yield one
    if isinstance(one, InRedis):
        one.close()
