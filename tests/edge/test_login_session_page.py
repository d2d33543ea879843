"""The page on a Studio's host that says how it is, and when it ends: for who may use it."""

from __future__ import annotations

import json
import time

import pytest

from connect_trio.edge.login_session_page import session_notice
from connect_trio.identity.control_plane import SessionInfo
from tests.support.edge import SESSION, STUDIO, get
from tests.support.guarded import open_guarded
from tests.support.login import NAMES
from tests.support.visitor import visitor_request

PATH = "/_connect/session"


async def test_a_program_reads_how_long_the_session_is() -> None:
    async with open_guarded() as guarded:
        guarded.say(ends_at=time.time() + 90)
        cookie, _ = await guarded.log_in()
        found = await guarded.world.ask(get(PATH, cookie, "Accept: application/json"))
        assert found.startswith(b"HTTP/1.1 200 ")
        told = json.loads(found.partition(b"\r\n\r\n")[2])
        assert (told["id"], told["state"]) == (SESSION, "running")
        assert 60 <= told["seconds_left"] <= 90


async def test_only_who_may_use_the_session_reads_it() -> None:
    async with open_guarded() as guarded:
        assert (await guarded.world.ask(get(PATH))).startswith(b"HTTP/1.1 401 ")
        guarded.say(allowed=False, reason="no")
        cookie, _ = await guarded.log_in()
        assert (await guarded.world.ask(get(PATH, cookie))).startswith(b"HTTP/1.1 403 ")
        assert (await guarded.world.ask(get(PATH, cookie, method="POST"))).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (None, "No end is planned."),
        (3 * 60 + 30, "in 3 minutes."),
        (61, "in 1 minute."),
        (5, "in less than a minute."),
        (-5, "in less than a minute."),
    ],
)
def test_people_read_when_it_ends(left: float | None, text: str) -> None:
    ends_at = None if left is None else 1_000_000 + left
    session = SessionInfo(id=SESSION, name="<A>", owner="alice", state="running", tool="", ends_at=ends_at)
    request = visitor_request(NAMES, STUDIO, PATH)
    reply = session_notice(request, session, 1_000_000)
    assert text in reply.body.decode()
    assert b"&lt;A&gt;" in reply.body
    assert (b"Refresh", b"30") in reply.headers
