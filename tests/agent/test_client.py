"""An agent keeps its tunnel, or says clearly why it cannot have one."""

from __future__ import annotations

import gc
import itertools
import logging
from pathlib import Path

import pytest
import trio
import trio.testing

from connect_trio.agent.client import HELD, TunnelRefused
from connect_trio.agent.dialling import DIAL_TIMEOUT, WEBSOCKET_ONLY
from connect_trio.mux.codes import GoawayCode, Peer
from tests.support.proxies import INSTANCE, FakeProxy, open_agent, open_proxy
from tests.support.tools import dead_port

Clock = trio.testing.MockClock
settled = trio.testing.wait_all_tasks_blocked
RAW, WEBSOCKET = b"connect-mux", b"websocket"


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log said about tunnels that ended, once each."""
    return [vars(record)["reason"] for record in caplog.records if record.levelno == logging.WARNING]


def delays(proxy: FakeProxy) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(proxy.dials)]


# a tunnel that is there


async def test_the_first_dial_is_the_raw_carrier_with_token_and_instance(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy, open_agent(proxy.url) as agent:
        await agent.client.connected.wait()
        headers = proxy.requests[0].headers
        assert proxy.carriers == [RAW]
        assert headers[b"host"] == f"connect.localhost:{proxy.port}".encode()
        assert headers[b"authorization"] == b"Bearer the-token"
        assert headers[b"x-connect-instance"] == INSTANCE.hex().encode()
        hello = proxy.tunnels[0].wire.peer
        assert hello is not None
        assert (hello.peer, hello.instance, hello.slot) == (Peer.ACCEPTOR, INSTANCE, 0)


async def test_a_tunnel_is_up_only_when_the_server_has_said_hello(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.mute_tunnel]
        async with open_agent(proxy.url) as agent:
            await trio.sleep(5)
            assert proxy.carriers == [RAW]
            assert not agent.client.connected.is_set()


async def test_each_tunnel_has_a_higher_generation(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy, open_agent(proxy.url):
        for count in range(1, 5):
            await proxy.dials_reach(count)
            await settled()
            proxy.tunnels[-1].close("the server restarts")
        hellos = [tunnel.wire.peer for tunnel in proxy.tunnels]
        generations = [hello.generation for hello in hellos if hello is not None]
        assert len(generations) == 4
        assert generations == sorted(set(generations))


async def test_a_path_that_knows_only_websockets_may_be_set(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.refuse(503), proxy.tunnel]
        async with open_agent(proxy.url, websocket_only=True) as agent:
            await agent.client.connected.wait()
            assert proxy.carriers == [WEBSOCKET, WEBSOCKET]


# dialling again


async def test_delays_grow_from_a_fifth_of_a_second_to_ten(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.refuse(503)]
        async with open_agent(proxy.url):
            await proxy.dials_reach(12)
        for delay, most in zip(delays(proxy), [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10, 10, 10], strict=True):
            assert most / 2 - 0.001 <= delay <= most + 0.001


async def test_delays_of_two_agents_differ(autojump_clock: Clock) -> None:
    seen = []
    for _ in range(2):
        async with open_proxy() as proxy:
            proxy.handlers[:] = [proxy.refuse(503)]
            async with open_agent(proxy.url):
                await proxy.dials_reach(6)
            seen.append(delays(proxy))
    assert seen[0] != seen[1]


async def test_after_a_good_tunnel_delays_begin_anew(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [*[proxy.refuse(503)] * 8, proxy.tunnel]
        async with open_agent(proxy.url) as agent:
            await agent.client.connected.wait()
            await trio.sleep(HELD + 1)
            proxy.tunnels[0].close("the server restarts")
            lost = trio.current_time()
            await proxy.dials_reach(10)
            assert trio.current_time() - lost <= 0.2


async def test_tunnels_that_are_cut_now_and_then_are_dialled_at_once_each_time(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy, open_agent(proxy.url):
        for count in range(1, 11):
            await proxy.dials_reach(count)
            await trio.sleep(2)
            proxy.tunnels[-1].close("the network is bad")
        assert max(delays(proxy)) <= 2 + 0.4


async def test_tunnels_that_end_at_once_do_not_make_it_dial_without_end(autojump_clock: Clock) -> None:
    async def short(stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(proxy.tunnel, stream)
            await trio.sleep(0.1)
            nursery.cancel_scope.cancel()

    async with open_proxy() as proxy:
        proxy.handlers[:] = [short]
        async with open_agent(proxy.url):
            await trio.sleep(100)
        assert len(proxy.dials) <= 24


@pytest.mark.parametrize("behaviour", ["silent", "mute_tunnel"])
async def test_dials_that_take_long_and_fail_are_no_good_tunnels(autojump_clock: Clock, behaviour: str) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [getattr(proxy, behaviour)]
        async with open_agent(proxy.url):
            await proxy.dials_reach(10)
        assert delays(proxy)[-1] >= DIAL_TIMEOUT, "the time that the dial took counts as waiting"


async def test_a_displaced_tunnel_is_dialled_again(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy, open_agent(proxy.url) as agent:
        await agent.client.connected.wait()
        proxy.tunnels[0].close("a newer tunnel took its place", GoawayCode.DISPLACED)
        await proxy.dials_reach(2)
        assert agent.failed is None


async def test_the_log_says_each_reason_once(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [*[proxy.refuse(503, '{"error": "busy"}')] * 5, proxy.hang_up]
        async with open_agent(proxy.url):
            await proxy.dials_reach(9)
    assert len(reasons(caplog)) <= 3  # each carrier has its own words for a server that leaves
    assert reasons(caplog)[0] == f"connect.localhost:{proxy.port} answered 503: busy"


async def test_a_tunnel_that_is_lost_twice_is_told_twice(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_proxy() as proxy, open_agent(proxy.url):
        for count in (1, 2):
            await proxy.dials_reach(count)
            await trio.sleep(HELD + 1)
            proxy.tunnels[-1].close("the server restarts")
        await proxy.dials_reach(3)
    assert len(reasons(caplog)) == 2


# which carrier


async def test_a_websocket_follows_a_raw_carrier_that_was_refused(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.refuse(400), proxy.tunnel]
        async with open_agent(proxy.url) as agent:
            await agent.client.connected.wait()
            assert proxy.carriers == [RAW, WEBSOCKET]
            proxy.tunnels[0].close("the server restarts")
            await proxy.dials_reach(3)
            await settled()
            assert proxy.carriers[2] == WEBSOCKET, "what worked is tried first for a while"
            await trio.sleep(WEBSOCKET_ONLY)
            proxy.tunnels[1].close("the server restarts")
            await proxy.dials_reach(4)
            await settled()
            assert proxy.carriers[3] == RAW


async def test_a_websocket_follows_a_raw_carrier_without_hello(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.mute_tunnel, proxy.tunnel]
        async with open_agent(proxy.url) as agent:
            await agent.client.connected.wait()
            assert proxy.carriers == [RAW, WEBSOCKET]
            assert trio.current_time() <= 11


async def test_an_outage_does_not_bind_an_agent_to_the_slower_carrier(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [*[proxy.refuse(502)] * 4, proxy.tunnel]
        async with open_agent(proxy.url) as agent:
            await agent.client.connected.wait()
            assert proxy.carriers == [RAW, WEBSOCKET] * 2 + [RAW]


# refusals


@pytest.mark.parametrize(
    ("status", "body", "line"),
    [
        (
            401,
            '{"error": "the agent\'s token is refused: expired"}',
            "this agent: the agent's token is refused: expired",
        ),
        (401, '{"error": {"message": "no\\ntoken"}}', "this agent: no token"),
        (401, "<html>\n <b>Denied</b>\n</html>", "this agent: <html> <b>Denied</b> </html>"),
        (401, "", "this agent: 401"),
        (403, '{"error": 5}', "this session: "),
        (410, '{"error": "the session 23ce7967 was stopped"}', "this session: the session 23ce7967 was stopped"),
        (410, "x" * 4000, "this session: " + "x" * 300 + "$"),
    ],
)
async def test_a_refusal_that_will_stand_is_one_clear_line(
    autojump_clock: Clock, status: int, body: str, line: str
) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.refuse(status, body)]
        async with open_agent(proxy.url) as agent:
            await agent.ended.wait()
            with pytest.raises(TunnelRefused, match=f"^Connect refuses {line}"):
                raise agent.failed or AssertionError
    assert len(proxy.dials) == 1


async def test_a_token_that_is_refused_later_is_tried_again(autojump_clock: Clock) -> None:
    """Its file may be renewed, or Platform's keys may not be known everywhere yet."""
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.tunnel, *[proxy.refuse(401)] * 5, proxy.tunnel]
        async with open_agent(proxy.url) as agent:
            await agent.client.connected.wait()
            proxy.tunnels[0].close("the server restarts")
            await proxy.dials_reach(7)
            assert agent.failed is None


