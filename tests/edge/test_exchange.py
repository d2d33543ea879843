from __future__ import annotations

import trio

from connect_trio.edge.context import Limits
from tests.support.edge import POLICY, STUDIO, answer, eventually, get, open_world


async def test_a_request_is_carried_to_the_tool_and_its_answer_back() -> None:
    async with open_world() as world:
        client, tool = await world.request(get("/a%2Fb?c=d", "X-Own: 1"))
        head = await tool.head()
        assert head.startswith(b"GET /a%2Fb?c=d HTTP/1.1\r\nHost: " + STUDIO.encode() + b"\r\nX-Own: 1\r\n")
        assert b"X-Connect-Sub: sub-alice\r\n" in head
        await tool.send(answer(b"hello", "X-Tool: yes"))
        assert await client.head() == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Tool: yes\r\n" + POLICY + b"\r\n"
        assert await client.exactly(5) == b"hello"


async def test_both_connections_are_kept_for_the_next_request() -> None:
    async with open_world() as world:
        client, tool = await world.request(get("/1"))
        for i in range(3):
            assert (await tool.head()).startswith(b"GET /%d " % (i + 1))
            await tool.send(answer(b"%d" % i))
            await client.head()
            assert await client.exactly(1) == b"%d" % i
            if i < 2:
                await client.send(get(f"/{i + 2}"))
        assert len(world.dialer.targets) == 1


async def test_streams_are_not_shared_between_visitors() -> None:
    async with open_world() as world:
        client, tool = await world.request(get())
        await tool.head()
        await tool.send(answer(b""))
        await client.head()
        world.gate.subject = "sub-bob"
        _, tool = await world.request(get())
        assert b"X-Connect-Sub: sub-bob\r\n" in await tool.head()
        assert len(world.dialer.targets) == 2


async def test_a_head_may_arrive_byte_by_byte() -> None:
    async with open_world() as world:
        client = await world.client()
        await client.send_bytewise(get("/slowly"))
        tool = await world.tool.accept()
        assert (await tool.head()).startswith(b"GET /slowly ")
        await tool.send_bytewise(answer(b"slow"))
        await client.head()
        assert await client.exactly(4) == b"slow"


async def test_pipelined_requests_are_answered_in_turn() -> None:
    async with open_world() as world:
        client, tool = await world.request(get("/1") + get("/2") + get("/3"))
        for i in (b"1", b"2", b"3"):
            assert (await tool.head()).startswith(b"GET /" + i)
            await tool.send(answer(i))
            await client.head()
            assert await client.exactly(1) == i


