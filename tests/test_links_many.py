"""Many streams of one proxy: as many as there may be, and all that they ask at once over one link."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from connect_trio import ways
from connect_trio.dial import Failure
from connect_trio.mux import outbox
from tests.support.servers import TARGET, failure_of, open_proxy, open_server

Clock = trio.testing.MockClock


async def test_who_dials_when_there_are_as_many_streams_as_there_may_be_is_told(autojump_clock: Clock) -> None:
    async with open_server() as server, open_proxy() as proxy:
        server.start_agent()
        await proxy.publish(server.route())
        opener = proxy.dialer.opener
        opener.budget.most = 2
        streams = [await proxy.dialer.dial(TARGET) for _ in range(2)]
        assert await failure_of(proxy) == Failure(
            status=503,
            part="proxy",
            text="Connect takes no more connections: there are 2 streams already, as many as there may be",
        )
        assert opener.counts.refused == 1
        await trio.aclose_forcefully(streams[0])
        await trio.sleep(ways.LONGEST_REST)
        for core in server.opened:
            core.reset()
        await trio.sleep(ways.LONGEST_REST)
        assert opener.budget.streams == 0
        await proxy.dialer.dial(TARGET)


async def test_a_link_that_takes_nothing_holds_up_nobody_who_may_ask_elsewhere(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_server() as deaf, open_server() as server, open_proxy() as proxy:
        server.start_agent()
        full = await proxy.pool.wire(deaf.address)  # which makes it the first to be asked
        monkeypatch.setattr(ways, "_full", lambda wire: wire is full)
        await proxy.publish(deaf.route(), server.route(slot=1))
        began = trio.current_time()
        await proxy.dialer.dial(TARGET)
        assert trio.current_time() - began == pytest.approx(ways.FULL_WAIT, abs=1)
        assert server.opened
        assert not deaf.opened


async def test_streams_that_come_back_all_at_once_do_not_ask_more_than_their_link_takes(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_server() as server, open_proxy() as proxy:
        server.start_agent()
        await proxy.publish(server.route())
        streams = [await proxy.dialer.dial(TARGET) for _ in range(200)]
        for module in (ways, outbox):
            monkeypatch.setattr(module, "MAX_CONTROL", 3000)
        server.cut_tunnel()
        await trio.sleep(1)
        assert server.acceptor is not None
        server.dial_in(server.acceptor)
        await proxy.publish(server.route())
        await trio.sleep(60)
        assert proxy.dialer.opener.counts.resumed == len(streams)
        assert len(server.links) == 1, "the link was given up for what it had not taken yet"
