"""What a visitor's headers may not do: take ours away, forge them, choose a route, or invent an address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.edge.headers import request_lines
from tests.support.edge import STUDIO, World, answer, get, open_world

SIGNS = "!#$%&'*+.^_`|~-"
"""Everything besides letters and digits that a header's name may have (RFC 9110, section 5.6.2)."""

SIBLING = "a00000001.connect.localhost:8080"


async def lines_seen_by_tool(world: World, *headers: str) -> list[bytes]:
    _, tool = await world.request(get("/", *headers))
    return (await tool.head()).strip().split(b"\r\n")


@pytest.mark.parametrize("connection", ["X-Connect-Sub, X-Forwarded-For", "x-connect-sub,x-forwarded-for,host,cookie"])
async def test_connection_header_abuse(connection: str) -> None:
    async with open_world() as world:
        seen = await lines_seen_by_tool(world, f"Connection: {connection}", "Cookie: a=1", "Authorization: token t")
        assert b"X-Connect-Sub: sub-alice" in seen
        assert b"X-Forwarded-For: 127.0.0.1" in seen
        assert b"Host: " + STUDIO.encode() in seen
        assert b"Cookie: a=1" in seen
        assert b"Authorization: token t" in seen


async def test_connection_header_abuse_against_hop_by_hop_headers() -> None:
    async with open_world() as world:
        seen = await lines_seen_by_tool(world, "CONNECTION: x-HOP", "X-Hop: 1", "Proxy-Authorization: Basic eDp5")
        assert not any(line.startswith((b"X-Hop", b"Proxy-", b"CONNECTION")) for line in seen)


@pytest.mark.parametrize("sign", SIGNS)
async def test_identity_header_aliases(sign: str) -> None:
    async with open_world() as world:
        forged = [
            f"X{sign}Connect{sign}Sub: forged",
            f"x-connect{sign}USER: forged",
            f"X{sign}Forwarded{sign}For: 6.6.6.6",
        ]
        seen = await lines_seen_by_tool(world, *forged)
        assert not any(b"forged" in line or b"6.6.6.6" in line for line in seen)
        assert seen[-2:] == [b"X-Connect-Sub: sub-alice", b"X-Connect-User: alice"], "set last, and by us"


@given(st.text(st.sampled_from(SIGNS), min_size=2, max_size=2), st.lists(st.booleans(), min_size=13, max_size=13))
def test_identity_header_aliases_in_every_spelling(signs: str, upper: list[bool]) -> None:
    plain = f"x{signs[0]}connect{signs[1]}sub"
    name = "".join(char.upper() if big else char for char, big in zip(plain, upper, strict=True)).encode()
    assert request_lines([(name, name.lower(), b"forged")]) == []


@pytest.mark.parametrize(
    "header",
    [
        *(f"X-Forwarded-Host: {SIBLING}", f"Forwarded: host={SIBLING}", f"X-Original-Host: {SIBLING}"),
        *("X-Original-URL: /_connect/logout", "X-Rewrite-URL: /_connect/logout", "X-Connect-Session: 00000001"),
        f"X-Host: {SIBLING}",
    ],
)
async def test_client_controlled_routing_headers(header: str) -> None:
    async with open_world(trusted=["127.0.0.1/32"]) as world:
        _, tool = await world.request(get("/lab", header))
        assert (await tool.head()).startswith(b"GET /lab HTTP/1.1\r\n")
        assert [target.session for target in world.dialer.targets] == [STUDIO[1:9]]
        assert [request.label for request in world.gate.requests] == [STUDIO[:9]]


async def test_spoofed_client_address() -> None:
    async with open_world() as world:
        claims = (
            "X-Forwarded-For: 6.6.6.6",
            "Forwarded: for=6.6.6.6",
            "X-Real-IP: 6.6.6.6",
            "X-Forwarded-Proto: https",
        )
        seen = await lines_seen_by_tool(world, *claims)
        assert not any(b"6.6.6.6" in line or b"https" in line for line in seen)
        assert world.gate.requests[0].client == "127.0.0.1"


async def test_spoofed_client_address_behind_a_trusted_proxy() -> None:
    async with open_world(trusted=["127.0.0.1/32"]) as world:
        seen = await lines_seen_by_tool(world, "X-Forwarded-For: 6.6.6.6, 203.0.113.9")
        assert b"X-Forwarded-For: 203.0.113.9, 127.0.0.1" in seen
        assert world.gate.requests[0].client == "203.0.113.9"


async def test_spoofed_client_address_by_the_proxy_protocol() -> None:
    async with open_world(trusted=["127.0.0.1/32"]) as world:
        found = await world.ask(b"PROXY TCP4 6.6.6.6 127.0.0.1 1 80\r\n" + get())
        assert found.startswith(b"HTTP/1.1 400 ")
        assert not world.gate.requests


async def test_shared_upstream_pool_poisoning() -> None:
    async with open_world() as world:
        for subject in ("sub-alice", "sub-bob"):
            world.gate.subject = subject
            client, tool = await world.request(get())
            assert f"X-Connect-Sub: {subject}\r\n".encode() in await tool.head()
            await tool.send(answer(b"ok"))
            assert (await client.until(b"ok")).startswith(b"HTTP/1.1 200 ")
        assert len(world.dialer.streams) == 2, "no stream serves two visitors"
        assert (await world.ask(get("other.example:443", method="CONNECT"))).startswith(b"HTTP/1.1 405 ")
