"""Streams of SSH users: sessions, and connections into the Studio. docs/channels.md."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import trio

from connect_trio.agent.shell.memory import Memory
from connect_trio.agent.shell.programs import Setup
from connect_trio.agent.shell.session import Session
from connect_trio.agent.shell.targets import CannotConnect, TargetPolicy, connect_target
from connect_trio.channels import ends
from connect_trio.control import ControlError, decode_metadata_untrusted
from connect_trio.mux.codes import RejectCode
from connect_trio.mux.stream import MuxStream
from connect_trio.mux.streams import CoreStream
from connect_trio.pump import splice

MAX_CHANNELS = 1000
FORWARDS = ("tcp", "unix")

logger = logging.getLogger(__name__)


class NoShells:
    """In place of a ShellServer where SSH is switched off."""

    kinds = (ends.SESSION, *FORWARDS)

    def on_open(self, core: CoreStream) -> None:
        core.reject(RejectCode.REFUSED, "SSH is switched off in this Studio")


class ShellServer:
    """Serves streams of `kinds`, each one a task in `nursery`.

    knows_agent: whether a path is that of a forwarded SSH agent, which sessions may use. max_channels: how many streams
    there may be at once.
    """

    kinds = (ends.SESSION, *FORWARDS)

    def __init__(
        self,
        nursery: trio.Nursery,
        setup: Setup,
        *,
        targets: TargetPolicy | None = None,
        knows_agent: Callable[[str], bool] = lambda path: False,
        max_channels: int = MAX_CHANNELS,
    ) -> None:
        self.channels = 0
        self._nursery = nursery
        self._setup = setup
        self._targets = targets or TargetPolicy()
        self._knows_agent = knows_agent
        self._max = max_channels
        self._memory = Memory()

    def on_open(self, core: CoreStream) -> None:
        """A new stream of one of `kinds`: called by the mux, must not wait."""
        if self.channels >= self._max:
            core.reject(RejectCode.OVERLOADED, f"this Studio has {self._max} SSH channels open already")
            return
        try:
            metadata = decode_metadata_untrusted(core.ask.metadata)
        except ControlError as exc:
            core.reject(RejectCode.REFUSED, str(exc))
            return
        if core.ask.kind == ends.SESSION:
            version = metadata.get("version", "")
            if version != ends.VERSION:
                text = f"this agent speaks version {ends.VERSION} of channels, not {version or 'an untold one'}"
                core.reject(RejectCode.UNSUPPORTED, text)
                return
            core.accept()
            serve = self._serve_session
        else:
            serve = self._serve_forward
        self.channels += 1
        self._nursery.start_soon(serve, core, metadata, name=f"channel {core.ask.kind}")

    async def _serve_session(self, core: CoreStream, metadata: Mapping[str, str]) -> None:
        session = Session(
            MuxStream(core), self._setup, memory=self._memory, knows_agent=self._knows_agent, client=metadata
        )
        try:
            await session.run()
        except* Exception:  # one session that fails must not end the others
            logger.exception("a session has failed")
        finally:
            self.channels -= 1

    async def _serve_forward(self, core: CoreStream, metadata: Mapping[str, str]) -> None:
        try:
            try:
                sock = await connect_target(core.ask.kind, metadata, self._targets)
            except CannotConnect as exc:
                logger.info("a connection is not forwarded", extra={"kind": core.ask.kind, "reason": str(exc)})
                if core.end is None:
                    core.reject(exc.code, str(exc))
                return
            if core.end is not None:  # the proxy did not wait
                sock.close()
                return
            core.accept()
            await splice(sock, MuxStream(core), self._nursery)
        finally:
            self.channels -= 1
