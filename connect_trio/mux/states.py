"""All transitions of a stream's life, as data: an absent entry is the error.

A stream has one row of states at each end; which frames may come and what we may send depends on nothing else.
docs/protocol.md shows these tables, and a test compares both.
"""

from __future__ import annotations

from enum import Enum

from connect_trio.mux.errors import LocalError, StreamViolation
from connect_trio.mux.frames import FrameType as F


class State(Enum):
    """OPENING: the opener waits for an answer. ASKED: the acceptor's application has not answered yet. OPEN: both ends
    use it. RESETTING: we dropped it and wait for the peer's RESET. DONE_SENT: the acceptor is complete and waits for
    the opener's DONE. CLOSED: nothing more is sent or expected on the id."""

    OPENING = "opening"
    ASKED = "asked"
    OPEN = "open"
    RESETTING = "resetting"
    DONE_SENT = "done sent"
    CLOSED = "closed"


_S = State
_CARRY = (F.DATA, F.FIN, F.CREDIT)

# What the peer may send in each state, and what the state is then.
RECEIVE: dict[tuple[State, int], State] = {
    (_S.OPENING, F.ACCEPT): _S.OPEN,
    (_S.OPENING, F.REJECT): _S.CLOSED,
    (_S.OPENING, F.RESET): _S.CLOSED,
    (_S.OPENING, F.DETACH): _S.CLOSED,
    **{(_S.ASKED, kind): _S.ASKED for kind in _CARRY},
    (_S.ASKED, F.RESET): _S.CLOSED,
    (_S.ASKED, F.DETACH): _S.CLOSED,
    **{(_S.OPEN, kind): _S.OPEN for kind in _CARRY},
    (_S.OPEN, F.RESET): _S.CLOSED,
    (_S.OPEN, F.DETACH): _S.CLOSED,
    (_S.OPEN, F.DONE): _S.CLOSED,
    # After our RESET the peer's frames may still be on their way: they are ignored until its answer comes.
    **{(_S.RESETTING, kind): _S.RESETTING for kind in (*_CARRY, F.ACCEPT)},
    **{(_S.RESETTING, kind): _S.CLOSED for kind in (F.RESET, F.REJECT, F.DONE, F.DETACH)},
    **{(_S.DONE_SENT, kind): _S.DONE_SENT for kind in _CARRY},
    **{(_S.DONE_SENT, kind): _S.CLOSED for kind in (F.DONE, F.RESET, F.DETACH)},
}

# What this end may send in each state, and what the state is then.
SEND: dict[tuple[State, int], State] = {
    **{(_S.OPENING, kind): _S.OPENING for kind in (F.DATA, F.FIN)},
    (_S.OPENING, F.RESET): _S.RESETTING,
    (_S.ASKED, F.ACCEPT): _S.OPEN,
    (_S.ASKED, F.REJECT): _S.CLOSED,
    (_S.ASKED, F.RESET): _S.RESETTING,
    **{(_S.OPEN, kind): _S.OPEN for kind in _CARRY},
    (_S.OPEN, F.RESET): _S.RESETTING,
    (_S.OPEN, F.DONE): _S.DONE_SENT,
}


def received(state: State, kind: int) -> State:
    """The state after the peer's frame. Raises StreamViolation if it may not come now."""
    try:
        return RECEIVE[state, kind]
    except KeyError:
        raise StreamViolation(f"{F(kind).name} while the stream is {state.value}") from None


def sending(state: State, kind: int) -> State:
    """The state after sending a frame. Raises LocalError if this end may not."""
    try:
        return SEND[state, kind]
    except KeyError:
        raise LocalError(f"{F(kind).name} cannot be sent while the stream is {state.value}") from None
