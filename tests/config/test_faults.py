"""Every kind of fault in a single value or key, at its exact place; and all of them at once."""

import os

import pytest

from sidecar.base.errors import ConfigError
from sidecar.config.load import InvalidConfig, examine, load, parse

SOUND = """\
listeners:
- {name: in, bind: "127.0.0.1:8080", routes: [{name: all, upstream: app}]}
upstreams:
- {name: app, endpoints: [{address: "127.0.0.1:8000"}]}
"""


def faults(text, env=None):
    return [str(fault) for fault in examine(text, "f", env).faults]


def test_the_sound_file_is_sound():
    assert faults(SOUND) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("wrokers: 2\n", "f:1:1: wrokers: unknown key; did you mean workers?"),
        ("zzz: 2\n", "f:1:1: zzz: unknown key; known here: version, service,"),
        ("workers: 2\nworkers: 3\n", "f:2:1: workers: given twice; the first is in line 1"),
        ("workers: two\n", "f:1:10: workers: a whole number is expected, not 'two'"),
        ("workers: 0\n", "f:1:10: workers: 0 is not within 1 to 64"),
        ("workers: true\n", "f:1:10: workers: a whole number is expected, not true"),
        ("workers: 1.0\n", "f:1:10: workers: a whole number is expected, not '1.0'"),
        ("workers: [1]\n", "f:1:10: workers: a whole number is expected, not a list"),
        ("workers:\n", "f:1:9: workers: a whole number is expected, not null"),
        ("version: 2\n", "f:1:10: version: 2 is not within 1 to 1"),
        ("codec: h12\n", "f:1:8: codec: 'h12' is not one of fast, h11"),
        ("admin: off\n", "f:1:8: admin: a mapping of bind, socket, token_file, probes is expected, not 'off'"),
        ("admin: {bind: 9901}\n", "f:1:15: admin.bind: an address like 127.0.0.1:8080 is expected, not '9901'"),
        ("admin: {bind: ':9901'}\n", "f:1:15: admin.bind: ':9901' is not an address: write host:port"),
        ("admin: {bind: '::1:80'}\n", "f:1:15: admin.bind: '::1:80': an IPv6 address stands in brackets"),
        ("admin: {bind: 'a:99999'}\n", "f:1:15: admin.bind: port 99999 is not within 0 to 65535"),
        ("admin: {socket: run.sock}\n", "f:1:17: admin.socket: 'run.sock' is not an absolute path"),
        ("service: {name: Orders}\n", "f:1:17: service.name: 'Orders' is not a name: lower-case letters"),
        ("service: {name: 12}\n", "f:1:17: service.name: a name is expected, not '12'; put quotes around it"),
        ("shutdown: {delay: 30}\n", "f:1:19: shutdown.delay: 30 has no unit: write 30s or 30ms"),
        ("shutdown: {delay: 1:30}\n", "f:1:19: shutdown.delay: '1:30' is not a duration: write 250ms"),
        ("shutdown:\n  delay: -1s\n", "f:2:10: shutdown.delay: '-1s' is not a duration"),
        ("access_log: {sample: 5%}\n", "f:1:22: access_log.sample: '5%' is not a ratio: write a number from 0 to 1"),
        ("access_log: {sample: 1.5}\n", "f:1:22: access_log.sample: 1.5 is not a ratio"),
        ("access_log: {sample: .nan}\n", "f:1:22: access_log.sample: nan is not a ratio"),
        ("access_log: {sample: true}\n", "f:1:22: access_log.sample: a ratio from 0 to 1 is expected, not true"),
        ("access_log: {path: log.txt}\n", "f:1:20: access_log.path: 'log.txt' is not an output"),
        ("listeners: {name: in}\n", "f:1:12: listeners: a list is expected, not a mapping"),
        ("listeners: [7]\n", "f:1:13: listeners[0]: a mapping of name, bind"),
        ("listeners:\n- {name: in, routes: []}\n", "f:2:3: listeners[0].bind: missing: Where it listens."),
        ("upstreams:\n- name: a\n  retry_budget: {ratio: x}\n", "f:3:25: upstreams[0].retry_budget.ratio: a ratio"),
        (
            "upstreams:\n- name: a\n  breaker: {failure_statuses: [500, 50x]}\n",
            "f:3:37: upstreams[0].breaker.failure_statuses[1]: '50x' is not a status: write 503 or a range",
        ),
        ("upstreams:\n- {name: a, breaker: {failure_statuses: [599-500]}}\n", "runs backwards: write 500-599"),
        ("upstreams:\n- {name: a, breaker: {open_for: 0s}}\n", "f:2:33: upstreams[0].breaker.open_for: must be longer"),
        ("upstreams:\n- {name: a, breaker: {open_multiplier: 0.5}}\n", "0.5 is not within 1 to 100"),
        (
            "upstreams:\n- {name: a, tls: {verify: 'true'}}\n",
            "f:2:27: upstreams[0].tls.verify: true or false is expected",
        ),
        (
            "listeners:\n- {name: a, bind: 'a:1', routes: [{name: r, upstream: u, retry: {retry_on: [resett]}}]}\n",
            "f:2:77: listeners[0].routes[0].retry.retry_on[0]: 'resett' is neither a status nor one of connect_failure",
        ),
        (
            "listeners:\n- {name: a, bind: 'a:1', trusted_proxies: [10.0.0.1/8]}\n",
            "f:2:44: listeners[0].trusted_proxies[0]: '10.0.0.1/8' is not a network",
        ),
        ("listeners:\n- {name: a, bind: 'a:1', max_head: 64K}\n", "f:2:36: listeners[0].max_head: '64K' is not a size"),
        (
            "listeners:\n- {name: a, bind: 'a:1', routes: [{name: r, upstream: u, match: {headers: {'a b': x}}}]}\n",
            "f:2:76: listeners[0].routes[0].match.headers.a b: 'a b' is not a token",
        ),
        (
            "listeners:\n- {name: a, bind: 'a:1', routes: [{name: r, upstream: u, match: {headers: {a: x, A: y}}}]}\n",
            "f:2:82: listeners[0].routes[0].match.headers.A: given twice",
        ),
        (
            "listeners:\n- {name: a, bind: 'a:1', routes: [{name: r, upstream: u, match: {host: 'A.b'}}]}\n",
            "f:2:72: listeners[0].routes[0].match.host: 'A.b' is not a host",
        ),
        (
            "upstreams:\n- name: a\n  discovery: {dns: 'x:1', file: /f}\n",
            "f:3:3: upstreams[0].discovery: dns and file exclude each other: give one of them",
        ),
        (
            "upstreams:\n- name: a\n  health_check: {interval: 5s}\n",
            "f:3:3: upstreams[0].health_check: exactly one of http, tcp, grpc is expected",
        ),
        ("shared_state: {redis: {url: 'redis://:hunter2@h'}}\n", "redis.url: a URL carries no password here"),
        ("shared_state: {redis: {url: 'http://h'}}\n", "a URL that begins with redis:// or rediss:// or unix://"),
        ("nothing", "f:1:1: a mapping of version, service"),
        ("", "f:1:1: the file is empty"),
        ("a: [\n", "f:2:1: not YAML: "),
        (b"a: \xff\n", "f:1:4: not UTF-8 text"),
        ("service: {name: '\ud800'}", "f:1:1: not UTF-8 text"),
        ("#" * (1 << 20) + "\n", "f:1:1: larger than 1 MiB"),
    ],
)
def test_a_fault_says_where_and_what(text, fault):
    found = faults(text)
    assert any(fault in line for line in found), found


