"""Certificates that are renewed, spoilt, swapped by a symlink or about to end, while the program serves."""

import datetime as dt
import os
import shutil
import signal
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.trust import Authority, Pair, put
from tests.fakes.upstream import ScriptedUpstream
from tests.real.documents import document, listener, route, upstream
from tests.real.harness import Sidecar, ask, dial
from tests.real.secure import secure

EXPIRY = "sidecar_tls_certificate_expiry_timestamp_seconds"


def tree(server: ScriptedUpstream, pair: Pair, workers: int = 1, **tls: Any) -> dict[str, Any]:
    web = listener("web", [route("all", "app")], tls={**pair.keys(), **tls})
    return document([web], [upstream("app", server.address)], workers=workers)


def shown(proxy: Sidecar, authority: Authority) -> str:
    """The serial number of the certificate that a new connection is shown."""
    with secure(proxy, "web", authority.client()) as client:
        assert isinstance(client.sock, ssl.SSLSocket)
        certificate = client.sock.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])


def replace(pair: Pair, by: Pair) -> None:
    put(pair, by.cert.read_bytes(), by.key.read_bytes())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_new_certificate_is_shown_and_nobody_is_cut_off(
    server: ScriptedUpstream, tmp_path: Path, workers: int
) -> None:
    authority = Authority(tmp_path)
    pair, next_one = authority.issue("server", "localhost"), authority.issue("next", "localhost")
    with Sidecar(tree(server, pair, workers)) as proxy:
        before = shown(proxy, authority)
        with secure(proxy, "web", authority.client()) as client:
            assert client.send(ask("/a")).read_answer().status == 200
            replace(pair, next_one)
            line = proxy.wait_log(r'"certificate_loaded".*')
            assert "listener/web" in line[0]
            assert client.send(ask("/b")).read_answer().status == 200
        after = {shown(proxy, authority) for _ in range(6)}
        assert len(after) == 1
        assert before not in after
        if workers == 2:  # who is born later knows the new ones too
            for pid in proxy.children():
                os.kill(pid, signal.SIGKILL)
            proxy.wait_until(lambda: proxy.log.count('"worker_started"') == 4, "two new workers")
            assert {shown(proxy, authority) for _ in range(6)} == after
        assert proxy.metrics().sum("sidecar_tls_certificate_loads_total", owner="listener/web", result="ok") == 1