@pytest.mark.parametrize("status", [404, 410])
async def test_an_ended_session_ends_an_agent_that_was_connected(autojump_clock: Clock, status: int) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.tunnel, proxy.refuse(status)]
        async with open_agent(proxy.url) as agent:
            await agent.client.connected.wait()
            proxy.tunnels[0].close("the server restarts")
            await trio.sleep(60)
            assert isinstance(agent.failed, TunnelRefused) == (status == 410)


# tokens


async def test_the_token_is_read_for_each_dial(autojump_clock: Clock, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.refuse(503)]
        async with open_agent(proxy.url, token=file.read_text):
            await proxy.dials_reach(1)
            await settled()
            file.write_text("second")
            await proxy.dials_reach(2)
            await settled()
    assert [request.headers[b"authorization"] for request in proxy.requests] == [b"Bearer first", b"Bearer second"]


@pytest.mark.parametrize("bad", ["", "two\nlines", "a b", "ä", "a\0"])
async def test_a_token_that_cannot_be_sent_is_not_sent(
    autojump_clock: Clock, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = [bad, bad]
    async with open_proxy() as proxy, open_agent(proxy.url, token=lambda: tokens.pop() if tokens else "good") as agent:
        await agent.client.connected.wait()
        assert len(proxy.dials) == 1
    assert reasons(caplog) == [
        "the agent's token cannot be used: it must be one line of printable ASCII without spaces"
    ]


async def test_a_token_file_that_is_away_for_a_moment_is_read_again(
    autojump_clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    async with open_proxy() as proxy, open_agent(proxy.url, token=file.read_text) as agent:
        await trio.sleep(1)
        file.write_text("there-again")
        await agent.client.connected.wait()
    assert "No such file" in reasons(caplog)[0]


# proxies that are none


async def test_a_proxy_that_never_answers_is_left_in_time(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [proxy.silent]
        async with open_agent(proxy.url):
            await proxy.dials_reach(2)
        assert DIAL_TIMEOUT <= delays(proxy)[0] <= DIAL_TIMEOUT + 0.2
    assert reasons(caplog) == [f"connect.localhost:{proxy.port} does not answer as Connect does: no answer in time"]


async def test_a_proxy_that_is_not_there_is_named(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    port = dead_port()
    async with open_agent(f"http://localhost:{port}") as agent:
        await trio.sleep(30)
        assert agent.failed is None
    assert len(reasons(caplog)) == 1
    assert reasons(caplog)[0].startswith(f"localhost:{port} cannot be reached: ")


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.6\r\n\r\n", b"\0" * 64 + b"\r\n\r\n", b""])
async def test_garbage_is_one_line_and_tried_again(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    async def garbage(stream: trio.abc.Stream) -> None:
        await stream.receive_some(100)
        await stream.send_all(answer or b"\r\n")

    async with open_proxy() as proxy:
        proxy.handlers[:] = [garbage, garbage, proxy.tunnel]
        async with open_agent(proxy.url) as agent:
            await agent.client.connected.wait()
    assert all("does not answer as Connect does: " in reason for reason in reasons(caplog))


@pytest.mark.parametrize("moment", [0.0, 0.05, 1.0, 9.0, 25.0])
@pytest.mark.parametrize("behaviour", ["tunnel", "silent", "mute_tunnel", "hang_up"])
async def test_cancelling_at_any_moment_leaves_nothing(autojump_clock: Clock, behaviour: str, moment: float) -> None:
    async with open_proxy() as proxy:
        proxy.handlers[:] = [getattr(proxy, behaviour)]
        with trio.move_on_after(moment):
            async with open_agent(proxy.url):
                await trio.sleep_forever()
    gc.collect()  # a socket that was left would warn, and a warning is an error
