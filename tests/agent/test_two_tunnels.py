"""An agent's tunnels keep apart: at different servers and through different proxies where there are two."""

from __future__ import annotations

import gc
import json
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from connect_trio.agent.client import HELD, LOOK, LOOK_CAP, MAX_LEFT, TunnelRefused
from connect_trio.agent.dialling import PROXY_DIALS
from connect_trio.agent.places import TURN
from connect_trio.mux.codes import GoawayCode
from connect_trio.mux.frames import Hello
from connect_trio.mux.session import MuxSession
from tests.support.proxies import INSTANCE, FakeProxy, open_agent, open_proxy

Clock = trio.testing.MockClock
settled = trio.testing.wait_all_tasks_blocked
S1, S2, S3 = b"\x01" * 16, b"\x02" * 16, b"\x03" * 16
P1, P2 = b"\xf1" * 16, b"\xf2" * 16
LONGEST_LOOK = LOOK * 1.25


def refusal(part: str) -> str:
    return json.dumps({"error": {"status": 409, "part": part, "message": "not here"}})


def wishes(proxy: FakeProxy, number: int) -> tuple[bytes | None, bytes | None, bytes | None]:
    """What a dial asked for: servers to avoid, proxies to avoid, how strictly."""
    headers = proxy.requests[number].headers
    return (
        headers.get(b"x-connect-avoid"),
        headers.get(b"x-connect-avoid-proxy"),
        headers.get(b"x-connect-avoid-strictly"),
    )


def named(*ids: bytes) -> bytes:
    return ", ".join(each.hex() for each in ids).encode()


def hello_of(tunnel: MuxSession) -> Hello:
    assert tunnel.wire.peer is not None
    return tunnel.wire.peer


def alive(proxy: FakeProxy) -> list[int]:
    return [number for number, tunnel in enumerate(proxy.tunnels) if not tunnel.wire.gone]


async def test_the_second_tunnel_avoids_the_server_and_the_proxy_of_the_first(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.at(S1, proxy=P1), proxy.at(S2, proxy=P2)]
        async with open_agent(proxy.url, tunnels=2) as agent:
            await agent.connected()
            assert [wishes(proxy, number) for number in (0, 1)] == [
                (None, None, None),
                (named(S1), named(P1), None),
            ]
            hellos = [hello_of(tunnel) for tunnel in proxy.tunnels]
            assert {hello.slot for hello in hellos} == {0, 1}
            assert {hello.instance for hello in hellos} == {INSTANCE}
            assert hellos[0].generation < hellos[1].generation
            await trio.sleep(20 * LOOK)
            assert len(proxy.dials) == 2, "there is nothing to look for"


async def test_four_tunnels_avoid_each_other(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.at(server, proxy=None) for server in (S1, S2, S1, S3)]
        async with open_agent(proxy.url, tunnels=4) as agent:
            await agent.connected()
            avoided = [wishes(proxy, number)[0] for number in range(4)]
            assert avoided == [None, named(S1), named(S1, S2), named(S1, S2)]


async def test_a_tunnel_that_was_lost_is_dialled_at_once_and_avoids_the_living_one(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.at(S1, proxy=P1), proxy.at(S2, proxy=P2), proxy.at(S3, proxy=P1)]
        async with open_agent(proxy.url, tunnels=2) as agent:
            await agent.connected()
            await trio.sleep(HELD + 1)
            proxy.tunnels[0].close("the server died")
            lost = trio.current_time()
            await proxy.dials_reach(3)
            assert trio.current_time() - lost <= 0.2
            await settled()
            assert wishes(proxy, 2) == (named(S2), named(P2), None)
            assert hello_of(proxy.tunnels[2]).slot == hello_of(proxy.tunnels[0]).slot
            assert alive(proxy) == [1, 2]


async def test_when_both_are_lost_nothing_is_avoided(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.at(S1), proxy.at(S1, proxy=P1), proxy.at(S2)]
        async with open_agent(proxy.url, tunnels=2) as agent:
            await agent.connected()
            for tunnel in proxy.tunnels:
                tunnel.close("the server died")
            await proxy.dials_reach(3)
            await settled()
            assert wishes(proxy, 2) == (None, None, None)


# a proxy to avoid


