"""Connections out of a Studio through everything: listener, agent, tunnel, server, link, owner at the proxy."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from connect_trio.agent import announcing
from connect_trio.agent.announcing import Announcer
from connect_trio.agent.forward import Forwarder
from connect_trio.agent.listening import ListenPolicy
from connect_trio.agent.tool import Tool, free_port
from connect_trio.dial import DialError
from connect_trio.reverse import Connection, ListenError, open_reverse
from tests.support.grants import granted
from tests.support.reverse import connect
from tests.support.servers import open_proxy, open_server
from tests.support.stack import open_stack
from tests.support.tables import SESSION


async def shout(connection: Connection) -> None:
    """Upper case for whatever comes, until the end; then a last word."""
    async for data in connection.stream:
        await connection.stream.send_all(bytes(data).upper())
    await connection.stream.send_all(b" and out")


async def ask(address: str, question: bytes) -> bytes:
    """What a client gets that says all it has to say first."""
    client = await connect(address)
    async with client:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    await client.send_all(question)
                    await client.send_eof()

                nursery.start_soon(send)
                return b"".join([bytes(part) async for part in client])


async def is_cut(address: str) -> bool:
    try:
        client = await connect(address)
        async with client:
            with trio.fail_after(60):
                return await client.receive_some() == b""
    except (OSError, trio.BrokenResourceError):
        return True


@pytest.mark.parametrize("network", ["tcp", "unix"])
async def test_clients_in_the_studio_are_served_at_the_proxy(network: str, tmp_path: Path) -> None:
    """The agent is the role itself, and so is the server."""
    async with open_stack() as stack:
        agent = await stack.start_agent(tmp_path)
        async with open_reverse(stack.dialer, granted(SESSION), shout) as reverse:
            listener = await reverse.listen(network, "127.0.0.1:0" if network == "tcp" else "")
            text = b"from a client in the studio " * 50_000
            assert await ask(listener.address, text) == text.upper() + b" and out"
            answers: list[bytes] = []

            async def one(number: int) -> None:
                answers.append(await ask(listener.address, b"client %d" % number))

            async with trio.open_nursery() as nursery:
                for number in range(30):
                    nursery.start_soon(one, number)
            assert sorted(answers) == sorted(b"CLIENT %d and out" % number for number in range(30))
            with pytest.raises(ListenError, match=r"listens on 127\.0\.0\.1, ::1 only"):
                await reverse.listen("tcp", "0.0.0.0:0")
            await listener.aclose()
            assert await is_cut(listener.address)
            last = await reverse.listen("unix", "last")
            await agent.stop()
            assert (await reverse.wait_ended()).part == "agent"
        assert not Path(last.address).parent.exists()


async def test_beyond_the_owners_limit_clients_are_cut_at_once(tmp_path: Path) -> None:
    async def hold(connection: Connection) -> None:
        await connection.stream.send_all(b"served")
        await trio.sleep_forever()

    async with open_stack() as stack:
        await stack.start_agent(tmp_path)
        async with open_reverse(stack.dialer, granted(SESSION), hold, max_connections=1) as reverse:
            listener = await reverse.listen("unix", "")
            client = await connect(listener.address)
            async with client:
                assert await client.receive_some() == b"served"
                assert await is_cut(listener.address)
                assert await is_cut(listener.address)
                assert reverse.connections == 1
                await reverse.listen("unix", "x")


async def test_when_the_owner_leaves_nothing_listens_any_more(tmp_path: Path) -> None:
    async with open_stack() as stack:
        await stack.start_agent(tmp_path)
        async with open_reverse(stack.dialer, granted(SESSION), shout) as reverse:
            path = (await reverse.listen("unix", "x")).address
            listener = await reverse.listen("tcp", "127.0.0.1:0")
            client = await connect(listener.address)
            await client.send_all(b"hello")
            assert await client.receive_some() == b"HELLO"
        async with client:
            with trio.fail_after(60), pytest.raises(trio.BrokenResourceError):
                await client.receive_some()
        with trio.fail_after(60):
            while Path(path).exists():
                await trio.sleep(0.01)
        with pytest.raises(OSError, match="all attempts to connect"):
            await connect(listener.address)


async def test_a_tunnel_that_is_lost_for_too_long_cuts_what_waits(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with open_server() as server, open_proxy(patience=60) as proxy, trio.open_nursery() as nursery:
        announcer = Announcer(nursery, ListenPolicy(directory=tmp_path / "sockets"))
        forwarder = Forwarder(Tool(free_port(), start_timeout=60), nursery, announcer)
        server.start_agent(forwarder.on_open)
        await proxy.publish(server.route())
        async with open_reverse(proxy.dialer, granted(SESSION), shout) as reverse:
            listener = await reverse.listen("unix", "x")
            server.cut_tunnel()
            failure = await reverse.wait_ended()
            assert (failure.part, failure.text) == ("agent", "the Studio's agent does not answer")
            with pytest.raises(DialError):
                await reverse.listen("unix", "y")
        await trio.sleep(60)  # the agent waits longer than the proxy
        assert await is_cut(listener.address)
        assert not announcer.sessions
        nursery.cancel_scope.cancel()


async def test_an_agent_that_is_full_is_a_failure_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "MAX_CONTROLS", 1)
    async with open_stack() as stack:
        await stack.start_agent(tmp_path)
        async with open_reverse(stack.dialer, granted(SESSION), shout):
            with pytest.raises(DialError, match="there are 1 control streams already") as caught:
                async with open_reverse(stack.dialer, granted(SESSION), shout):
                    raise AssertionError("the block has begun")
            assert caught.value.failure.status == 503
