"""The measured request is the one that the figures speak of."""

from pathlib import Path

import h11

from benchmarks.rig import routes, wrk


def _parsed(data: bytes) -> h11.Request:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    return event


def test_the_small_get_has_ten_fields_and_467_bytes() -> None:
    request = routes.REQUESTS["get-1k"]
    assert len(request) == 467
    assert len(_parsed(request).headers) == 10


def test_every_measured_request_is_http_on_a_configured_route() -> None:
    for request in routes.REQUESTS.values():
        target = _parsed(request).target.decode()
        assert f"/{target.split('/')[1]}" in routes.ROUTES


def test_wrk_sends_the_very_bytes(tmp_path: Path) -> None:
    script = wrk.write_script(tmp_path / "x.lua", b'a"\\\r\n\x00').read_text()
    assert 'local request = "\\097\\034\\092\\013\\010\\000"' in script
