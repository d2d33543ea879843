"""Studios below paths of Connect's own host, as bytes: what reaches their tools, and what comes back."""

from __future__ import annotations

import json

import pytest

from connect_trio.edge.gate import Reply
from tests.support.edge import OWN, SESSION, STUDIO, SWITCHED, World, answer, get, open_world, upgrade

LABEL = f"a{SESSION}"
BASE = f"/_studio/{LABEL}"
HTML = "Accept: text/html"


def paths_of(head: bytes) -> bytes:
    return head.partition(b" ")[2].partition(b" ")[0]


async def refused(world: World, request: bytes, status: int) -> None:
    assert (await world.ask(request)).startswith(b"HTTP/1.1 %d " % status)
    assert not world.dialer.targets, "nobody asks a tool"


async def test_the_prefix_is_kept_for_the_tool_byte_for_byte() -> None:
    async with open_world(paths=True) as world:
        target = f"{BASE}//a/%2E%2e/b;c?x=/../#".rstrip("#")
        _, tool = await world.request(get(target, host=OWN))
        head = await tool.head()
        assert paths_of(head) == target.encode()
        assert f"Host: {OWN}\r\n".encode() in head
        assert world.dialer.targets[0].session == SESSION
        asked = world.gate.requests[0]
        assert (asked.label, asked.base, asked.shared_origin) == (LABEL, BASE, True)


async def test_a_studio_is_at_its_host_and_at_its_path_at_once() -> None:
    async with open_world(paths=True) as world:
        client, tool = await world.request(get("/lab", host=STUDIO))
        assert paths_of(await tool.head()) == b"/lab"
        await tool.send(answer(b"1"))
        await client.until(b"1")
        await client.send(get(f"{BASE}/lab", host=OWN))
        assert paths_of(await tool.head()) == f"{BASE}/lab".encode(), "over the same stream: it is the same visitor"


async def test_a_url_in_the_request_line_counts_as_its_path() -> None:
    async with open_world(paths=True) as world:
        _, tool = await world.request(get(f"http://{OWN}{BASE}/lab", host=OWN))
        assert paths_of(await tool.head()) == f"{BASE}/lab".encode()


async def test_switched_off_paths_lead_nowhere() -> None:
    async with open_world() as world:
        for target in (f"{BASE}/", BASE, f"{BASE}/_connect/logout"):
            await refused(world, get(target, host=OWN), 404)
        assert all(request.label is None and not request.shared_origin for request in world.gate.requests)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_slash_at_the_end_is_added(method: str) -> None:
    async with open_world(paths=True) as world:
        found = await world.ask(get(f"{BASE}?a=b", "Content-Length: 0", host=OWN, method=method))
        assert found.startswith(b"HTTP/1.1 307 ")
        assert f"Location: {BASE}/?a=b\r\n".encode() in found
        assert not world.dialer.targets


@pytest.mark.parametrize(
    "target",
    [
        *("/_studio", "/_studio/", f"/_studio/{LABEL.upper()}/", f"/_STUDIO/{LABEL}/", f"//_studio/{LABEL}/"),
        *(f"{BASE}/../", f"{BASE}/..%2fa00000001/", f"{BASE}/%2e%2e/", f"{BASE}/..\\", f"{BASE}/..;/a00000001/"),
        *(f"{BASE}/%5fconnect/logout", f"{BASE}//_connect/logout", f"{BASE}/x/../_connect/logout", f"{BASE}/_CONNECT"),
        f"{BASE}/_connect/nothing-here",
    ],
)
async def test_what_resembles_a_studios_path_or_connects_own_leads_nowhere(target: str) -> None:
    async with open_world(paths=True) as world:
        await refused(world, get(target, host=OWN), 404)
        await refused(world, upgrade(target, f"Origin: http://{OWN}", host=OWN), 404)


async def test_connects_pages_below_a_studio_are_the_gates() -> None:
    async with open_world(paths=True) as world:
        world.gate.pages[f"{BASE}/_connect/logout".encode()] = Reply(status=204)
        await refused(world, get(f"{BASE}/_connect/logout", host=OWN), 204)


async def test_the_gate_decides_about_paths_too() -> None:
    async with open_world(paths=True) as world:
        world.gate.verdict = Reply(status=401)
        await refused(world, get(f"{BASE}/", host=OWN), 401)
        await refused(world, get(f"{BASE}/", "Content-Length: 0", host=OWN, method="POST"), 401)
        await refused(world, upgrade(f"{BASE}/ws", f"Origin: http://{OWN}", host=OWN), 401)


# WebSockets


async def test_a_websocket_of_connects_own_origin_passes() -> None:
    async with open_world(paths=True) as world:
        client, tool = await world.request(upgrade(f"{BASE}/ws", f"Origin: http://{OWN}", host=OWN))
        assert paths_of(await tool.head()) == f"{BASE}/ws".encode()
        await tool.send(SWITCHED.replace(b"\r\n\r\n", b"\r\nSet-Cookie: x=1; Path=/\r\n\r\n"))
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 101 ")
        assert f"Set-Cookie: x=1; Path={BASE}/\r\n".encode() in head
        await tool.send(b"bytes")
        await client.until(b"bytes")


