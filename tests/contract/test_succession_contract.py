"""What every registry promises about a place whose lease has ended: who may follow, and who comes too late."""

from __future__ import annotations

import attrs
import trio

from connect_trio.routing.registry import MAX_FORMER, Route, epoch_of
from tests.contract.test_registry_contract import LONG, SHORT, Subject, route, subject, until

__all__ = ["subject"]


def tunnel(server: str, generation: int, *, slot: int = 0, instance: str = "") -> Route:
    """One of an agent's tunnels, all by one token."""
    return attrs.evolve(
        route(connector=server, epoch=epoch_of(1_800_000_000, generation), slot=slot), instance=instance
    )


def standing_by(server: str, generation: int, *, slot: int = 0, instance: str = "") -> Route:
    return attrs.evolve(route(connector=server, epoch=epoch_of(0, generation), slot=slot), instance=instance)


async def led_to(subject: Subject) -> list[Route]:
    return list(await subject.other.find("23ce7967"))


async def let_end(subject: Subject, last: Route) -> None:
    """Its server is cut off, or was killed: nobody withdraws it, and its lease ends."""
    assert await subject.registry.publish(last, ttl=SHORT)

    async def gone() -> bool:
        return last not in await subject.registry.find(last.session)

    await until(gone)


async def test_an_older_tunnel_does_not_follow_a_newer_one_that_may_be_back(subject: Subject) -> None:
    older, newer = tunnel("aa", 1), tunnel("bb", 2)
    assert await subject.registry.publish(older, ttl=LONG)
    await let_end(subject, newer)
    assert list(await subject.registry.renew([older], ttl=LONG)) == [older]
    assert not await subject.other.publish(tunnel("cc", 1), ttl=LONG)
    assert await led_to(subject) == []
    assert list(await subject.other.renew([newer], ttl=LONG)) == []
    assert await led_to(subject) == [newer]


async def test_a_newer_tunnel_follows_at_once(subject: Subject) -> None:
    await let_end(subject, tunnel("aa", 1))
    assert await subject.registry.publish(tunnel("bb", 2), ttl=LONG)
    assert await led_to(subject) == [tunnel("bb", 2)]


async def test_a_renewal_counts_as_a_publication(subject: Subject) -> None:
    """As after a registry came back empty."""
    assert list(await subject.registry.renew([tunnel("bb", 2)], ttl=SHORT)) == []
    await trio.sleep(SHORT * 2)
    assert list(await subject.registry.renew([tunnel("aa", 1)], ttl=LONG)) == [tunnel("aa", 1)]


async def test_a_newer_tunnel_that_was_withdrawn_keeps_nobody_out(subject: Subject) -> None:
    assert await subject.registry.publish(tunnel("bb", 2), ttl=LONG)
    assert await subject.registry.withdraw(tunnel("bb", 2))
    assert await subject.registry.publish(tunnel("aa", 1), ttl=LONG)
    assert await led_to(subject) == [tunnel("aa", 1)]


async def test_a_newer_tunnel_whose_lease_had_ended_can_still_be_withdrawn(subject: Subject) -> None:
    await let_end(subject, tunnel("bb", 2))
    assert not await subject.registry.withdraw(tunnel("bb", 2)), "there was no lease any more"
    assert await subject.registry.publish(tunnel("aa", 1), ttl=LONG)


async def test_after_a_chain_of_takeovers_the_newest_that_was_not_withdrawn_may_be_back(subject: Subject) -> None:
    first, second, third = tunnel("aa", 1), tunnel("bb", 2), tunnel("cc", 3)
    for each in (first, second, third):
        assert await subject.registry.publish(each, ttl=LONG)
    assert await subject.other.withdraw(third)
    assert list(await subject.registry.renew([first], ttl=LONG)) == [first]
    assert await led_to(subject) == []
    assert list(await subject.registry.renew([second], ttl=LONG)) == []
    assert await led_to(subject) == [second]


