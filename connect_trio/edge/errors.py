"""How one exchange can fail, by whose fault it is."""

from __future__ import annotations

from connect_trio.dial import Failure
from connect_trio.edge.gate import Reply
from connect_trio.edge.pages import Problem
from connect_trio.httpio import HttpError

_QUOTED = 200  # characters of what a visitor sent that an answer or a log line repeats at most


class Refusal(Exception):
    """The visitor gets an answer of the edge's own instead of the tool's. close: and then the connection ends."""

    def __init__(self, problem: Problem, *, close: bool = False) -> None:
        super().__init__(problem.text)
        self.problem = problem
        self.close = close


class Elsewhere(Exception):
    """The tool does not have what was asked for, but it may have it where the visitor is sent to by `reply`."""

    def __init__(self, reply: Reply) -> None:
        super().__init__("sent elsewhere")
        self.reply = reply


class VisitorGone(Exception):
    """The visitor's connection ended or stalled where it may not; nobody is left to be answered."""


class ToolFailed(Exception):
    """The tool, or the way to it, failed.

    failure: what to say; None: `Dialer.explain` knows what to make of `__cause__`, which a stream raised.
    """

    def __init__(self, failure: Failure | None = None) -> None:
        super().__init__(failure.text if failure else "the stream broke")
        self.failure = failure


def bad_request(error: HttpError) -> Problem:
    """What to tell a visitor that does not speak HTTP."""
    return Problem(
        status=error.status, part="request", text=f"This is not a valid HTTP request: {str(error)[:_QUOTED]}."
    )