def test_every_fault_comes_at_once_in_the_files_order():
    text = """\
wrokers: 2
shutdown: {delay: 30}
listeners:
- name: in
  bind: 8080
  routes:
  - {name: all, upstream: ap, timeout: 5}
upstreams:
- name: app
  endpoints: [{address: nowhere}, {address: "127.0.0.1:8000", wieght: 2}]
  breaker: {mode: enforced}
"""
    assert [line.split(": ")[:2] for line in faults(text)] == [
        ["f:1:1", "wrokers"],
        ["f:2:19", "shutdown.delay"],
        ["f:5:9", "listeners[0].bind"],
        ["f:7:27", "listeners[0].routes[0].upstream"],
        ["f:7:40", "listeners[0].routes[0].timeout"],
        ["f:10:25", "upstreams[0].endpoints[0].address"],
        ["f:10:63", "upstreams[0].endpoints[1].wieght"],
        ["f:11:19", "upstreams[0].breaker.mode"],
    ]


def test_the_error_carries_every_fault_and_prints_them_one_a_line():
    with pytest.raises(InvalidConfig) as caught:
        parse("wrokers: 2\ncodec: no\nadmin: 7\n", "f")
    assert len(caught.value.faults) == 3
    assert len(str(caught.value).splitlines()) == 3
    assert isinstance(caught.value, ConfigError)