async def test_those_who_withdraw_while_they_do_not_hold_the_place_are_forgotten(subject: Subject) -> None:
    first, second, third = tunnel("aa", 1), tunnel("bb", 2), tunnel("cc", 3)
    for each in (first, second, third):
        assert await subject.registry.publish(each, ttl=LONG)
    assert not await subject.other.withdraw(second)
    assert await led_to(subject) == [third]
    assert await subject.other.withdraw(third)
    assert list(await subject.registry.renew([first], ttl=LONG)) == []
    assert await led_to(subject) == [first]


async def test_a_lost_answer_changes_nothing(subject: Subject) -> None:
    """Who did not hear that it was published or withdrawn does it again."""
    assert await subject.registry.publish(tunnel("aa", 1), ttl=LONG)
    for _ in range(2):
        assert await subject.registry.publish(tunnel("bb", 2), ttl=LONG)
    await subject.registry.withdraw(tunnel("bb", 2))
    assert not await subject.registry.withdraw(tunnel("bb", 2))
    assert not await subject.registry.publish(tunnel("cc", 0), ttl=LONG), "the first may be back"
    assert await subject.registry.publish(tunnel("aa", 1), ttl=LONG)
    assert await led_to(subject) == [tunnel("aa", 1)]


async def test_a_server_knows_its_own_tunnels_best_also_when_their_lease_has_ended(subject: Subject) -> None:
    """An agent started anew with its clock set back, and its server was cut off from the registry meanwhile."""
    await let_end(subject, tunnel("bb", 9))
    assert await subject.registry.publish(tunnel("bb", 3), ttl=LONG)
    assert await led_to(subject) == [tunnel("bb", 3)]
    assert await subject.other.withdraw(tunnel("bb", 3))
    assert await subject.other.publish(tunnel("aa", 1), ttl=LONG), "nothing is left of the other one either"


async def test_what_a_server_said_earlier_may_arrive_later(subject: Subject) -> None:
    """A call that was given up need not be lost, and the tunnel of that time has been replaced meanwhile."""
    earlier, later = tunnel("bb", 2), attrs.evolve(tunnel("bb", 3), since=1700000001.0)
    assert await subject.registry.publish(later, ttl=SHORT)
    assert not await subject.registry.publish(earlier, ttl=LONG)
    assert list(await subject.registry.renew([earlier], ttl=LONG)) == [earlier]
    await trio.sleep(SHORT * 2)
    assert not await subject.registry.publish(earlier, ttl=LONG)
    assert list(await subject.registry.renew([earlier], ttl=LONG)) == [earlier]
    assert await led_to(subject) == []
    assert await subject.registry.publish(tunnel("cc", 4), ttl=LONG)
    assert await subject.registry.withdraw(tunnel("cc", 4))
    assert not await subject.registry.publish(earlier, ttl=LONG), "a former holder is remembered no worse"
    assert await subject.registry.publish(later, ttl=LONG)


async def test_a_server_that_was_started_anew_is_another_one(subject: Subject) -> None:
    await let_end(subject, tunnel("bb", 2))
    restarted = attrs.evolve(tunnel("cc", 1), address="bb:7777")
    assert not await subject.registry.publish(restarted, ttl=LONG)
    assert await subject.registry.publish(attrs.evolve(restarted, epoch=tunnel("bb", 3).epoch), ttl=LONG)


async def test_a_server_does_not_put_a_tunnel_before_that_of_another_one_which_may_be_back(subject: Subject) -> None:
    for each in (tunnel("bb", 5), tunnel("cc", 6)):
        assert await subject.registry.publish(each, ttl=LONG)
    assert not await subject.registry.publish(tunnel("cc", 4), ttl=LONG)
    assert await subject.registry.withdraw(tunnel("cc", 6)), "as it will, since it has another tunnel"
    assert list(await subject.registry.renew([tunnel("bb", 5)], ttl=LONG)) == []


