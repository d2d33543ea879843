"""The mux with tiny numbers: every limit is reached with a few bytes. The one place that changes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

from connect_trio.mux import budget, frames, halves, outbox, streams, switch

UNIT = 48  # the initial credit: four frames, as in life
FRAME = 12
CHUNK = 72
FLOOR = 6  # of a stream's share of the budget
BUFFER = 256  # of a read; more than any frame that is sent here

_TINY = (
    (frames, "INITIAL", UNIT),
    (budget, "FULL", 4 * UNIT),
    (budget, "FLOOR", FLOOR),
    (halves, "FRAME", FRAME),
    (halves, "CHUNK_FRAMES", CHUNK // FRAME),
    (halves, "CHUNK", CHUNK),
    (halves, "SMALL", 6),
    (halves, "MAX_KEPT", 40),
    (streams, "MAX_SMALL", 4),
    (streams, "CHUNK", CHUNK),
    (switch, "SMALL", 50),
    (switch, "FRAME", FRAME),
    (switch, "PROMISED", 8 * UNIT),
    (switch, "QUANTUM", 60),
    (outbox, "QUANTUM", 60),
    (outbox, "GATHER", 300),
)


@contextmanager
def tiny() -> Iterator[None]:
    """The core within the block knows only small numbers."""
    with ExitStack() as stack:
        for module, name, value in _TINY:
            stack.enter_context(mock.patch.object(module, name, value))
        yield
