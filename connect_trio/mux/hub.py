"""What all wires of a process part share: one task that sends small frames, and one that keeps their clocks.

Frames that are worth no system call of their own wait until the end of the scheduler's turn; then one task flushes
every wire that has some, so that an idle wire needs no writer. Batching this way doubles the requests a second at 64
connections. Waits for full sockets are tasks that exist only as long as the wait.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import trio
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_task_rescheduled


class Flushable(Protocol):
    def flush_now(self) -> None: ...

    def tick(self, now: float) -> float:
        """Do what is due; when to be called again."""
        ...


class Timed(Protocol):
    def tick(self, now: float) -> None: ...

    def deadline(self) -> float | None: ...


class Parking:
    """Where one task waits until somebody wakes it."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: Task | None = None

    async def park(self) -> None:
        """Wait for `unpark`. Raises trio.BusyResourceError if another task waits here."""
        if self._task is not None:
            raise trio.BusyResourceError("another task waits for this already")
        self._task = current_task()

        def abort(_: object) -> Abort:
            self._task = None
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)

    def unpark(self) -> None:
        """Wake the waiting task, if there is one."""
        task = self._task
        if task is not None:
            self._task = None
            reschedule(task)


class Hub:
    """Flushes and clocks for many wires. `nursery` owns the tasks that wait for full sockets."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self._dirty: list[Flushable] = []
        self._flusher = Parking()
        self._clock = Parking()
        self._asleep_until = -math.inf
        self._heap: list[tuple[float, int, Flushable]] = []
        self._due: dict[Flushable, float] = {}
        self._count = 0
        self._timed: list[Timed] = []

    def mark(self, session: Flushable) -> None:
        """Flush this at the end of the turn."""
        self._dirty.append(session)
        self._flusher.unpark()

    def schedule(self, session: Flushable, due: float) -> None:
        """Tick this at `due`; replaces an earlier wish only if that was later."""
        if self._due.get(session, math.inf) <= due:
            return
        self._due[session] = due
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, session))
        self.alarm(due)

    def forget(self, session: Flushable) -> None:
        self._due.pop(session, None)

    def add(self, timed: Timed) -> None:
        """Keep the clock of an endpoint, which calls `alarm` when its deadline moves nearer."""
        self._timed.append(timed)
        self.alarm(0.0)

    def remove(self, timed: Timed) -> None:
        self._timed.remove(timed)

    def alarm(self, due: float) -> None:
        """Something is due then: wake the clock if it would sleep longer."""
        if due < self._asleep_until:
            self._asleep_until = -math.inf
            self._clock.unpark()

    async def run_flusher(self) -> None:
        while True:
            while self._dirty:
                dirty, self._dirty = self._dirty, []
                for session in dirty:
                    session.flush_now()
                await trio.lowlevel.cancel_shielded_checkpoint()
            await self._flusher.park()

    async def run_clock(self) -> None:
        while True:
            now = trio.current_time()
            due = min(self._tick_sessions(now), self._tick_timed(now))
            self._asleep_until = due
            with trio.move_on_at(due):
                await self._clock.park()

    def _tick_sessions(self, now: float) -> float:
        heap = self._heap
        while heap and heap[0][0] <= now:
            due, _, session = heapq.heappop(heap)
            if self._due.get(session) == due:
                del self._due[session]
                self.schedule(session, session.tick(now))
        return heap[0][0] if heap else math.inf

    def _tick_timed(self, now: float) -> float:
        first = math.inf
        for timed in self._timed:
            due = timed.deadline()
            if due is not None and due <= now:
                timed.tick(now)
                due = timed.deadline()
            if due is not None:
                first = min(first, due)
        return first


@asynccontextmanager
async def open_hub() -> AsyncIterator[Hub]:
    """A hub that runs as long as the block."""
    async with trio.open_nursery() as nursery:
        hub = Hub(nursery)
        nursery.start_soon(hub.run_flusher, name="mux flusher")
        nursery.start_soon(hub.run_clock, name="mux clock")
        try:
            yield hub
        finally:
            nursery.cancel_scope.cancel()