@pytest.mark.parametrize("origin", [f"http://{STUDIO}", "null", "http://elsewhere.example", f"http://x.{OWN}"])
async def test_a_websocket_of_another_origin_is_refused(origin: str) -> None:
    async with open_world(paths=True) as world:
        await refused(world, upgrade(f"{BASE}/ws", f"Origin: {origin}", host=OWN), 403)


async def test_a_page_of_connects_own_host_opens_no_websocket_on_a_studios_host() -> None:
    async with open_world(paths=True) as world:
        await refused(world, upgrade("/ws", f"Origin: http://{OWN}"), 403)


# headers


async def test_no_cookie_of_connects_reaches_a_tool() -> None:
    ours = (
        "connect_login",
        "__Host-connect_login",
        "connect_studio",
        "__Secure-connect_studio",
        "connect_studio_nonce",
    )
    async with open_world(paths=True) as world:
        cookies = "; ".join(f"{name}=secret" for name in ours)
        _, tool = await world.request(get(f"{BASE}/", f"Cookie: {cookies}; mine=1", host=OWN))
        head = await tool.head()
        assert b"Cookie: mine=1\r\n" in head
        assert b"secret" not in head


async def test_a_tools_answer_stays_below_its_path() -> None:
    async with open_world(paths=True) as world:
        client, tool = await world.request(get(f"{BASE}/", host=OWN))
        await tool.head()
        await tool.send(
            answer(
                b"",
                *(
                    "Location: /lab",
                    "Set-Cookie: a=1; Path=/; Domain=connect.localhost",
                    "Set-Cookie: __Host-b=1; Path=/",
                ),
                *("Set-Cookie: connect_studio=evil", "Set-Cookie: __Secure-Connect_Login=evil; Path=/"),
                "Service-Worker-Allowed: /",
                status="302 Found",
            )
        )
        head = (await client.head()).decode()
        assert f"Location: {BASE}/lab\r\n" in head
        assert f"Set-Cookie: a=1; Path={BASE}/\r\n" in head
        assert head.count("Set-Cookie") == 1
        assert "Service-Worker-Allowed" not in head
        assert "frame-ancestors 'self'" in head


async def test_an_early_hint_stays_there_too() -> None:
    async with open_world(paths=True) as world:
        client, tool = await world.request(get(f"{BASE}/", host=OWN))
        await tool.head()
        await tool.send(b"HTTP/1.1 103 Early Hints\r\nSet-Cookie: a=1; Path=/\r\n\r\n" + answer(b""))
        assert f"Path={BASE}/\r\n".encode() in await client.head()


# tools with a prefix, on the Studio's own host


async def test_a_page_that_a_tool_does_not_find_is_looked_for_below_its_prefix() -> None:
    async with open_world(paths=True) as world:
        client, tool = await world.request(get("/lab?reset", HTML))
        await tool.head()
        await tool.send(answer(b"not here", status="404 Not Found"))
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 307 ")
        assert f"Location: {BASE}/lab?reset\r\n".encode() in head
        await client.send(get(f"{BASE}/lab?reset", HTML))
        again = await world.tool.accept()
        assert paths_of(await again.head()) == f"{BASE}/lab?reset".encode()
        await again.send(answer(b"not here", status="404 Not Found"))
        assert (await client.until(b"not here")).startswith(b"HTTP/1.1 404 "), "and nowhere else"


@pytest.mark.parametrize(
    "request_",
    [
        *(get("/api"), get("/x", HTML, "Content-Length: 0", method="POST"), get(BASE, HTML), get(f"{BASE}?x", HTML)),
        get(f"{BASE}/x", HTML, host=OWN),
    ],
)
async def test_other_answers_of_404_are_the_tools(request_: bytes) -> None:
    async with open_world(paths=True) as world:
        client, tool = await world.request(request_)
        await tool.head()
        await tool.send(answer(b"not here", status="404 Not Found"))
        assert (await client.until(b"not here")).startswith(b"HTTP/1.1 404 ")


async def test_without_paths_a_404_is_the_tools() -> None:
    async with open_world() as world:
        client, tool = await world.request(get("/lab", HTML))
        await tool.head()
        await tool.send(answer(b"not here", status="404 Not Found"))
        assert (await client.until(b"not here")).startswith(b"HTTP/1.1 404 ")


async def test_an_error_of_the_edge_below_a_path_may_be_seen_in_a_frame() -> None:
    async with open_world(paths=True, ancestors=["https://platform.example.org"]) as world:
        world.tool.listener.socket.close()
        world.gate.failing = True
        found = await world.ask(get(f"{BASE}/", HTML, host=OWN))
        assert b"frame-ancestors 'self' https://platform.example.org" in found
        assert b"HTTP/1.1 500 " in found
        nobodys = await world.ask(get("/nothing", HTML, host=OWN))
        assert b"frame-ancestors 'none'" in nobodys
        assert (
            json.loads((await world.ask(get("/nothing", host=OWN))).partition(b"\r\n\r\n")[2])["error"]["status"] == 404
        )
