"""Streams that cannot be had: each failure is told with the part that failed, and within its time."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from connect_trio.dial import DialError, Failure
from connect_trio.links import CONNECT_TIMEOUT, PARK
from connect_trio.mux.codes import RejectCode, ResetCode
from connect_trio.mux.opener import ANSWER
from tests.support.servers import TARGET, broken, failure_of, open_proxy, open_server, route_to
from tests.support.tools import dead_port

Clock = trio.testing.MockClock
settled = trio.testing.wait_all_tasks_blocked


class Hole:
    """Connections to it are neither taken nor refused. count: how many were begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        monkeypatch.setattr(trio, "open_tcp_stream", self._connect)

    async def _connect(self, host: str, port: int) -> trio.SocketStream:
        self.count += 1
        await trio.sleep_forever()
        raise AssertionError


# servers that cannot be reached


async def test_a_server_that_refuses_is_a_failure_of_the_server(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        await proxy.publish(route_to(f"127.0.0.1:{dead_port()}"))
        failure = await failure_of(proxy)
        assert (failure.status, failure.part) == (502, "server")
        assert "cannot be reached" in failure.text
        assert trio.current_time() == pytest.approx(PARK, abs=0.5)
        assert proxy.registry.count("find") > 10, "who finds a route wrong asks the registry again"


async def test_a_server_that_does_not_answer_is_a_failure_of_the_server(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_proxy() as proxy:
        await proxy.publish(route_to("10.0.0.1:7777"))
        hole = Hole(monkeypatch)
        failure = await failure_of(proxy)
        assert (failure.status, failure.part) == (502, "server")
        assert trio.current_time() <= CONNECT_TIMEOUT + PARK + CONNECT_TIMEOUT
        assert hole.count <= 4


async def test_all_who_wait_for_one_server_fail_together(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_proxy(park=0) as proxy:
        await proxy.publish(route_to("10.0.0.1:7777"))
        hole = Hole(monkeypatch)
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(failure_of, proxy)
        assert trio.current_time() == pytest.approx(CONNECT_TIMEOUT)
        assert hole.count == 1


@pytest.mark.parametrize("address", ["nonsense", "host:0", "host:99999", "", "a b:1"])
async def test_an_address_that_is_none_is_a_failure_of_the_server(autojump_clock: Clock, address: str) -> None:
    async with open_proxy(park=0) as proxy:
        await proxy.publish(route_to(address))
        assert (await failure_of(proxy)).part == "server"


async def test_cancelling_while_dialling_leaves_nothing_and_the_others_dial_on(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_proxy(park=0) as proxy:
        await proxy.publish(route_to("10.0.0.1:7777"))
        hole = Hole(monkeypatch)
        first = trio.CancelScope()

        async def impatient() -> None:
            with first:
                await proxy.dialer.dial(TARGET)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(impatient)
            await settled()
            nursery.start_soon(failure_of, proxy)
            await trio.sleep(1)
            assert hole.count == 1
            first.cancel()
            await settled()
            assert hole.count == 2
        assert trio.current_time() == pytest.approx(1 + CONNECT_TIMEOUT)
        assert proxy.pool.count == 0
        assert vars(proxy.pool)["_dialling"] == {}


# agents that refuse


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (RejectCode.UNREACHABLE, "the tool exited with code 3", (502, "tool", "the tool exited with code 3")),
        (RejectCode.UNREACHABLE, "", (502, "tool", "the tool does not accept connections")),
        (RejectCode.OVERLOADED, "", (503, "agent", "the Studio's agent is overloaded")),
        (RejectCode.BUDGET, "full", (503, "agent", "full")),
        (RejectCode.UNSUPPORTED, "no shells here", (502, "agent", "no shells here")),
        (99, "", (502, "agent", "the Studio's agent refused the connection")),
    ],
)
async def test_a_refusal_of_the_agent_is_told_at_once(
    autojump_clock: Clock, code: int, text: str, expected: tuple[int, str, str]
) -> None:
    async with open_server() as server, open_proxy() as proxy:
        server.start_agent(on_open=lambda core: core.reject(code, text))
        await proxy.publish(server.route())
        status, part, said = expected
        assert await failure_of(proxy) == Failure(status=status, part=part, text=said)
        assert trio.current_time() == 0


async def test_an_agent_that_does_not_answer_is_a_time_out(autojump_clock: Clock) -> None:
    async with open_server() as server, open_proxy() as proxy:
        server.start_agent(on_open=lambda core: None)
        await proxy.publish(server.route())
        failure = await failure_of(proxy)
        assert (failure.status, failure.part) == (504, "agent")
        assert trio.current_time() == pytest.approx(ANSWER, abs=0.1)


async def test_cancelling_while_the_agent_thinks_takes_the_question_back(autojump_clock: Clock) -> None:
    async with open_server() as server, open_proxy() as proxy:
        server.start_agent(on_open=lambda core: None)
        await proxy.publish(server.route())
        with trio.move_on_after(1):
            await proxy.dialer.dial(TARGET)
        await settled()
        assert server.opened[0].end is not None
        assert not any(link.wire.ports for link in server.links)
        assert server.opened[0].wire is None


# the registry


async def test_a_registry_that_is_away_is_a_failure_of_the_registry(autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        proxy.registry.away = True
        failure = await failure_of(proxy)
        assert (failure.status, failure.part) == (503, "registry")
        assert "the registry is away" in failure.text
        assert trio.current_time() == pytest.approx(PARK, abs=0.5)


async def test_a_registry_that_comes_back_in_time_is_enough(autojump_clock: Clock) -> None:
    async with open_server() as server, open_proxy() as proxy:
        server.start_agent()
        await proxy.publish(server.route())
        proxy.registry.away = True

        async def back() -> None:
            await trio.sleep(2)
            proxy.registry.away = False

        async with trio.open_nursery() as nursery:
            nursery.start_soon(back)
            await proxy.dialer.dial(TARGET)
        assert trio.current_time() <= 3


# words for visitors


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (trio.BrokenResourceError("something"), "agent"),
        (trio.ClosedResourceError("closed"), "agent"),
        (DialError(Failure(status=404, part="session", text="no such session")), "session"),
    ],
)
async def test_every_error_has_words(error: Exception, part: str, autojump_clock: Clock) -> None:
    async with open_proxy() as proxy:
        assert proxy.dialer.explain(error).part == part


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (ResetCode.APP, "the tool's connection ended", "the tool's connection ended"),
        (ResetCode.APP, "", "the tool closed the connection"),
    ],
)
async def test_a_reset_of_the_agent_is_a_failure_of_the_tool(
    autojump_clock: Clock, code: int, text: str, expected: str
) -> None:
    async with open_server() as server, open_proxy() as proxy:
        server.start_agent()
        await proxy.publish(server.route())
        stream = await proxy.dialer.dial(TARGET)
        server.opened[0].reset(code, text)
        assert proxy.dialer.explain(await broken(stream)) == Failure(status=502, part="tool", text=expected)
