"""Tunnels over https, with certificates of a private authority."""

from __future__ import annotations

import gc
import ssl

import pytest
import trio
import trio.testing
from trio_websocket import wrap_server_stream

from connect_trio.agent.dialling import DIAL_TIMEOUT
from tests.support.proxies import client_context, open_agent, open_proxy

Clock = trio.testing.MockClock


def reasons(caplog: pytest.LogCaptureFixture) -> set[str]:
    return {vars(record)["reason"] for record in caplog.records if hasattr(record, "reason")}


@pytest.mark.parametrize("websocket_only", [False, True], ids=["raw", "WebSocket"])
async def test_streams_pass_over_tls(autojump_clock: Clock, websocket_only: bool) -> None:
    async with (
        open_proxy(secure=True) as proxy,
        open_agent(proxy.url, tls=client_context(), websocket_only=websocket_only) as agent,
    ):
        await agent.client.connected.wait()
        assert proxy.carriers == [b"websocket" if websocket_only else b"connect-mux"]
        await trio.sleep(300)
        assert len(proxy.dials) == 1, "the tunnel is kept alive"


async def test_a_tunnel_over_tls_that_ends_is_closed_and_dialled_again(autojump_clock: Clock) -> None:
    closed = trio.Event()

    async def cut(stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(proxy.tunnel, stream)
            await trio.sleep(1)
            proxy.tunnels[0].close("the server restarts")
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            await send_forever(stream)
        closed.set()

    async with open_proxy(secure=True) as proxy:
        proxy.handlers[:] = [cut, proxy.tunnel]
        async with open_agent(proxy.url, tls=client_context()):
            await proxy.dials_reach(2)
            await closed.wait()
    gc.collect()


async def send_forever(stream: trio.abc.Stream) -> None:
    while True:
        await stream.send_all(b"x" * 1000)


async def test_an_independent_websocket_servers_ping_is_answered_over_tls(autojump_clock: Clock) -> None:
    answered: list[float] = []

    async def serve(stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            connection = await (await wrap_server_stream(nursery, stream)).accept()
            await connection.get_message()  # HELLO
            begin = trio.current_time()
            with trio.move_on_after(5):
                await connection.ping(b"are you there")
                answered.append(trio.current_time() - begin)
            nursery.cancel_scope.cancel()

    async with open_proxy(secure=True) as proxy:
        proxy.handlers[:] = [serve]
        async with open_agent(proxy.url, tls=client_context(), websocket_only=True):
            await proxy.dials_reach(2)
    assert answered == [0.0]


@pytest.mark.parametrize(
    ("context", "host", "reason"),
    [
        (ssl.create_default_context(), "connect.localhost", "certificate verify failed"),
        (client_context(), "other.localhost", "Hostname mismatch"),
    ],
)
async def test_a_certificate_that_is_not_trusted_is_named(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, context: ssl.SSLContext, host: str, reason: str
) -> None:
    async with (
        open_proxy(secure=True) as proxy,
        open_agent(f"https://{host}:{proxy.port}", tls=context) as agent,
    ):
        await proxy.dials_reach(3)
        assert not agent.client.connected.is_set()
        assert proxy.requests == [], "nothing is told to somebody else"
    assert any(reason in each for each in reasons(caplog))
    gc.collect()


async def test_plain_http_where_tls_was_meant_is_one_line(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def plain(stream: trio.abc.Stream) -> None:
        await stream.receive_some(10)
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with open_proxy() as proxy:
        proxy.handlers[:] = [plain]
        async with open_agent(proxy.url.replace("http", "https"), tls=client_context()):
            await proxy.dials_reach(3)
    assert len(reasons(caplog)) == 1
    assert "wrong version number" in reasons(caplog).pop().lower()
    gc.collect()


@pytest.mark.parametrize("moment", [0.01, 1.0, DIAL_TIMEOUT + 1])
async def test_a_handshake_that_hangs_is_left_in_time_and_leaves_nothing(autojump_clock: Clock, moment: float) -> None:
    async def mute(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    async with open_proxy() as proxy:
        proxy.handlers[:] = [mute]
        with trio.move_on_after(moment):
            async with open_agent(proxy.url.replace("http", "https"), tls=client_context()):
                await trio.sleep_forever()
        assert len(proxy.dials) == 1 + (moment > DIAL_TIMEOUT)
    gc.collect()
