"""The rules between fields: each broken once, at its exact place; and what comes close but is right."""

import pytest

from sidecar.config.load import examine

LISTENERS = """\
listeners:
- name: in
  bind: 127.0.0.1:8080
  routes:
  - {name: all, upstream: app}
"""
UPSTREAMS = """\
upstreams:
- {name: app, endpoints: [{address: "127.0.0.1:8000"}]}
"""


def faults(text):
    return [str(fault) for fault in examine(text, "f").faults]


def notes(text):
    examination = examine(text, "f")
    assert examination.faults == []
    return [str(note) for note in examination.notes]


def route(rest):
    return LISTENERS.replace("upstream: app}", f"upstream: app, {rest}}}") + UPSTREAMS


def upstream(rest):
    return LISTENERS + UPSTREAMS.replace("}]}", f"}}], {rest}}}")


def notify(rest):
    """Lines 8 and 9."""
    return LISTENERS + UPSTREAMS + "service: {name: orders}\nincidents:\n  notify: [{name: ops, " + rest + "}]\n"


def mail(rest):
    return notify(f"email: {{server: 'h:25', sender: a@b, {rest}}}")


def registry(rest):
    shared = f"shared_state: {{redis: {{url: 'redis://h'}}, registry: {{{rest}}}}}\n"
    return LISTENERS + UPSTREAMS + "service: {name: orders}\n" + shared


def listen(bind):
    return LISTENERS.replace("127.0.0.1:8080", f'"{bind}"') + UPSTREAMS


def secure(rest, protocol="http"):
    tls = f"tls: {{cert_file: /c, key_file: /k, {rest}}}\n"
    return LISTENERS.replace("  routes:", f"  protocol: {protocol}\n  {tls}  routes:") + UPSTREAMS


def call(address):
    return LISTENERS + UPSTREAMS.replace("127.0.0.1:8000", address)


