"""CONNECT_TUNNEL_URL: every address of every name, looked up anew, and what becomes of names that fail."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from connect_trio.roles.tunnel_servers import LOOKUP, MAX_NAMES, PROMPT, TunnelServers, open_tunnel_servers
from tests.support.names import Names

FAR = ["10.0.0.1", "10.0.0.2", "fd00::1"]


@pytest.fixture
async def dns() -> Names:
    found = Names()
    trio.socket.set_custom_hostname_resolver(found)
    return found


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Level and host of what was logged about names."""
    return [(record.levelname, vars(record)["host"]) for record in caplog.records if "CONNECT_TUNNEL_URL" in record.msg]


async def test_every_address_is_named_to_each_tunnel_in_some_order(dns: Names) -> None:
    dns.known["servers"] = FAR
    async with open_tunnel_servers(["servers:7"]) as servers:
        orders = {tuple(await servers.pick()) for _ in range(200)}
    assert {frozenset(order) for order in orders} == {frozenset((ip, 7) for ip in FAR)}
    assert len(orders) == 6


async def test_addresses_need_no_lookup(dns: Names) -> None:
    async with open_tunnel_servers(["10.0.0.1:1", "[::1]:2"]) as servers:
        assert set(await servers.pick()) == {("10.0.0.1", 1), ("::1", 2)}
    assert dns.asked == []


async def test_an_address_of_two_names_is_named_once_for_each_port(dns: Names) -> None:
    dns.known |= {"one": ["10.0.0.1", "10.0.0.2", "10.0.0.1"], "two": ["10.0.0.2"]}
    async with open_tunnel_servers(["one:7", "two:7", "two:8", "10.0.0.1:7", "one:7"]) as servers:
        assert sorted(await servers.pick()) == [("10.0.0.1", 7), ("10.0.0.2", 7), ("10.0.0.2", 8)]


async def test_a_name_is_looked_up_anew_for_each_tunnel(dns: Names) -> None:
    async with open_tunnel_servers(["servers:7"]) as servers:
        for ip in FAR:
            dns.known["servers"] = [ip]
            assert await servers.pick() == [(ip, 7)]
    assert len(dns.asked) == len(FAR)


async def test_the_name_behind_an_address_is_known_for_its_certificate(dns: Names) -> None:
    dns.known |= {"one": ["10.0.0.1"], "two": ["fd00::1"]}
    async with open_tunnel_servers(["one:7", "two:8", "10.0.0.9:9"]) as servers:
        await servers.pick()
        assert servers.name_of("10.0.0.1", 7) == "one"
        assert servers.name_of("fd00::1", 8) == "two"
        assert servers.name_of("10.0.0.9", 9) == "10.0.0.9"
        dns.known["one"] = ["10.0.0.2"]
        await servers.pick()
        assert servers.name_of("10.0.0.2", 7) == "one"
        # A name server that gives some of many each time: who dials has been given this one before.
        assert servers.name_of("10.0.0.1", 7) == "one"


async def test_only_so_many_names_are_remembered(dns: Names) -> None:
    async with open_tunnel_servers(["servers:7"]) as servers:
        for third in range(20):
            dns.known["servers"] = [f"10.0.{third}.{fourth}" for fourth in range(250)]
            assert len(await servers.pick()) == 250
        assert servers.name_of("10.0.0.0", 7) == "10.0.0.0"
        assert sum(servers.name_of(f"10.0.{t}.{f}", 7) == "servers" for t in range(20) for f in range(250)) == MAX_NAMES


async def test_localhost_is_resolved_for_real() -> None:
    async with open_tunnel_servers(["localhost:7"]) as servers:
        assert ("127.0.0.1", 7) in await servers.pick()


