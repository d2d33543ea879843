"""What is refused before it reaches anybody, and what a tool gets to see of what is not."""

from __future__ import annotations

import json

import pytest

from tests.support.edge import OWN, POLICY, STUDIO, World, answer, get, open_world

HOST = f"Host: {STUDIO}\r\n".encode()

SMUGGLING = {
    "Content-Length and Transfer-Encoding": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "the same, the other way round": b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths that differ": b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "two lengths that agree": b"Content-Length: 3\r\ncontent-length: 3\r\n\r\nabc",
    "two lengths of nothing": b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a list of lengths": b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": b"Content-Length: +3\r\n\r\nabc",
    "a negative length": b"Content-Length: -3\r\n\r\nabc",
    "a hexadecimal length": b"Content-Length: 0x3\r\n\r\nabc",
    "a length that is too long": b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
    "an empty length": b"Content-Length:\r\n\r\n",
    "a space before the colon": b"Content-Length : 3\r\n\r\nabc",
    "a space before the colon of Transfer-Encoding": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded line": b"X-Folded: a\r\n b\r\n\r\n",
    "a folded Transfer-Encoding": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a bare LF": b"X-A: a\nX-B: b\r\n\r\n",
    "a bare LF at the end": b"X-A: a\r\n\n",
    "a bare CR": b"X-A: a\rX-B: b\r\n\r\n",
    "a NUL": b"X-A: a\0b\r\n\r\n",
    "two Hosts": b"Host: other.example\r\n\r\n",
    "a header without a name": b": x\r\n\r\n",
    "a header without a colon": b"nonsense\r\n\r\n",
    "a control character in a name": b"X\x0bA: a\r\n\r\n",
}


@pytest.mark.parametrize("rest", SMUGGLING.values(), ids=SMUGGLING.keys())
async def test_what_two_readers_could_read_differently_is_refused(rest: bytes) -> None:
    async with open_world() as world:
        found = await world.ask(b"POST / HTTP/1.1\r\n" + HOST + rest + get("/smuggled"))
        assert found.startswith(b"HTTP/1.1 400 ")
        assert b"\r\nConnection: close\r\n" in found
        assert found.count(b"HTTP/1.1 ") == 1, "nothing after it is read as a request"
        assert not world.dialer.targets