async def test_a_proxy_that_is_to_be_avoided_is_dialled_three_times_at_most(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        busy = proxy.refuse(409, refusal("proxy"))
        proxy.handlers[:] = [proxy.at(S1, proxy=P1), busy, busy, proxy.at(S2, proxy=P1)]
        async with open_agent(proxy.url, tunnels=2) as agent:
            began = trio.current_time()
            await agent.connected()
            assert trio.current_time() == began, "at once"
            assert [wishes(proxy, number)[1] for number in range(4)] == [None, named(P1), named(P1), None]
            assert proxy.carriers == [b"connect-mux"] * 4, "it is not the carrier's fault"


async def test_another_proxy_is_found_by_dialling_again(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [
            proxy.at(S1, proxy=P1),
            proxy.refuse(409, refusal("proxy")),
            proxy.at(S2, proxy=P2),
        ]
        async with open_agent(proxy.url, tunnels=2) as agent:
            await agent.connected()
            assert len(proxy.dials) == 3


@pytest.mark.parametrize("body", ["", "{}", "[]", '{"error": "x"}', refusal("server"), refusal("Proxy"), "\x00"])
async def test_any_other_conflict_is_tried_again_later(autojump_clock: Clock, body: str) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.at(S1), proxy.refuse(409, body), proxy.at(S2)]
        async with open_agent(proxy.url, tunnels=2) as agent:
            await agent.connected()
            assert len(proxy.dials) == 3
            assert proxy.dials[2] - proxy.dials[1] >= 0.1
            assert wishes(proxy, 2) == wishes(proxy, 1)


@pytest.mark.parametrize("told", [b"", b"P", b"P" * 17, b"P" * 4000])
async def test_a_proxy_with_an_impossible_name_has_none(autojump_clock: Clock, told: bytes) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.at(S1, proxy=told), proxy.at(S2)]
        async with open_agent(proxy.url, tunnels=2) as agent:
            await agent.connected()
            assert wishes(proxy, 1) == (named(S1), None, None)


# two at one server


async def test_a_tunnel_that_shares_its_server_moves_when_there_is_another(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.at(S1), proxy.at(S1), proxy.at(S2, proxy=P2)]
        async with open_agent(proxy.url, tunnels=2) as agent:
            await agent.connected()
            await proxy.dials_reach(3)
            assert 0.75 * LOOK <= trio.current_time() <= LONGEST_LOOK + 1
            await settled()
            assert wishes(proxy, 2) == (named(S1), named(b"P" * 16), b"1")
            old = next(tunnel for tunnel in proxy.tunnels if hello_of(tunnel).slot == 1)
            new = proxy.tunnels[2]
            assert (hello_of(new).slot, hello_of(new).generation > hello_of(old).generation) == (1, True)
            await trio.sleep(10)
            assert alive(proxy) == [0, 1, 2], "make before break"
            said = old.wire.closing
            assert said is not None
            assert said.code == GoawayCode.DISPLACED, "its server need not wait for it any longer"
            old.close("a newer tunnel of the same agent is at another server", GoawayCode.DISPLACED)
            await trio.sleep(10 * LOOK)
            assert len(proxy.dials) == 3
            assert len(alive(proxy)) == 2


async def test_who_looks_for_a_server_does_not_give_up_an_own_proxy(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.at(S1, proxy=P1), proxy.at(S1, proxy=P2), proxy.refuse(409, refusal("server"))]
        async with open_agent(proxy.url, tunnels=2) as agent:
            await agent.connected()
            lower = next(number for number, tunnel in enumerate(proxy.tunnels) if hello_of(tunnel).slot == 0)
            await proxy.dials_reach(3)
            await settled()
            assert wishes(proxy, 2) == (named(S1), named((P1, P2)[lower]), b"1")


async def test_without_another_server_it_stays_and_looks_now_and_then(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.at(S1, proxy=P1), proxy.at(S1, proxy=P2), proxy.refuse(409, refusal("server"))]
        async with open_agent(proxy.url, tunnels=2) as agent:
            await agent.connected()
            await trio.sleep(LOOK * (1 + 2 + 4 + 8 + 16) + 8 * LOOK_CAP)
            assert 10 <= len(proxy.dials) - 2 <= 16
            assert alive(proxy) == [0, 1]
            assert set(proxy.carriers) == {b"connect-mux"}


