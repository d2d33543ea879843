"""One id on one wire: its last frames, and what becomes of bytes that were half on their way when it ends."""

from __future__ import annotations

import pytest

from connect_trio.mux.attachments import Attachment
from connect_trio.mux.codes import DetachCode
from connect_trio.mux.errors import LocalError
from connect_trio.mux.frames import DATA_HEADER_SIZE, FrameType
from connect_trio.mux.halves import FRAME
from connect_trio.mux.outbox import Outbox
from connect_trio.mux.states import State
from connect_trio.mux.streams import CoreStream
from tests.support.core import drain, parse
from tests.support.scene import OpenerScene, answer, show

F = FrameType


@pytest.fixture
def scene() -> OpenerScene:
    return OpenerScene()


def home_of(stream: CoreStream) -> Attachment:
    assert stream.home is not None
    return stream.home


def send(outbox: Outbox, count: int) -> bytes:
    """The transport takes `count` bytes."""
    taken = b"".join(outbox.gather())[:count]
    outbox.sent(count)
    return taken


def test_a_last_frame_overtakes_what_waits_and_the_id_waits_for_its_answer(scene: OpenerScene) -> None:
    home = home_of(stream := scene.opened())
    stream.write(b"waits")
    home.outbox.credit(home.sid, 1, 2)
    home.say_last(F.RESET, 1, "enough")
    assert scene.hear(0) == ["RESET/1 APP"]
    assert home.state is State.ENDING
    assert scene.wires[0].ports == {1: home}


def test_nobody_waits_for_an_answer_to_detach(scene: OpenerScene) -> None:
    home = home_of(scene.opened())
    home.say_last(F.DETACH, DetachCode.MOVED)
    assert scene.hear(0) == ["DETACH/1 MOVED"]
    assert home.state is State.CLOSED
    assert not scene.wires[0].ports


def test_after_the_last_frame_comes_no_other(scene: OpenerScene) -> None:
    home = home_of(scene.opened())
    home.say_last(F.DETACH, DetachCode.MOVED)
    for kind in (F.RESET, F.DETACH, F.DONE):
        with pytest.raises(LocalError, match="cannot be sent"):
            home.say_last(kind)
    assert scene.hear(0) == ["DETACH/1 MOVED"]


@pytest.mark.parametrize(("kind", "shown"), [(F.RESET, "RESET/1 APP"), (F.DETACH, "DETACH/1 LOST"), (F.DONE, "DONE/1")])
def test_the_answer_to_a_last_frame_frees_the_id(scene: OpenerScene, kind: FrameType, shown: str) -> None:
    home = home_of(stream := scene.opened())
    stream.write(b"waits")
    home.answer_last(kind, 1)
    assert scene.hear(0) == [shown]
    assert home.state is State.CLOSED
    assert not scene.wires[0].ports


def test_who_leaves_says_nothing(scene: OpenerScene) -> None:
    home = home_of(stream := scene.opened())
    stream.write(b"waits")
    home.outbox.credit(home.sid, 1, 2)
    home.leave()
    assert not scene.hear(0)
    assert not scene.wires[0].ports


def test_buffers_of_what_waited_are_given_back(scene: OpenerScene) -> None:
    home = home_of(stream := scene.opened())
    scene.write_chunk(stream, 3 * FRAME)
    (chunk,) = scene.chunks.made
    assert chunk.refs == 2
    home.leave()
    assert chunk.refs == 1
    stream.send.drop()
    assert not scene.chunks.in_use


@pytest.mark.parametrize("cut", [1, 7, DATA_HEADER_SIZE, DATA_HEADER_SIZE + FRAME + 3])
def test_a_frame_that_was_cut_is_finished_as_it_began_although_its_bytes_are_sent_elsewhere(
    scene: OpenerScene, cut: int
) -> None:
    """The same buffer is sent by another wire, under another id written into it."""
    scene.opened(1, b"x" * 16)  # so that the ids differ
    stream = scene.opened(0)
    old = scene.wires[0].outbox
    scene.write_chunk(stream, 3 * FRAME)
    began = send(old, cut)
    scene.attempt(stream, 1)
    scene.hear(1)
    scene.say(1, answer(F.RESUMED, 3, 2))
    on_new = parse(drain(scene.wires[1].outbox))
    on_old = parse(began + drain(old))
    frames_begun = 1 + cut // (DATA_HEADER_SIZE + FRAME)
    assert [show(frame) for frame in on_new] == [f"DATA/3 {at * FRAME}:{(at + 1) * FRAME}" for at in range(3)]
    assert [show(frame) for frame in on_old] == [
        *(f"DATA/1 {at * FRAME}:{(at + 1) * FRAME}" for at in range(frames_begun)),
        "DETACH/1 MOVED",
    ]
    for at, frame in enumerate((*on_old[:-1], *on_new)):
        number = at if at < frames_begun else at - frames_begun
        assert set(frame.payload[8:]) == {number}
    stream.reset()
    drain(scene.wires[1].outbox)
    assert not scene.chunks.in_use
