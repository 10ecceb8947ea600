"""The file that discovery watches: read by the configuration's rules, its faults at their places."""

import pytest

from sidecar.config.endpoint_file import parse_endpoints
from sidecar.config.faults import InvalidConfig
from sidecar.config.upstreams import Endpoint


@pytest.mark.parametrize(
    "text",
    [
        b"- {address: 10.0.0.1:80}\n- address: 10.0.0.2:80\n  weight: 3\n  priority: 1\n",
        b'[{"address": "10.0.0.1:80"}, {"address": "10.0.0.2:80", "weight": 3, "priority": 1}]',
    ],
)
def test_yaml_and_json_say_the_same(text):
    assert parse_endpoints(text, "f") == (
        Endpoint(address="10.0.0.1:80"),
        Endpoint(address="10.0.0.2:80", weight=3, priority=1),
    )


def test_an_empty_list_is_an_answer():
    assert parse_endpoints(b"[]", "f") == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", "f:1:1: the file is empty"),
        (b"{address: 10.0.0.1:80}", "f:1:1: a list is expected, not a mapping"),
        (b"- {address: 10.0.0.1:80, wieght: 1}", "f:1:26: [0].wieght: unknown key; did you mean weight?"),
        (b"- {address: 10.0.0.1}", "f:1:13: [0].address: '10.0.0.1' is not an address"),
        (b"- {address: 'a:1'}\n- {address: 'b:1', weight: 0}", "f:2:28: [1].weight: 0 is not within 1 to 1000"),
        (b"[{", "f:2:1: not YAML"),
        (b"\xff", "not UTF-8 text"),
    ],
)
def test_a_fault_says_where(text, fault):
    with pytest.raises(InvalidConfig) as caught:
        parse_endpoints(text, "f")
    assert fault in str(caught.value)