async def test_after_it_has_moved_it_looks_as_soon_as_at_first(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [
            proxy.at(S1, proxy=P1),
            proxy.at(S1, proxy=P2),
            proxy.at(S1, proxy=P2),
            proxy.at(S2, proxy=P2),
        ]
        async with open_agent(proxy.url, tunnels=2) as agent:
            await agent.connected()
            await proxy.dials_reach(3)
            moved = trio.current_time()
            await proxy.dials_reach(4)
            assert trio.current_time() - moved <= LONGEST_LOOK + 1


async def test_a_tunnel_that_shares_its_proxy_moves_when_there_is_another(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.at(S1, proxy=P1), proxy.at(S2, proxy=P1)]
        async with open_agent(proxy.url, tunnels=2) as agent:
            await agent.connected()
            higher = next(number for number, tunnel in enumerate(proxy.tunnels) if hello_of(tunnel).slot == 1)
            proxy.handlers = [proxy.at((S1, S2)[higher], proxy=P2)]
            await proxy.dials_reach(3)
            await settled()
            assert wishes(proxy, 2) == (named((S2, S1)[higher]), named(P1), b"1"), "its own server is good enough"
            assert hello_of(proxy.tunnels[2]).slot == 1
            await trio.sleep(10 * LOOK)
            assert len(proxy.dials) == 3


async def test_a_look_takes_no_proxy_that_is_to_be_avoided(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.at(S1, proxy=P1), proxy.at(S2, proxy=P1), proxy.refuse(409, refusal("proxy"))]
        async with open_agent(proxy.url, tunnels=2) as agent:
            await agent.connected()
            await proxy.dials_reach(2 + PROXY_DIALS)
            await trio.sleep(1)
            assert {wishes(proxy, number)[1] for number in range(2, len(proxy.dials))} == {named(P1)}
            assert len(proxy.dials) == 2 + PROXY_DIALS
            assert alive(proxy) == [0, 1]


@pytest.mark.parametrize(
    ("part", "dials", "left"),
    [("proxy", PROXY_DIALS, (named(S1), None, b"1")), ("server", 1, (None, named(P1), None))],
)
async def test_who_shares_both_takes_what_can_be_had(
    autojump_clock: Clock, part: str, dials: int, left: tuple[bytes | None, ...]
) -> None:
    async with open_proxy() as proxy:
        refused = [proxy.refuse(409, refusal(part))] * dials
        proxy.handlers[:] = [proxy.at(S1, proxy=P1), proxy.at(S1, proxy=P1), *refused, proxy.at(S2, proxy=P2)]
        async with open_agent(proxy.url, tunnels=2) as agent:
            await agent.connected()
            await proxy.dials_reach(3 + dials)
            await settled()
            assert wishes(proxy, 2) == (named(S1), named(P1), b"1")
            assert wishes(proxy, 2 + dials) == left
            assert len(alive(proxy)) == 3, "make before break"


@pytest.mark.parametrize("status", [400, 502, 503])
async def test_a_look_that_fails_otherwise_changes_nothing_either(autojump_clock: Clock, status: int) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.at(S1), proxy.at(S1), proxy.refuse(status), proxy.hang_up, proxy.at(S2)]
        async with open_agent(proxy.url, tunnels=2) as agent:
            await agent.connected()
            await proxy.dials_reach(5)
            await settled()
            assert alive(proxy) == [0, 1, 2]
            assert set(proxy.carriers) == {b"connect-mux"}


async def test_a_look_through_a_proxy_that_knows_no_wishes_displaces_nobody(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.at(S1, proxy=None), proxy.at(S1, proxy=None), proxy.at(S1, proxy=None)]
        async with open_agent(proxy.url, tunnels=2) as agent:
            await agent.connected()
            await proxy.dials_reach(3)
            await settled()
            assert proxy.tunnels[2].wire.peer is None, "no HELLO"
            assert alive(proxy) == [0, 1]


