"""Who may show a Studio in a frame: what browsers are told of a tool's answers, and of our own pages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.edge.framing import page_policy, studio_ancestors, tool_policy, widened
from connect_trio.edge.gate import NOBODY, Reply
from connect_trio.edge.pages import Problem
from tests.support.edge import OWN, STUDIO, get, open_world

PLATFORM = "https://platform.example.org"
OURS = f"'self' {PLATFORM}"
ANCESTORS = OURS.encode()


def policies_of(head: bytes) -> list[str]:
    lines = head.decode("latin-1").split("\r\n")
    return [line.partition(": ")[2] for line in lines if line.lower().startswith("content-security-policy:")]


async def answered(*headers: str, status: str = "200 OK") -> bytes:
    """The head that a visitor gets of a tool's answer."""
    async with open_world(ancestors=[PLATFORM]) as world:
        client, tool = await world.request(get())
        await tool.head()
        await tool.send("\r\n".join((f"HTTP/1.1 {status}", "Content-Length: 0", *headers, "", "")).encode())
        return await client.head()


def test_a_studio_may_be_framed_by_itself_and_by_the_ancestors() -> None:
    assert studio_ancestors(()) == b"'self'"
    assert studio_ancestors((PLATFORM, "http://portal:81")) == b"'self' https://platform.example.org http://portal:81"


async def test_a_tools_answers_say_who_may_frame_them() -> None:
    assert policies_of(await answered()) == [f"frame-ancestors {OURS}"]
    assert policies_of(await answered("content-security-policy: script-src 'self'")) == [
        "script-src 'self'",
        f"frame-ancestors {OURS}",
    ]


async def test_a_tool_that_may_be_framed_by_itself_may_be_framed_by_platform() -> None:
    """What JupyterLab says, which knows nothing of Platform."""
    jupyter = "Content-Security-Policy: frame-ancestors 'self'; report-uri /api/security/csp-report"
    head = await answered(jupyter, "X-Frame-Options: SAMEORIGIN")
    assert policies_of(head) == [
        f"frame-ancestors {OURS}; report-uri /api/security/csp-report",
        f"frame-ancestors {OURS}",
    ]
    assert b"x-frame-options" not in head.lower(), "older browsers would go by it"


@pytest.mark.parametrize("options", ["DENY", "deny", " Deny ", "SAMEORIGIN, DENY"])
async def test_a_tool_that_nobody_may_frame_is_framed_by_nobody(options: str) -> None:
    """Browsers ignore X-Frame-Options beside our policy, so that our policy has to say it."""
    assert policies_of(await answered(f"X-Frame-Options: {options}")) == ["frame-ancestors 'none'"]
    own = "Content-Security-Policy: frame-ancestors 'none'"
    assert policies_of(await answered(own)) == ["frame-ancestors 'none'", f"frame-ancestors {OURS}"]


async def test_a_tools_own_ancestors_count_more_than_its_options_as_in_browsers() -> None:
    head = await answered("X-Frame-Options: DENY", "Content-Security-Policy: frame-ancestors 'self'")
    assert policies_of(head) == [f"frame-ancestors {OURS}"] * 2


async def test_an_answer_that_nothing_was_modified_takes_no_policy_away_that_a_browser_has_kept() -> None:
    assert policies_of(await answered("ETag: 1", status="304 Not Modified")) == []
    head = await answered("Content-Security-Policy: img-src *", status="304 Not Modified")
    assert policies_of(head) == ["img-src *", f"frame-ancestors {OURS}"]


