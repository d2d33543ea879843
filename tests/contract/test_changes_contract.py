"""What every registry promises about telling of changes, whatever it is made of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from connect_trio.routing.registry import Registry
from tests.contract.test_registry_contract import LONG, SHORT, Subject, route, subject

__all__ = ["subject"]


class Told(list[str | None]):
    """What was told, in order."""

    async def until(self, *expected: str | None) -> None:
        """Wait until exactly this was told since the last time, and forget it."""
        with trio.fail_after(60):
            while len(self) < len(expected):
                await trio.sleep(SHORT / 10)
        assert list(self) == list(expected)
        self.clear()


@asynccontextmanager
async def following(registry: Registry) -> AsyncIterator[Told]:
    """Follows the changes; nothing is missed from the beginning of the block on."""
    told = Told()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(registry.changes, told.append)
        await told.until(None)
        yield told
        nursery.cancel_scope.cancel()


async def test_every_change_of_a_route_is_told_to_everyone(subject: Subject) -> None:
    async with following(subject.registry) as own, following(subject.other) as others:
        await subject.registry.publish(route(), ttl=LONG)
        await subject.registry.publish(route(epoch=2, session="00000001"), ttl=LONG)
        await subject.registry.withdraw(route())
        for told in (own, others):
            await told.until("23ce7967", "00000001", "23ce7967")


async def test_what_is_told_has_happened(subject: Subject) -> None:
    found = []
    async with trio.open_nursery() as nursery:
        sender, receiver = trio.open_memory_channel[str | None](10)
        nursery.start_soon(subject.other.changes, sender.send_nowait)
        assert await receiver.receive() is None
        for epoch in (1, 2):
            await subject.registry.publish(route(epoch=epoch), ttl=LONG)
            assert await receiver.receive() == "23ce7967"
            found += [route.epoch for route in await subject.other.find("23ce7967")]
        nursery.cancel_scope.cancel()
    assert found == [1, 2]


async def test_what_changed_nothing_is_not_told(subject: Subject) -> None:
    await subject.registry.publish(route(epoch=5), ttl=LONG)
    async with following(subject.other) as told:
        assert list(await subject.registry.renew([route(epoch=5)], ttl=LONG)) == []
        assert not await subject.registry.publish(route(connector="bb", epoch=4), ttl=LONG)
        assert not await subject.registry.withdraw(route(epoch=4))
        assert len(await subject.registry.renew([route(connector="bb", epoch=4)], ttl=LONG)) == 1
        await subject.registry.publish(route(session="00000001"), ttl=LONG)
        await told.until("00000001")


async def test_a_renewal_that_sets_a_lease_again_is_told(subject: Subject) -> None:
    lost, older, kept = (route(session=f"{n:08x}", epoch=2) for n in range(3))
    await subject.registry.publish(route(session="00000001", connector="bb", epoch=1), ttl=LONG)
    await subject.registry.publish(kept, ttl=LONG)
    async with following(subject.other) as told:
        assert list(await subject.registry.renew([lost, older, kept], ttl=LONG)) == []
        await told.until("00000000", "00000001")


async def test_who_has_stopped_to_follow_is_told_nothing(subject: Subject) -> None:
    async with following(subject.other) as told:
        pass
    async with following(subject.other) as later:
        await subject.registry.publish(route(), ttl=LONG)
        await later.until("23ce7967")
    assert list(told) == []