RETRY = "retry: {per_try_timeout: 20s}"
BACKUP = """\
service: {name: orders}
backup:
  repository: {url: /var/backups, password_file: /k}
  sources:
  - {name: db, sqlite: {path: /data/db}}
  - {name: up, files: {paths: [/data/up]}}
"""
SEALED = BACKUP.replace("password_file", "engine: sealed, password_file")
OWN = LISTENERS.replace("upstream: app}", "upstream: app, breaker: own}")
TWICE_OWN = OWN + OWN.partition("\n")[2].replace("name: in", "name: out").replace("8080", "8081") + UPSTREAMS
RECOVERY = "recovery:\n- {name: r, when: {%s}, do: {%s}}\n"
DEPENDENCY = "dependencies:\n- {name: db, check: {redis: {url: redis://h}}, %s}\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        # names that must exist, names that must differ
        (LISTENERS, "f:5:27: listeners[0].routes[0].upstream: there is no upstream 'app'"),
        (LISTENERS + UPSTREAMS + UPSTREAMS[11:], "f:8:10: upstreams[1].name: app is also the name of item 0"),
        (
            LISTENERS + "  - {name: all, match: {path: /x}, upstream: app}\n" + UPSTREAMS,
            "f:6:12: listeners[0].routes[1].name: all is also the name of item 0",
        ),
        (
            LISTENERS + LISTENERS[11:].replace("8080", "8081") + UPSTREAMS,
            "f:6:9: listeners[1].name: in is also the name of item 0",
        ),
        # fallbacks
        (
            route("fallback: [{upstream: dr}]"),
            "f:5:54: listeners[0].routes[0].fallback[0].upstream: there is no upstream",
        ),
        (route("fallback: [{upstream: app}]"), "f:5:54: listeners[0].routes[0].fallback[0].upstream: loops: app"),
        (
            route("fallback: [{respond: {status: 503}}, {cache: {max_age: 1m}}]"),
            "f:5:69: listeners[0].routes[0].fallback[1]: is never reached: respond before it always answers",
        ),
        (route("fallback: [{respond: {status: 204, body: x}}]"), "fallback[0].respond.body: an answer with status 204"),
        (
            route("fallback: [{respond: {headers: {Content-Length: '3'}}}]"),
            "f:5:80: listeners[0].routes[0].fallback[0].respond.headers.Content-Length: the proxy frames its answers",
        ),
        (
            route("fallback: [{}]"),
            "f:5:43: listeners[0].routes[0].fallback[0]: exactly one of upstream, cache, respond",
        ),
        # routes
        (
            route(RETRY),
            "f:5:57: listeners[0].routes[0].retry.per_try_timeout: per_try_timeout 20s is longer than the route's",
        ),
        (route("retry: {attempts: 0}"), "f:5:50: listeners[0].routes[0].retry.attempts: 0 is not within 1"),
        (
            route("retry: {backoff: 1s}"),
            "f:5:49: listeners[0].routes[0].retry.backoff: backoff is longer than backoff_max",
        ),
        (route("match: {path: /a, path_prefix: /a}"), "match.path_prefix: path and path_prefix exclude each other"),
        (LISTENERS[: LISTENERS.index("  routes")] + UPSTREAMS, "f:2:3: listeners[0].routes: a listener needs a route"),
        (
            LISTENERS + "  max_target: 128KiB\n" + UPSTREAMS,
            "f:6:15: listeners[0].max_target: max_target is larger than max_head",
        ),
        # tcp
        (
            LISTENERS + "  - {name: b, upstream: app}\n  protocol: tcp\n" + UPSTREAMS,
            "f:6:5: listeners[0].routes[1]: a tcp listener has exactly one route",
        ),
        (route("match: {path: /}"), None),
        (
            route("match: {path: /}").replace("  routes", "  protocol: tcp\n  routes"),
            "f:6:32: listeners[0].routes[0].match: a tcp listener reads no requests",
        ),
        (
            route("fallback: [{cache: {max_age: 1m}}]").replace("  routes", "  protocol: tcp\n  routes"),
            "f:6:43: listeners[0].routes[0].fallback[0]: a tcp listener makes no answers",
        ),
        # addresses
        (listen("127.0.0.1:9901"), "f:3:9: listeners[0].bind: 127.0.0.1:9901 is taken by admin.bind (127.0.0.1:9901)"),
        (listen("0.0.0.0:9901"), "f:3:9: listeners[0].bind: 0.0.0.0:9901 is taken by admin.bind"),
        (listen("localhost:9901"), "f:3:9: listeners[0].bind: localhost:9901 is taken by admin.bind"),
        (listen("[::1]:9901"), None),
        (
            listen("unix:/run/sidecar/admin.sock"),
            "listeners[0].bind: unix:/run/sidecar/admin.sock is taken by admin.socket",
        ),
        ("admin: {probes: {bind: '127.0.0.1:8080'}}\n" + listen("0.0.0.0:8080"), "is taken by admin.probes.bind"),
        (
            "admin: {probes: {bind: '0.0.0.0:9901'}}\n" + listen("a:1"),
            "f:1:24: admin.probes.bind: 0.0.0.0:9901 is taken",
        ),
        (
            LISTENERS + LISTENERS[11:].replace("in\n", "two\n") + UPSTREAMS,
            "f:7:9: listeners[1].bind: 127.0.0.1:8080 is taken by listeners[0].bind",
        ),
        (LISTENERS.replace("8080", "0") + LISTENERS[11:].replace("in\n", "b\n").replace("8080", "0") + UPSTREAMS, None),
        # calling ourselves
        (call("127.0.0.1:9901"), "f:7:37: upstreams[0].endpoints[0].address: 127.0.0.1:9901 is our own admin.bind"),
        (call("localhost:9901"), "localhost:9901 is our own admin.bind"),
        (call("0.0.0.0:9901"), "0.0.0.0:9901 is our own admin.bind"),
        (call("[::ffff:127.0.0.1]:9901"), "is our own admin.bind"),
        (call("unix:/run/sidecar/admin.sock"), "is our own admin.socket"),
        (call("127.0.0.2:9901"), None),
        (call("10.0.0.1:9901"), None),
        ("admin: {bind: '0.0.0.0:9901'}\n" + call("127.0.0.2:9901"), "127.0.0.2:9901 is our own admin.bind"),
        ("admin: {probes: {bind: '0.0.0.0:9902'}}\n" + call("localhost:9902"), "is our own admin.probes.bind"),
        (
            upstream("discovery: {dns: 'localhost:9901'}"),
            "upstreams[0].discovery.dns: localhost:9901 is our own admin.bind",
        ),
        (
            call("127.0.0.1:8080"),
            "f:7:37: upstreams[0].endpoints[0].address: is our own listener in, which leads here again",
        ),
        # upstreams
        (LISTENERS + "upstreams:\n- name: app\n", "f:7:3: upstreams[0]: has neither endpoints nor discovery"),
        (LISTENERS + "upstreams:\n- {name: app, endpoints: []}\n", "f:7:3: upstreams[0]: has neither"),
        (
            upstream("hash_key: {header: x}"),
            "f:7:57: upstreams[0].hash_key: hash_key counts only with balance: ring_hash, not least_request",
        ),
        (upstream("health_check: {tcp: {}, timeout: 31s}"), "health_check.timeout: timeout is longer than interval"),
        (
            secure("allowed_clients: [a.test]"),
            "f:5:38: listeners[0].tls.allowed_clients: allowed_clients counts only with client_ca_file",
        ),
        (
            secure("forward_client_cert: true"),
            "tls.forward_client_cert: forward_client_cert counts only with client_ca",
        ),
        (
            secure("client_certificate: optional"),
            "tls.client_certificate: client_certificate counts only with client_c",
        ),
        (secure("client_crl_file: /r"), "tls.client_crl_file: client_crl_file counts only with client_ca_file"),
        (
            secure("client_ca_file: /a, client_certificate: optional, allowed_clients: [a.test]"),
            "tls.allowed_clients: allowed_clients contradicts client_certificate: optional",
        ),
        (secure("client_ca_file: /a, allowed_clients: ['spiffe://a/*', '*.b.test']"), None),
        (
            secure("client_ca_file: /a, allowed_clients: ['spiffe://A/b']"),
            "allowed_clients[0]: 'spiffe://A/b' is not a",
        ),
        (secure("alpn: [h2]"), "listeners[0].tls.alpn: alpn counts only with protocol: tcp"),
        (secure("alpn: [h2]", "tcp"), None),
        (
            secure("client_ca_file: /a, forward_client_cert: true", "tcp"),
            "tls.forward_client_cert: forward_client_cert contradicts protocol: tcp",
        ),
        (upstream("tls: {cert_file: /c}"), "upstreams[0].tls: cert_file and key_file go together"),
        (upstream("tls: {alpn: [h2]}"), "upstreams[0].tls.alpn: alpn counts only where tcp listeners alone lead here"),
        (secure("alpn: [h2]", "tcp").replace("}]}", "}], tls: {alpn: [h2]}}"), None),
        (upstream("tls: {verify: false, allowed_servers: [a]}"), "allowed_servers: allowed_servers contradicts verify"),
        (
            call("unix:/a").replace("}]}", "}], tls: {}}"),
            "tls.server_name: unix:/a has no name to verify: give server_name or allowed_servers",
        ),
        (call("unix:/a").replace("}]}", "}], tls: {server_name: a}}"), None),
        (upstream("health_check: {tcp: {}, tls: true}"), "health_check.tls: health_check.tls needs the upstream's tls"),
        (upstream("tls: {verify: false, ca_file: /c}"), "tls.ca_file: ca_file contradicts verify: false"),
        (
            upstream("breaker: {open_for: 20m}"),
            "f:7:57: upstreams[0].breaker.open_max: open_max 10m is shorter than open_for 20m",
        ),
        (upstream("breaker: {open_for: 20m, mode: disabled}"), None),
        (
            upstream("breaker: {consecutive_failures: 0, failure_rate: 0, slow_rate: 0}"),
            "f:7:57: upstreams[0].breaker: consecutive_failures, failure_rate and slow_rate are all 0",
        ),
        (upstream("outlier: {base_ejection: 10m}"), "outlier.base_ejection: base_ejection is longer than max_ejection"),
        (upstream("outlier: {consecutive_failures: 0, failure_rate: 0}"), "nothing would eject; say mode: disabled"),
        (upstream("outlier: {consecutive_failures: 0, failure_rate: 0, slow_rate: 0.5}"), None),
        (upstream("outlier: {consecutive_failures: 0, failure_rate: 0, consecutive_gateway_failures: 3}"), None),
        (
            upstream("breaker: {failure_headers: [{name: a, values: [x], unless: [y]}]}"),
            "breaker.failure_headers[0].unless: values and unless exclude each other: give one",
        ),
        (
            LISTENERS + UPSTREAMS.replace("}]}", '}, {address: "127.0.0.1:8000"}]}'),
            "f:7:66: upstreams[0].endpoints[1].address: 127.0.0.1:8000 is also the address of item 0",
        ),
        (upstream("discovery: {dns: 'unix:/x'}"), "upstreams[0].discovery.dns: is host:port"),
        (
            upstream("discovery: {registry: pay}"),
            "discovery.registry: the registry is in the shared Redis",
        ),
        (
            upstream("discovery: {file: /x, server: '1.1.1.1:53'}"),
            "server: server counts only with dns or srv",
        ),
        (upstream("discovery: {srv: a.b, server: 'ns.b:53'}"), "discovery.server: a DNS server is named by its IP"),
        (registry("advertise: 'unix:/x'"), "shared_state.registry.advertise: others cannot reach a Unix socket"),
        (registry("advertise: 'a:1', ttl: 11m"), "shared_state.registry.ttl: ttl is not within 1s to 10m"),
        (registry("advertise: 'a:1', upstream: ap"), "shared_state.registry.upstream: there is no upstream 'ap'"),
        # beside the traffic
        ("version: 1\n", "f:1:1: nothing to do: there are neither listeners nor a backup"),
        (
            LISTENERS + UPSTREAMS + RECOVERY % ("upstream: ap", "restart: process"),
            "when.upstream: there is no upstream 'ap'",
        ),
        (LISTENERS + UPSTREAMS + RECOVERY % ("dependency: x", "restart: process"), "there is no dependency 'x'"),
        (
            LISTENERS + UPSTREAMS + RECOVERY % ("upstream: app", "restart: command"),
            "do: restart: command needs a command",
        ),
        (
            LISTENERS + UPSTREAMS + RECOVERY % ("upstream: app", "restart: signal"),
            "do: restart: signal needs a process",
        ),
        (
            LISTENERS + UPSTREAMS + RECOVERY % ("upstream: app", "flush_pool: x"),
            "do.flush_pool: there is no upstream 'x'",
        ),
        (
            LISTENERS + UPSTREAMS + RECOVERY % ("upstream: app", "reroute: {upstream: app, to: app}"),
            "do.reroute.to: loops: it is the upstream that is sick",
        ),
        (LISTENERS + UPSTREAMS + RECOVERY % ("upstream: app", "restart: evict, flush_pool: app"), "exclude each other"),
        (LISTENERS + UPSTREAMS + RECOVERY % ("error_ratio: {upstream: x}", "restart: process"), "no upstream 'x'"),
        (
            LISTENERS + UPSTREAMS + RECOVERY % ("error_ratio: {upstream: app, above: 0}", "restart: process"),
            "recovery[0].when.error_ratio.above: above: 0 is always true",
        ),
        (LISTENERS + UPSTREAMS + RECOVERY % ("upstream: app", "shift: app"), "endpoints of app have the same priority"),
        (LISTENERS + UPSTREAMS + RECOVERY % ("upstream: app", "drain: x"), "recovery[0].do.drain: there is no"),
        (
            LISTENERS + UPSTREAMS + RECOVERY % ("upstream: app", "restart: process, eviction: {pod: p}"),
            "recovery[0].do.eviction: eviction counts only with restart: evict",
        ),
        (
            LISTENERS + UPSTREAMS + DEPENDENCY % "timeout: 31s",
            "dependencies[0].timeout: timeout is longer than interval",
        ),
        (LISTENERS + UPSTREAMS + DEPENDENCY % "degraded_above: 5s", "degraded_above is not below timeout"),
        (
            LISTENERS + UPSTREAMS + "shared_state: {redis: {}}\n",
            "f:8:16: shared_state.redis: url or sentinel is expected",
        ),
        (
            LISTENERS + UPSTREAMS + "incidents: {escalate: [{after: 5m, to: ops}]}\n",
            "f:8:40: incidents.escalate[0].to: there is no notify entry 'ops'",
        ),
        (
            TWICE_OWN,
            "f:9:41: listeners[1].routes[0].breaker: app/all is already the breaker of listeners[0].routes[0].breaker",
        ),
        (TWICE_OWN.replace("name: all", "name: other", 1), None),
        (BACKUP, None),
        (BACKUP.replace("/data/up", "/var"), "f:6:32: backup.sources[1].files.paths[0]: holds backup.repository.url"),
        (BACKUP.replace("name: up", "name: db"), "f:6:12: backup.sources[1].name: db is also the name of item 0"),
        (
            BACKUP + "  drill: {checks: [{source: x, sql: s}]}\n",
            "backup.drill.checks[0].source: there is no source 'x'",
        ),
        (BACKUP + "  drill: {checks: [{source: up, sql: s}]}\n", "up is not a database"),
        (BACKUP + "  drill: {checks: [{source: db, exists: /s}]}\n", "db holds no files"),
        (BACKUP + "  drill: {checks: [{sql: s}]}\n", "source is missing: whose copy is asked?"),
        (BACKUP + "  drill: {checks: [{http: {path: /x}}]}\n", "http needs drill.start"),
        (BACKUP + "  drill: {checks: [{command: []}]}\n", "backup.drill.checks[0].command: which program?"),
        (BACKUP + "  drill: {start: {command: []}}\n", "backup.drill.start.command: which program?"),
        (BACKUP + "  drill: {scratch: /data/up/x}\n", "backup.drill.scratch: lies in what up backs up"),
        (BACKUP + "  retention: {keep_within: 0, daily: 0, weekly: 0, monthly: 0}\n", "nothing would be kept"),
        (BACKUP.replace("k}", "k, s3: {}}"), "f:3:54: backup.repository.s3: s3 counts only with a url that begins"),
        (
            BACKUP + "  admin: {bind: '127.0.0.1:9901'}\n",
            "f:7:17: backup.admin.bind: 127.0.0.1:9901 is taken by admin.bind",
        ),
    ],
)
def test_a_broken_rule_is_one_fault_at_its_place(text, fault):
    found = faults(text)
    if fault is None:
        assert found == []
    else:
        assert len(found) == 1, found
        assert fault in found[0]


