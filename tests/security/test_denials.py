"""By each protocol: who is not let in, and who is thrown out. The tool and the servers never hear of the former."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest
import trio

from connect_trio.edge.boundaries import POLICY, close_frame
from connect_trio.identity.control_plane import Authorizer, ControlPlane
from connect_trio.identity.grants import TUNNEL
from tests.support.edge import SESSION, STUDIO, eventually, get, upgrade
from tests.support.guarded import Guarded, open_guarded, tunnel

WORKSPACE = "It is in a workspace that you are no member of."
VIEW = "Your role in this workspace, View, may not open Studios."


async def nobody(guarded: Guarded) -> str:
    return "Accept: */*"


async def somebody(guarded: Guarded) -> str:
    return (await guarded.log_in())[0]


async def of_another_session(guarded: Guarded) -> str:
    return (await guarded.log_in("5f0c1d2e"))[0]


async def expired(guarded: Guarded) -> str:
    cookie, login = await guarded.log_in()
    await guarded.logins.end(login)
    return cookie


def allow(guarded: Guarded) -> None:
    guarded.say()


def because(reason: str) -> Callable[[Guarded], None]:
    return lambda guarded: guarded.say(allowed=False, reason=reason)


def stopped(guarded: Guarded) -> None:
    guarded.say(state="stopped")


def starting(guarded: Guarded) -> None:
    guarded.say(state="starting")


def deleted(guarded: Guarded) -> None:
    guarded.answer((404, {}), (404, {}))


def ended_as_planned(guarded: Guarded) -> None:
    guarded.say(ends_at=1_000_000_000)


def away(guarded: Guarded) -> None:
    guarded.answer((500, {}), (500, {}))


VISITORS = {
    "no authorisation": (nobody, allow, 401, "login_required", None),
    "wrong session": (of_another_session, allow, 401, "login_required", None),
    "expired": (expired, allow, 401, "login_required", None),
    "revoked": (somebody, because("It is private to bob."), 403, "refused", "It is private to bob."),
    "wrong workspace": (somebody, because(WORKSPACE), 403, "refused", WORKSPACE),
    "View role": (somebody, because(VIEW), 403, "refused", VIEW),
    "stopped": (somebody, stopped, 503, "session_stopped", None),
    "starting": (somebody, starting, 503, "session_stopped", None),
    "planned end": (somebody, ended_as_planned, 503, "session_stopped", None),
    "deleted": (somebody, deleted, 404, "unknown_session", None),
    "Platform away": (somebody, away, 503, "platform_unavailable", None),
}


@pytest.mark.parametrize("protocol", ["http", "websocket"])
@pytest.mark.parametrize("case", VISITORS)
async def test_a_visitor_who_may_not_is_not_let_in(case: str, protocol: str) -> None:
    who, platform_says, status, code, reason = VISITORS[case]
    async with open_guarded() as guarded:
        platform_says(guarded)
        header = await who(guarded)
        found = await guarded.world.ask(
            upgrade("/ws", header, f"Origin: http://{STUDIO}") if protocol == "websocket" else get("/", header)
        )
        head, _, body = found.partition(b"\r\n\r\n")
        error = json.loads(body)["error"]
        assert (int(head.split()[1]), error["code"]) == (status, code)
        assert reason is None or reason in error["message"]
        assert guarded.world.dialer.targets == [], "the tool heard of it"


AGENTS: dict[str, tuple[dict[str, object] | None, Callable[[Guarded], None], int, str]] = {
    "no authorisation": (None, allow, 401, "invalid_token"),
    "wrong session": ({"sub": "5f0c1d2e"}, allow, 410, "session_ended"),
    "expired": ({"exp": 1}, allow, 401, "invalid_token"),
    "another purpose": ({"aud": "another"}, allow, 401, "invalid_token"),
    "another Platform": ({"iss": "http://evil.example/api"}, allow, 401, "invalid_token"),
    "stopped": ({}, stopped, 410, "session_ended"),
    "starting": ({}, starting, 503, "session_not_running"),
    "deleted": ({}, deleted, 410, "session_ended"),
    "Platform away": ({}, away, 503, "platform_unavailable"),
}


@pytest.mark.parametrize("case", AGENTS)
async def test_an_agent_that_may_not_gets_no_tunnel(case: str) -> None:
    claims, platform_says, status, code = AGENTS[case]
    async with open_guarded() as guarded:
        platform_says(guarded)
        header = await somebody(guarded)  # a visitor's cookie opens no tunnel
        if claims is not None:
            header = f"Authorization: Bearer {guarded.token(**claims)}"
        found = await guarded.world.ask(tunnel(header))
        head, _, body = found.partition(b"\r\n\r\n")
        assert (int(head.split()[1]), json.loads(body)["code"]) == (status, code)
        assert guarded.world.picked == [], "a server was looked for"


async def test_a_token_for_one_session_is_worth_nothing_for_another_one() -> None:
    """Nobody is asked, so there is nobody who could say yes."""
    authorizer = Authorizer(ControlPlane.__new__(ControlPlane))
    for subject, session, method in (
        ("5f0c1d2e", SESSION, TUNNEL),
        ("", SESSION, TUNNEL),
        (SESSION, SESSION, "telnet"),
        ("user-alice", SESSION, ""),
    ):
        decision = await authorizer.check(subject, session, method)
        assert (decision.allowed, decision.open, decision.grant) == (False, False, None)


async def log_out(guarded: Guarded, login: str) -> None:
    await guarded.logins.end(login)


def told(change: Callable[[Guarded], None]) -> Callable[[Guarded, str], Awaitable[None]]:
    async def tell(guarded: Guarded, _: str) -> None:
        change(guarded)

    return tell


CAUSES = {
    "revoked": (told(because("no")), "your access to this Studio has ended", False),
    "logged out": (log_out, "your login has ended", False),
    "stopped": (told(stopped), "the session was stopped", True),
    "deleted": (told(deleted), "the session no longer exists", True),
    "ended as planned": (told(ended_as_planned), "the session has ended as planned", True),
}


@pytest.mark.parametrize("cause", CAUSES)
async def test_what_was_let_in_does_not_stay_when_it_may_not(cause: str) -> None:
    """A WebSocket, an answer, a request that waits and a tunnel, with the watchers that a proxy has."""
    act, reason, for_all = CAUSES[cause]
    async with open_guarded() as guarded:
        cookie, login = await guarded.log_in()
        agent, server = await guarded.tunnel()
        websocket, tool = await guarded.websocket(cookie)
        streaming, streaming_tool = await guarded.streaming(cookie)
        waiting, waiting_tool = await guarded.world.request(get("/", cookie))
        await waiting_tool.head()
        await act(guarded, login)
        assert await websocket.rest() == close_frame(POLICY, reason)
        assert await streaming.is_reset()
        assert (await waiting.rest()).partition(b"\r\n")[0].split()[1] in (b"401", b"403", b"503")
        for ended in (tool, streaming_tool, waiting_tool):
            assert await ended.is_reset()
        if for_all:
            assert await server.is_reset()
            await eventually(lambda: guarded.world.edge.scopes.live() == {})
        else:
            await server.send(b"still here")
            assert await agent.exactly(10) == b"still here"


OUTAGES = {
    "silent": None,
    "failing": (500, {}),
    "busy": (429, {}),
    "nonsense": (200, {"allowed": "perhaps"}),
    "no JSON": (200, b"<html>"),
    "another's": (200, {"allowed": False, "session": {"id": "5f0c1d2e"}}),
    "a redirect": (302, {}),
    "refusing Connect": (403, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("outage", OUTAGES)
async def test_an_outage_of_platform_throws_nobody_out(outage: str) -> None:
    async with open_guarded() as guarded:
        cookie, _ = await guarded.log_in()
        agent, server = await guarded.tunnel()
        websocket, tool = await guarded.websocket(cookie)
        guarded.answer(OUTAGES[outage], OUTAGES[outage])
        asked = len(guarded.platform.asked)
        with trio.fail_after(60):
            while len(guarded.platform.asked) < asked + 4:
                await trio.sleep(0.1)
        for one, other in ((websocket, tool), (agent, server)):
            await other.send(b"\x82\x01x")
            assert await one.exactly(3) == b"\x82\x01x"
        client, tool = await guarded.world.request(get("/", cookie))  # who is in may also ask for more
        await tool.head()
        assert guarded.world.edge.scopes.counts == {}
        await client.close()
