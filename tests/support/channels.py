"""Sessions of an agent under test: a real agent's forwarder, and the proxy's end of channels as a client."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs
import trio

from connect_trio.agent.announcing import Announcer
from connect_trio.agent.forward import Forwarder
from connect_trio.agent.listening import ListenPolicy
from connect_trio.agent.shell.programs import Setup
from connect_trio.agent.shell.serving import MAX_CHANNELS, ShellServer
from connect_trio.agent.shell.targets import TargetPolicy
from connect_trio.agent.tool import Tool, free_port
from connect_trio.channels.ends import SESSION, VERSION, ProxyEnd
from connect_trio.channels.messages import (
    Data,
    Exec,
    Exit,
    ExitSignal,
    Failed,
    Frame,
    Pty,
    Signal,
    Size,
    Started,
    Stderr,
)
from connect_trio.channels.outbox import Outbox
from connect_trio.mux.stream import MuxStream, StreamBroken
from tests.support.mux import Chain, open_chain
from tests.support.reverse import ChainDialer, encoded, open_stream

PATIENCE = 60.0  # seconds that anything may take here
ALICE = {"client": "203.0.113.7 51234", "server": "10.0.0.2 2222"}
PTY = Pty("xterm-256color", Size(columns=100, rows=30))


class Client:
    """The proxy's end of one session; made by `client_of`. It reads all output unless `paused`.

    stdout, stderr: what came. how: the last word. reset: the text of a reset by the agent.
    """

    def __init__(self, stream: MuxStream, window: int) -> None:
        self.stream = stream
        self.end = ProxyEnd(window)
        self.outbox = Outbox(self.end)
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.heard: list[Frame] = []
        self.paused = False
        self.how: Exit | ExitSignal | Failed | None = None
        self.reset: str | None = None
        self.finished = trio.Event()
        self._news = trio.Event()
        self._outgoing = trio.Event()

    def say(self, *frames: Frame) -> None:
        for frame in frames:
            self.outbox.post(frame)
        self._outgoing.set()

    def write(self, data: bytes | bytearray) -> None:
        self.outbox.feed(data)
        self._outgoing.set()

    def write_eof(self) -> None:
        self.outbox.feed_eof()
        self._outgoing.set()

    def signal(self, name: str) -> None:
        self.say(Signal(name))

    def resume(self) -> None:
        """Take what was kept while paused, and go on."""
        self.paused = False
        self.end.receiving.took(self.end.receiving.kept)
        self._outgoing.set()

    async def wait_news(self) -> None:
        """Wait until something has come, or the end."""
        self._news = trio.Event()
        await self._news.wait()

    async def until(self, text: bytes) -> bytes:
        """Wait for `text` on stdout; all up to its end, which is taken out of `stdout`."""
        with trio.fail_after(PATIENCE):
            while (at := self.stdout.find(text)) < 0:
                assert not self.finished.is_set(), f"{bytes(self.stdout)!r} {bytes(self.stderr)!r} {self.how}"
                await self.wait_news()
        found = bytes(self.stdout[: at + len(text)])
        del self.stdout[: at + len(text)]
        return found

    async def wait(self) -> Exit | ExitSignal | Failed:
        """Wait for the agent's last word and the end of its direction, and close ours."""
        with trio.fail_after(PATIENCE):
            await self.finished.wait()
        assert self.how is not None, f"the channel ended without a word: {self.reset}"
        await self.stream.aclose()
        return self.how

    async def close(self) -> None:
        """Close the channel, whatever runs there."""
        if self.stream.core.end is None:
            self.stream.core.finish()  # although the writer may be waiting
        await trio.lowlevel.checkpoint()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_out)
            try:
                while data := await self.stream.receive_some():
                    for frame in self.end.receive_data(data):
                        self._handle(frame)
                    self._outgoing.set()
                    self._news.set()
            except StreamBroken as exc:
                self.reset = exc.end.text
            except trio.ClosedResourceError:
                pass
            self.finished.set()
            self._news.set()
            nursery.cancel_scope.cancel()

    def _handle(self, frame: Frame) -> None:
        self.heard.append(frame)
        if isinstance(frame, Data | Stderr):
            into = self.stdout if isinstance(frame, Data) else self.stderr
            into += frame.data
            if not self.paused:
                self.end.receiving.took(len(frame.data))
        elif isinstance(frame, Exit | ExitSignal | Failed):
            self.how = frame

    async def _write_out(self) -> None:
        try:
            while True:
                while data := self.outbox.take():
                    await self.stream.send_all(data)
                self._outgoing = trio.Event()
                await self._outgoing.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    @property
    def started(self) -> bool:
        return any(isinstance(frame, Started) for frame in self.heard)


@asynccontextmanager
async def client_of(stream: MuxStream, *frames: Frame, window: int = 1 << 20) -> AsyncIterator[Client]:
    """A client that says `frames` first. Its stream is reset at the end of the block, if it has not ended."""
    client = Client(stream, window)
    client.say(*frames)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        try:
            yield client
        finally:
            stream.reset("the test has ended")
            nursery.cancel_scope.cancel()


@attrs.define
class ShellBench:
    """A real agent's forwarder behind a switch; the test is the proxy. scope: the agent's."""

    chain: Chain
    server: ShellServer
    announcer: Announcer
    dialer: ChainDialer
    scope: trio.CancelScope

    def open(self, kind: str = SESSION, metadata: Mapping[str, str] | None = None) -> MuxStream:
        return open_stream(self.chain, kind, encoded({"version": VERSION, **ALICE} if metadata is None else metadata))

    def session(self, *frames: Frame, window: int = 1 << 20) -> AbstractAsyncContextManager[Client]:
        return client_of(self.open(), *frames, window=window)

    async def run(self, command: str, stdin: bytes = b"", *before: Frame) -> Client:
        """A command, run to its end."""
        async with self.session(*before, Exec(command.encode())) as client:
            client.write(stdin)
            client.write_eof()
            await client.wait()
        return client

    async def until_idle(self) -> None:
        """Wait until no channel is left, and so no process of one."""
        with trio.fail_after(PATIENCE):
            while self.server.channels:
                await trio.sleep(0.01)


@asynccontextmanager
async def shell_bench(
    folder: Path,
    *,
    targets: TargetPolicy | None = None,
    places: ListenPolicy | None = None,
    max_channels: int = MAX_CHANNELS,
    shell: Path | None = Path("/bin/bash"),
    sftp_server: Path | None = None,
    **environ: str,
) -> AsyncIterator[ShellBench]:
    async with open_chain(switched=True) as chain, trio.open_nursery() as nursery:
        announcer = Announcer(nursery, places)
        setup = Setup(
            environ={"PATH": os.environ["PATH"], "HOME": str(folder), **environ},
            folder=folder,
            shell=shell,
            sftp_server=sftp_server,
        )
        server = ShellServer(
            nursery, setup, targets=targets, knows_agent=announcer.knows_agent, max_channels=max_channels
        )
        forwarder = Forwarder(Tool(free_port(), start_timeout=60), nursery, announcer, server)

        nursery.start_soon(chain.hand_over, forwarder.on_open)
        try:
            yield ShellBench(chain, server, announcer, ChainDialer(chain), nursery.cancel_scope)
        finally:
            nursery.cancel_scope.cancel()


def alive(pid: int) -> bool:
    """Whether a process runs: one that has ended and is not reaped does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until_gone(pid: int) -> None:
    with trio.fail_after(PATIENCE):
        while alive(pid):
            await trio.sleep(0.01)