def circle(second_calls):
    return f"""\
listeners:
- {{name: a, bind: "0.0.0.0:1001", routes: [{{name: r, upstream: to-b}}]}}
- {{name: b, bind: "127.0.0.1:1002", routes: [{{name: r, upstream: on}}]}}
upstreams:
- {{name: to-b, endpoints: [{{address: "localhost:1002"}}]}}
- {{name: on, endpoints: [{{address: "{second_calls}"}}]}}
"""


def test_listeners_in_a_row_are_fine_and_in_a_circle_are_not():
    assert faults(circle("10.0.0.1:1001")) == []
    assert [line.split(": ")[0] for line in faults(circle("127.0.0.1:1001"))] == ["f:5:38", "f:6:36"]


def test_a_circle_through_a_fallback_is_found():
    text = circle("10.0.0.1:1001").replace("upstream: on}", "upstream: on, fallback: [{upstream: back}]}")
    text += '- {name: back, endpoints: [{address: "127.0.0.1:1001"}]}\n'
    assert any("upstreams[2].endpoints[0].address: is our own listener a" in line for line in faults(text))


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (
            LISTENERS + "  - {name: b, match: {path: /x}, upstream: app}\n" + UPSTREAMS,
            "f:6:5: listeners[0].routes[1]: is never reached: listeners[0].routes[0] takes its requests first",
        ),
        (
            upstream("outlier: {consecutive_gateway_failures: 7}"),
            "outlier.consecutive_gateway_failures: consecutive_gateway_failures 7 is more than consecutive_failures 5",
        ),
        (upstream("outlier: {max_ejected: 0}"), "outlier.max_ejected: max_ejected 0 contradicts mode enforce"),
        (
            upstream("breaker: {slow_after: 1s, slow_rate: 0}"),
            "breaker.slow_after: slow_after counts only with slow_rate, which is 0",
        ),
        (upstream("outlier: {slow_after: 1s}"), "outlier.slow_after: slow_after counts only with slow_rate"),
        (upstream("breaker: {slow_after: 20s}"), "slow_after 20s is longer than every route's timeout 15s"),
        (upstream("breaker: {half_open_timeout: 10s}"), "half_open_timeout 10s is shorter than a route's timeout 15s"),
        (upstream("breaker: {quorum: 2}"), "f:7:75: upstreams[0].breaker.quorum: quorum counts only with shared_state"),
        (registry("advertise: 'h:1', upstream: app"), "write shared: false, or failures of others refuse it here"),
        (
            "service: {name: a}\nshared_state: {redis: {url: 'redis://h/0'}}\n"
            + upstream("breaker: {quorum: 2, shared: false}"),
            "breaker.quorum: quorum counts only with breaker.shared: true",
        ),
        (upstream("tls: {verify: false}"), "f:7:71: upstreams[0].tls.verify: anyone can pretend"),
        (LISTENERS + UPSTREAMS + "incidents: {}\n", "service: give the service a name"),
        (SEALED, "f:2:1: backup.restore: a restore in place of db, up would keep nobody away"),
        (SEALED + "  restore: {stop: [x], start: [x]}\n  state_dir: /data/up/state\n", "holds backup.state_dir"),
    ],
)
def test_what_works_but_hardly_as_meant_is_a_note(text, note):
    found = notes(text)
    assert len(found) == 1, found
    assert note in found[0]


