"""An asyncio event loop that lives in one trio task: callbacks, timers, futures and tasks, and nothing else.

asyncssh drives a connection by callbacks, futures and timers of an event loop; that is all it needs of asyncio once it
has a transport of ours. Here this runs between trio's tasks: no thread, no second scheduler, no global patching.

    async with trio.open_nursery() as nursery:
        loop = await nursery.start(Loop().run)
        with loop.entered():
            connection.data_received(data)      # whatever became ready has run when the block ends
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import itertools
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final, NoReturn, TypeVar, TypeVarTuple, cast

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

BATCH: Final = 256
"""Callbacks that run before other tasks of trio have their turn."""

_UNWIND: Final = 20  # turns that cancelled tasks have, at the end, to come to theirs
_FEW: Final = 64  # cancelled timers that are not worth a search

logger = logging.getLogger(__name__)


class Loop:
    """What asyncio's own objects and asyncssh call of an event loop.

    on_error: called with each error that nobody caught, after it was logged.
    """

    def __init__(self, on_error: Callable[[BaseException], object] | None = None) -> None:
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = itertools.count()
        self._cancelled = 0  # timers in the heap that will not run
        self._wake = trio.Event()
        self._entered = False
        self._closed = False
        self._on_error = on_error

    @property
    def typed(self) -> asyncio.AbstractEventLoop:
        """This loop, for those who want it by asyncio's type; what is missing raises AttributeError."""
        return cast("asyncio.AbstractEventLoop", self)

    @property
    def timers(self) -> int:
        """How many timers are kept, cancelled ones among them."""
        return len(self._timers)

    # what asyncio asks

    def time(self) -> float:
        return trio.current_time()

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self.typed, context)
        self._ready.append(handle)
        self._wake.set()
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self.typed, context)
        handle._scheduled = True  # type: ignore[attr-defined]  # asks us to be told of its cancellation
        heapq.heappush(self._timers, (when, next(self._order), handle))
        self._wake.set()
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self.typed)

    def create_task(
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: contextvars.Context | None = None
    ) -> asyncio.Task[T]:
        return asyncio.Task(coro, loop=self.typed, name=name, context=context)

    def get_debug(self) -> bool:
        return False

    def get_task_factory(self) -> None:
        return None

    def is_running(self) -> bool:
        return not self._closed

    def is_closed(self) -> bool:
        return self._closed

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """An error that nobody caught. It ends nothing but what raised it."""
        error = context.get("exception")
        logger.error("an error in a callback: this is a bug: %s", context.get("message"), exc_info=error)
        if self._on_error is not None and isinstance(error, BaseException):
            self._on_error(error)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Called by asyncio, just before. Timers are re-armed with each packet, and must not stay until due."""
        if not handle._scheduled:  # type: ignore[attr-defined]
            return
        self._cancelled += 1
        if self._cancelled > max(_FEW, len(self._timers) // 2):
            self._timers = [timer for timer in self._timers if not timer[2].cancelled()]
            heapq.heapify(self._timers)
            self._cancelled = 1  # this one

    # from trio

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The block runs as if called by this loop; afterwards so does what became ready. The block must not await."""
        if self._entered:
            yield
            return
        self._entered = True
        asyncio._set_running_loop(self.typed)
        try:
            yield
            self._run_ready()
        finally:
            asyncio._set_running_loop(None)
            self._entered = False

    async def run(self, *, task_status: trio.TaskStatus[Loop] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Run timers and what is left of callbacks until cancelled; then asyncio's tasks are cancelled, too."""
        task_status.started(self)
        try:
            while True:
                if not self._ready:
                    await self._sleep()
                self._take_due()
                with self.entered():
                    pass
                await trio.lowlevel.checkpoint()
        finally:
            self._unwind()

    def trio_call(
        self, nursery: trio.Nursery, function: Callable[[*Ts], Awaitable[T]], *args: *Ts
    ) -> asyncio.Future[T]:
        """The result of a trio function that runs in `nursery`, as a future; who cancels the one cancels the other.

        Its errors are the future's, and do not reach the nursery.
        """
        future: asyncio.Future[T] = self.create_future()
        scope = trio.CancelScope()
        future.add_done_callback(lambda done: scope.cancel() if done.cancelled() else None)
        nursery.start_soon(self._call, future, scope, function, args)
        return future

    async def _call(
        self,
        future: asyncio.Future[T],
        scope: trio.CancelScope,
        function: Callable[[*Ts], Awaitable[T]],
        args: tuple[*Ts],
    ) -> None:
        result: list[T] = []
        error: Exception | None = None
        try:
            with scope:
                result.append(await function(*args))
        except Exception as exc:  # noqa: BLE001 - it is handed on, whole
            error = exc
        finally:  # also when the nursery was cancelled: somebody waits
            with self.entered():
                if not future.done():
                    if error is not None:
                        future.set_exception(error)
                    elif result:
                        future.set_result(result[0])
                    else:
                        future.cancel()

    async def aio_call(self, coro: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine of asyncio; who cancels this call cancels the coroutine. Raises what it raises."""
        over = trio.Event()
        with self.entered():
            task = self.create_task(coro)
            task.add_done_callback(lambda _: over.set())
        try:
            await over.wait()
        finally:
            if not task.done():
                with self.entered():
                    task.cancel()
        return task.result()

    # inside

    async def _sleep(self) -> None:
        """Until something is ready or due."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
            self._cancelled -= 1
        self._wake = trio.Event()
        with trio.move_on_at(self._timers[0][0] if self._timers else math.inf):
            await self._wake.wait()

    def _take_due(self) -> None:
        now = self.time()
        while self._timers and self._timers[0][0] <= now:
            handle = heapq.heappop(self._timers)[2]
            handle._scheduled = False  # type: ignore[attr-defined]  # it is no longer in the heap
            if handle.cancelled():
                self._cancelled -= 1
            else:
                self._ready.append(handle)

    def _run_ready(self) -> None:
        for _ in range(BATCH):
            if not self._ready:
                return
            handle = self._ready.popleft()
            if not handle.cancelled():
                handle._run()

    def _unwind(self) -> None:
        for _ in range(_UNWIND):
            tasks = [task for task in asyncio.all_tasks(self.typed) if not task.done()]
            if not tasks and not self._ready:
                break
            with self.entered():
                for task in tasks:
                    task.cancel()
        self._timers.clear()
        self._closed = True
