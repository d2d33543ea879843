"""A session channel: a shell, a command or a subsystem in the Studio, over one stream to its agent.

The client's callbacks put into an `Outbox` what the agent is to be told; one task sends it. Another task receives, and
never stops for a client that does not read: what it keeps is bounded by the window that it granted.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from typing import Final

import trio

from connect_trio.channels.ends import MAX_ENV, SESSION, VERSION, ProxyEnd
from connect_trio.channels.frames import encode
from connect_trio.channels.messages import (
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
    Stderr,
    Subsystem,
)
from connect_trio.channels.outbox import Outbox
from connect_trio.dial import DialError, ToolStream
from connect_trio.ssh.client import Channel
from connect_trio.ssh.surroundings import LOST, Surroundings

OUTPUT: Final = 256 * 1024  # bytes that wait for the client, at most
INPUT: Final = 64 * 1024  # bytes that wait for the agent, besides SSH's own window: at most as many as that one has
FAILED: Final = 255  # as ssh itself says it
CANNOT_START: Final = 127  # as a shell says it
LAST_WORDS: Final = 5.0  # seconds to tell the agent what the client has said, once it is gone
NO_TERM: Final = "dumb"

logger = logging.getLogger(__name__)


class Session:
    """`client.SessionHandler` for one channel. Owns a place among the channels, which it gives back."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._end = ProxyEnd(min(OUTPUT, surroundings.window()))
        self._input = min(INPUT, surroundings.window())
        self._outbox = Outbox(self._end)
        self._inbound: deque[Frame] = deque()  # bounded by the window
        self._channel: Channel
        self._what: Shell | Exec | Subsystem | None = None
        self._pty = self._wants_agent = False
        self._environment = 0
        self._paused = False
        self._gone = False  # the client
        self._over = False  # the agent has said all
        self._done = True  # our task
        self._wake = trio.Event()
        self._life = trio.CancelScope()

    # what the client does

    def opened(self, channel: Channel) -> None:
        self._channel = channel

    def pty(self, term: str, size: Size, modes: Mapping[int, int]) -> bool:
        if self._what is not None or self._pty:
            return False
        frame = Pty(term, size, modes)
        self._pty = self._post(frame) or self._post(Pty(NO_TERM, size, modes))
        return self._pty

    def env(self, name: bytes, value: bytes) -> bool:
        """The agent decides which ones it takes."""
        if self._what is not None or self._environment >= MAX_ENV or not name.isascii():
            return False
        taken = self._post(Env(name.decode(), value))
        self._environment += taken
        return taken

    def forward_agent(self) -> bool:
        self._wants_agent = self._what is None
        return self._wants_agent

    def start(self, what: Shell | Exec | Subsystem) -> bool:
        if self._what is not None or not _may_travel(what):
            return False
        self._what = what
        self._done = False
        self._surroundings.client.nursery.start_soon(self._run, name="ssh session")
        return True

    def resize(self, size: Size) -> None:
        if self._pty:
            self._post(Resize(size))

    def signal(self, name: str) -> None:
        if self._what is not None:
            self._post(Signal(name))

    def data(self, data: bytes) -> None:
        self._surroundings.touch()
        self._outbox.feed(data)
        if self._outbox.waiting >= self._input and not self._paused:
            self._paused = True
            self._channel.pause_reading()
        self._wake.set()

    def eof(self) -> None:
        self._outbox.feed_eof()
        self._wake.set()

    def writable(self) -> None:
        self._write()

    def closed(self) -> None:
        self._gone = True
        self._life.deadline = min(self._life.deadline, trio.current_time() + LAST_WORDS)
        self._wake.set()
        self._leave()

    def _leave(self) -> None:
        """Give the place back: a channel that is not closed yet may still keep something."""
        if self._done and self._gone:
            self._surroundings.places.release()

    def _post(self, frame: Frame) -> bool:
        """Whether this may be said; then it will be."""
        if not _may_travel(frame):
            return False
        self._outbox.post(frame)
        self._wake.set()
        return True

    # the stream

    async def _run(self) -> None:
        try:
            with self._life:
                await self._dial_and_talk()
        except Exception:
            logger.exception("a channel failed: this is a bug", extra={"session": self._surroundings.session})
            self._fail("an internal error; it is logged")
        finally:
            self._done = True
            self._leave()

    async def _dial_and_talk(self) -> None:
        surroundings = self._surroundings
        try:
            if self._wants_agent:
                await self._provide_agent()
            assert self._what is not None
            self._outbox.post(self._what)
            stream = await surroundings.dial(SESSION, self._metadata())
        except DialError as exc:
            self._fail(exc.failure.text)
            return
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._receive, stream)
                await self._send(stream)
                nursery.cancel_scope.cancel()
        except BaseException:
            stream.reset("the channel was closed")
            raise
        finally:
            await trio.aclose_forcefully(stream)

    def _metadata(self) -> dict[str, str]:
        (peer, peer_port), (local, local_port) = self._surroundings.peer, self._surroundings.local
        return {"version": VERSION, "client": f"{peer} {peer_port}", "server": f"{local} {local_port}"}

    async def _provide_agent(self) -> None:
        """Without one, the session goes on."""
        try:
            path = await self._surroundings.agent_socket()
        except DialError as exc:
            logger.info("no SSH agent is forwarded", extra={"reason": exc.failure.text})
        else:
            self._post(AgentSocket(path))

    async def _send(self, stream: ToolStream) -> None:
        """Say what there is to say, until one of both ends is done; then end our direction."""
        try:
            while True:
                while self._outbox.ready and not self._over:
                    await stream.send_all(self._outbox.take())
                    self._resume()
                    if self._gone:
                        break
                if self._gone or self._over:
                    break
                self._wake = trio.Event()
                await self._wake.wait()
            await stream.send_eof()
        except LOST as exc:
            self._fail(self._surroundings.why(exc))

    def _resume(self) -> None:
        if self._paused and self._outbox.waiting < self._input // 2:
            self._paused = False
            self._channel.resume_reading()

    async def _receive(self, stream: ToolStream) -> None:
        try:
            while await self._receive_once(stream):
                await trio.lowlevel.checkpoint()
            self._end.receive_eof()
        except LOST as exc:
            self._fail(self._surroundings.why(exc))
        except ChannelError as exc:
            stream.reset(str(exc))
            self._fail(self._surroundings.why(exc))
        finally:
            self._over = True
            self._wake.set()

    async def _receive_once(self, stream: ToolStream) -> bool:
        view, buffer = await stream.receive_view()
        if not view:
            return False
        try:
            for frame in self._end.receive_data(view):
                if isinstance(frame, Data | Stderr) and self._gone:
                    self._end.receiving.took(len(frame.data))
                elif isinstance(frame, Data | Stderr | Eof | Exit | ExitSignal | Failed):
                    self._inbound.append(frame)
        finally:
            if buffer is not None:
                buffer.drop()
        self._write()
        self._wake.set()
        return True

    # the client again

    def _write(self) -> None:
        """Let the client have as much as it takes."""
        self._surroundings.touch()
        while self._inbound and self._channel.writable:
            frame = self._inbound.popleft()
            match frame:
                case Data() | Stderr():
                    self._end.receiving.took(len(frame.data))
                    self._channel.write(frame.data, stderr=isinstance(frame, Stderr))
                case Eof():
                    self._channel.write_eof()
                case Exit():
                    self._channel.exit(frame.status)
                case ExitSignal():
                    self._channel.exit_signal(frame.name, frame.core_dumped, frame.message)
                case Failed():
                    self._fail(frame.reason, CANNOT_START)
            self._wake.set()

    def _fail(self, text: str, status: int = FAILED) -> None:
        """Tell the user what went wrong. Output that waits is not lost for it."""
        if self._inbound and not isinstance(self._inbound[-1], Exit | ExitSignal | Failed):
            self._inbound.append(Failed(text))
            self._write()
        elif not self._inbound and not self._gone:
            self._channel.write(f"connect: {text}\r\n".encode(), stderr=True)
            self._channel.exit(status)


def _may_travel(frame: Frame) -> bool:
    try:
        encode(frame)
    except (ValueError, UnicodeEncodeError):
        return False
    return True
