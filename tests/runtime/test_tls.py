"""Contexts of certificates' content: what is shared, what stays, and what a bad file changes."""

import gc

import pytest

from sidecar.config.load import parse
from sidecar.config.tls import UpstreamTls
from sidecar.runtime.tls import BadFile, Contexts, Credentials, client_context, read_all
from tests.fakes.trust import Authority

TWO = """
listeners:
- {name: web, bind: "127.0.0.1:1", routes: [{name: all, upstream: app}], tls: {cert_file: CERT, key_file: KEY}}
- {name: more, bind: "127.0.0.1:2", routes: [{name: all, upstream: pay}], tls: {cert_file: CERT, key_file: KEY}}
upstreams:
- {name: app, endpoints: [{address: "127.0.0.1:3"}], tls: {ca_file: CA, server_name: a.test}}
- {name: pay, endpoints: [{address: "127.0.0.1:4"}], tls: {ca_file: CA, server_name: b.test}}
"""


@pytest.fixture
def config(tmp_path):
    authority = Authority(tmp_path)
    pair = authority.issue("server", "a.test")
    names = {"CERT": pair.cert, "KEY": pair.key, "CA": authority.file}
    text = TWO
    for name, path in names.items():
        text = text.replace(name, str(path))
    return parse(text)


def test_upstreams_that_ask_for_the_same_share_a_context(config):
    found = Contexts().of(config, read_all(config))
    assert found["upstream/app"] is found["upstream/pay"]
    assert found["listener/web"] is not found["listener/more"]  # their sessions are their own


def test_those_that_ask_for_something_else_do_not():
    nothing = Credentials()
    one = client_context(UpstreamTls(verify=False), nothing, "a", ())
    assert client_context(UpstreamTls(verify=False, server_name="x"), nothing, "b", ()) is one
    for other in (UpstreamTls(), UpstreamTls(verify=False, min_version="1.3")):
        assert client_context(other, nothing, "c", ()) is not one
    assert client_context(UpstreamTls(verify=False), nothing, "d", ("h2",)) is not one
    listed = client_context(UpstreamTls(allowed_servers=("a.test",)), nothing, "e", ())
    assert listed is client_context(UpstreamTls(allowed_servers=("b.test",)), nothing, "f", ())
    assert not listed.check_hostname
    assert client_context(UpstreamTls(), nothing, "g", ()).check_hostname


def test_what_stays_the_same_stays(config):
    contexts, files = Contexts(), read_all(config)
    before = contexts.of(config, files)
    bad = {**files, "listener/more": Credentials(((b"x", b"y"),))}
    with pytest.raises(BadFile, match=r"^listener/more: tls.cert_file: .* holds no certificate"):
        contexts.of(config, bad)
    assert contexts.of(config, files) == before
    gc.collect()
    renewed = contexts.of(config, {**files, "listener/more": Credentials(files["listener/web"].pairs, b"other")})
    assert renewed["listener/web"] is before["listener/web"]
    assert renewed["listener/more"] is not before["listener/more"]