async def test_a_name_that_fails_is_told_once_and_the_others_are_used(
    dns: Names, caplog: pytest.LogCaptureFixture
) -> None:
    dns.known["good"] = ["10.0.0.1"]
    with caplog.at_level(logging.INFO):
        async with open_tunnel_servers(["bad:7", "good:7"]) as servers:
            for _ in range(3):
                assert await servers.pick() == [("10.0.0.1", 7)]
            assert told(caplog) == [("WARNING", "bad")]
            assert vars(caplog.records[-1])["reason"] == "Name or service not known"
            dns.known["bad"] = ["10.0.0.2"]
            for _ in range(3):
                assert len(await servers.pick()) == 2
            assert told(caplog) == [("WARNING", "bad"), ("INFO", "bad")]
            del dns.known["bad"]
            await servers.pick()
            assert told(caplog) == [("WARNING", "bad"), ("INFO", "bad"), ("WARNING", "bad")]


async def test_no_name_at_all_is_no_server(dns: Names) -> None:
    async with open_tunnel_servers(["one:7", "two:7"]) as servers:
        assert await servers.pick() == []


@pytest.mark.parametrize("name", ["a" * 64, "a..b", "xn--a-"])
async def test_a_name_that_cannot_be_one_fails_like_any_other(name: str, caplog: pytest.LogCaptureFixture) -> None:
    trio.socket.set_custom_hostname_resolver(None)
    async with open_tunnel_servers([f"{name}:7", "10.0.0.1:7"]) as servers:
        assert await servers.pick() == [("10.0.0.1", 7)]
    assert told(caplog) == [("WARNING", name)]


async def test_a_name_server_that_hangs_holds_a_tunnel_up_only_for_a_moment(
    dns: Names, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    dns.known |= {"good": ["10.0.0.1"], "deaf": ["10.0.0.2"]}
    dns.slow["deaf"] = 1000
    async with open_tunnel_servers(["deaf:7", "good:7"]) as servers:
        assert await servers.pick() == [("10.0.0.1", 7)]
        assert trio.current_time() == pytest.approx(PROMPT)
        await trio.sleep(LOOKUP)
        assert told(caplog) == [("WARNING", "deaf")]
        assert vars(caplog.records[-1])["reason"] == "no answer within 5 s"


async def test_what_is_late_is_waited_for_if_there_is_nothing_else(
    dns: Names, autojump_clock: trio.testing.MockClock
) -> None:
    dns.known |= {"late": ["10.0.0.1"], "deaf": ["10.0.0.2"]}
    dns.slow |= {"late": 3, "deaf": 1000}
    async with open_tunnel_servers(["late:7"]) as servers:
        assert await servers.pick() == [("10.0.0.1", 7)]
        assert trio.current_time() == pytest.approx(3)
    async with open_tunnel_servers(["deaf:7"]) as servers:
        assert await servers.pick() == []
        assert trio.current_time() == pytest.approx(3 + LOOKUP)


async def test_tunnels_at_the_same_time_share_a_lookup_that_outlives_each_of_them(
    dns: Names, autojump_clock: trio.testing.MockClock
) -> None:
    dns.known["servers"] = FAR
    dns.slow["servers"] = 2
    found: list[int] = []

    async def dial(servers: TunnelServers) -> None:
        found.append(len(await servers.pick()))

    async with open_tunnel_servers(["servers:7"]) as servers, trio.open_nursery() as nursery:
        with trio.move_on_after(0.5):  # who asked first leaves first
            await servers.pick()
        for _ in range(100):
            nursery.start_soon(dial, servers)
    assert found == [3] * 100
    assert dns.asked == ["servers"]


async def test_lookups_end_with_their_owner(dns: Names, autojump_clock: trio.testing.MockClock) -> None:
    dns.slow["deaf"] = 1000
    async with trio.open_nursery() as nursery, open_tunnel_servers(["deaf:7"]) as servers:
        nursery.start_soon(servers.pick)
        await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() < 1


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match="write host:port"):
        TunnelServers(["servers"], nursery=None)  # type: ignore[arg-type]
