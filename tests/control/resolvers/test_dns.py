"""Endpoints from a real name server."""

import asyncio

import pytest

from sidecar.control.resolvers.dns import DnsSource, SrvSource
from sidecar.machines.membership import Member
from tests.fakes.names import NameServer
from tests.fakes.reports import watching


@pytest.fixture
def dns():
    with NameServer() as server:
        yield server


def looking(kind, dns, target):
    return watching(kind(target, 0.02, dns.address))


def test_every_a_and_aaaa_record_is_an_endpoint_and_changes_are_seen(dns):
    dns.a("shop.test", "10.0.0.2", "10.0.0.1")
    dns.aaaa("shop.test", "fd00::1")

    async def story():
        async with looking(DnsSource, dns, "shop.test:8080") as reports:
            await reports.see("10.0.0.1:8080", "10.0.0.2:8080", "[fd00::1]:8080")
            dns.a("shop.test", "10.0.0.3")
            await reports.see("10.0.0.3:8080", "[fd00::1]:8080")

    asyncio.run(story())


def test_no_such_name_and_no_such_records_mean_nobody(dns):
    dns.a("shop.test", "10.0.0.1")

    async def story():
        async with looking(DnsSource, dns, "shop.test:80") as reports:
            await reports.see("10.0.0.1:80")
            dns.a("shop.test")
            await reports.see()
            dns.a("shop.test", "10.0.0.1")
            await reports.see("10.0.0.1:80")
            dns.forget("shop.test")
            await reports.see()
            assert reports.failures == []

    asyncio.run(story())


def test_an_error_is_no_answer(dns):
    dns.a("shop.test", "10.0.0.1")
    dns.fails("a", "shop.test")
    dns.fails("aaaa", "shop.test")

    async def story():
        async with looking(DnsSource, dns, "shop.test:80") as reports:
            assert "shop.test (A): " in await reports.fail()
            assert reports.answers == []
            dns.fails("a", "shop.test", yes=False)
            await reports.see("10.0.0.1:80")
            assert "shop.test (AAAA): " in await reports.fail()

    asyncio.run(story())


def test_a_family_that_fails_keeps_what_it_had(dns):
    dns.a("shop.test", "10.0.0.1")
    dns.aaaa("shop.test", "fd00::1")

    async def story():
        async with looking(DnsSource, dns, "shop.test:80") as reports:
            await reports.see("10.0.0.1:80", "[fd00::1]:80")
            dns.fails("a", "shop.test")
            dns.aaaa("shop.test", "fd00::2")
            await reports.see("10.0.0.1:80", "[fd00::2]:80")
            assert "(A)" in await reports.fail()

    asyncio.run(story())


def test_a_thousand_records_come_over_tcp(dns):
    many = [f"10.1.{number >> 8}.{number & 255}" for number in range(1000)]
    dns.a("many.test", *many)

    async def story():
        async with looking(DnsSource, dns, "many.test:80") as reports:
            await reports.see(*(f"{one}:80" for one in many))

    asyncio.run(story())


def test_an_address_needs_no_name_server(dns):
    async def story():
        async with looking(DnsSource, dns, "[::1]:80") as reports:
            await reports.see("[::1]:80")
            assert dns.asked == []

    asyncio.run(story())


def test_a_silent_server_is_given_up_and_stopping_meanwhile_leaves_nothing_behind(dns, monkeypatch):
    monkeypatch.setattr("sidecar.control.resolvers.lookups.TIMEOUT_SECONDS", 0.2)
    dns.silent = True

    async def story():
        async with looking(DnsSource, dns, "shop.test:80") as reports:
            reason = await reports.fail()
            assert "time" in reason, reason
            dns.silent = False
            dns.a("shop.test", "10.0.0.1")
            await reports.see("10.0.0.1:80")
            dns.silent = True
            await asyncio.to_thread(dns.wait_asked, 1)

    asyncio.run(story())


def test_srv_gives_hosts_ports_order_and_weights(dns):
    dns.a("one.test", "10.0.0.1")
    dns.a("two.test", "10.0.0.2", "10.0.0.3")
    dns.srv(
        "_http._tcp.shop.test",
        (10, 60000, 8080, "one.test"),
        (10, 30000, 8080, "two.test"),
        (20, 0, 9090, "one.test"),
    )

    async def story():
        async with looking(SrvSource, dns, "_http._tcp.shop.test") as reports:
            await reports.until(lambda: reports.answers)
            assert sorted(reports.answers[0].members) == [
                Member("10.0.0.1:8080", 1000, 0),
                Member("10.0.0.1:9090", 1, 1),
                Member("10.0.0.2:8080", 500, 0),
                Member("10.0.0.3:8080", 500, 0),
            ]

    asyncio.run(story())


def test_srv_targets_that_cannot_be_asked_keep_what_they_had(dns):
    dns.a("one.test", "10.0.0.1")
    dns.a("two.test", "10.0.0.2")
    dns.srv("shop.test", (0, 1, 80, "one.test"), (0, 1, 80, "two.test"))
    dns.fails("a", "two.test")

    async def story():
        async with looking(SrvSource, dns, "shop.test") as reports:
            await reports.see("10.0.0.1:80")
            assert "two.test (A)" in await reports.fail()
            dns.fails("a", "two.test", yes=False)
            await reports.see("10.0.0.1:80", "10.0.0.2:80")
            dns.fails("a", "one.test")
            dns.fails("a", "two.test")
            seen = len(reports.answers)
            await reports.until(lambda: len(reports.answers) > seen + 1)
            assert reports.last == ["10.0.0.1:80", "10.0.0.2:80"]
            dns.fails("srv", "shop.test")
            await reports.until(lambda: reports.failures[-1].startswith("shop.test (SRV): "))

    asyncio.run(story())


def test_srv_says_that_there_is_no_such_service(dns):
    dns.a("one.test", "10.0.0.1")
    dns.srv("shop.test", (0, 1, 80, "one.test"))

    async def story():
        async with looking(SrvSource, dns, "shop.test") as reports:
            await reports.see("10.0.0.1:80")
            dns.srv("shop.test", (0, 0, 0, "."))
            await reports.see()

    asyncio.run(story())
