from __future__ import annotations

import pytest

from connect_trio.channels.ends import MAX_ENV, AgentEnd, ProxyEnd
from connect_trio.channels.frames import encode
from connect_trio.channels.messages import (
    MAX_WINDOW,
    AgentSocket,
    ChannelError,
    Data,
    Env,
    Eof,
    Exec,
    Exit,
    ExitSignal,
    Failed,
    Frame,
    Pty,
    Resize,
    Shell,
    Signal,
    Size,
    Started,
    Stderr,
    Subsystem,
    Window,
)
from connect_trio.channels.outbox import MAX_SIGNALS, Outbox

PTY = Pty("xterm", Size())


def agent_hears(*frames: Frame) -> AgentEnd:
    """An agent's end that granted 10 bytes and heard this. Raises ChannelError."""
    end = AgentEnd(10)
    end.grant()
    list(end.receive_data(b"".join(map(encode, frames))))
    return end


def proxy_hears(*frames: Frame) -> ProxyEnd:
    """A proxy's end that granted 10 bytes, said SHELL, and heard this. Raises ChannelError."""
    end = ProxyEnd(10)
    end.grant()
    end.send(Shell())
    list(end.receive_data(b"".join(map(encode, frames))))
    return end


@pytest.mark.parametrize(
    "frames",
    [
        [PTY, Env("LANG", b"C"), AgentSocket("/a"), Shell(), Data(b"x"), Resize(Size()), Signal("INT"), Eof()],
        [Exec(b"true"), Eof(), Signal("TERM"), Window(1)],
        [Window(5), Subsystem("sftp"), Data(b"0123456789")],
        [Env("LANG", b"C")] * MAX_ENV,
        [PTY, Resize(Size()), Shell(), Eof(), Resize(Size())],
    ],
)
def test_an_agent_hears_what_is_in_order(frames: list[Frame]) -> None:
    agent_hears(*frames)


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        ([Data(b"x")], "DATA is not for the proxy to say now"),
        ([Eof()], "EOF is not"),
        ([Signal("INT")], "SIGNAL is not"),
        ([Resize(Size())], "RESIZE is not"),
        ([PTY, PTY], "PTY is not"),
        ([Shell(), Shell()], "SHELL is not"),
        ([Shell(), Exec(b"true")], "EXEC is not"),
        ([Shell(), PTY], "PTY is not"),
        ([Shell(), Env("LANG", b"C")], "ENV is not"),
        ([Shell(), AgentSocket("/a")], "AGENT is not"),
        ([Shell(), Eof(), Data(b"x")], "DATA is not"),
        ([Shell(), Eof(), Eof()], "EOF is not"),
        ([Env("LANG", b"C")] * (MAX_ENV + 1), "ENV is not"),
        ([Shell(), Stderr(b"x")], "STDERR is not"),
        ([Started()], "STARTED is not for the proxy"),
        ([Exit(0)], "EXIT is not for the proxy"),
        ([Shell(), Data(b"01234567890")], "11 bytes where 10 were granted"),
        ([Window(MAX_WINDOW), Window(1)], "more than 16777216 bytes are granted"),
    ],
)
def test_an_agent_names_what_a_proxy_may_not_say(frames: list[Frame], says: str) -> None:
    with pytest.raises(ChannelError, match=says):
        agent_hears(*frames)


@pytest.mark.parametrize(
    "frames",
    [
        [Window(1), Started(), Data(b"x"), Stderr(b"y"), Eof(), Exit(3)],
        [Started(), Eof(), Window(1), ExitSignal("KILL")],
        [Failed("no")],
    ],
)
def test_a_proxy_hears_what_is_in_order(frames: list[Frame]) -> None:
    proxy_hears(*frames).receive_eof()


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        ([Data(b"x")], "DATA is not for the agent to say now"),
        ([Started(), Started()], "STARTED is not"),
        ([Started(), Failed("no")], "FAILED is not"),
        ([Failed("no"), Started()], "STARTED is not"),
        ([Started(), Exit(0)], "EXIT is not"),
        ([Started(), Eof(), Data(b"x")], "DATA is not"),
        ([Started(), Eof(), Exit(0), Window(1)], "WINDOW is not"),
        ([Started(), Eof(), Exit(0), ExitSignal("KILL")], "EXIT_SIGNAL is not"),
        ([Shell()], "SHELL is not for the agent"),
        ([Started(), Data(b"012345"), Stderr(b"67890")], "5 bytes where 4 were granted"),
    ],
)
def test_a_proxy_names_what_an_agent_may_not_say(frames: list[Frame], says: str) -> None:
    with pytest.raises(ChannelError, match=says):
        proxy_hears(*frames)


