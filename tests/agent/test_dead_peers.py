"""A network that goes silent, without any error, is noticed at both ends of a tunnel."""

from __future__ import annotations

import itertools

import pytest
import trio
import trio.testing

from connect_trio.mux.codes import Peer
from connect_trio.mux.frames import Hello
from connect_trio.mux.opener import Opener
from connect_trio.mux.session import MuxSession
from connect_trio.mux.stream import MuxStream
from connect_trio.mux.transport import StreamTransport
from connect_trio.mux.wire import Wire
from connect_trio.transport.tunnels import accept_tunnel
from tests.support.proxies import FakeProxy, open_agent, open_proxy

Clock = trio.testing.MockClock
DEAD, IDLE_DEAD = 5.0, 60.0


class Freezable(trio.abc.Stream):
    """A connection over a network that may go silent: then bytes leave, and nothing arrives any more."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._frozen = False
        self._reading = trio.CancelScope()

    def freeze(self) -> None:
        self._frozen = True
        self._reading.cancel()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if not self._frozen:
            await self._stream.send_all(data)
        else:
            await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if not self._frozen:
            with trio.CancelScope() as self._reading:
                return bytes(await self._stream.receive_some(max_bytes))
        await trio.sleep_forever()
        raise AssertionError

    async def aclose(self) -> None:
        await self._stream.aclose()


class Line:
    """The far end of one agent's tunnel, which opens streams itself, over a freezable network."""

    def __init__(self, proxy: FakeProxy) -> None:
        self._proxy = proxy
        self.opener = Opener()
        self.opener.alarm = proxy.hub.alarm
        proxy.hub.add(self.opener)
        self.network: Freezable | None = None
        self.wire: Wire | None = None
        self.reasons: list[tuple[float, str]] = []
        self._tokens = itertools.count(1)

    async def carry(self, stream: trio.abc.Stream) -> None:
        self.network = Freezable(stream)
        _, opened = await accept_tunnel(StreamTransport(self.network))
        hello = Hello(peer=Peer.OPENER, instance=b"O" * 16)
        self.wire = Wire(self.opener, hello, dialled=False, now=trio.current_time(), label="tunnel")
        reason = await MuxSession(self._proxy.hub, self.wire, opened.transport).run(opened.early)
        self.reasons.append((trio.current_time(), reason))
        await trio.sleep_forever()  # the network tells the agent nothing

    def freeze(self) -> float:
        """Silence from now on; what time it is."""
        assert self.network is not None
        self.network.freeze()
        return trio.current_time()

    def open(self) -> MuxStream:
        assert self.wire is not None
        token = next(self._tokens).to_bytes(16, "big")
        return MuxStream(self.opener.open(self.wire, token=token, now=trio.current_time(), kind="http"))


async def until_lost(stream: MuxStream) -> None:
    """The stream's way is gone; the stream is not."""
    while stream.core.home is not None:
        await stream.wait_change()
    assert stream.detached


@pytest.mark.parametrize("carrier", ["raw", "WebSocket"])
@pytest.mark.parametrize("settled", [0.0, 0.9, 17.3, 200.0])
async def test_with_a_stream_open_silence_is_noticed_within_five_seconds(
    autojump_clock: Clock, settled: float, carrier: str
) -> None:
    async with open_proxy() as proxy:
        line = Line(proxy)
        proxy.handlers[:] = [line.carry]
        async with open_agent(proxy.url, websocket_only=carrier != "raw") as agent:
            await agent.client.connected.wait()
            stream = line.open()
            await stream.wait_accepted()
            await trio.sleep(settled)
            assert len(proxy.dials) == 1, "a stream that is quiet is no sign of death"
            silent = line.freeze()
            await until_lost(stream)
            assert trio.current_time() - silent <= DEAD + 0.1
            await until_lost(MuxStream(agent.opened[0]))
            await proxy.dials_reach(2)
            assert trio.current_time() - silent <= DEAD + 0.3
    assert "nothing was heard of the peer for" in line.reasons[0][1]


@pytest.mark.parametrize("settled", [0.0, 10.0, 29.0, 600.0])
async def test_without_streams_silence_is_noticed_within_a_minute(autojump_clock: Clock, settled: float) -> None:
    async with open_proxy() as proxy:
        line = Line(proxy)
        proxy.handlers[:] = [line.carry]
        async with open_agent(proxy.url) as agent:
            await agent.client.connected.wait()
            await trio.sleep(settled)
            assert len(proxy.dials) == 1, "an idle tunnel is kept alive"
            silent = line.freeze()
            await proxy.dials_reach(2)
            noticed = trio.current_time() - silent
            assert IDLE_DEAD - 30 - 0.1 <= noticed <= IDLE_DEAD + 0.3
            await trio.sleep(1)  # the server looks at idle tunnels once a second, at all together
            assert line.reasons
            assert line.reasons[0][0] - silent <= IDLE_DEAD + 1.3


async def test_a_stream_that_is_opened_into_the_silence_starts_the_fast_clock(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        line = Line(proxy)
        proxy.handlers[:] = [line.carry]
        async with open_agent(proxy.url) as agent:
            await agent.client.connected.wait()
            await trio.sleep(3)
            silent = line.freeze()
            await trio.sleep(1)
            await until_lost(line.open())
            assert trio.current_time() - silent <= 1 + DEAD + 0.1


async def test_a_busy_tunnel_and_an_idle_one_live_on(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        line = Line(proxy)
        proxy.handlers[:] = [line.carry]
        async with open_agent(proxy.url) as agent:
            await agent.client.connected.wait()
            for _ in range(3):
                stream = line.open()
                await stream.wait_accepted()
                await trio.sleep(30)
                stream.reset("done")
                await trio.sleep(300)
            assert len(proxy.dials) == 1
            assert line.reasons == []
