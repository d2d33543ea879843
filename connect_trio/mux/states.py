"""All transitions of an attachment's life, as data: an absent entry is the error.

An attachment is one id on one wire that carries a stream, or asks to. A stream outlives its attachments; which frames
may come and what may be sent on an id depends on the attachment's state and nothing else. docs/protocol.md shows these
tables, and a test compares both.
"""

from __future__ import annotations

from enum import Enum

from connect_trio.mux.errors import LocalError, StreamViolation
from connect_trio.mux.frames import FrameType as F


class State(Enum):
    """ASKING: the opener has said OPEN or RESUME and waits for the answer. ASKED: the acceptor has got it and its
    application has not answered yet. ATTACHED: both ends use it. BEHIND: the opener told less than it had acknowledged
    elsewhere, so its CREDIT must come first. ENDING: this end has said its last frame and waits for the peer's.
    CLOSED: nothing more is sent or expected on the id."""

    ASKING = "asking"
    ASKED = "asked"
    ATTACHED = "attached"
    BEHIND = "behind"
    ENDING = "ending"
    CLOSED = "closed"


_S = State
_CARRY = (F.DATA, F.FIN, F.CREDIT)
_ANSWERS = (F.ACCEPT, F.RESUMED)
_LAST = (F.RESET, F.DETACH, F.DONE)

# What the peer may send in each state, and what the state is then.
RECEIVE: dict[tuple[State, int], State] = {
    **{(_S.ASKING, kind): _S.ATTACHED for kind in _ANSWERS},
    **{(_S.ASKING, kind): _S.CLOSED for kind in (F.REJECT, *_LAST)},
    **{(_S.ASKED, kind): _S.ASKED for kind in _CARRY},
    **{(_S.ASKED, kind): _S.CLOSED for kind in (F.RESET, F.DETACH)},
    **{(_S.ATTACHED, kind): _S.ATTACHED for kind in _CARRY},
    **{(_S.ATTACHED, kind): _S.CLOSED for kind in _LAST},
    (_S.BEHIND, F.CREDIT): _S.ATTACHED,
    **{(_S.BEHIND, kind): _S.CLOSED for kind in (F.RESET, F.DETACH)},
    # After our last frame the peer's may still be on their way: they are ignored until its answer comes.
    **{(_S.ENDING, kind): _S.ENDING for kind in (*_CARRY, *_ANSWERS)},
    **{(_S.ENDING, kind): _S.CLOSED for kind in (F.REJECT, *_LAST)},
}

# What this end may send in each state, and what the state is then.
SEND: dict[tuple[State, int], State] = {
    # Before the answer, only on the id of the first OPEN, and no more than INITIAL bytes.
    **{(_S.ASKING, kind): _S.ASKING for kind in (F.DATA, F.FIN)},
    (_S.ASKING, F.RESET): _S.ENDING,
    (_S.ASKING, F.DETACH): _S.CLOSED,
    **{(_S.ASKED, kind): _S.ATTACHED for kind in _ANSWERS},
    (_S.ASKED, F.REJECT): _S.CLOSED,
    **{(_S.ASKED, kind): _S.ENDING for kind in (F.RESET, F.DONE)},
    (_S.ASKED, F.DETACH): _S.CLOSED,
    **{(state, kind): state for state in (_S.ATTACHED, _S.BEHIND) for kind in _CARRY},
    **{(state, kind): _S.ENDING for state in (_S.ATTACHED, _S.BEHIND) for kind in (F.RESET, F.DONE)},
    (_S.ATTACHED, F.DETACH): _S.CLOSED,
    (_S.ENDING, F.DETACH): _S.CLOSED,
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