async def test_a_policy_cannot_be_taken_away_by_a_connection_header() -> None:
    head = await answered("Connection: content-security-policy", "Content-Security-Policy: img-src 'none'")
    assert policies_of(head) == ["img-src 'none'", f"frame-ancestors {OURS}"]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (b"FRAME-Ancestors\t'SELF'", b"FRAME-Ancestors 'self' https://p"),
        (b"img-src *;frame-ancestors 'self' https://x", b"img-src *; frame-ancestors 'self' https://p https://x"),
        (
            b"frame-ancestors 'self', frame-ancestors 'none'",
            b"frame-ancestors 'self' https://p, frame-ancestors 'none'",
        ),
        (b"frame-ancestors https://x", b"frame-ancestors https://x"),
        (b"frame-ancestors", b"frame-ancestors"),
        (b"frame-ancestors-x 'self'", b"frame-ancestors-x 'self'"),
        (b"report-uri /frame-ancestors; script-src 'self'", b"report-uri /frame-ancestors; script-src 'self'"),
        (b";;", b";;"),
        (b"", b""),
    ],
)
def test_only_the_own_origin_of_a_tool_is_widened(policy: bytes, expected: bytes) -> None:
    assert widened(policy, b"'self' https://p").strip() == expected


PIECES = st.sampled_from(
    [
        b"frame-ancestors",
        b"'self'",
        b"'none'",
        b"https://x",
        b";",
        b",",
        b" ",
        b"\t",
        b"script-src",
        b"*",
        b"FRAME-ancestors",
    ]
)


@given(st.lists(PIECES).map(b"".join))
def test_widening_changes_no_other_directive_and_adds_the_ancestors_only(policy: bytes) -> None:
    found = widened(policy, b"'self' https://p")
    before = [part.split() for item in policy.split(b",") for part in item.split(b";")]
    after = [part.split() for item in found.split(b",") for part in item.split(b";")]
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        if old != new:
            assert old[0].lower() == b"frame-ancestors"
            assert b"'self'" in old
            assert set(new) == set(old) | {b"https://p"}


def test_options_of_a_tool_that_are_none_change_nothing() -> None:
    for options in ([], [b"SAMEORIGIN"], [b"ALLOW-FROM https://x"], [b"denyx"]):
        assert tool_policy(ANCESTORS, policies=[], options=options) == b"frame-ancestors " + ANCESTORS


async def test_what_the_edge_itself_says_on_a_studios_host_may_be_seen_in_the_frame() -> None:
    async with open_world(ancestors=[PLATFORM]) as world:
        refused = await world.ask(get("/_connect/nothing", "Accept: text/html"))
        (policy,) = policies_of(refused)
        assert policy.endswith(f"; frame-ancestors {OURS}")
        assert b"X-Frame-Options" not in refused


@pytest.mark.parametrize("host", [OWN, "evil.example", "a23ce7967.connect.localhost."])
async def test_what_the_edge_says_on_other_hosts_is_in_no_frame(host: str) -> None:
    async with open_world(ancestors=[PLATFORM]) as world:
        found = await world.ask(get("/nothing", "Accept: text/html", host=host))
        (policy,) = policies_of(found)
        assert policy.endswith("; frame-ancestors 'none'")
        assert b"X-Frame-Options: DENY\r\n" in found


async def test_one_connection_to_two_hosts_has_the_policy_of_each() -> None:
    async with open_world(ancestors=[PLATFORM]) as world:
        client = await world.client()
        for host, ancestors in ((STUDIO, OURS), (OWN, "'none'"), (STUDIO, OURS)):
            await client.send(get("/_connect/nothing", "Accept: text/html", host=host))
            head = await client.head()
            assert policies_of(head)[0].endswith(f"; frame-ancestors {ancestors}")
            await client.until(b"</html>\n")


async def test_the_gate_is_told_who_may_frame_its_pages() -> None:
    async with open_world(ancestors=[PLATFORM]) as world:
        world.gate.verdict = Reply(status=403)
        world.gate.pages[b"/"] = Reply(status=200)
        await world.ask(get())
        await world.ask(get(host=OWN))
        assert [request.frame_ancestors for request in world.gate.requests] == [ANCESTORS, NOBODY]


def test_pages_are_in_nobodys_frame_unless_told_otherwise() -> None:
    headers = dict(Problem(status=500, part="proxy", text="").reply(html=True).headers)
    assert headers[b"Content-Security-Policy"].endswith(b"; frame-ancestors 'none'")
    assert headers[b"X-Frame-Options"] == b"DENY"
    assert page_policy("img-src *", ANCESTORS) == (
        (b"Content-Security-Policy", b"img-src *; frame-ancestors " + ANCESTORS),
    )
