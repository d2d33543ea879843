"""The load of survival tests, a process of its own: `python -m tests.support.survival_load OPTIONS`, as JSON.

It answers each line of JSON on stdin by one on stdout (`Load.answer`), the first one unasked when everything runs.
Times are those of CLOCK_MONOTONIC, which all processes share.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import trio

from tests.support.survival_flows import Broken, Conversation, Door, Download, Flow, Transfer, Upload
from tests.support.survival_returns import Caller, Returning

OPENING = 16
"""Conversations that are opened at the same time."""

LEAVING = 60.0
_TICK = 0.004
_LOOK = 0.01


@attrs.frozen(kw_only=True)
class Options:
    """doors: port, host and cookies of each, which take turns. first: the lowest number of a flow.

    interval: seconds between messages of a conversation. rate: bytes a second of a transfer. returning: conversations
    that come back after 1012. callers: who ask one thing after another. tool: its own port, to ask for the ends of
    downloads there, which is then no visitor's request; 0 for none.
    """

    doors: Sequence[tuple[int, str, str]]
    first: int = 0
    conversations: int = 0
    downloads: int = 0
    uploads: int = 0
    returning: int = 0
    callers: int = 0
    tool: int = 0
    interval: float = 0.1
    rate: int = 128 * 1024


class Load:
    def __init__(self, options: Options) -> None:
        doors = itertools.cycle(Door(*door) for door in options.doors)
        numbers = itertools.count(options.first)

        def some(count: int) -> Iterator[tuple[int, Door]]:
            return zip(itertools.islice(numbers, count), doors, strict=False)

        self._options = options
        self._downloads = [Download(*one, rate=options.rate, end_at=options.tool) for one in some(options.downloads)]
        self._transfers: list[Transfer] = [
            *self._downloads,
            *(Upload(*one, rate=options.rate) for one in some(options.uploads)),
        ]
        self._returning = [Returning(*one) for one in some(options.returning)]
        self._conversations = [*self._returning, *(Conversation(*one) for one in some(options.conversations))]
        self._callers = [Caller(*one) for one in some(options.callers)]
        self._finished = False

    @property
    def _flows(self) -> Sequence[Flow]:
        return [*self._conversations, *self._transfers, *self._callers]

    async def run(self) -> None:
        """Serve stdin and stdout until `finish` or the end of stdin."""
        async with trio.open_nursery() as nursery:
            await self._start(nursery)
            nursery.start_soon(self._talk)
            write({"broken": self._broken()})
            asked = b""
            async for data in trio.lowlevel.FdStream(os.dup(0)):
                *commands, asked = (asked + data).split(b"\n")
                for command in map(json.loads, commands):
                    write(await self.answer(command.pop("do"), command))
                if self._finished:
                    break
            nursery.cancel_scope.cancel()

    async def answer(self, command: str, arguments: dict[str, float]) -> dict[str, Any]:
        match command:
            case "forget":
                for flow in self._flows:
                    flow.forget()
            case "ask":
                for conversation in self._conversations:
                    conversation.send()
            case "settle":
                return {"waiting": await self._settle(**arguments)}
            case "pauses":
                return {**self._pauses(**arguments), "broken": self._broken()}
            case "returns":
                return self._returns()
            case "finish":
                return await self._finish()
        return {"now": time.monotonic()}

    async def _start(self, nursery: trio.Nursery) -> None:
        turn = trio.CapacityLimiter(OPENING)
        async with trio.open_nursery() as opening:
            for conversation in self._conversations:
                opening.start_soon(self._open, conversation, turn, nursery)
        for transfer in self._transfers:
            nursery.start_soon(transfer.run)
            await transfer.begun.wait()
        for caller in self._callers:
            nursery.start_soon(caller.run)
        await self._settle(0.001, LEAVING)

    async def _open(self, conversation: Conversation, turn: trio.CapacityLimiter, nursery: trio.Nursery) -> None:
        async with turn:
            try:
                await conversation.open()
            except (OSError, Broken) as exc:
                conversation.break_off(f"could not be opened: {exc}")
                return
            nursery.start_soon(conversation.run)
            conversation.send()

    async def _talk(self) -> None:
        """Each conversation's next message, one conversation after the other, evenly."""
        if not self._conversations:
            return
        step = self._options.interval / len(self._conversations)
        due, turn = time.monotonic(), 0
        while not self._finished:
            now = time.monotonic()
            while due <= now:
                self._conversations[turn % len(self._conversations)].send()
                due, turn = due + step, turn + 1
            await trio.sleep(max(due - now, _TICK))

    async def _settle(self, since: float, within: float) -> list[str]:
        """Wait until all that is whole went on after `since`; who did not."""
        deadline = time.monotonic() + within
        while waiting := [flow for flow in self._flows if flow.error is None and not flow.went_on(since)]:
            if time.monotonic() > deadline:
                break
            await trio.sleep(_LOOK)
        return [flow.name for flow in waiting]

    def _pauses(self, since: float) -> dict[str, Any]:
        return {
            "pauses": [flow.pause(since) for flow in self._conversations if flow.error is None],
            "last": max((flow.samples[-1][1] for flow in self._conversations if flow.samples), default=0.0),
            "silences": [flow.silence(since) for flow in self._downloads if flow.error is None],
        }

    def _returns(self) -> dict[str, Any]:
        """What came of those who come back."""
        return {
            "restarts": [when for flow in self._returning for when in flow.restarts],
            "unanswered": sum(flow.unanswered for flow in self._returning),
            "answered": sum(caller.answered for caller in self._callers),
            "stale": sum(caller.stale for caller in self._callers),
            "longest": max((caller.longest for caller in self._callers), default=0.0),
            "broken": self._broken(),
        }

    def _broken(self) -> list[tuple[str, str, float]]:
        return [(flow.name, flow.error, flow.broke_at) for flow in self._flows if flow.error is not None]

    async def _finish(self) -> dict[str, Any]:
        """End everything properly, and count."""
        self._finished = True
        for ending in self._transfers:
            ending.stopping.set()
        for caller in self._callers:
            caller.stopping.set()
        await self._all(lambda flow: not isinstance(flow, Conversation) or flow.sent == flow.back)
        for conversation in self._conversations:
            conversation.leave()
        await self._all(lambda flow: flow.ended)
        for flow in self._flows:
            if not flow.ended:
                flow.break_off(f"had not ended {LEAVING:g} s after it was asked to")
        return {
            "messages": sum(flow.back for flow in self._conversations),
            "bytes": sum(flow.moved for flow in self._transfers),
            "broken": self._broken(),
        }

    async def _all(self, done: Callable[[Flow], bool]) -> None:
        """Wait until this is true of all that is whole, but not for ever."""
        with trio.move_on_after(LEAVING):
            while not all(flow.error is not None or done(flow) for flow in self._flows):
                await trio.sleep(_LOOK)


def write(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


def main() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    trio.run(Load(Options(**json.loads(sys.argv[1]))).run)


if __name__ == "__main__":
    main()
