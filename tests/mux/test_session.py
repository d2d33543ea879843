"""A wire on a real connection: how it ends, and that nobody's end or pause is another one's."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from connect_trio.mux import frames, session, stream
from connect_trio.mux.acceptor import Acceptor
from connect_trio.mux.codes import GoawayCode, Peer, RejectCode
from connect_trio.mux.frames import FrameType
from connect_trio.mux.hub import Hub, open_hub
from connect_trio.mux.opener import Opener
from connect_trio.mux.stream import MuxStream, StreamBroken
from connect_trio.mux.streams import CoreStream
from tests.support.core import CountingChunkPool, CountingPool, Recorder
from tests.support.mux import open_chain
from tests.support.rawpeer import RawPeer, raw_peer

F = FrameType
TOKEN = bytes(16)


def opened(hub: Hub, opener: Opener, peer: RawPeer, token: bytes = TOKEN) -> MuxStream:
    if opener not in hub._timed:
        opener.alarm = hub.alarm
        hub.add(opener)
    return MuxStream(opener.open(peer.session.wire, token=token, now=trio.current_time(), session="s"))


# how a wire ends


@pytest.mark.parametrize(
    ("garbage", "reason", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "unknown frame type 71", GoawayCode.PROTOCOL),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            "CREDIT frame with a payload of 196866 bytes",
            GoawayCode.PROTOCOL,
        ),
        (frames.encode_detach(7, 1), "HELLO must be the first frame", GoawayCode.PROTOCOL),
        (b"\x01\0\0\x28" + bytes(4) + b"\0\2\0\3" + bytes(35) + b"\0", "versions 2 to 3", GoawayCode.VERSION),
    ],
)
async def test_garbage_ends_a_wire_with_one_reason_which_the_peer_is_told(
    garbage: bytes, reason: str, code: GoawayCode
) -> None:
    async with (
        open_hub() as hub,
        raw_peer(hub, Recorder(), Peer.SWITCH, Peer.OPENER, dialled=False, greet=False) as peer,
    ):
        await peer.say(garbage)
        said = await peer.hear_all()
        await peer.ended.wait()
        assert reason in (peer.reason or "")
        assert [frame.kind for frame in said] == [F.HELLO, F.GOAWAY]
        goaway = frames.decode_goaway_untrusted(memoryview(said[1].payload))
        assert (goaway.code, goaway.text) == (code, peer.reason)


async def test_a_peer_that_closes_ends_the_wire_and_not_its_streams() -> None:
    async with open_hub() as hub, raw_peer(hub, opener := Opener(), Peer.OPENER, Peer.SWITCH, dialled=True) as peer:
        ours = opened(hub, opener, peer)
        await peer.hear()
        await peer.stream.aclose()
        await peer.ended.wait()
        assert peer.reason == "the peer closed the connection"
        assert ours.detached
        assert ours.core.end is None
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(0):
                await ours.receive_some()


async def test_a_wire_closed_here_tells_the_peer_why() -> None:
    async with open_hub() as hub, raw_peer(hub, Recorder(), Peer.SWITCH, Peer.OPENER, dialled=False) as peer:
        peer.session.close("stopping", GoawayCode.SHUTDOWN)
        peer.session.close("again", GoawayCode.PROTOCOL)
        (goaway,) = await peer.hear_all()
        assert frames.decode_goaway_untrusted(memoryview(goaway.payload)).text == "stopping"
        await peer.ended.wait()
        assert peer.reason == "stopping"
        peer.session.close("nothing happens any more")


async def test_what_was_said_before_a_wire_is_closed_still_leaves() -> None:
    async with open_hub() as hub, raw_peer(hub, Recorder(), Peer.SWITCH, Peer.OPENER, dialled=False) as peer:
        peer.session.wire.goaway(GoawayCode.DISPLACED, "a newer one")
        peer.session.close("displaced")
        assert [frame.kind for frame in await peer.hear_all()] == [F.GOAWAY]


async def test_a_silent_peer_is_dead_within_five_seconds_of_the_first_stream(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_hub() as hub, raw_peer(hub, opener := Opener(), Peer.OPENER, Peer.SWITCH, dialled=True) as peer:
        await trio.sleep(20)
        start = trio.current_time()
        ours = opened(hub, opener, peer)
        await peer.ended.wait()
        assert ours.detached
        assert 5 <= trio.current_time() - start <= 5.1
        assert [frame.kind for frame in await peer.hear_all()] == [F.OPEN, F.PING]
        assert "nothing was heard of the peer" in (peer.reason or "")


@pytest.mark.parametrize("dialled", [True, False])
async def test_a_silent_peer_of_an_idle_wire_is_dead_after_a_minute(
    autojump_clock: trio.testing.MockClock, dialled: bool
) -> None:
    async with open_hub() as hub, raw_peer(hub, Recorder(), Peer.SWITCH, Peer.OPENER, dialled=dialled) as peer:
        start = trio.current_time()
        await peer.ended.wait()
        assert 60 <= trio.current_time() - start <= 61.1
        assert [frame.kind for frame in await peer.hear_all()] == [F.PING] * dialled


async def test_a_peer_that_says_no_hello_is_dead_after_ten_seconds(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_hub() as hub,
        raw_peer(hub, Recorder(), Peer.SWITCH, Peer.OPENER, dialled=False, greet=False) as peer,
    ):
        await peer.ended.wait()
        assert 10 <= trio.current_time() <= 10.1
        assert "no HELLO came" in (peer.reason or "")


async def test_two_living_ends_keep_a_wire_up_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    async with open_chain(switched=True) as chain:
        await trio.sleep(300)
        ours, theirs = await chain.pair()
        await trio.sleep(300)
        await ours.send_all(b"still here")
        assert await theirs.receive_some() == b"still here"


async def test_a_peer_that_asks_and_never_reads_the_answers_is_given_up() -> None:
    async with open_hub() as hub, raw_peer(hub, Recorder(), Peer.SWITCH, Peer.OPENER, dialled=False) as peer:
        ping = frames.encode(F.PING, 0, bytes(8)) * 4096
        with trio.fail_after(60):
            try:
                while not peer.ended.is_set():
                    await peer.say(ping)
            except trio.BrokenResourceError:
                await peer.ended.wait()
        assert peer.reason == "the peer does not read its control frames"


async def test_an_answer_wakes_who_waits_for_it() -> None:
    async with open_chain() as chain:
        ours = MuxStream(chain.opener.open(chain.wire, token=TOKEN, now=trio.current_time(), session="s"))
        cores: list[CoreStream] = []

        async def accept_later() -> None:
            cores.append(await chain.accepted.receive())
            await trio.testing.wait_all_tasks_blocked()
            cores[0].accept()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_later)
            with trio.fail_after(5):
                await ours.wait_accepted()
        assert ours.healthy


async def test_a_refusal_wakes_who_waits_for_an_answer() -> None:
    async with open_chain(switched=True) as chain:
        ours = MuxStream(chain.opener.open(chain.wire, token=TOKEN, now=trio.current_time(), session="s"))
        async with trio.open_nursery() as nursery:

            async def reject() -> None:
                core = await chain.accepted.receive()
                core.reject(RejectCode.UNREACHABLE, "no tool")

            nursery.start_soon(reject)
            with pytest.raises(StreamBroken, match="REJECT: no tool"):
                await ours.wait_accepted()
        with pytest.raises(StreamBroken, match="no tool"):
            await ours.send_all(b"x")
        assert not ours.healthy


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("cut", ["reset", "loss"])
async def test_what_came_before_a_stream_was_cut_can_still_be_read(whole: bool, cut: str) -> None:
    async with open_chain() as chain:
        ours, theirs = await chain.pair()
        await ours.send_all(b"last words")
        if whole:
            await ours.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        if cut == "reset":
            ours.reset("enough")
        else:
            chain.sides[0].session.close("lost")
        await trio.testing.wait_all_tasks_blocked()
        assert not theirs.healthy
        assert theirs.detached == (cut == "loss")
        assert await theirs.receive_some(4) == b"last"
        assert await theirs.receive_some() == b" words"
        if whole:
            assert await theirs.receive_some() == b""
        elif cut == "reset":
            with pytest.raises(StreamBroken):
                await theirs.receive_some()


# nobody holds up anybody else


@pytest.mark.parametrize("switched", [False, True])
async def test_a_stream_that_nobody_reads_does_not_hold_up_others(switched: bool) -> None:
    async with open_chain(switched=switched) as chain:
        stuck, unread = await chain.pair()
        moving, read = await chain.pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stuck.send_all, bytes(20 << 20))
            with trio.fail_after(60):
                got = 0
                nursery.start_soon(moving.send_all, bytes(20 << 20))
                while got < 20 << 20:
                    got += len(await read.receive_some(1 << 20))
            assert unread.core.receive.window.buffered <= 1 << 20
            nursery.cancel_scope.cancel()


async def test_many_streams_at_once() -> None:
    rng = random.Random(3)
    async with open_chain(switched=True) as chain, trio.open_nursery() as nursery:

        async def echo(theirs: MuxStream) -> None:
            async for data in theirs:
                await theirs.send_all(data)
            await theirs.aclose()

        async def client(ours: MuxStream, data: bytes) -> None:
            async with trio.open_nursery() as inner:

                async def send() -> None:
                    await ours.send_all(data)
                    await ours.send_eof()

                inner.start_soon(send)
                got = b"".join([part async for part in ours])
            assert got == data
            await ours.aclose()

        for _ in range(150):
            ours, theirs = await chain.pair()
            nursery.start_soon(echo, theirs)
            nursery.start_soon(client, ours, rng.randbytes(rng.choice((1, 1000, 100_000, 300_000))))


async def test_what_waits_goes_on_waiting_without_wires_until_the_stream_ends() -> None:
    async with open_chain(switched=True) as chain:
        ours, _ = await chain.pair()
        _, unread = await chain.pair()
        ended = []

        async def expect_end(wait: object) -> None:
            assert callable(wait)
            with pytest.raises(StreamBroken):
                await wait()
            ended.append(wait)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_end, lambda: ours.send_all(bytes(20 << 20)))
            nursery.start_soon(expect_end, ours.receive_some)
            nursery.start_soon(expect_end, unread.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            for side in chain.sides:
                side.session.close("enough", GoawayCode.SHUTDOWN)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(expect_end, ours.wait_attached)
            await trio.testing.wait_all_tasks_blocked()
            assert not ended
            assert ours.detached
            assert unread.detached
            for each in (ours, unread):
                each.reset("enough")
        assert len(ended) == 4


# cancellation


@pytest.mark.parametrize("lockstep", [False, True])
async def test_cancelled_calls_leave_the_stream_in_order(lockstep: bool) -> None:
    """Whatever was cancelled when, the bytes that the window counts arrive once and in order."""
    rng = random.Random(5)
    text = rng.randbytes(3_000_000)
    async with open_chain(lockstep=lockstep, window=1 << 17) as chain:
        ours, theirs = await chain.pair()
        got = bytearray()

        async def cancelled_after_a_while(call: object, *args: object) -> object:
            assert callable(call)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def cancel() -> None:
                        for _ in range(rng.randrange(6)):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    nursery.start_soon(cancel)
                    result = await call(*args)
                    nursery.cancel_scope.cancel()
                    return result
            return None

        async def send() -> None:
            while (at := ours.core.send.window.end) < len(text):
                size = rng.choice((1, 3000, 50_000, 400_000))
                await cancelled_after_a_while(ours.send_all, text[at : at + size])
            await ours.send_eof()

        async def receive() -> None:
            while True:
                data = await cancelled_after_a_while(theirs.receive_some, rng.choice((1000, 65536, 1 << 20)))
                assert data is None or isinstance(data, bytes)
                if data == b"":
                    return
                got.extend(data or b"")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(receive)
        assert got == text


# nothing is left


async def test_nothing_is_left_when_all_is_over(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    received, sent = CountingPool(session.RECEIVE_BUFFER), CountingChunkPool()
    monkeypatch.setattr(session, "receive_buffers", received)
    monkeypatch.setattr(stream, "chunks", sent)
    async with open_chain(switched=True) as chain:
        for at in range(20):
            ours, theirs = await chain.pair()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.send_all, bytes(300_000))
                nursery.start_soon(theirs.send_all, bytes(300_000))
            await theirs.receive_some()
            if at % 3 == 0:
                ours.reset("enough")
            elif at % 3 == 1:
                await ours.send_eof()
            await ours.aclose()
            await theirs.aclose()
        await trio.sleep(100)
        assert not received.in_use, "an idle wire holds no receive buffer"
        assert not sent.in_use
        for side in chain.sides:
            assert not side.wire.ports
            side.session.close("over")
        await trio.sleep(100)
        for endpoint in (chain.opener, chain.acceptor):
            assert endpoint.deadline() is None
            chain.hub.remove(endpoint)
        assert not chain.hub._heap
        assert not chain.hub._due
        assert not chain.hub._timed
        assert not chain.hub._dirty
        assert {task.name for task in chain.hub.nursery.child_tasks} <= {"mux flusher", "mux clock"}


async def test_a_stream_cannot_be_opened_on_a_wire_that_is_gone() -> None:
    async with open_hub() as hub, raw_peer(hub, opener := Opener(), Peer.OPENER, Peer.SWITCH, dialled=True) as peer:
        peer.session.close("over")
        await peer.ended.wait()
        with pytest.raises(Exception, match="this wire is gone"):
            opened(hub, opener, peer)
        assert not hub._due


async def test_an_acceptor_that_is_flooded_with_opens_answers_each(autojump_clock: trio.testing.MockClock) -> None:
    acceptor = Acceptor(lambda core: core.reject(RejectCode.REFUSED, "no"))
    async with open_hub() as hub, raw_peer(hub, acceptor, Peer.ACCEPTOR, Peer.SWITCH, dialled=True) as peer:
        for at in range(2, 2000, 2):
            ask = frames.Ask(token=at.to_bytes(16, "big"), attempt=1, limit=0)
            await peer.say(frames.encode_ask(F.OPEN, at, ask))
        refused = [await peer.hear() for _ in range(2, 2000, 2)]
        assert {frame.kind for frame in refused if frame is not None} == {F.REJECT}
        assert not peer.session.wire.ports