COVERS = [
    ("{}", "{path: /x}", True),
    ("{path_prefix: /}", "{path: /x}", True),
    ("{path_prefix: /}", "{host: a.b}", False),  # a request target may be *, which no prefix matches
    ("{path_prefix: /v1}", "{path_prefix: /v1/x}", True),
    ("{path_prefix: /v1}", "{path_prefix: /v10}", False),
    ("{path_prefix: /v1/}", "{path_prefix: /v1}", False),
    ("{path: /a}", "{path: /a, methods: [GET]}", True),
    ("{path: /a}", "{path_prefix: /a}", False),
    ("{methods: [GET]}", "{methods: [GET, POST]}", False),
    ("{methods: [GET, POST]}", "{methods: [GET]}", True),
    ("{methods: [GET]}", "{}", False),
    ("{host: '*.b.c'}", "{host: a.b.c}", True),
    ("{host: '*.b.c'}", "{host: b.c}", False),
    ("{host: a.b.c}", "{host: '*.b.c'}", False),
    ("{headers: {X-T: gold}}", "{headers: {x-t: gold, y: z}}", True),
    ("{headers: {x-t: gold}}", "{headers: {x-t: tin}}", False),
]


@pytest.mark.parametrize(("first", "second", "covered"), COVERS)
def test_a_route_that_an_earlier_one_covers_is_never_reached(first, second, covered):
    text = LISTENERS.replace("upstream", f"match: {first}, upstream")
    text += f"  - {{name: b, match: {second}, upstream: app}}\n" + UPSTREAMS
    assert bool(notes(text)) == covered


