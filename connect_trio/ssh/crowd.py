"""Who may connect: so many at once, so many of them not logged in, so many from one address. Pure, driven by `now`."""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address
from typing import Final

import attrs

STRANGERS: Final = 512  # connections that are not logged in
STRANGERS_OF_ADDRESS: Final = 64
STALE: Final = 5.0  # seconds after which a stranger makes room for a newcomer
FAILURES: Final = 30.0  # failed logins of an address at once,
FORGIVEN: Final = 0.5  # and how many are forgiven in a second
REMEMBERED: Final = 8192  # addresses


@attrs.define(eq=False)
class Guest:
    """A connection. address: None where many share one, so that nothing is to be counted by it."""

    address: str | None
    since: float
    stranger: bool = True


class Turned(Exception):
    """A connection is turned away; the text is for its user."""


class Crowd:
    """Connections of one process. limit: how many there may be."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._guests: set[Guest] = set()
        self._strangers: OrderedDict[Guest, None] = OrderedDict()  # oldest first
        self._of_address: dict[str, int] = {}
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()  # how many, when

    def __len__(self) -> int:
        return len(self._guests)

    @property
    def strangers(self) -> int:
        return len(self._strangers)

    def arrives(self, address: str | None, now: float) -> tuple[Guest, Guest | None]:
        """A new guest, and the stranger who has to make room. Raises Turned."""
        if len(self._guests) >= self._limit:
            raise Turned(f"there are too many connections (the limit is {self._limit}); try again later")
        guest = Guest(None, now)
        self.locate(guest, address, now)
        leaves = None
        if len(self._strangers) >= min(STRANGERS, self._limit):
            leaves = next(iter(self._strangers))
            if now - leaves.since < STALE:
                self._forget_address(guest)
                raise Turned("there are too many logins at once; try again in a few seconds")
        self._guests.add(guest)
        self._strangers[guest] = None
        return guest, leaves

    def locate(self, guest: Guest, address: str | None, now: float) -> None:
        """A guest's address is known. Raises Turned."""
        if address is None:
            return
        network = network_of(address)
        if self._failed(network, now) > FAILURES:
            raise Turned("too many logins from your address have failed; try again in a minute")
        if self._of_address.get(network, 0) >= STRANGERS_OF_ADDRESS:
            raise Turned("there are too many logins from your address at once; try again in a few seconds")
        guest.address = network
        self._of_address[network] = self._of_address.get(network, 0) + 1

    def enters(self, guest: Guest) -> None:
        """A guest is logged in."""
        if guest.stranger:
            guest.stranger = False
            self._strangers.pop(guest, None)
            self._forget_address(guest)

    def leaves(self, guest: Guest, now: float, *, failed: bool = False) -> None:
        """A guest is gone. failed: whether a login was tried in vain."""
        self._guests.discard(guest)
        if guest.stranger:
            self._strangers.pop(guest, None)
            if failed and guest.address is not None:
                self._failures[guest.address] = self._failed(guest.address, now) + 1, now
                self._failures.move_to_end(guest.address)
                if len(self._failures) > REMEMBERED:
                    self._failures.popitem(last=False)
            self._forget_address(guest)

    def _failed(self, network: str, now: float) -> float:
        count, when = self._failures.get(network, (0.0, now))
        return max(0.0, count - (now - when) * FORGIVEN)

    def _forget_address(self, guest: Guest) -> None:
        if guest.address is not None:
            left = self._of_address[guest.address] - 1
            if left:
                self._of_address[guest.address] = left
            else:
                del self._of_address[guest.address]
            guest.address = None


def network_of(address: str) -> str:
    """What counts as one address: of IPv6, the network of a subscriber."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return str(parsed)