async def test_a_look_is_given_up_when_the_tunnel_is_lost(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.at(S1), proxy.at(S1), proxy.silent, proxy.at(S2)]
        async with open_agent(proxy.url, tunnels=2) as agent:
            await agent.connected()
            await proxy.dials_reach(3)
            await trio.sleep(1)
            for tunnel in proxy.tunnels:
                tunnel.close("the server died")
            lost = trio.current_time()
            await proxy.dials_reach(4)
            assert trio.current_time() - lost <= 0.2


# a server that drains


async def test_a_draining_servers_tunnel_is_replaced_at_once_and_kept(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.at(S1, proxy=P1), proxy.at(S2, proxy=P2), proxy.at(S3, proxy=P1)]
        async with open_agent(proxy.url, tunnels=2) as agent:
            await agent.connected()
            await trio.sleep(HELD + 1)
            proxy.tunnels[0].wire.goaway(GoawayCode.DRAIN, grace=30)
            began = trio.current_time()
            await proxy.dials_reach(3)
            assert trio.current_time() == began
            await settled()
            assert wishes(proxy, 2) == (named(S2, S1), named(P2), None)
            old, new = hello_of(proxy.tunnels[0]), hello_of(proxy.tunnels[2])
            assert (new.slot, new.generation > old.generation) == (old.slot, True)
            await trio.sleep(20)
            assert alive(proxy) == [0, 1, 2], "make before break"
            said = proxy.tunnels[0].wire.closing
            assert said is not None
            assert said.code == GoawayCode.DISPLACED
            proxy.tunnels[0].close("done")
            await trio.sleep(10 * LOOK)
            assert len(proxy.dials) == 3


async def test_a_draining_servers_tunnel_is_kept_while_there_is_no_other_place(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.at(S1), *[proxy.refuse(502)] * 6, proxy.at(S2)]
        async with open_agent(proxy.url) as agent:
            await agent.connected()
            await trio.sleep(HELD + 1)
            proxy.tunnels[0].wire.goaway(GoawayCode.DRAIN, grace=30)
            await proxy.dials_reach(7)
            await settled()
            assert alive(proxy) == [0]
            assert proxy.tunnels[0].wire.closing is None, "there is no other one yet"


async def test_servers_that_drain_at_once_do_not_make_it_dial_without_end(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        carry = proxy.at(S1)

        async def drain(stream: trio.abc.Stream) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(carry, stream)
                await settled()
                proxy.tunnels[-1].wire.goaway(GoawayCode.DRAIN)

        proxy.handlers[:] = [drain]
        async with open_agent(proxy.url):
            await trio.sleep(100)
            assert len(proxy.dials) <= 24
            assert len(alive(proxy)) <= MAX_LEFT + 1


# what holds up or ends what


async def test_a_dial_that_hangs_does_not_hold_up_the_other_for_long(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.silent, proxy.at(S1)]
        async with open_agent(proxy.url, tunnels=2):
            await proxy.dials_reach(2)
            assert trio.current_time() <= TURN + 0.01


async def test_a_refusal_that_will_stand_is_told_by_the_second_too(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.at(S1), proxy.refuse(410, '{"error": "it was stopped"}')]
        async with open_agent(proxy.url, tunnels=2) as agent:
            await agent.ended.wait()
            assert isinstance(agent.failed, TunnelRefused)
            assert str(agent.failed) == "Connect refuses this session: it was stopped"


async def test_a_token_that_was_good_for_the_first_tunnel_is_not_given_up_by_the_second(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.at(S1), proxy.refuse(401), proxy.at(S2)]
        async with open_agent(proxy.url, tunnels=2) as agent:
            await agent.connected()
            assert agent.failed is None


@pytest.mark.parametrize("moment", [0.0, 1.0, LOOK, LONGEST_LOOK, 2 * LOOK])
@pytest.mark.parametrize("last", ["silent", "mute_tunnel", "tunnel"])
async def test_cancelling_at_any_moment_leaves_nothing(autojump_clock: Clock, last: str, moment: float) -> None:
    async with open_proxy() as proxy:
        handler: Callable[[trio.abc.Stream], Awaitable[None]] = getattr(proxy, last)
        proxy.handlers[:] = [proxy.at(S1), proxy.at(S1), handler]
        with trio.move_on_after(moment):
            async with open_agent(proxy.url, tunnels=2):
                await trio.sleep_forever()
    gc.collect()  # a socket that was left would warn, and a warning is an error
