"""Streams that proxies open: what they are for decides where they go."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Protocol

import trio

from connect_trio.agent.tool import Tool, ToolUnavailable
from connect_trio.mux.codes import RejectCode
from connect_trio.mux.stream import MuxStream
from connect_trio.mux.streams import CoreStream
from connect_trio.pump import splice

logger = logging.getLogger(__name__)


class Service(Protocol):
    """What serves other streams than the tool's. kinds: those that it serves."""

    @property
    def kinds(self) -> Collection[str]: ...

    def on_open(self, core: CoreStream) -> None:
        """A new stream of one of `kinds`: called by the mux, must not wait."""
        ...


class Forwarder:
    """Connects streams to the tool, each one a task in `nursery`, and hands others to the service of their kind."""

    def __init__(self, tool: Tool, nursery: trio.Nursery, *services: Service) -> None:
        self._tool = tool
        self._nursery = nursery
        self._services = {kind: service for service in services for kind in service.kinds}

    def on_open(self, core: CoreStream) -> None:
        """A new stream: called by the mux, must not wait."""
        service = self._services.get(core.ask.kind)
        if service is not None:
            service.on_open(core)
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
