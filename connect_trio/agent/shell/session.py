"""One session of an SSH user: from the stream that carries it to a process, and back.

The reader never waits for the process, nor the writers for the reader: what is kept for a process that does not read
is bounded by the window that was granted, so sizes, signals and the end of the channel are seen at once.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping

import trio

from connect_trio.agent.shell.descriptors import Descriptor
from connect_trio.agent.shell.memory import BASE, Memory
from connect_trio.agent.shell.processes import Process, start_process
from connect_trio.agent.shell.programs import CannotRun, Order, Setup, environment_of, program_of
from connect_trio.agent.shell.terminal import open_terminal
from connect_trio.agent.shell.writer import Writer
from connect_trio.channels.ends import AgentEnd
from connect_trio.channels.messages import (
    MAX_DATA,
    AgentSocket,
    ChannelError,
    Data,
    Env,
    Eof,
    Exec,
    Failed,
    Frame,
    Pty,
    Resize,
    Shell,
    Signal,
    Started,
    Stderr,
    Subsystem,
)
from connect_trio.mux.stream import MuxStream

LAST_READ = 30.0  # seconds that the proxy has to end its direction after ours
LEFT_IN_TERMINAL = 1 << 18  # bytes, more than a terminal keeps, that are read of it after its process has ended

logger = logging.getLogger(__name__)


class Session:
    """A channel of the kind SESSION; owns `stream`.

    knows_agent: whether a path is that of a forwarded SSH agent. client: metadata of the channel.
    """

    def __init__(
        self,
        stream: MuxStream,
        setup: Setup,
        *,
        memory: Memory,
        knows_agent: Callable[[str], bool],
        client: Mapping[str, str],
    ) -> None:
        self._stream = stream
        self._setup = setup
        self._memory = memory
        self._knows_agent = knows_agent
        self._client = client
        self._end = AgentEnd(BASE)
        self._order = Order()
        self._process: Process | None = None
        self._stdin = bytearray()
        self._eof = False
        self._ordered = trio.Event()
        self._came = trio.Event()  # something for stdin
        self._granted = trio.Event()
        self._closed = trio.Event()  # the proxy's direction has ended
        self._writer = Writer(stream)
        self._scope = trio.CancelScope()
        self._drain = trio.CancelScope()

    async def run(self) -> None:
        """Serve the channel until it ends. Whatever ends it, the process does not outlive it."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, name="channel reader")
                nursery.start_soon(self._write, name="channel writer")
                with self._scope:
                    await self._serve()
                    await self._finish()
                nursery.cancel_scope.cancel()
            self._stream.close_now()
        except BaseException:
            self._stream.reset("the Studio's agent has ended the channel")
            self._stream.close_now()
            raise
        finally:
            self._memory.give_back(self._end.receiving.target)

    # what the proxy says

    async def _read(self) -> None:
        stream, end = self._stream, self._end
        try:
            while data := await stream.receive_some():
                for frame in end.receive_data(data):
                    if not end.ended:
                        self._handle(frame)
            end.receive_eof()
        except ChannelError as exc:
            logger.warning("a proxy breaks the channel protocol", extra={"reason": str(exc)})
            stream.reset(str(exc))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            logger.debug("a channel was cut", extra={"reason": str(exc)})
        self._closed.set()
        if not end.ended:
            self._scope.cancel()

    def _handle(self, frame: Frame) -> None:
        order, process = self._order, self._process
        match frame:
            case Data(data=data):
                self._stdin += data
                self._came.set()
            case Eof():
                self._eof = True
                self._came.set()
            case Pty():
                order.pty = frame
            case Env():
                order.env.append(frame)
            case AgentSocket():
                order.agent = frame
            case Resize(size=size) if process is not None:
                process.resize(size)
            case Resize(size=size) if order.pty is not None:
                order.pty = Pty(order.pty.term, size, order.pty.modes)
            case Signal(name=name) if process is not None:
                process.signal(name)
            case Shell() | Exec() | Subsystem():
                order.start = frame
                self._ordered.set()
            case _:  # WINDOW: stdout and stderr may both wait for it
                self._granted.set()
                self._granted = trio.Event()

    async def _write(self) -> None:
        try:
            await self._writer.run()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._scope.cancel()  # the reader says why

    def _say(self, *frames: Frame) -> None:
        self._writer.post(b"".join(map(self._end.send, frames)))

    # what becomes of it

    async def _serve(self) -> None:
        """Up to the last word."""
        await self._ordered.wait()
        try:
            self._process = self._start()
        except CannotRun as exc:
            logger.info("a session cannot be started", extra={"reason": str(exc)})
            self._say(Failed(str(exc)))
            return
        try:
            await self._attend(self._process)
        finally:
            await self._process.end()

    async def _finish(self) -> None:
        """End our direction, and read until the proxy has ended its own: what came unread would be a reset."""
        await self._writer.sent()
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._stream.send_eof()
        with trio.move_on_after(LAST_READ):
            await self._closed.wait()

    def _start(self) -> Process:
        """Raises CannotRun."""
        order, setup = self._order, self._setup
        program = program_of(order, setup)
        agent = order.agent.path if order.agent is not None and self._knows_agent(order.agent.path) else None
        terminal = None
        if order.pty is not None:
            try:
                terminal = open_terminal(order.pty)
            except OSError as exc:
                raise CannotRun(f"no terminal can be had: {exc.strerror or exc}") from exc
        tty = None if terminal is None else terminal.path
        env = environment_of(order, setup, tty=tty, agent=agent, client=self._client)
        self._order = Order()  # which may be large, and is done
        return start_process(program, env=env, folder=setup.folder, terminal=terminal)

    async def _attend(self, process: Process) -> None:
        """Carry its bytes until it has ended and all it wrote is on its way, then its last word."""
        self._say(Started())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._feed, process, name="stdin")
            async with trio.open_nursery() as outputs:
                outputs.start_soon(self._watch, process, name="process")
                outputs.start_soon(self._forward, process, process.stdout, Data, name="stdout")
                if process.stderr is not None:
                    outputs.start_soon(self._forward, process, process.stderr, Stderr, name="stderr")
            nursery.cancel_scope.cancel()
        how = await process.wait()
        self._say(Eof(), how)

    async def _watch(self, process: Process) -> None:
        await process.wait()
        if process.terminal:  # others may have it open for long; what the process wrote is there to be read now
            self._drain.cancel()

    async def _forward(self, process: Process, source: Descriptor, kind: type[Data | Stderr]) -> None:
        """Send what is read from `source`, as the window allows, until its end."""
        left = LEFT_IN_TERMINAL
        while left > 0:
            while not (room := self._end.sending.room):
                await self._granted.wait()
            ended = process.terminal and process.exited
            data = source.read_now(min(room, MAX_DATA))
            if data:
                left -= len(data) if ended else 0
                self._say(kind(data))
                await self._writer.taken()
            elif data == b"" or ended:
                return
            else:
                with trio.CancelScope() as self._drain:
                    await source.wait_readable()

    async def _feed(self, process: Process) -> None:
        """Write to its stdin what comes for it, and grant as much again."""
        end, sink = self._end, process.stdin
        self._writer.post(end.grant())
        while True:
            while not self._stdin and not self._eof:
                self._came = trio.Event()
                await self._came.wait()
            if not self._stdin:
                break
            with memoryview(self._stdin) as waiting, waiting[:MAX_DATA] as piece:
                count = sink.write_now(piece)
            if count is None:
                return  # nobody reads it, so nothing more is granted
            if not count:
                await sink.wait_writable()
                continue
            del self._stdin[:count]
            end.receiving.took(count)
            if not end.receiving.kept and not end.receiving.outstanding:
                end.receiving.target = self._memory.grow(end.receiving.target)
            self._writer.post(end.grant())
            await trio.lowlevel.checkpoint()
        if not process.terminal:  # a terminal has no end but its user's control-D
            sink.close()
