"""Streams that proxies open: what they are for decides where they go. Only loopback, never a name from the request."""

from __future__ import annotations

import logging

import trio

from connect_trio.agent.announcing import Announcer
from connect_trio.agent.tool import Tool, ToolUnavailable
from connect_trio.mux.codes import RejectCode
from connect_trio.mux.stream import MuxStream
from connect_trio.mux.streams import CoreStream
from connect_trio.pump import splice

logger = logging.getLogger(__name__)


class Forwarder:
    """Connects streams to the tool, each one a task in `nursery`; and, with an announcer, to what begins here."""

    def __init__(self, tool: Tool, nursery: trio.Nursery, announcer: Announcer | None = None) -> None:
        self._tool = tool
        self._nursery = nursery
        self._announcer = announcer

    def on_open(self, core: CoreStream) -> None:
        """A new stream: called by the mux, must not wait."""
        if self._announcer is not None and core.ask.kind in self._announcer.kinds:
            self._announcer.on_open(core)
            return
        if core.ask.kind != "http":
            core.reject(RejectCode.UNSUPPORTED, f"this agent serves no streams of the kind {core.ask.kind!r}")
            return
        self._nursery.start_soon(self._serve, core, name="stream to tool")

    async def _serve(self, core: CoreStream) -> None:
        try:
            sock = await self._tool.connect()
        except ToolUnavailable as exc:
            if core.end is None:
                core.reject(RejectCode.UNREACHABLE, str(exc))
            return
        if core.end is not None:  # the visitor did not wait
            sock.close()
            return
        core.accept()
        await splice(sock, MuxStream(core), self._nursery)