async def test_a_body_of_known_length_is_streamed_both_ways() -> None:
    size, piece = 3_000_000, b"x" * 100_000
    async with open_world() as world:
        client, tool = await world.request(get("/", f"Content-Length: {size}", method="PUT"))
        assert f"Content-Length: {size}\r\n".encode() in await tool.head()
        async with trio.open_nursery() as nursery:

            async def upload() -> None:
                for _ in range(size // len(piece)):
                    await client.send(piece)

            nursery.start_soon(upload)
            assert await tool.exactly(size) == piece * 30

            async def download() -> None:
                await tool.send(answer(piece * 30))

            nursery.start_soon(download)
            await client.head()
            assert await client.exactly(size) == piece * 30
        await client.send(get("/again"))
        assert (await tool.head()).startswith(b"GET /again "), "both connections are still in use"


async def test_chunked_bodies_are_chunked_again_both_ways() -> None:
    async with open_world() as world:
        client, tool = await world.request(
            get("/", "Transfer-Encoding: chunked", method="POST") + b"3;ext=1\r\nabc\r\n2\r\nde\r\n"
        )
        head = await tool.head()
        assert b"Transfer-Encoding: chunked\r\n" in head
        assert b"Content-Length" not in head
        assert await tool.until(b"e\r\n") == b"5\r\nabcde\r\n"
        await client.send(b"1\r\nf\r\n0\r\nX-Trailer: 1\r\n\r\n")
        assert await tool.until(b"0\r\n\r\n") == b"1\r\nf\r\n0\r\n\r\n"
        await tool.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n")
        assert b"Transfer-Encoding: chunked\r\n" in await client.head()
        assert await client.until(b"z\r\n") == b"3\r\nxyz\r\n"
        await tool.send(b"0\r\n\r\n")
        assert await client.until(b"0\r\n\r\n") == b"0\r\n\r\n"
        await client.send(get("/again"))
        assert (await tool.head()).startswith(b"GET /again ")


async def test_answers_to_head_and_answers_without_content_have_no_body() -> None:
    async with open_world() as world:
        client, tool = await world.request(get("/", method="HEAD"))
        await tool.head()
        await tool.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        assert await client.head() == b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n" + POLICY + b"\r\n"
        await client.send(get("/2"))
        await tool.head()
        await tool.send(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: 1\r\n\r\n")
        assert await client.head() == b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: 1\r\n\r\n"
        await client.send(get("/3"))
        await tool.head()
        await tool.send(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
        assert await client.head() == b"HTTP/1.1 204 No Content\r\n" + POLICY + b"\r\n"
        await client.send(get("/4"))
        assert (await tool.head()).startswith(b"GET /4 ")


async def test_interim_answers_pass_before_the_final_one() -> None:
    async with open_world() as world:
        client, tool = await world.request(get())
        await tool.head()
        await tool.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
        assert await client.head() == b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
        assert await client.head() == b"HTTP/1.1 102 Processing\r\n\r\n"
        await tool.send(answer(b"done"))
        assert (await client.head()).startswith(b"HTTP/1.1 200")


async def test_who_expects_100_continue_sends_its_body_after_the_tool_agreed() -> None:
    async with open_world() as world:
        client, tool = await world.request(get("/", "Expect: 100-continue", "Content-Length: 4", method="PUT"))
        assert b"Expect: 100-continue\r\n" in await tool.head()
        await tool.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"body")
        assert await tool.exactly(4) == b"body"
        await tool.send(answer(b"thanks"))
        assert b"Connection: close" not in await client.head()
        assert await client.exactly(6) == b"thanks"


async def test_who_expects_100_continue_can_be_refused_before_it_sends_its_body() -> None:
    async with open_world() as world:
        client, tool = await world.request(get("/", "Expect: 100-continue", "Content-Length: 4", method="PUT"))
        await tool.head()
        await tool.send(answer(b"too large", status="413 Content Too Large"))
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 413 ")
        assert b"Connection: close\r\n" in head
        assert await client.rest() == b"too large"
        assert await tool.is_reset()


async def test_an_answer_during_the_upload_arrives_and_ends_both_connections() -> None:
    async with open_world() as world:
        client, tool = await world.request(get("/", "Content-Length: 100000000", method="POST") + b"x" * 1000)
        await tool.head()
        await tool.send(answer(b"no", status="413 Content Too Large"))
        await tool.close()
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 413 ")
        assert b"Connection: close\r\n" in head
        assert await client.exactly(2) == b"no"
        await client.send(b"x" * 100_000)  # is still taken in, so that it does not destroy the answer
        assert await client.rest() == b""


async def test_a_tool_may_answer_while_it_reads() -> None:
    async with open_world() as world:
        client, tool = await world.request(get("/", "Content-Length: 8", method="POST"))
        await tool.head()
        await tool.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        await client.head()
        for piece in (b"ab", b"cd", b"ef", b"gh"):
            await client.send(piece)
            assert await tool.exactly(2) == piece
            await tool.send(piece)
            assert await client.exactly(2) == piece
        assert await client.rest() == b""


async def test_http_1_0_gets_an_answer_without_chunks_that_ends_with_the_connection() -> None:
    async with open_world() as world:
        client, tool = await world.request(get("/", "Expect: 100-continue", "Connection: keep-alive", version="1.0"))
        head = await tool.head()
        assert head.startswith(b"GET / HTTP/1.1\r\n")
        assert b"Expect" not in head
        await tool.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        await tool.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        assert await client.rest() == b"HTTP/1.1 200 OK\r\n" + POLICY + b"Connection: close\r\n\r\nabc"


async def test_an_answer_that_lasts_until_the_end_is_chunked_and_its_stream_not_used_again() -> None:
    async with open_world() as world:
        client, tool = await world.request(get())
        await tool.head()
        await tool.send(b"HTTP/1.0 200 OK\r\n\r\nabc")
        assert b"Transfer-Encoding: chunked\r\n" in await client.head()
        assert await client.until(b"c\r\n") == b"3\r\nabc\r\n"
        await tool.send(b"de")
        assert await client.until(b"e\r\n") == b"2\r\nde\r\n"
        await tool.close()
        assert await client.until(b"0\r\n\r\n") == b"0\r\n\r\n"
        await client.send(get("/2"))
        assert (await (await world.tool.accept()).head()).startswith(b"GET /2 ")


async def test_streams_after_odd_answers_are_not_used_again() -> None:
    odd = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx",
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx and more than it said",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    )
    async with open_world() as world:
        client = await world.client()
        for text in odd:
            await client.send(get())
            tool = await world.tool.accept()
            await tool.head()
            await tool.send(text)
            await client.head()
            await client.until(b"0\r\n\r\n" if b"chunked" in text else b"x")


async def test_a_stream_that_the_tool_has_closed_meanwhile_is_replaced_without_the_visitor_noticing() -> None:
    async with open_world() as world:
        client, tool = await world.request(get("/1"))
        await tool.head()
        await tool.send(answer(b""))
        await client.head()
        await tool.close()
        await client.send(get("/2"))
        tool = await world.tool.accept()
        assert (await tool.head()).startswith(b"GET /2 ")
        await tool.send(answer(b""))
        assert (await client.head()).startswith(b"HTTP/1.1 200")


async def test_requests_that_must_not_be_repeated_get_a_new_stream() -> None:
    async with open_world() as world:
        client, tool = await world.request(get("/1"))
        await tool.head()
        await tool.send(answer(b""))
        await client.head()
        await client.send(get("/2", "Content-Length: 1", method="POST") + b"x")
        tool = await world.tool.accept()
        assert (await tool.head()).startswith(b"POST /2 ")
        await tool.close()
        assert (await client.head()).startswith(b"HTTP/1.1 502 ")


async def test_a_truncated_answer_is_visible_as_a_reset() -> None:
    truncated = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    )
    async with open_world() as world:
        for text in truncated:
            client, tool = await world.request(get())
            await tool.head()
            await tool.send(text)
            await tool.close()
            assert await client.is_reset()
        client, tool = await world.request(get("/", version="1.0"))
        await tool.head()
        await tool.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        await client.head()
        tool.reset()
        assert await client.is_reset(), "until the end of the stream, but not by a reset"


async def test_a_visitor_that_leaves_during_an_answer_resets_the_tool() -> None:
    async with open_world() as world:
        client, tool = await world.request(get())
        await tool.head()
        await tool.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        await client.head()
        client.reset()
        assert await tool.is_reset()


async def test_a_visitor_that_leaves_while_the_tool_is_silent_resets_the_tool() -> None:
    async with open_world() as world:
        client, tool = await world.request(get())
        await tool.head()
        client.reset()
        assert await tool.is_reset()
        await eventually(lambda: world.edge.connections == 0)


async def test_a_visitor_that_only_ends_its_sending_side_gets_its_answer() -> None:
    async with open_world() as world:
        client, tool = await world.request(get("/1") + get("/2"))
        await client.stream.send_eof()
        for _ in range(2):
            await tool.head()
            await trio.sleep(0.1)
            await tool.send(answer(b"x"))
            await client.head()
            await client.exactly(1)
        assert await client.rest() == b""


async def test_a_half_closed_visitor_is_given_up_when_the_tool_stays_silent() -> None:
    async with open_world(limits=Limits(half_closed=0.1, housekeeping=0.02)) as world:
        client, tool = await world.request(get())
        await tool.head()
        await client.stream.send_eof()
        assert await tool.is_reset()


async def test_a_visitor_that_leaves_during_its_upload_resets_the_tool() -> None:
    async with open_world() as world:
        client, tool = await world.request(get("/", "Content-Length: 1000", method="PUT") + b"abc")
        await tool.head()
        await tool.exactly(3)
        await client.close()
        assert await tool.is_reset()


async def test_malformed_chunks_of_a_visitor_are_a_bad_request() -> None:
    async with open_world() as world:
        client, tool = await world.request(get("/", "Transfer-Encoding: chunked", method="PUT") + b"1\r\na\r\n")
        await tool.until(b"a\r\n")
        await client.send(b"1\r\nbXX")
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"Connection: close\r\n" in head
        assert await tool.is_reset()


async def test_a_visitor_that_does_not_read_holds_up_the_tool() -> None:
    async with open_world() as world:
        client, tool = await world.request(get())
        await tool.head()
        await tool.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
        with trio.move_on_after(1) as scope:
            await tool.send(b"x" * 200_000_000)
        assert scope.cancelled_caught
        other, tool = await world.request(get("/other"))
        await tool.head()
        await tool.send(answer(b"x"))
        assert (await other.head()).startswith(b"HTTP/1.1 200 ")
        client.reset()
