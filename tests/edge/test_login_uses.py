"""Which logins are in use: noted at no cost, told to the Store now and then, and never more than fit."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from connect_trio.edge.login_ends import Visit
from connect_trio.edge.login_records import Login
from connect_trio.edge.login_uses import Uses

INTERVAL = 300.0
SIZE = 4


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def visit(name: str) -> Visit:
    return Visit(name, Login(subject="s", username="u", created=0.0, issued=0.0))


def keys(uses: Uses) -> list[str]:
    return [use.visit.key for use in uses.to_renew(0.0)]


def test_a_login_is_told_of_at_once_and_then_once_in_an_interval() -> None:
    """Of one that is new here, nobody knows when the Store last heard."""
    clock = Clock()
    uses = Uses(clock=clock)
    uses.touch(visit("a"))
    (use,) = uses.to_renew(INTERVAL)
    uses.renewed(use, ())
    clock.now += INTERVAL - 1
    uses.touch(visit("a"))
    assert uses.to_renew(INTERVAL) == []
    clock.now += 1
    assert uses.to_renew(INTERVAL) == [use]


def test_what_was_not_used_since_is_not_told_of() -> None:
    clock = Clock()
    uses = Uses(clock=clock)
    uses.touch(visit("a"))
    (use,) = uses.to_renew(INTERVAL)
    uses.renewed(use, ())
    clock.now += 10 * INTERVAL
    assert uses.to_renew(INTERVAL) == []


def test_studios_that_are_used_while_the_store_is_told_are_told_of_next_time() -> None:
    clock = Clock()
    uses = Uses(clock=clock)
    uses.touch(visit("a"), "one")
    (use,) = uses.to_renew(INTERVAL)
    told = tuple(use.studios)
    uses.touch(visit("a"), "two")
    uses.renewed(use, told)
    assert use.studios == {"two"}


def test_studios_of_one_login_are_bounded() -> None:
    uses = Uses(clock=Clock())
    for number in range(1000):
        uses.touch(visit("a"), str(number))
    (use,) = uses.to_renew(INTERVAL)
    assert len(use.studios) == 64


def test_where_there_are_too_many_the_one_unused_for_longest_is_forgotten() -> None:
    clock = Clock()
    uses = Uses(clock=clock, size=2)
    for name in ("a", "b", "a", "c"):
        clock.now += 1
        uses.touch(visit(name))
    assert keys(uses) == ["a", "c"]


def test_what_is_told_and_unused_is_forgotten_and_what_is_untold_is_not() -> None:
    clock = Clock()
    uses = Uses(clock=clock)
    uses.touch(visit("told"))
    (use,) = uses.to_renew(0.0)
    clock.now += 1
    uses.renewed(use, ())
    uses.touch(visit("untold"))
    clock.now += 2 * INTERVAL
    uses.age(INTERVAL)
    assert keys(uses) == ["untold"]
    assert [use.visit.key for use in uses.to_ask()] == ["untold"]


class Together(RuleBasedStateMachine):
    """Whatever happens, there are no more than fit, the last ones used, and use is not forgotten before it was told."""

    names = st.sampled_from("abcdef")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.uses = Uses(clock=self.clock, size=SIZE)
        self.order: list[str] = []
        self.untold: dict[str, float] = {}

    @rule(name=names, studio=st.none() | st.sampled_from("xyz"))
    def touch(self, name: str, studio: str | None) -> None:
        self.uses.touch(visit(name), studio)
        self.order = [other for other in self.order if other != name] + [name]
        for gone in self.order[:-SIZE]:
            self.untold.pop(gone, None)
        self.order = self.order[-SIZE:]
        self.untold[name] = self.clock.now

    @rule(seconds=st.floats(0.1, 1000))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(name=names)
    def forget(self, name: str) -> None:
        self.uses.forget(name)
        self.order = [other for other in self.order if other != name]
        self.untold.pop(name, None)

    @rule()
    def renew(self) -> None:
        for use in self.uses.to_renew(0.0):
            self.uses.renewed(use, tuple(use.studios))
            if self.clock.now > use.seen:
                self.untold.pop(use.visit.key, None)

    @rule()
    def age(self) -> None:
        self.uses.age(INTERVAL)
        kept = set(self.uses._uses)
        assert set(self.untold) <= kept
        self.order = [name for name in self.order if name in kept]

    @invariant()
    def there_are_the_last_ones(self) -> None:
        assert list(self.uses._uses) == self.order
        assert len(self.order) <= SIZE


Together.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestUses = Together.TestCase
