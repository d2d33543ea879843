"""Questions that come at the same time, asked together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import attrs
import trio

from connect_trio.routing.registry import RegistryUnavailable

Q = TypeVar("Q")
A = TypeVar("A")


@attrs.define(eq=False)
class _Batch(Generic[Q, A]):
    """questions: of which whoever put the first one asks them all. answers: None until they came."""

    questions: list[Q] = attrs.field(factory=list)
    landed: trio.Event = attrs.field(factory=trio.Event)
    answers: Sequence[A] | None = None
    error: RegistryUnavailable | None = None


class Batches(Generic[Q, A]):
    """What all tasks ask that run in one pass of the event loop goes together; nobody waits for an earlier answer.

    ask_all: answers as many questions as it is given, in order. limit: of questions in one batch.
    """

    def __init__(self, ask_all: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], *, limit: int) -> None:
        self._ask_all = ask_all
        self._limit = limit
        self._next: _Batch[Q, A] | None = None

    async def ask(self, question: Q) -> A:
        """The answer. A caller that is cancelled may have been answered. Raises RegistryUnavailable."""
        while True:
            batch = self._next
            if batch is None:
                batch = self._next = _Batch()
            place = len(batch.questions)
            batch.questions.append(question)
            if len(batch.questions) >= self._limit:
                self._next = None
            if not place:
                return (await self._lead(batch))[0]
            await batch.landed.wait()
            if batch.error is not None:
                raise RegistryUnavailable(str(batch.error)) from batch.error
            if batch.answers is not None:
                return batch.answers[place]
            # Whoever asked for all was cancelled, or met an error of its own: somebody else must ask.

    async def _lead(self, batch: _Batch[Q, A]) -> Sequence[A]:
        try:
            await trio.lowlevel.checkpoint()  # for the others of this pass
            if self._next is batch:
                self._next = None
            batch.answers = await self._ask_all(batch.questions)
        except RegistryUnavailable as exc:
            batch.error = exc
            raise
        finally:
            if self._next is batch:
                self._next = None
            batch.landed.set()
        return batch.answers