def test_files_that_cannot_be_used_change_nothing_and_are_told(server: ScriptedUpstream, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, other = authority.issue("server", "localhost"), authority.issue("other", "localhost")
    good_key = pair.key.read_bytes()
    with Sidecar(tree(server, pair)) as proxy:
        before = shown(proxy, authority)
        put(pair, pair.cert.read_bytes(), other.key.read_bytes())
        proxy.wait_log(r'"certificate_refused".*do not belong together')
        assert shown(proxy, authority) == before
        refused = proxy.command("reload", check=False)
        assert refused.returncode != 0
        assert "do not belong together" in refused.stdout + refused.stderr
        assert proxy.command("check", check=False).returncode == 78
        assert "do not belong together" in proxy.command("status", check=False).stdout
        incidents = [one for one in proxy.status()["incidents"] if one["failure"] == "certificate"]
        assert [one["subject"] for one in incidents] == ["listener/web"]
        put(pair, pair.cert.read_bytes(), good_key)
        proxy.wait_log(r'"certificate_well".*refused')
        assert shown(proxy, authority) == before
        proxy.wait_until(lambda: proxy.status()["config"]["last_reload_ok"], "the reload that is owed")
        assert authority.file.exists()
        assert "PRIVATE" not in proxy.log


def test_a_swapped_symlink_is_a_new_certificate(server: ScriptedUpstream, tmp_path: Path) -> None:
    """As the kubelet does it: new directory, `..data` renamed over the old one."""
    authority = Authority(tmp_path)
    mount = tmp_path / "mount"
    mount.mkdir()

    def swap(name: str) -> None:
        version = mount / f"..{name}"
        version.mkdir()
        issued = authority.issue(name, "localhost")
        shutil.copy(issued.cert, version / "tls.crt")
        shutil.copy(issued.key, version / "tls.key")
        (mount / "..new").symlink_to(version.name)
        (mount / "..new").rename(mount / "..data")

    swap("one")
    for name in ("tls.crt", "tls.key"):
        (mount / name).symlink_to(f"..data/{name}")
    with Sidecar(tree(server, Pair(mount / "tls.crt", mount / "tls.key"))) as proxy:
        before = shown(proxy, authority)
        swap("two")
        proxy.wait_log('"certificate_loaded"')
        assert shown(proxy, authority) != before


def test_a_certificate_that_ends_soon_is_told_until_it_is_renewed(server: ScriptedUpstream, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    soon = now + dt.timedelta(days=3)
    pair = authority.issue("server", "localhost", not_after=soon)
    with Sidecar(tree(server, pair, client_ca_file=str(authority.file), client_certificate="optional")) as proxy:
        proxy.wait_log(r'"certificate_expires".*listener/web.*expires_soon')
        assert proxy.metrics().sum(EXPIRY, owner="listener/web", file=str(pair.cert)) == soon.timestamp()
        assert proxy.metrics().sum(EXPIRY, file=str(authority.file)) > soon.timestamp()
        held = {one["file"]: one for one in proxy.status()["certificates"]}
        assert held[str(pair.cert)]["state"] == "expires_soon"
        assert held[str(pair.cert)]["names"] == ["localhost"]
        assert "The certificate of listener/web ends" in proxy.command("status", check=False).stdout
        assert b"The certificate of listener/web ends" in proxy.admin("/").body
        proxy.wait_until(lambda: [one["failure"] for one in proxy.status()["incidents"]] == ["certificate"], "incident")
        replace(pair, authority.issue("renewed", "localhost"))
        proxy.wait_log(r'"certificate_well".*expires')
        assert proxy.status()["incidents"][0]["status"] == "mitigated"
        assert proxy.metrics().sum(EXPIRY, owner="listener/web", file=str(pair.cert)) > soon.timestamp()


def test_who_is_revoked_stays_out(server: ScriptedUpstream, tmp_path: Path) -> None:
    """As soon as the list says so, whatever session it had. A list that has ended refuses all, so its end is told."""
    authority = Authority(tmp_path)
    pair = authority.issue("server", "localhost")
    good, bad = (authority.vouch(name, f"spiffe://shop.test/{name}") for name in ("good", "bad"))
    revoked = authority.revoke(tmp_path / "crl.pem", life=dt.timedelta(hours=1))
    config = tree(server, pair, client_ca_file=str(authority.file), client_crl_file=str(revoked))
    context = authority.client(bad, maximum_version=ssl.TLSVersion.TLSv1_2)
    with Sidecar(config) as proxy:
        with secure(proxy, "web", context) as client:
            assert client.send(ask()).read_answer().status == 200
            assert isinstance(client.sock, ssl.SSLSocket)
            session = client.sock.session
        proxy.wait_log(rf'"certificate_expires".*{revoked.name}')
        authority.revoke(revoked, bad)
        proxy.wait_log('"certificate_loaded".*listener/web')
        with pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(dial(proxy.port("web")).sock, server_hostname="localhost", session=session)
        proxy.wait_log("tls_handshake_failed.*certificate revoked")
        with secure(proxy, "web", authority.client(good)) as client:
            assert client.send(ask()).read_answer().status == 200
        assert proxy.metrics().sum(EXPIRY, file=str(revoked)) > dt.datetime.now(dt.UTC).timestamp() + 7200
        revoked.write_bytes(authority.file.read_bytes())
        assert "holds no list of revoked" in proxy.command("check", check=False).stdout


def test_a_configuration_that_came_before_its_certificate_is_loaded_when_that_comes(
    server: ScriptedUpstream, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server", "localhost")
    late = Pair(tmp_path / "late.crt", tmp_path / "late.key")
    config = tree(server, pair)
    with Sidecar(config) as proxy:
        before = shown(proxy, authority)
        config["listeners"][0]["tls"] = late.keys()
        proxy.write(config)
        proxy.wait_log(r'"config_reload_failed".*late.crt is not there')
        replace(late, authority.issue("late-issue", "localhost"))
        proxy.wait_log('"config_reloaded"')
        assert shown(proxy, authority) != before


def test_tls_may_be_switched_on_and_off_by_a_reload(server: ScriptedUpstream, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    config = tree(server, authority.issue("server", "localhost"))
    section = config["listeners"][0].pop("tls")
    with Sidecar(config) as proxy:
        assert proxy.get("web").status == 200
        config["listeners"][0]["tls"] = section
        proxy.write(config)
        proxy.command("reload")
        with secure(proxy, "web", authority.client()) as client:
            assert client.send(ask()).read_answer().status == 200
        del config["listeners"][0]["tls"]
        proxy.write(config)
        proxy.command("reload")
        assert proxy.get("web").status == 200
        assert proxy.metrics().named(EXPIRY) == []


def test_the_program_does_not_start_without_its_certificate(server: ScriptedUpstream, tmp_path: Path) -> None:
    config = tree(server, Pair(tmp_path / "none.crt", tmp_path / "none.key"))
    proxy = Sidecar(config, ready=False, exit_code=78)
    assert proxy.wait_exit() == 78
    assert "listener/web: tls.cert_file: " in proxy.log
    assert "is not there" in proxy.log
    proxy.stop()