def test_a_wrong_value_does_not_make_a_rule_speak_about_its_stand_in():
    text = SOUND.replace('[{address: "127.0.0.1:8000"}]', "nowhere")
    assert faults(text) == ["f:4:26: upstreams[0].endpoints: a list is expected, not 'nowhere'"]


def test_a_fault_repeats_no_password():
    for url in ("redis://:hunter2@h", "redis://u:hunter2@h:port", "ftp://u:hunter2@h", "redis://h?password=hunter2"):
        found = faults(f"shared_state: {{redis: {{url: '{url}'}}}}\n")
        assert found
        assert "hunter2" not in "".join(found)


@pytest.mark.parametrize(
    ("written", "env", "workers"),
    [
        ("${env:N}", {"N": "3"}, 3),
        ("${env:N:-2}", {}, 2),
        ("${env:N:-2}", {"N": ""}, 2),
        ("${env:N:-2}", {"N": "4"}, 4),
        ("${env:A}${env:B}", {"A": "1", "B": "2"}, 12),
        ("'${env:N:-2}'", {}, 2),
        ("'${env:N:-2}'", {"N": "0x3"}, 3),
    ],
)
def test_the_environment_fills_values_before_they_get_their_type(written, env, workers):
    assert parse(f"workers: {written}\n" + SOUND, "f", env).workers == workers


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_name_from_the_environment_is_text_whatever_it_looks_like(quote):
    text = SOUND + f"service:\n  instance: {quote}${{env:N}}{quote}\n"
    assert [parse(text, "f", {"N": n}).service.instance for n in ("12", "true")] == ["12", "true"]


def test_an_empty_variable_is_null_where_null_may_stand():
    for value in ("${env:N:-}", "'${env:N:-}'"):
        assert parse(f"admin:\n  token_file: {value}\n{SOUND}").admin.token_file is None
    text = f"incidents: {{notify: [{{name: a, webhook: {{url: 'http://a', url_file: '${{env:N:-}}'}}}}]}}\n{SOUND}"
    assert faults(text) == []
    assert "exclude each other" in faults(text, {"N": "/run/url"})[0]


def test_a_pipe_that_nobody_writes_to_is_empty(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidConfig, match="the file is empty"):
        load(str(tmp_path / "pipe"))


def test_the_environment_is_expanded_once_and_can_be_escaped():
    text = "service: {instance: '%s'}\n" + SOUND
    assert parse(text % "${env:A}", "f", {"A": "${env:B}", "B": "x"}).service.instance == "${env:B}"
    assert parse(text % "$${env:A}", "f", {"A": "x"}).service.instance == "${env:A}"
    assert parse(text % "${A} $A {}", "f", {"A": "x"}).service.instance == "${A} $A {}"


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("${env:N}", "f:1:10: workers: the environment variable N is not set: set it or write ${env:N:-default}"),
        ("${env:N", "f:1:10: workers: write ${env:NAME} or ${env:NAME:-default}"),
        ("${env:}", "f:1:10: workers: write ${env:NAME}"),
        ("${env:1N}", "f:1:10: workers: write ${env:NAME}"),
        ("${env:BAD}", "f:1:10: workers: the environment variable BAD is not UTF-8 text"),
        ("${env:TEXT}", "f:1:10: workers: a whole number is expected, not 'many'"),
    ],
)
def test_what_the_environment_cannot_fill_is_a_fault(written, fault):
    found = faults(f"workers: {written}\n" + SOUND, {"BAD": "\udcff", "TEXT": "many"})
    assert len(found) == 1
    assert found[0].startswith(fault)


def test_quotes_make_text_whatever_it_looks_like():
    text = SOUND + "service: {name: '0123', instance: \"true\"}\n"
    service = parse(text).service
    assert (service.name, service.instance) == ("0123", "true")


def test_a_byte_order_mark_is_no_fault():
    assert parse(b"\xef\xbb\xbf" + SOUND.encode()).listeners[0].name == "in"


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path):
    with pytest.raises(InvalidConfig, match=r"nowhere\.yaml:1:1: there is no such file"):
        load(str(tmp_path / "nowhere.yaml"))
    with pytest.raises(InvalidConfig, match="Is a directory"):
        load(str(tmp_path))


def test_load_takes_the_processes_environment(tmp_path, monkeypatch):
    file = tmp_path / "c.yaml"
    file.write_text("workers: ${env:WORKERS_HERE}\n" + SOUND)
    monkeypatch.setenv("WORKERS_HERE", "5")
    assert load(str(file)).workers == 5
