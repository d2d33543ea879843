"""The proxy's links: made once, used while they are good, and every failure told with the part that failed."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from connect_trio import links
from connect_trio.dial import Failure, Target, ToolStream
from connect_trio.links import PARK, LinkStream
from connect_trio.mux.codes import GoawayCode, ResetCode
from connect_trio.mux.stream import MuxStream
from tests.support.grants import granted
from tests.support.servers import TARGET, ServerSide, broken, failure_of, open_proxy, open_server, route_to
from tests.support.tables import OTHER
from tests.support.tools import listener_on

Clock = trio.testing.MockClock
settled = trio.testing.wait_all_tasks_blocked


def agents_stream(server: ServerSide) -> MuxStream:
    return MuxStream(server.opened[-1])


# what works


async def test_bytes_pass_both_ways(autojump_clock: Clock) -> None:
    async with open_server() as server, open_proxy() as proxy:
        server.start_agent()
        await proxy.publish(server.route())
        stream = await proxy.dialer.dial(TARGET)
        await stream.send_all(b"to the tool")
        theirs = agents_stream(server)
        assert await theirs.receive_some() == b"to the tool"
        await theirs.send_all(b"to the visitor")
        data, buffer = await stream.receive_view()
        assert bytes(data) == b"to the visitor"
        if buffer is not None:
            buffer.drop()
        assert stream.healthy


async def test_the_agent_reads_what_the_stream_is_for(autojump_clock: Clock) -> None:
    async with open_server() as server, open_proxy() as proxy:
        server.start_agent()
        await proxy.publish(server.route())
        await proxy.dialer.dial(Target(grant=TARGET.grant, kind="http", metadata={"name": "ä"}))
        ask = server.opened[0].ask
        assert (ask.session, ask.kind, ask.metadata) == (TARGET.session, "http", b'{"name": "\\u00e4"}')
        await proxy.dialer.dial(TARGET)
        assert server.opened[1].ask.metadata == b""
        assert server.opened[1].ask.token != ask.token


async def test_a_link_is_made_once_for_all_who_ask_at_the_same_time(autojump_clock: Clock) -> None:
    async with open_server() as server, open_proxy() as proxy:
        server.start_agent()
        await proxy.publish(server.route())
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(proxy.dialer.dial, TARGET)
        assert len(server.opened) == 100
        assert len(server.links) == proxy.pool.count == 1


async def test_the_second_route_serves_when_the_first_does_not(autojump_clock: Clock) -> None:
    async with open_server() as gone, open_server() as server, open_proxy() as proxy:
        server.start_agent()
        await proxy.publish(gone.route(slot=0), server.route(slot=1))
        await proxy.dialer.dial(TARGET)
        assert trio.current_time() == 0
        assert len(server.opened) == 1


# sessions without a tunnel


async def test_a_dial_waits_for_an_agent_that_is_reconnecting(autojump_clock: Clock) -> None:
    async with open_server() as server, open_proxy() as proxy:

        async def reconnect() -> None:
            await trio.sleep(PARK / 2)
            server.start_agent()
            await proxy.publish(server.route())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reconnect)
            await proxy.dialer.dial(TARGET)
        assert PARK / 2 <= trio.current_time() <= PARK / 2 + 1


async def test_a_route_that_is_no_longer_true_costs_another_look(autojump_clock: Clock) -> None:
    async with open_server() as old, open_server() as new, open_proxy() as proxy:
        await proxy.publish(old.route())

        async def move() -> None:
            await trio.sleep(3)
            new.start_agent()
            await proxy.publish(new.route())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(move)
            await proxy.dialer.dial(TARGET)
        assert len(new.opened) == 1
        assert trio.current_time() <= 4


async def test_a_dial_proceeds_at_once_when_a_route_appears(autojump_clock: Clock) -> None:
    async with open_server() as old, open_server() as new, open_proxy() as proxy:
        await proxy.publish(old.route())

        async def come_back() -> None:
            for server in (old, new):
                await trio.sleep(3.21)
                server.start_agent()
                await proxy.publish(server.route())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(come_back)
            await proxy.dialer.dial(TARGET)
            assert trio.current_time() == pytest.approx(3.21, abs=1e-6), "the same server has a tunnel again"
            old.cut_tunnel()
            await settled()
            await proxy.dialer.dial(TARGET)
            assert trio.current_time() == pytest.approx(6.42, abs=1e-6), "another server has one"


async def test_without_an_agent_a_dial_fails_in_the_end(autojump_clock: Clock) -> None:
    async with open_server() as server, open_proxy() as proxy:
        await proxy.publish(server.route())
        for target in (TARGET, Target(grant=granted(OTHER))):
            begin = trio.current_time()
            assert await failure_of(proxy, target) == Failure(
                status=503, part="agent", text="the Studio's agent is not connected to Connect"
            )
            assert trio.current_time() - begin == pytest.approx(PARK, abs=0.5)


async def test_a_parked_dial_whose_agent_takes_its_time_is_not_cut_short(autojump_clock: Clock) -> None:
    """The agent comes back just before the wait is over, and waits for its tool."""
    async with open_server() as server, open_proxy() as proxy:

        async def reconnect() -> None:
            await trio.sleep(PARK - 1)
            server.start_agent(on_open=lambda core: None)
            await proxy.publish(server.route())
            await trio.sleep(8)
            server.opened[0].accept()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reconnect)
            await proxy.dialer.dial(TARGET)
        assert len(server.opened) == 1


async def test_the_number_of_dials_that_wait_is_bounded(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "MAX_PARKED", 20)
    async with open_proxy() as proxy:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(failure_of, proxy)
            await trio.sleep(1)
            assert (await failure_of(proxy)).part == "agent"
            assert trio.current_time() == 1
        begin = trio.current_time()
        await failure_of(proxy)
        assert trio.current_time() - begin >= PARK, "those who gave up made room"


# links that end


async def talk(stream: ToolStream, theirs: MuxStream, text: bytes) -> None:
    """Both ends of a stream still reach each other."""
    await stream.send_all(b"to the tool " + text)
    assert await theirs.receive_some() == b"to the tool " + text
    await theirs.send_all(b"to the visitor " + text)
    assert await stream.receive_some() == b"to the visitor " + text


async def test_a_stream_outlives_its_link(autojump_clock: Clock) -> None:
    async with open_server() as server, open_proxy() as proxy:
        server.start_agent()
        await proxy.publish(server.route())
        stream = await proxy.dialer.dial(TARGET)
        theirs = agents_stream(server)
        await talk(stream, theirs, b"1")
        for number in range(3):
            server.links[-1].close("cut")
            await talk(stream, theirs, b"%d" % number)
        assert len(server.links) == 4
        assert len(server.opened) == 1
        assert stream.healthy


async def test_a_stream_outlives_its_tunnel(autojump_clock: Clock) -> None:
    async with open_server() as server, open_proxy() as proxy:
        server.start_agent()
        await proxy.publish(server.route())
        stream = await proxy.dialer.dial(TARGET)
        theirs = agents_stream(server)
        server.cut_tunnel()
        await trio.sleep(1)
        assert stream.detached
        assert theirs.detached
        assert not stream.healthy
        with trio.move_on_after(1) as scope:
            await stream.wait_attached()
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk, stream, theirs, b"later")
            await trio.sleep(100)
            assert server.acceptor is not None
            server.dial_in(server.acceptor)
            await stream.wait_attached()
        assert len(server.opened) == 1
        assert proxy.pool.count == 1


async def test_detached_streams_resume_at_once_when_their_agent_is_back(autojump_clock: Clock) -> None:
    async with open_server() as server, open_proxy() as proxy:
        server.start_agent()
        await proxy.publish(server.route())
        streams = [await proxy.dialer.dial(TARGET) for _ in range(3)]
        server.cut_tunnel()
        await trio.sleep(123.4)
        assert all(stream.detached for stream in streams)
        assert server.acceptor is not None
        server.dial_in(server.acceptor)
        await proxy.publish(server.route())
        for stream, core in zip(streams, server.opened, strict=True):
            await talk(stream, MuxStream(core), b"again")
        assert trio.current_time() == pytest.approx(123.4, abs=1e-6)


async def test_who_is_told_nothing_finds_the_way_by_asking(autojump_clock: Clock) -> None:
    async with open_server() as server, open_proxy() as proxy:
        proxy.registry.mute = True

        async def come_back() -> None:
            await trio.sleep(PARK / 2)
            server.start_agent()
            await proxy.publish(server.route())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(come_back)
            await proxy.dialer.dial(TARGET)
        assert PARK / 2 < trio.current_time() <= PARK / 2 + 1


async def test_a_change_that_helps_nobody_is_looked_at_once_and_its_failure_once(autojump_clock: Clock) -> None:
    async with open_server() as server, open_proxy() as proxy:
        await proxy.publish(server.route())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(failure_of, proxy)
            await trio.sleep(1)
            before = proxy.registry.count("find")
            for _ in range(5):
                await proxy.publish(server.route())
                await settled()
            assert proxy.registry.count("find") - before <= 2 * 5


async def test_a_stream_goes_on_over_another_server(autojump_clock: Clock) -> None:
    async with open_server() as first, open_server() as second, open_proxy() as proxy:
        first.start_agent()
        assert first.acceptor is not None
        second.dial_in(first.acceptor)
        await proxy.publish(first.route(slot=0), second.route(slot=1))
        stream = await proxy.dialer.dial(TARGET)
        theirs = agents_stream(first)
        begin = trio.current_time()
        first.cut_tunnel()
        await talk(stream, theirs, b"over the other one")
        assert trio.current_time() == begin, "nothing had to be waited for"
        assert len(second.links) == 1


async def test_a_stream_whose_agent_was_started_anew_ends_with_a_reason(autojump_clock: Clock) -> None:
    async with open_server() as server, open_proxy() as proxy:
        server.start_agent()
        await proxy.publish(server.route())
        stream = await proxy.dialer.dial(TARGET)
        server.cut_tunnel()
        server.start_agent()
        assert proxy.dialer.explain(await broken(stream)) == Failure(
            status=502, part="agent", text="the Studio's agent was started anew"
        )


async def test_a_stream_without_a_way_is_given_up_in_the_end(autojump_clock: Clock) -> None:
    async with open_server() as server, open_proxy(patience=60) as proxy:
        server.start_agent()
        await proxy.publish(server.route())
        stream = await proxy.dialer.dial(TARGET)
        server.cut_tunnel()
        await settled()
        begin = trio.current_time()
        assert proxy.dialer.explain(await broken(stream)).status == 504
        assert trio.current_time() - begin == pytest.approx(60, abs=1)


async def test_a_stream_that_only_waits_to_be_used_is_not_resumed(autojump_clock: Clock) -> None:
    async with open_server() as server, open_proxy() as proxy:
        server.start_agent()
        await proxy.publish(server.route())
        stream = await proxy.dialer.dial(TARGET)
        stream.expendable = True
        server.links[0].close("cut")
        await broken(stream)
        await trio.sleep(1)
        assert server.opened[0].end is not None, "the agent is told"


async def test_streams_of_a_server_that_drains_move_without_a_pause(autojump_clock: Clock) -> None:
    async with open_server() as first, open_server() as second, open_proxy() as proxy:
        first.start_agent()
        assert first.acceptor is not None
        second.dial_in(first.acceptor)
        await proxy.publish(first.route(slot=0), second.route(slot=1))
        streams = [await proxy.dialer.dial(TARGET) for _ in range(20)]
        assert len(first.links[0].wire.ports) == 20
        first.switch.draining = True
        first.links[0].wire.goaway(GoawayCode.DRAIN)
        await trio.sleep(1)
        assert not first.links[0].wire.ports
        for stream, core in zip(streams, first.opened, strict=True):
            assert stream.healthy
            await talk(stream, MuxStream(core), b"still here")
        await proxy.dialer.dial(TARGET)
        assert len(second.links) == 1


async def test_a_link_that_is_about_to_end_takes_nothing_new_and_keeps_what_it_has(autojump_clock: Clock) -> None:
    async with open_server() as server, open_proxy() as proxy:
        server.start_agent()
        await proxy.publish(server.route())
        old = await proxy.dialer.dial(TARGET)
        server.links[0].wire.goaway(GoawayCode.DRAIN)
        await settled()
        new = await proxy.dialer.dial(TARGET)
        assert len(server.links) == 2
        for stream in (old, new):
            await stream.send_all(b"alive")
        for core in server.opened:
            assert await MuxStream(core).receive_some() == b"alive"
        server.links[0].close("drained")
        await settled()
        await old.wait_attached()
        assert proxy.pool.count == 1
        assert new.healthy


async def test_a_server_that_says_nothing_is_given_up(autojump_clock: Clock) -> None:
    listener = listener_on()
    async with open_proxy(park=0) as proxy:
        await proxy.publish(route_to(f"127.0.0.1:{listener.socket.getsockname()[1]}"))
        failure = await failure_of(proxy)
        assert (failure.status, failure.part) == (502, "agent")
        assert trio.current_time() <= 11
        await settled()
        assert proxy.pool.count == 0
    await listener.aclose()


async def test_links_end_with_their_block(autojump_clock: Clock) -> None:
    async with open_server() as server:
        server.start_agent()
        async with open_proxy() as proxy:
            await proxy.publish(server.route())
            stream = await proxy.dialer.dial(TARGET)
            assert isinstance(stream, LinkStream)
        await settled()
        assert proxy.pool.count == 0
        assert server.links[0].wire.gone
        end = server.opened[0].end
        assert end is not None
        assert end.code == ResetCode.SHUTDOWN
