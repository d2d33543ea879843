"""Who may connect."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from connect_trio.ssh.crowd import (
    FAILURES,
    STALE,
    STRANGERS,
    STRANGERS_OF_ADDRESS,
    Crowd,
    Guest,
    Turned,
    network_of,
)


def test_one_too_many_is_turned_away_until_somebody_leaves() -> None:
    crowd = Crowd(2)
    first, _ = crowd.arrives("192.0.2.1", 0)
    crowd.arrives("192.0.2.2", 0)
    with pytest.raises(Turned, match=r"too many connections \(the limit is 2\)"):
        crowd.arrives("192.0.2.3", 0)
    crowd.leaves(first, 1)
    crowd.arrives("192.0.2.3", 1)
    assert len(crowd) == 2


def test_an_address_has_only_so_many_strangers() -> None:
    crowd = Crowd(2000)
    guests = [crowd.arrives("2001:db8::1", 0)[0] for _ in range(STRANGERS_OF_ADDRESS)]
    with pytest.raises(Turned, match="from your address at once"):
        crowd.arrives("2001:db8::2", 0)  # another one of the same subscriber
    crowd.arrives("2001:db8:0:1::1", 0)
    crowd.enters(guests[0])
    crowd.arrives("2001:db8::1", 0)
    assert len(crowd) == STRANGERS_OF_ADDRESS + 2


def test_those_who_take_long_to_log_in_make_room_for_newcomers() -> None:
    crowd = Crowd(2000)
    flood = [crowd.arrives(f"10.0.{n // 200}.{n % 200}", 0)[0] for n in range(STRANGERS)]
    with pytest.raises(Turned, match="too many logins at once"):
        crowd.arrives("192.0.2.1", STALE / 2)
    _, leaves = crowd.arrives("192.0.2.1", STALE)
    assert leaves is flood[0]
    crowd.leaves(flood[0], STALE)
    assert crowd.strangers == STRANGERS


def test_a_balancer_has_as_many_strangers_as_it_likes() -> None:
    crowd = Crowd(2000)
    for _ in range(STRANGERS_OF_ADDRESS * 2):
        crowd.arrives(None, 0)
    assert crowd.strangers == STRANGERS_OF_ADDRESS * 2


def test_too_many_failures_of_an_address_are_forgiven_slowly() -> None:
    crowd = Crowd(2000)
    for _ in range(int(FAILURES) + 1):
        crowd.leaves(crowd.arrives("192.0.2.1", 0)[0], 0, failed=True)
    with pytest.raises(Turned, match="from your address have failed"):
        crowd.arrives("192.0.2.1", 0)
    crowd.arrives("192.0.2.2", 0)
    crowd.arrives("192.0.2.1", 10)


def test_what_was_no_try_to_log_in_is_no_failure() -> None:
    crowd = Crowd(2000)
    for _ in range(200):
        crowd.leaves(crowd.arrives("192.0.2.1", 0)[0], 0)
    crowd.arrives("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("no address", "no address"),
    ],
)
def test_what_counts_as_one_address(address: str, network: str) -> None:
    assert network_of(address) == network


class Comings(RuleBasedStateMachine):
    """Whatever comes and goes, what is counted is what is there."""

    def __init__(self) -> None:
        super().__init__()
        self.crowd = Crowd(5)
        self.guests: list[Guest] = []
        self.now = 0.0

    @rule(address=st.sampled_from([None, "192.0.2.1", "192.0.2.2"]), after=st.floats(0, 10))
    def arrive(self, address: str | None, after: float) -> None:
        self.now += after
        try:
            guest, leaves = self.crowd.arrives(address, self.now)
        except Turned:
            assert len(self.guests) >= 5
            return
        self.guests.append(guest)
        if leaves is not None:
            self.leave_guest(leaves, failed=False)

    @rule(number=st.integers(0, 10), failed=st.booleans())
    def leave(self, number: int, failed: bool) -> None:
        if self.guests:
            self.leave_guest(self.guests[number % len(self.guests)], failed=failed)

    def leave_guest(self, guest: Guest, *, failed: bool) -> None:
        self.crowd.leaves(guest, self.now, failed=failed)
        self.guests.remove(guest)

    @rule(number=st.integers(0, 10))
    def enter(self, number: int) -> None:
        if self.guests:
            self.crowd.enters(self.guests[number % len(self.guests)])

    @invariant()
    def counts_are_right(self) -> None:
        assert len(self.crowd) == len(self.guests) <= 5
        assert self.crowd.strangers == sum(guest.stranger for guest in self.guests)
        addresses = [guest.address for guest in self.guests if guest.stranger and guest.address is not None]
        assert sum(self.crowd._of_address.values()) == len(addresses)


TestComings = Comings.TestCase