UNSUPPORTED = {
    "another coding": (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "an obscured coding": (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n", 501),
    "two codings": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        501,
    ),
    "chunks in HTTP/1.0": (b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n" + HOST + b"\r\n", 505),
    "no version": (b"GET /\r\n\r\n", 400),
    "two spaces": (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a leading space": (b" GET / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a leading empty line": (b"\r\nGET / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "no Host in HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", 400),
    "an incomplete head": (b"GET / HTTP/1.1\r\nHost: x", 400),
    "a malformed Host": (get("/", host="a23ce7967.connect.localhost:port"), 400),
    "an empty Host": (get("/", host=""), 400),
    "a Host with a trailing dot": (get("/", host="a23ce7967.connect.localhost."), 400),
    "an unknown Host": (get("/", host="other.example"), 404),
    "a Host that begins like ours": (get("/", host=f"{OWN}.example".replace(":8080", "")), 404),
    "CONNECT": (get("other.example:443", method="CONNECT"), 405),
    "TRACE": (get("/", method="TRACE"), 405),
    "a URL of another host": (get("http://other.example/"), 400),
    "a URL with user information": (get(f"http://user@{STUDIO}/"), 400),
    "a target that is no path": (get("nonsense"), 400),
    "a target with a fragment": (get("/a#b"), 400),
    "an asterisk with GET": (get("*"), 400),
}


@pytest.mark.parametrize(("request_", "status"), UNSUPPORTED.values(), ids=UNSUPPORTED.keys())
async def test_what_cannot_be_served_is_refused(request_: bytes, status: int) -> None:
    async with open_world() as world:
        found = await world.ask(request_)
        assert found.startswith(b"HTTP/1.1 %d " % status)
        assert json.loads(found.partition(b"\r\n\r\n")[2])["error"]["status"] == status
        assert not world.dialer.targets


async def seen_by_tool(world: World, request: bytes) -> bytes:
    """The head that the tool receives, after the request line."""
    _, tool = await world.request(request)
    return (await tool.head()).partition(b"\r\n")[2]


async def test_a_url_of_our_host_is_sent_as_a_path() -> None:
    async with open_world() as world:
        _, tool = await world.request(get(f"http://{STUDIO.upper()}/a?b"))
        assert (await tool.head()).startswith(b"GET /a?b HTTP/1.1\r\n")


async def test_options_for_the_whole_server_pass() -> None:
    async with open_world() as world:
        _, tool = await world.request(get("*", method="OPTIONS"))
        assert (await tool.head()).startswith(b"OPTIONS * HTTP/1.1\r\n")


async def test_hop_by_hop_headers_end_here_and_end_to_end_headers_cannot_be_nominated() -> None:
    async with open_world() as world:
        head = await seen_by_tool(
            world,
            get(
                "/",
                "CONNECTION: keep-alive, X-Hop, Authorization, Host, X-Connect-Sub, X-Forwarded-For, Cookie",
                "Keep-Alive: 5",
                "TE: trailers",
                "Proxy-Authorization: Basic eDp5",
                "Proxy-Connection: keep-alive",
                "Upgrade: h2c",
                "HTTP2-Settings: AAAA",
                "Proxy: http://evil.example",
                "X-Hop: 1",
                "Authorization: token abc",
                "Cookie: a=b",
                "X-End: 1",
            ),
        )
        names = [line.partition(b":")[0] for line in head.strip().split(b"\r\n")]
        assert names == [
            *(b"Host", b"Authorization", b"Cookie", b"X-End"),
            *(b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Port", b"Forwarded", b"X-Forwarded-Host"),
            *(b"X-Connect-Sub", b"X-Connect-User"),
        ]


@pytest.mark.parametrize(
    "name",
    [
        *("X-Connect-Sub", "x-connect-sub", "X_Connect_Sub", "X.Connect.Sub", "x-connect_USER", "X-Connect-Anything"),
        *("X-Forwarded-For", "X_Forwarded_For", "X-Forwarded-Prefix", "Forwarded", "X-Real-IP", "X_Real_IP"),
        *("Content_Length", "Transfer_Encoding", "Content.Type"),
    ],
)
async def test_no_visitor_can_say_what_only_connect_may_say(name: str) -> None:
    async with open_world() as world:
        head = await seen_by_tool(world, get("/", f"{name}: forged"))
        assert b"forged" not in head
        assert b"X-Connect-Sub: sub-alice\r\nX-Connect-User: alice\r\n" in head


async def test_identities_are_encoded_so_that_they_stay_one_header() -> None:
    async with open_world() as world:
        world.gate.subject, world.gate.username = "a|1%\r\nX-Evil: 1", "Zoë"
        head = await seen_by_tool(world, get())
        assert b"X-Connect-Sub: a|1%25%0D%0AX-Evil:%201\r\nX-Connect-User: Zo%C3%AB\r\n" in head


async def test_the_visitor_is_described_by_what_we_know() -> None:
    async with open_world(url=f"https://{OWN}") as world:
        head = await seen_by_tool(world, get("/", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: http"))
        assert b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 8080\r\n" in head
        assert f'Forwarded: for=127.0.0.1;host="{STUDIO}";proto=https\r\n'.encode() in head
        assert f"X-Forwarded-Host: {STUDIO}\r\n".encode() in head
        assert world.gate.requests[0].client == "127.0.0.1"


async def test_a_trusted_proxy_may_describe_the_visitor() -> None:
    async with open_world(trusted=["127.0.0.0/8", "10.0.0.0/8"]) as world:
        head = await seen_by_tool(
            world,
            get(
                "/",
                "X-Forwarded-For: 6.6.6.6, 203.0.113.9",
                "X-Forwarded-For: 10.0.0.1",
                "X-Forwarded-Proto: https",
                "X-Forwarded-Port: 443",
            ),
        )
        assert b"X-Forwarded-For: 203.0.113.9, 10.0.0.1, 127.0.0.1\r\n" in head
        assert b"X-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n" in head
        assert world.gate.requests[0].client == "203.0.113.9"


async def test_our_cookies_do_not_reach_the_tool() -> None:
    async with open_world() as world:
        cookie = "Cookie: a=1; connect_session=secret; __Host-connect_session=secret; connect_login=secret; b=2"
        head = await seen_by_tool(world, get("/", cookie, "Cookie: connect_session=secret"))
        assert b"Cookie: a=1; b=2\r\n" in head
        assert b"secret" not in head


async def test_tools_cannot_set_our_cookies_nor_cookies_for_other_hosts() -> None:
    async with open_world() as world:
        client, tool = await world.request(get())
        await tool.head()
        cookies = (
            "connect_session=evil; Path=/",
            "__host-Connect_Session=evil",
            "connect_login=evil",
            "=connect_session=evil",
            "connect_session",
            "own=1; Domain=connect.localhost; Path=/; HttpOnly",
            "plain=1; Path=/",
        )
        await tool.send(answer(b"", *(f"Set-Cookie: {cookie}" for cookie in cookies)))
        head = await client.head()
        assert b"evil" not in head
        assert head.count(b"Set-Cookie") == 2
        assert b"Set-Cookie: own=1; Path=/; HttpOnly\r\nSet-Cookie: plain=1; Path=/\r\n" in head


async def test_hop_by_hop_headers_of_the_tool_end_here() -> None:
    async with open_world() as world:
        client, tool = await world.request(get())
        await tool.head()
        await tool.send(
            answer(b"", "Connection: X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5", "Service-Worker-Allowed: /")
        )
        kept = b"Content-Length: 0\r\nService-Worker-Allowed: /\r\n"
        assert await client.head() == b"HTTP/1.1 200 OK\r\n" + kept + POLICY + b"\r\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_a_request_without_a_body_says_so_where_one_is_usual(method: str) -> None:
    async with open_world() as world:
        assert b"\r\nContent-Length: 0\r\n" in await seen_by_tool(world, get("/", method=method))
        assert b"Content-Length" not in await seen_by_tool(world, get())


@pytest.mark.parametrize(
    "path", ["/_connect/logout", "/_connect", "/_connect/../x", "/_connect?x=/", "/_connect/%2e%2e/x"]
)
async def test_reserved_paths_never_reach_a_tool(path: str) -> None:
    async with open_world() as world:
        assert (await world.ask(get(path))).startswith(b"HTTP/1.1 404 ")
        assert world.gate.requests[0].target == path.encode()
        assert not world.dialer.targets


@pytest.mark.parametrize(
    "path",
    [
        *("//_connect/x", "/./_connect/x", "/a/../_connect/x", "/%5Fconnect/x", "/%5fCONNECT", "/_Connect/x"),
        *("/a/%2e%2e/_connect/x", "/_connect%2fx", "/_connect%5cx", "/\\_connect/x", "///a/..//_connect"),
    ],
)
async def test_other_spellings_of_reserved_paths_lead_nowhere(path: str) -> None:
    async with open_world() as world:
        assert (await world.ask(get(path))).startswith(b"HTTP/1.1 404 ")
        assert not world.dialer.targets
        assert not world.gate.requests


@pytest.mark.parametrize(
    "path", ["/my_connect/x", "/a/_connect/x", "/_connected", "/?x=/_connect/", "/%2e/a%20b/../c//d"]
)
async def test_all_other_paths_reach_the_tool_as_they_are(path: str) -> None:
    async with open_world() as world:
        _, tool = await world.request(get(path))
        assert (await tool.head()).startswith(b"GET " + path.encode() + b" HTTP/1.1\r\n")
