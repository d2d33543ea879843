"""Errors say whose fault it was and how much of the connection they end."""

from __future__ import annotations

from connect_trio.mux.codes import GoawayCode


class MuxError(Exception):
    """Base of everything that the core raises."""


class WireError(MuxError):
    """The peer broke the framing or a rule of the hop, or went silent: the wire ends.

    code is sent in GOAWAY; None where telling makes no sense because the peer is not there.
    """

    def __init__(self, text: str, code: GoawayCode | None = GoawayCode.PROTOCOL) -> None:
        super().__init__(text)
        self.code = code


class StreamViolation(MuxError):
    """The peer sent wrong numbers inside one stream: that stream is reset, the wire stays."""


class LocalError(MuxError):
    """The caller did what the state of a stream or wire forbids: a bug on this side."""