def test_two_rules_that_undo_each_other_are_noted():
    two = RECOVERY % ("upstream: app", "drain: app") + "- {name: s, when: {upstream: app}, do: {drain: app}}\n"
    text = LISTENERS + UPSTREAMS + two
    assert faults(text) == []
    assert any("recovery[1].do.drain: r does it to app too" in one for one in notes(text))


def test_a_service_of_one_s_own_has_no_shared_breaker():
    shared = "shared_state: {redis: {url: redis://h}}\nservice: {name: s}\n"
    rule = RECOVERY % ("upstream: app", "restart: process")
    warned = [one for one in notes(shared + LISTENERS + UPSTREAMS + rule) if "upstreams.app.breaker.shared" in one]
    assert len(warned) == 1 and "recovery[0].do.restart" in warned[0]
    own = UPSTREAMS.replace("name: app,", "name: app, breaker: {shared: false},")
    for text in (shared + LISTENERS + own + rule, LISTENERS + UPSTREAMS + rule):
        assert not any("breaker.shared" in one for one in notes(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (notify("webhook: {url: 'http://h', body: '{{titel}}'}"), "webhook.body: there is no field 'titel'"),
        (notify("webhook: {url: 'http://h', ca_file: /ca}"), "webhook.ca_file: ca_file counts only with https://"),
        (
            notify("alertmanager: {url: 'http://h', ca_file: /ca}"),
            "alertmanager.ca_file: ca_file counts only with https",
        ),
        (notify("slack: {url_file: /s}, email: {server: 'h:25', sender: a@b, to: [c@d]}"), "exclude each other"),
        (mail("to: []"), "email.to: at least one address is needed"),
        (mail("to: [c@d], username: u"), "email: username and password_file go together"),
        (mail("to: [c@d], tls: none, ca_file: /ca"), "email.ca_file: ca_file counts only with tls"),
        (mail("to: ['c@d>\\nRCPT TO:<e@f']"), "is not a mail address"),
        (LISTENERS + UPSTREAMS + "incidents: {objective: 1}\n", "incidents.objective: 1 leaves no budget"),
    ],
)
def test_who_hears_must_be_able_to_hear(text: str, message: str) -> None:
    assert any(message in fault for fault in faults(text)), faults(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (notify("hears: escalated, slack: {url_file: /s}"), "incidents.notify[0].hears: never hears anything"),
        (mail("to: [c@d], tls: none, username: u, password_file: /p"), "would go unencrypted"),
    ],
)
def test_who_will_hardly_hear_is_noted(text: str, message: str) -> None:
    assert any(message in note for note in notes(text)), notes(text)