async def test_an_agent_that_stands_by_and_lost_the_answer_has_its_place(subject: Subject) -> None:
    waiting = standing_by("aa", 1, instance="aa" * 16)
    assert await subject.registry.publish(waiting, ttl=LONG)
    assert await subject.registry.publish(tunnel("bb", 2, slot=1, instance="bb" * 16), ttl=LONG)
    assert await subject.registry.publish(waiting, ttl=LONG)


async def test_the_last_holder_is_let_back(subject: Subject) -> None:
    """But for a cut between its server and the registry, nothing would have changed."""
    assert await subject.registry.publish(tunnel("bb", 5), ttl=LONG)
    await let_end(subject, tunnel("cc", 6))
    assert list(await subject.other.renew([tunnel("cc", 6)], ttl=LONG)) == []
    assert await led_to(subject) == [tunnel("cc", 6)]


async def test_of_many_former_holders_the_newest_are_remembered(subject: Subject) -> None:
    many = [tunnel(f"{number:02x}", number) for number in range(1, 3 + MAX_FORMER)]
    for each in many:
        assert await subject.registry.publish(each, ttl=LONG)
    await subject.registry.withdraw(many[-1])
    for kept_out in many[:-2]:
        assert list(await subject.registry.renew([kept_out], ttl=LONG)) == [kept_out]
    for each in many[1:-2]:
        await subject.registry.withdraw(each)
    assert list(await subject.registry.renew([many[0]], ttl=LONG)) == [many[0]]
    await subject.registry.withdraw(many[-2])
    assert list(await subject.registry.renew([many[0]], ttl=LONG)) == []


async def test_an_agent_that_stands_by_follows_as_soon_as_the_lease_has_ended(subject: Subject) -> None:
    """The newer agent and its server failed together: there is nobody who would withdraw."""
    waiting = standing_by("aa", 1, instance="aa" * 16)
    await let_end(subject, tunnel("bb", 2, instance="bb" * 16))
    assert await subject.registry.publish(waiting, ttl=LONG)
    assert await led_to(subject) == [waiting]
    counts = tunnel("cc", 1, instance="aa" * 16)
    assert await subject.registry.publish(counts, ttl=LONG), "by a tunnel that counts as its token does"
    assert await subject.registry.withdraw(counts)
    assert await subject.registry.publish(attrs.evolve(counts, connector="dd"), ttl=LONG), "the other one is forgotten"


async def test_a_tunnel_by_which_an_agent_stood_by_is_not_renewed_past_a_newer_one(subject: Subject) -> None:
    waiting = standing_by("aa", 1)
    assert await subject.registry.publish(waiting, ttl=LONG)
    await let_end(subject, tunnel("bb", 2))
    assert list(await subject.registry.renew([waiting], ttl=LONG)) == [waiting]


async def test_an_agent_that_stands_by_waits_while_another_one_has_any_slot(subject: Subject) -> None:
    """One server of the newer agent is cut off from the registry, and the other one is not."""
    waiting = standing_by("aa", 1, instance="aa" * 16)
    other = tunnel("cc", 3, slot=1, instance="bb" * 16)
    await let_end(subject, tunnel("bb", 2, instance="bb" * 16))
    assert await subject.registry.publish(other, ttl=LONG)
    assert not await subject.registry.publish(waiting, ttl=LONG)
    assert await led_to(subject) == [other]
    assert await subject.registry.withdraw(other)
    assert await subject.registry.publish(waiting, ttl=LONG)


async def test_slots_that_an_agent_has_itself_keep_it_from_nothing(subject: Subject) -> None:
    mine = tunnel("bb", 2, slot=1, instance="aa" * 16)
    assert await subject.registry.publish(mine, ttl=LONG)
    waiting = standing_by("aa", 3, instance="aa" * 16)
    assert await subject.registry.publish(waiting, ttl=LONG)
    assert await led_to(subject) == [waiting, mine]
