"""Where the tunnels of one agent are, so that they keep apart: no server or proxy that ends is to take all of them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import attrs
import trio

from connect_trio.transport.avoiding import MAX_IDS

TURN = 2.0  # seconds that a dial waits for another one to end, so that it knows where that has gone


@attrs.define(eq=False)
class Place:
    """Of one tunnel. server, proxy: hex ids; None for a proxy that does not say. left: a newer one has its slot."""

    slot: int
    server: str
    proxy: str | None
    left: bool = False


class Standing:
    """Whether another agent of the session has taken this one's place.

    It finds out by its slot 0, which every agent has. Once that was displaced it yields: it asks for a tunnel in such a
    way that it takes nobody's place, though a token that was renewed meanwhile would let it. So of two agents that go
    on running, one has the session, instead of each in turn. If it is not let in like that either, it stands by:
    without a tunnel in any slot, since behind one name there is one tool.
    """

    def __init__(self) -> None:
        self.yields = False
        self.by = False
        self.told: list[Callable[[], None]] = []
        """Called when it begins to stand by: tunnels of other slots are to be closed."""
        self._serving = trio.Event()
        self._serving.set()

    def displaced(self, *, asked: bool) -> bool:
        """Slot 0 was. asked: though it yielded. Whether this is news."""
        news = not self.yields
        self.yields = True
        if asked and not self.by:
            self.by = True
            self._serving = trio.Event()
            for tell in self.told:
                tell()
        return news

    def alone(self) -> None:
        """There is no other agent any more."""
        self.yields = self.by = False
        self._serving.set()

    async def serving(self) -> None:
        """Wait while it stands by."""
        await self._serving.wait()


class Places:
    """Shared by the tunnels of one agent. up: there is or was a tunnel."""

    def __init__(self) -> None:
        self.up = trio.Event()
        self.standing = Standing()
        self._generation = time.time_ns() // 1_000_000
        self._places: list[Place] = []
        self._dialling = trio.Lock()

    def next_generation(self) -> int:
        """One count for all slots: what a newer agent says is higher, whichever slot it is."""
        self._generation += 1
        return self._generation

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Dial one after the other, but nobody waits long for one that hangs."""
        with trio.move_on_after(TURN):
            await self._dialling.acquire()
        mine = self._dialling.statistics().owner is trio.lowlevel.current_task()
        try:
            yield
        finally:
            if mine:
                self._dialling.release()

    def arrived(self, place: Place) -> None:
        self._places.append(place)
        self.up.set()

    def gone(self, place: Place) -> None:
        """The tunnel there has ended."""
        self._places.remove(place)

    def servers(self, *, but: Place | None = None) -> list[str]:
        """Those that a new tunnel is to avoid: all, also of tunnels that are being left, since they may be draining.

        but: the tunnel that the new one is to replace, which may stay where it is.
        """
        others = (place for place in self._places if place is not but)
        return _distinct(place.server for place in sorted(others, key=lambda place: place.left))

    def proxies(self, slot: int) -> list[str]:
        """Those that a new tunnel of this slot is to avoid."""
        return _distinct(place.proxy for place in self._places if place.slot != slot and place.proxy and not place.left)

    def shares(self, place: Place) -> tuple[bool, bool]:
        """Whether another tunnel is at the same server, and through the same proxy, and it is this one's turn to move:
        not the lowest slot's, which is the one that servers prefer."""
        others = [other for other in self._places if other.slot < place.slot and not other.left]
        proxy = place.proxy is not None and any(other.proxy == place.proxy for other in others)
        return any(other.server == place.server for other in others), proxy


def _distinct(ids: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(ids))[:MAX_IDS]
