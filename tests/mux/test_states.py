"""The tables of a stream's life: total, and such that two ends which follow them understand each other."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.mux.errors import LocalError, StreamViolation
from connect_trio.mux.frames import HOP_TYPES, FrameType
from connect_trio.mux.states import RECEIVE, SEND, State, received, sending
from tests.support.examples import examples

F = FrameType
ALL = [(state, kind) for state in State for kind in FrameType]
TERMINAL = {F.RESET, F.REJECT, F.DETACH, F.DONE}


@pytest.mark.parametrize(("state", "kind"), ALL)
def test_every_frame_in_every_state_is_in_the_table_or_an_error(state: State, kind: FrameType) -> None:
    if (state, kind) in RECEIVE:
        assert received(state, kind) is RECEIVE[state, kind]
    else:
        with pytest.raises(StreamViolation, match=f"{kind.name} while the stream is {state.value}"):
            received(state, kind)
    if (state, kind) in SEND:
        assert sending(state, kind) is SEND[state, kind]
    else:
        with pytest.raises(LocalError, match=f"{kind.name} cannot be sent while the stream is {state.value}"):
            sending(state, kind)


def test_frames_of_the_hop_are_in_no_table() -> None:
    assert not HOP_TYPES & {kind for _, kind in (*RECEIVE, *SEND)}


def test_nothing_is_sent_or_expected_on_a_closed_id() -> None:
    assert State.CLOSED not in {state for state, _ in (*RECEIVE, *SEND)}


def test_every_state_can_be_reached_and_left() -> None:
    # BEHIND is for an acceptor whose opener told less than was acknowledged: no frame says that, only numbers do.
    begins = [State.ASKING, State.ASKED, State.BEHIND]
    reached, todo = set(begins), list(begins)
    while todo:
        here = todo.pop()
        for table in (RECEIVE, SEND):
            for (state, _), after in table.items():
                if state is here and after not in reached:
                    reached.add(after)
                    todo.append(after)
    assert reached == set(State)
    for state in set(State) - {State.CLOSED}:
        assert any(after is State.CLOSED for (before, _), after in RECEIVE.items() if before is state)


def test_only_the_acceptor_answers_and_only_once() -> None:
    answers = (F.ACCEPT, F.RESUMED, F.REJECT)
    assert {(state, kind) for state, kind in SEND if kind in answers} == {(State.ASKED, kind) for kind in answers}
    assert SEND[State.ASKED, F.ACCEPT] is SEND[State.ASKED, F.RESUMED] is State.ATTACHED


def test_a_peer_that_told_less_than_it_had_acknowledged_says_so_before_anything_else() -> None:
    assert {kind for state, kind in RECEIVE if state is State.BEHIND} == {F.CREDIT, F.RESET, F.DETACH}
    assert RECEIVE[State.BEHIND, F.CREDIT] is State.ATTACHED


def test_after_its_last_frame_an_end_says_nothing_more_but_that_it_waits_no_longer() -> None:
    assert {kind for state, kind in SEND if state is State.ENDING} == {F.DETACH}
    for (_, kind), after in SEND.items():
        assert (after in (State.ENDING, State.CLOSED)) == (kind in TERMINAL)


class _End:
    """One end of a stream that knows the tables only, and how first terminal frames are answered."""

    def __init__(self, state: State, *, opener: bool) -> None:
        self.state = state
        self.opener = opener
        self.out: deque[FrameType] = deque()
        self.over = False

    def may(self, kind: FrameType) -> bool:
        by_role = self.opener if kind == F.DONE else False
        return (self.state, kind) in SEND and not by_role and not self.over

    def say(self, kind: FrameType) -> None:
        self.state = sending(self.state, kind)
        self.out.append(kind)
        self.over = kind in TERMINAL

    def hear(self, kind: FrameType) -> None:
        if self.state is State.CLOSED:
            return
        before = self.state
        self.state = received(self.state, kind)
        answered = kind in (F.RESET, F.DETACH) or (kind == F.DONE and self.opener)
        if answered and before is not State.ENDING:
            self.out.append(kind)
            self.over = True


CHOICES = [F.DATA, F.FIN, F.CREDIT, F.ACCEPT, F.REJECT, F.RESET, F.DONE, F.DETACH]


@examples(200)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([None, *CHOICES])), max_size=40))
def test_ends_that_keep_to_the_tables_never_surprise_each_other(steps: list[tuple[bool, FrameType | None]]) -> None:
    """Either end says what its table allows, or hears the next frame; in the end everything was understood."""
    ends = {True: _End(State.ASKING, opener=True), False: _End(State.ASKED, opener=False)}
    for side, kind in steps:
        us, them = ends[side], ends[not side]
        if kind is None:
            if them.out:
                us.hear(them.out.popleft())
        elif us.may(kind):
            us.say(kind)
    while ends[True].out or ends[False].out:
        for side in ends:
            while ends[not side].out:
                ends[side].hear(ends[not side].out.popleft())
    assert State.ENDING not in {end.state for end in ends.values()}, "one end waits for an answer that never comes"
