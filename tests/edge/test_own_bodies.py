"""Bodies that are meant for Connect itself: read where a page wants one, bounded, and never in the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from connect_trio.edge.context import Limits
from connect_trio.edge.gate import Reply
from tests.support.edge import OWN, STUDIO, World, get, open_world

PATH, LIMIT = "/_connect/told", 1000


@asynccontextmanager
async def reading_world(limits: Limits | None = None) -> AsyncIterator[World]:
    async with open_world(limits=limits) as world:
        world.gate.pages = {PATH.encode(): Reply(status=200, body=b"heard"), b"/": Reply(status=200, body=b"front")}
        world.gate.body_limits = {PATH.encode(): LIMIT}
        yield world


def post(*headers: str, host: str = OWN, path: str = PATH) -> bytes:
    return get(path, *headers, host=host, method="POST")


def heard(world: World) -> list[bytes]:
    return [request.body for request in world.gate.requests]


async def test_a_body_of_known_length_is_read_in_whatever_pieces_it_comes() -> None:
    async with reading_world() as world:
        client = await world.client()
        await client.send_bytewise(post("Content-Length: 5") + b"hello")
        assert b" 200 OK" in await client.head()
        await client.exactly(5)
        assert heard(world) == [b"hello"]
        assert "hello" not in repr(world.gate.requests)


@pytest.mark.parametrize("size", [0, 1, LIMIT])
async def test_another_request_may_follow(size: int) -> None:
    async with reading_world() as world:
        client = await world.client()
        await client.send(post(f"Content-Length: {size}") + b"x" * size + get("/", host=OWN))
        for answer in (b"heard", b"front"):
            assert b" 200 OK" in await client.head()
            assert await client.exactly(5) == answer
        assert heard(world) == [b"x" * size, b""]


async def test_a_chunked_body_is_read() -> None:
    async with reading_world() as world:
        client = await world.client()
        await client.send(post("Transfer-Encoding: chunked") + b"3\r\nhel\r\n")
        await client.send(b"2;x=y\r\nlo\r\n0\r\nTrailer: t\r\n\r\n" + get("/", host=OWN))
        for answer in (b"heard", b"front"):
            await client.head()
            assert await client.exactly(5) == answer
        assert heard(world)[0] == b"hello"


async def test_who_waits_to_be_asked_for_the_body_is_asked() -> None:
    async with reading_world() as world:
        client = await world.client()
        await client.send(post("Content-Length: 5", "Expect: 100-continue"))
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"hello")
        assert b" 200 OK" in await client.head()
        assert heard(world) == [b"hello"]


async def test_a_body_that_is_too_long_is_refused_before_it_comes() -> None:
    async with reading_world() as world:
        client = await world.client()
        await client.send(post(f"Content-Length: {LIMIT + 1}", "Expect: 100-continue"))
        head = await client.head()
        assert b" 413 " in head
        assert b"Connection: close" in head
        assert heard(world) == []


async def test_chunks_that_are_too_much_are_refused() -> None:
    async with reading_world() as world:
        client = await world.client()
        await client.send(post("Transfer-Encoding: chunked") + b"1f4\r\n%b\r\n" % (b"x" * 500) * 3)
        assert b" 413 " in await client.head()
        assert heard(world) == []


@pytest.mark.parametrize("chunks", [b"zz\r\n", b"5\r\nhello!!", b"-1\r\n"])
async def test_malformed_chunks_are_refused(chunks: bytes) -> None:
    async with reading_world() as world:
        assert b" 400 " in await world.ask(post("Transfer-Encoding: chunked") + chunks)
        assert heard(world) == []


async def test_a_body_that_does_not_come_is_not_waited_for_without_end() -> None:
    async with reading_world(Limits(linger=0.2, own_body=0.05)) as world:
        client = await world.client()
        await client.send(post("Content-Length: 5") + b"hel")
        assert b" 408 " in await client.head()
        assert heard(world) == []


async def test_a_sender_that_goes_away_within_its_body_is_not_heard() -> None:
    async with reading_world() as world:
        client = await world.client()
        await client.send(post("Content-Length: 5") + b"hel")
        client.reset()
        assert await world.ask(get("/", "Connection: close", host=OWN))
        assert heard(world) == [b""]


async def test_other_pages_and_other_hosts_have_no_body() -> None:
    async with reading_world() as world:
        world.gate.body_limits = {}
        for host in (OWN, STUDIO):
            client = await world.client()
            await client.send(post("Content-Length: 5", host=host) + b"hello")
            assert b" 200 OK" in await client.head()
        assert heard(world) == [b"", b""]
