"""How a tunnel begins: what is asked, what is answered, and everything that goes wrong instead."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.mux.transport import Transport
from connect_trio.transport.tunnels import MAX_HEAD, Opened, TunnelRequest, TurnedAway, accept_tunnel, dial_tunnel
from connect_trio.transport.websocket import MAX_REFUSAL, REFUSAL, HandshakeError, UpgradeRefused
from tests.support.examples import examples
from tests.support.transports import PATIENCE, Pair, read_exactly, read_some, socket_pair, tunnel_pair, write_all

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: connect-mux\r\nConnection: Upgrade\r\n\r\n"
KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
both_carriers = pytest.mark.parametrize("raw", [True, False], ids=["raw", "WebSocket"])


def ask(*lines: bytes, carrier: bytes = b"connect-mux", first: bytes = b"GET /t HTTP/1.1") -> bytes:
    head = (first, b"Host: connect.test", b"Upgrade: " + carrier, b"Connection: Upgrade", *lines)
    return b"\r\n".join(head) + b"\r\n\r\n"


@asynccontextmanager
async def patient_pair() -> AsyncIterator[Pair]:
    with trio.fail_after(PATIENCE):
        async with socket_pair() as pair:
            yield pair


async def head_of(transport: Transport) -> bytes:
    out = b""
    while not out.endswith(b"\r\n\r\n"):
        out += await read_exactly(transport, 1)
    return out


# what passes


@both_carriers
async def test_both_ends_agree_and_bytes_pass(raw: bool) -> None:
    async with tunnel_pair(raw=raw) as (agent, server):
        await write_all(agent, b"from the agent")
        assert await read_exactly(server, 14) == b"from the agent"
        await write_all(server, b"from the server")
        assert await read_exactly(agent, 15) == b"from the server"


async def test_the_raw_carrier_has_no_framing() -> None:
    async with tunnel_pair(raw=True) as (agent, server):
        agent.send_now((b"x" * 100,))
        assert await read_some(server) == b"x" * 100


@both_carriers
async def test_the_request_carries_its_headers_to_the_server(raw: bool) -> None:
    async with patient_pair() as (near, far):
        requests: list[dict[bytes, bytes]] = []

        async def accept() -> None:
            request, _ = await accept_tunnel(far)
            assert request.carrier == (b"connect-mux" if raw else b"websocket")
            requests.append(request.headers)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            headers = [(b"X-Connect-Session", b"23ce7967"), (b"Authorization", b"Bearer abc")]
            await dial_tunnel(near, host="connect.test:8080", target="/t", headers=headers, raw=raw)
        assert requests[0][b"x-connect-session"] == b"23ce7967"
        assert requests[0][b"authorization"] == b"Bearer abc"
        assert requests[0][b"host"] == b"connect.test:8080"


@both_carriers
async def test_a_request_that_is_turned_away_is_told_why(raw: bool) -> None:
    def admit(request: TunnelRequest) -> None:
        raise TurnedAway(HTTPStatus.CONFLICT, f"not for {request.headers[b'x-who'].decode()}")

    async with patient_pair() as (near, far):

        async def accept() -> None:
            with pytest.raises(TurnedAway, match="not for me"):
                await accept_tunnel(far, admit)
            far.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            with pytest.raises(UpgradeRefused) as caught:
                await dial_tunnel(near, host="h", target="/t", headers=[(b"X-Who", b"me")], raw=raw)
        assert (caught.value.status, caught.value.body) == (409, '{"error": "not for me"}')


async def test_the_answers_headers_are_told_by_the_raw_carrier() -> None:
    async with answering(SWITCHED[:-2] + b"X-Connect-Proxy: 01\r\n\r\n") as dial:
        assert (await dial(True)).headers[b"x-connect-proxy"] == b"01"


async def test_bytes_behind_the_raw_request_are_the_first_of_the_tunnel() -> None:
    async with patient_pair() as (agent, server):
        await write_all(agent, ask() + b"early")
        _, opened = await accept_tunnel(server)
        assert opened.early == b"early"
        assert await read_some(agent) == SWITCHED


async def test_bytes_behind_the_raw_answer_are_the_first_of_the_tunnel() -> None:
    async with answering(SWITCHED + b"early") as dial:
        opened = await dial(True)
        assert opened.early == b"early"


async def test_frames_behind_a_websockets_answer_are_the_first_of_the_tunnel() -> None:
    async with patient_pair() as (agent, server):

        async def accept() -> None:
            _, opened = await accept_tunnel(server)
            await write_all(opened.transport, b"at once")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            # Not before both are there: the answer and the first frame come in one piece.
            nursery.start_soon(trio.testing.wait_all_tasks_blocked)
            opened = await dial_tunnel(agent, host="connect.test", target="/t", headers=[], raw=False)
        assert await read_exactly(opened.transport, 7) == b"at once"


@both_carriers
async def test_heads_may_arrive_byte_by_byte(raw: bool) -> None:
    async with patient_pair() as (agent, server):
        accepted = trio.Event()

        async def accept() -> None:
            await accept_tunnel(server)
            accepted.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            request = ask() if raw else ask(KEY.rstrip(), carrier=b"websocket")
            for at in range(len(request)):
                assert not accepted.is_set()
                await write_all(agent, request[at : at + 1])
                await trio.testing.wait_all_tasks_blocked()
        assert (await head_of(agent)).startswith(b"HTTP/1.1 101 ")


async def test_interim_answers_are_passed_over_even_in_one_piece_with_the_final_one() -> None:
    early_hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with answering(early_hints * 2 + SWITCHED + b"early") as dial:
        assert (await dial(True)).early == b"early"
    async with answering(early_hints + b"HTTP/1.1 503 X\r\nContent-Length: 4\r\n\r\nbusy") as dial:
        with pytest.raises(UpgradeRefused, match="answered 503: busy"):
            await dial(True)


# what a server refuses


@pytest.mark.parametrize(
    ("request_bytes", "reason"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "not an HTTP request"),
        (b"\0" * 100 + b"\r\n\r\n", "not an HTTP request"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "not an HTTP request"),
        (ask(b"X: " + b"y" * MAX_HEAD), "not an HTTP request: longer than"),
        (b"GET /t HTTP/1.1\r\nHost: h\r\n\r\n", "does not ask for a tunnel"),
        (ask(carrier=b"h2c"), "does not ask for a tunnel"),
        (ask(first=b"POST /t HTTP/1.1"), "does not ask for a tunnel"),
        (ask(first=b"GET /t HTTP/1.0"), "needs HTTP/1.1"),
        (ask(b"Content-Length: 5"), "without a body"),
        (ask(b"Transfer-Encoding: chunked"), "without a body"),
        (ask(carrier=b"websocket"), "not a WebSocket handshake: Missing header, 'Sec-WebSocket-Version'"),
        (ask(b"Sec-WebSocket-Version: 13", carrier=b"websocket"), "Missing header, 'Sec-WebSocket-Key'"),
        (ask(KEY.rstrip(), carrier=b"websocket") + b"\x82\x80\0\0\0\0", "before the handshake was answered"),
        (ask(KEY.rstrip(), carrier=b"websocket").replace(b"connect.test", b"xn--\xff"), "not a WebSocket handshake"),
        (ask(KEY.rstrip(), carrier=b"websocket", first=b"GET /t HTTP/1.0"), "needs HTTP/1.1"),
    ],
)
async def test_a_server_says_what_is_wrong_with_a_request(request_bytes: bytes, reason: str) -> None:
    async with patient_pair() as (agent, server), trio.open_nursery() as nursery:
        nursery.start_soon(write_all, agent, request_bytes)
        with pytest.raises(HandshakeError, match=reason):
            await accept_tunnel(server)


async def test_an_endless_head_is_refused_before_it_ends() -> None:
    async with patient_pair() as (agent, server), trio.open_nursery() as nursery:
        nursery.start_soon(write_all, agent, b"GET /t HTTP/1.1\r\nX: " + b"y" * (2 * MAX_HEAD))
        with pytest.raises(HandshakeError, match="longer than"):
            await accept_tunnel(server)


async def test_a_peer_that_leaves_within_its_request_is_no_tunnel() -> None:
    async with patient_pair() as (agent, server):
        await write_all(agent, ask()[:20])
        agent.close()
        with pytest.raises(HandshakeError, match="the connection ended within the handshake"):
            await accept_tunnel(server)


@examples(100)
@given(st.binary(max_size=300), st.sampled_from([b"", ask()[:40], b"GET / HTTP/1.1\r\n"]))
def test_no_bytes_make_a_server_fail_in_another_way(noise: bytes, before: bytes) -> None:
    async def main() -> None:
        async with patient_pair() as (agent, server):
            await write_all(agent, before + noise)
            agent.close()
            try:
                await accept_tunnel(server)
            except (HandshakeError, trio.BrokenResourceError):
                return

    trio.run(main)


# what an agent is refused, or does not believe


@asynccontextmanager
async def answering(answer: bytes, *, close: bool = False) -> AsyncIterator[Callable[[bool], Awaitable[Opened]]]:
    """Dial a server that gives this answer to whatever it is asked; `close`: and then closes."""
    async with patient_pair() as (near, far):

        async def serve() -> None:
            await head_of(far)
            await write_all(far, answer)
            if close:
                far.close()

        async def dial(raw: bool) -> Opened:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                await trio.testing.wait_all_tasks_blocked()
                try:
                    return await dial_tunnel(near, host="connect.test", target="/t", headers=[], raw=raw)
                except Exception as exc:  # noqa: BLE001 - raised below, whatever it is
                    failure = exc
            raise failure

        yield dial


@both_carriers
async def test_a_refusal_tells_its_status_and_body(raw: bool) -> None:
    body = b'{"error": "the token has expired"}\n'
    answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    async with answering(answer) as dial:
        with pytest.raises(UpgradeRefused, match="the server answered 401: ") as caught:
            await dial(raw)
    assert (caught.value.status, caught.value.body) == (401, '{"error": "the token has expired"}')


@both_carriers
@pytest.mark.parametrize(
    ("answer", "close", "body"),
    [
        (b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", False, ""),
        (b"HTTP/1.1 503 X\r\n\r\nuntil the end", True, "until the end"),
        (b"HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nnot\r\n4\r\n now\r\n0\r\n\r\n", False, "not now"),
        (b"HTTP/1.1 503 X\r\nContent-Length: 100\r\n\r\ncut off", True, "cut off"),
        (b"HTTP/1.1 503 X\r\nContent-Length: 5\r\n\r\n\xff\xfe ok", False, "\ufffd\ufffd ok"),
        (b"HTTP/1.1 503 X\r\nContent-Length: 100000\r\n\r\n" + b"y" * 9000, False, "y" * MAX_REFUSAL),
    ],
    ids=["no body", "until the end", "chunked", "cut off", "not UTF-8", "long"],
)
async def test_a_refusal_is_read_however_it_ends(raw: bool, answer: bytes, close: bool, body: str) -> None:
    async with answering(answer, close=close) as dial:
        with pytest.raises(UpgradeRefused) as caught:
            await dial(raw)
    assert (caught.value.status, caught.value.body) == (503, body)


@both_carriers
async def test_a_refusal_does_not_wait_long_for_its_body(raw: bool, autojump_clock: trio.testing.MockClock) -> None:
    async with answering(b"HTTP/1.1 403 X\r\nContent-Length: 100\r\n\r\nslow") as dial:
        with pytest.raises(UpgradeRefused) as caught:
            await dial(raw)
    assert (caught.value.status, caught.value.body) == (403, "slow")
    assert trio.current_time() == pytest.approx(REFUSAL)


@both_carriers
@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 X\r\nX: " + b"y" * (MAX_HEAD * 2) + b"\r\n\r\n",
    ],
    ids=["SSH", "zeroes", "another protocol", "no protocol", "long head"],
)
async def test_an_answer_that_is_no_upgrade_is_not_believed(raw: bool, answer: bytes) -> None:
    async with answering(answer) as dial:
        with pytest.raises(HandshakeError) as caught:
            await dial(raw)
    assert not isinstance(caught.value, UpgradeRefused)


async def test_a_websocket_with_the_wrong_key_is_not_believed() -> None:
    answer = SWITCHED.replace(b"connect-mux", b"websocket")[:-2] + b"Sec-WebSocket-Accept: bm90IHRoZSByaWdodA==\r\n\r\n"
    async with answering(answer) as dial:
        with pytest.raises(HandshakeError, match="not a WebSocket handshake"):
            await dial(False)


@both_carriers
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101 Swi"])
async def test_a_server_that_leaves_instead_of_answering_is_no_tunnel(raw: bool, answer: bytes) -> None:
    async with answering(answer, close=True) as dial:
        with pytest.raises(HandshakeError, match=r"the connection ended|the server closed the connection"):
            await dial(raw)


@both_carriers
@pytest.mark.parametrize("value", [b"a\r\nX-Connect-Session: 5f0c1d2e", b"a\nb", b"a\0b", b"\xff"])
async def test_a_header_that_would_break_the_request_is_not_sent(raw: bool, value: bytes) -> None:
    async with patient_pair() as (near, far):
        with pytest.raises(ValueError, match="the header Authorization has characters that cannot be sent"):
            await dial_tunnel(near, host="h", target="/t", headers=[(b"Authorization", value)], raw=raw)
        near.close()
        assert await read_some(far) == b""
