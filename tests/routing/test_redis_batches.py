"""Questions of the same moment go together, and whoever is cancelled takes no answer from the others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from connect_trio.routing.redis_batches import Batches
from connect_trio.routing.registry import RegistryUnavailable

Clock = trio.testing.MockClock


class Oracle:
    """Answers each question with itself in capitals, when it may. asked: the batches that came."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.may = trio.Event()
        self.error: Exception | None = None

    async def answer(self, questions: Sequence[str]) -> Sequence[str]:
        self.asked.append(list(questions))
        await self.may.wait()
        if self.error is not None:
            raise self.error
        return [question.upper() for question in questions]


class Askers:
    """Tasks that ask, and what became of each."""

    def __init__(self, nursery: trio.Nursery, batches: Batches[str, str]) -> None:
        self.answers: dict[str, str] = {}
        self.errors: dict[str, Exception] = {}
        self.scopes: dict[str, trio.CancelScope] = {}
        self._nursery = nursery
        self._batches = batches

    def ask(self, *questions: str) -> None:
        for question in questions:
            self.scopes[question] = trio.CancelScope()
            self._nursery.start_soon(self._ask, question)

    async def _ask(self, question: str) -> None:
        with self.scopes[question]:
            try:
                self.answers[question] = await self._batches.ask(question)
            except (RegistryUnavailable, ValueError) as exc:
                self.errors[question] = exc


async def test_what_is_asked_at_the_same_time_goes_together_and_each_gets_its_own_answer(autojump_clock: Clock) -> None:
    oracle = Oracle()
    async with trio.open_nursery() as nursery:
        askers = Askers(nursery, Batches(oracle.answer, limit=10))
        askers.ask("a", "b", "c")
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(map(sorted, oracle.asked)) == [["a", "b", "c"]]
        askers.ask("d")
        await trio.testing.wait_all_tasks_blocked()
        assert oracle.asked[1] == ["d"], "a later one does not wait for the answer to the earlier ones"
        oracle.may.set()
    assert askers.answers == {"a": "A", "b": "B", "c": "C", "d": "D"}


async def test_a_batch_has_a_limit(autojump_clock: Clock) -> None:
    oracle = Oracle()
    oracle.may.set()
    async with trio.open_nursery() as nursery:
        askers = Askers(nursery, Batches(oracle.answer, limit=2))
        askers.ask("a", "b", "c", "d", "e")
    assert sorted(map(len, oracle.asked)) == [1, 2, 2]
    assert askers.answers == {letter: letter.upper() for letter in "abcde"}


async def test_an_error_reaches_all_of_a_batch(autojump_clock: Clock) -> None:
    oracle = Oracle()
    oracle.error = RegistryUnavailable("away")
    oracle.may.set()
    async with trio.open_nursery() as nursery:
        askers = Askers(nursery, Batches(oracle.answer, limit=10))
        askers.ask("a", "b")
    assert {question: str(error) for question, error in askers.errors.items()} == {"a": "away", "b": "away"}
    assert len({id(error) for error in askers.errors.values()}) == 2


@pytest.mark.parametrize("when", ["before it asks", "while it asks"])
async def test_whoever_asks_for_all_may_be_cancelled(autojump_clock: Clock, when: str) -> None:
    oracle = Oracle()
    async with trio.open_nursery() as nursery:
        askers = Askers(nursery, Batches(oracle.answer, limit=10))
        askers.ask("a", "b", "c")
        if when == "while it asks":
            await trio.testing.wait_all_tasks_blocked()
            leader = oracle.asked[0][0]
        else:
            leader = "a"
        askers.scopes[leader].cancel()
        await trio.testing.wait_all_tasks_blocked()
        oracle.may.set()
    left = {"a", "b", "c"} - {leader}
    assert askers.answers == {letter: letter.upper() for letter in left}
    assert left <= set(oracle.asked[-1])


async def test_another_one_may_be_cancelled(autojump_clock: Clock) -> None:
    oracle = Oracle()
    async with trio.open_nursery() as nursery:
        askers = Askers(nursery, Batches(oracle.answer, limit=10))
        askers.ask("a", "b", "c")
        await trio.testing.wait_all_tasks_blocked()
        gone = oracle.asked[0][1]
        askers.scopes[gone].cancel()
        oracle.may.set()
    assert askers.answers == {letter: letter.upper() for letter in {"a", "b", "c"} - {gone}}
    assert len(oracle.asked) == 1


async def test_an_error_of_another_kind_is_met_by_everybody(autojump_clock: Clock) -> None:
    oracle = Oracle()
    oracle.error = ValueError("no answer fits")
    oracle.may.set()
    async with trio.open_nursery() as nursery:
        askers = Askers(nursery, Batches(oracle.answer, limit=10))
        askers.ask("a", "b", "c")
    assert set(askers.errors) == {"a", "b", "c"}
