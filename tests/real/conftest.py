"""The stage of the tests through the real program: an upstream, a proxy in front of it, a client per test.

A module that wants other settings overrides `config`; the proxy and the upstream are shared by the module's tests,
which keep apart by their paths. `codec` runs a test once through each codec: the proxy has a listener for each.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.wire import Wire
from tests.real.documents import both_codecs, route, upstream
from tests.real.harness import Sidecar


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def config(server: ScriptedUpstream) -> dict[str, Any]:
    """Everything goes to the scripted upstream; nothing times out soon."""
    return both_codecs([route("all", "app", timeout="10s")], [upstream("app", server.address)])


@pytest.fixture(scope="module")
def proxy(config: dict[str, Any]) -> Iterator[Sidecar]:
    with Sidecar(config) as running:
        yield running


@pytest.fixture(params=["fast", "h11"])
def codec(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(proxy: Sidecar, codec: str) -> Iterator[Wire]:
    """One connection to the listener of this codec."""
    with proxy.client(codec) as wire:
        yield wire