@pytest.mark.parametrize("frames", [[], [Started()], [Started(), Eof()]])
def test_a_channel_that_ends_without_a_last_word_was_lost(frames: list[Frame]) -> None:
    with pytest.raises(ChannelError, match="without a word"):
        proxy_hears(*frames).receive_eof()


def test_nothing_is_sent_beyond_the_window() -> None:
    end = ProxyEnd(10)
    end.send(Exec(b"cat"))
    list(end.receive_data(encode(Window(3))))
    with pytest.raises(ValueError, match="4 bytes where 3 may be sent"):
        end.send(Data(b"0123"))
    end.send(Data(b"012"))
    assert end.sending.room == 0


def test_nothing_is_sent_out_of_order() -> None:
    with pytest.raises(ValueError, match="EXIT is not for the agent to say now"):
        AgentEnd(10).send(Exit(0))


def test_a_window_is_granted_again_when_a_quarter_is_free() -> None:
    end = AgentEnd(100)
    assert end.grant() == encode(Window(100))
    list(end.receive_data(encode(Shell()) + encode(Data(bytes(60)))))
    end.receiving.took(24)
    assert end.grant() == b""
    end.receiving.took(1)
    assert end.grant() == encode(Window(25))
    assert end.grant() == b""


def test_a_window_that_is_used_up_is_granted_for_a_single_byte() -> None:
    end = AgentEnd(100)
    end.grant()
    list(end.receive_data(encode(Shell()) + encode(Data(bytes(100)))))
    assert end.grant() == b""
    end.receiving.took(1)
    assert end.grant() == encode(Window(1))


def test_a_window_may_grow_and_shrink() -> None:
    end = AgentEnd(100)
    end.grant()
    end.receiving.target = 300
    assert end.grant() == encode(Window(200))
    end.receiving.target = 50
    assert end.grant() == b""


def test_an_agent_grants_nothing_after_its_last_word() -> None:
    end = AgentEnd(10)
    end.send(Failed("no"))
    assert end.ended
    assert end.grant() == b""


def outbox_of(*granted: int) -> Outbox:
    end = ProxyEnd(10)
    for count in granted:
        list(end.receive_data(encode(Window(count))))
    return Outbox(end)


def test_control_overtakes_data_and_the_end_does_not() -> None:
    outbox = outbox_of(3)
    outbox.post(PTY)
    outbox.post(Shell())
    outbox.feed(b"01")
    outbox.feed(b"2345")
    outbox.feed_eof()
    assert outbox.take() == encode(PTY) + encode(Shell()) + encode(Window(10)) + encode(Data(b"012"))
    assert not outbox.ready
    assert outbox.take() == b""
    outbox.post(Signal("INT"))
    assert outbox.take() == encode(Signal("INT"))
    list(outbox._end.receive_data(encode(Window(10))))
    assert outbox.waiting == 3
    assert outbox.take() == encode(Data(b"345")) + encode(Eof())
    assert not outbox.ready


def test_sizes_and_signals_that_wait_do_not_pile_up() -> None:
    outbox = outbox_of()
    outbox.post(PTY)
    outbox.post(Shell())
    outbox.take()
    for columns in range(1000):
        outbox.post(Resize(Size(columns=columns)))
        outbox.post(Signal("INT"))
        outbox.post(Signal(f"S{columns}"))
    said = outbox.take()
    assert said.startswith(encode(Resize(Size(columns=999))) + encode(Signal("INT")))
    assert len(said) < 40 * MAX_SIGNALS
