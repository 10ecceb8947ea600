"""The proof of a recovery: what it asks, in which order, and which request stands for a client's."""

import asyncio

import pytest

from sidecar.config.address import Address
from sidecar.config.load import parse
from sidecar.control.probes.probe import ProbeFailure, Result
from sidecar.control.recovery import proof
from sidecar.control.recovery.proof import LOOKS, prove, request_through
from tests.fakes.https import https_server
from tests.fakes.tls import certificate

GOOD, BAD = Result(ok=True, seconds=0.0, detail="answered 200"), Result(ok=False, seconds=0.0, detail="answered 500")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(proof, "OVER_SECONDS", 0.02)
    monkeypatch.setattr(proof, "AGAIN_SECONDS", 0.01)


class Story:
    """What is seen, in turn; the last stays."""

    def __init__(self, *looks, renewed=(True,), answers=(True,), sick=("",)):
        self.looks, self.renewed_, self.answers, self.sick = list(looks), list(renewed), list(answers), list(sick)
        self.did = []

    @staticmethod
    def turn(row):
        return row.pop(0) if len(row) > 1 else row[0]

    async def look(self):
        self.did.append("look")
        return self.turn(self.looks)

    async def request(self):
        self.did.append("request")
        if not self.turn(self.answers):
            raise ProbeFailure("answered 503")
        return "answered 200"

    async def first_good(self):
        self.did.append("welcome")

    async def still_sick(self):
        return self.turn(self.sick)

    def tell(self, within=5.0, *, request=True):
        return asyncio.run(
            prove(
                self.look,
                self.request if request else None,
                renewed=lambda: self.turn(self.renewed_),
                first_good=self.first_good,
                still_sick=self.still_sick,
                within=within,
            )
        )


def test_three_good_looks_and_one_real_request():
    story = Story(GOOD)
    assert story.tell() == ""
    assert story.did == ["look", "welcome", *["look"] * (LOOKS - 1), "request"]


def test_a_bad_look_begins_the_row_anew_and_welcomes_once():
    story = Story(BAD, GOOD, GOOD, BAD, GOOD, GOOD, GOOD)
    assert story.tell() == ""
    assert story.did.count("look") == 7
    assert story.did.count("welcome") == story.did.count("request") == 1


def test_the_process_that_it_was_proves_nothing():
    story = Story(GOOD, renewed=(False, False, True))
    assert story.tell() == ""
    assert story.did.count("look") == 3
    assert Story(GOOD, renewed=(False,)).tell(within=0.05) == "the service is still the process that it was"


def test_a_request_that_the_proxy_answers_itself_begins_it_anew():
    story = Story(GOOD, answers=(False, True))
    assert story.tell() == ""
    assert story.did.count("look") == 6
    assert Story(GOOD, answers=(False,)).tell(within=0.2) != ""


def test_those_who_watch_must_agree():
    story = Story(GOOD, sick=("its breaker is open", ""))
    assert story.tell() == ""
    assert "breaker" in Story(GOOD, sick=("its breaker is open",)).tell(within=0.3)


def test_no_proof_in_time_says_what_was_missing():
    assert Story(BAD).tell(within=0.05) == "answered 500"
    assert Story(GOOD).tell(within=0.0) == "no look was good"


# ---------------------------------------------------------------------------------------------- the request
def program(listeners, address):
    text = f"""
version: 1
service: {{name: orders}}
listeners: {listeners}
upstreams:
  - {{name: app, endpoints: [{{address: "127.0.0.1:1"}}], health_check: {{http: {{path: /health?deep=1}}}}}}
  - {{name: other, endpoints: [{{address: "127.0.0.1:2"}}]}}
"""
    config = parse(text)

    class Around:
        def config(self):
            return config

        def address(self, _listener):
            return address

    return Around()


def asked(listeners):
    """Path and host of the request, or None."""
    found = request_through("app", program(listeners, Address(host="127.0.0.1", port=1)))
    return None if found is None else (found._path, dict(found._fields)[b"host"].decode())


def routes(*some):
    return f"[{{name: in, bind: 127.0.0.1:9, routes: [{', '.join(some)}]}}]"


APP = "{name: all, match: {path_prefix: /}, upstream: app}"


@pytest.mark.parametrize(
    ("listeners", "request_"),
    [
        (routes(APP), ("/health?deep=1", "localhost")),
        (routes("{name: v1, match: {host: '*.shop', path_prefix: /v1}, upstream: app}"), ("/v1", "recovery.shop")),
        (routes("{name: one, match: {path: /one, headers: {x-a: b}}, upstream: app}"), ("/one", "localhost")),
        (routes("{name: health, match: {path: /health}, upstream: other}", APP), ("/", "localhost")),
        (routes("{name: first, match: {path_prefix: /}, upstream: other}", APP), None),
        (routes("{name: post, match: {methods: [POST], path_prefix: /}, upstream: app}"), None),
        ("[{name: in, bind: 127.0.0.1:9, protocol: tcp, routes: [{name: all, upstream: app}]}]", None),
    ],
)
def test_the_request_takes_a_route_that_leads_there(listeners, request_):
    assert asked(listeners) == request_


def test_a_listener_s_own_certificate_is_not_judged(tmp_path):
    cert, key = certificate(tmp_path)
    tls = f"[{{name: in, bind: 127.0.0.1:9, tls: {{cert_file: {cert}, key_file: {key}}}, routes: [{APP}]}}]"
    with https_server(cert, key) as port:
        found = request_through("app", program(tls, Address(host="127.0.0.1", port=port)))
        assert asyncio.run(found()) == "answered 200"


def test_a_client_s_certificate_cannot_be_shown(tmp_path):
    cert, key = certificate(tmp_path)
    files = f"cert_file: {cert}, key_file: {key}, client_ca_file: {cert}"
    for more, request_ in (("", None), (", client_certificate: optional", ("/health?deep=1", "localhost"))):
        listeners = f"[{{name: in, bind: 127.0.0.1:9, tls: {{{files}{more}}}, routes: [{APP}]}}]"
        assert asked(listeners) == request_
