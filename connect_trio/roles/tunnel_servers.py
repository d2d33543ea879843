"""Where tunnels go: the servers' addresses (CONNECT_TUNNEL_URL), looked up anew for each tunnel.

A name may stand for many servers, which come and go: a headless service of Kubernetes has an address for each.
"""

from __future__ import annotations

import logging
import random
import socket
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address

import attrs
import trio

from connect_trio.routing.names import split_address

LOOKUP = 5.0  # seconds that a name server has
PROMPT = 1.0  # seconds after which a tunnel goes to the servers found so far, if there are any
MAX_NAMES = 4096  # addresses of which the name is remembered

logger = logging.getLogger(__name__)

Address = tuple[str, int]


@attrs.define(eq=False)
class _Lookup:
    """One question to the resolver, and who waits for it. found: empty if there was no answer, or none yet."""

    found: list[Address] = attrs.field(factory=list)
    ended: trio.Event = attrs.field(factory=trio.Event)


class TunnelServers:
    """Made by `open_tunnel_servers`.

    A lookup blocks a thread until the resolver gives up, however soon we do: so there is one of a name at a time, in
    the background, for all who need it.
    """

    def __init__(self, addresses: Sequence[str], nursery: trio.Nursery) -> None:
        """addresses: "host:port" each. Raises ValueError."""
        self._addresses = [split_address(address) for address in addresses]
        self._nursery = nursery
        self._lookups: dict[Address, _Lookup] = {}
        self._failing: set[Address] = set()
        self._names: OrderedDict[Address, str] = OrderedDict()

    async def pick(self) -> Sequence[Address]:
        """Every address (IP address, port) of every name, once, in another order each time, so that agents spread.

        Waits at most LOOKUP seconds; a name that fails is left out, so there may be none.
        """
        lookups = [self._lookup(address) for address in self._addresses]
        with trio.move_on_after(PROMPT):
            for lookup in lookups:
                await lookup.ended.wait()
        if not any(lookup.found for lookup in lookups):
            for lookup in lookups:
                await lookup.ended.wait()
        found = list(dict.fromkeys(address for lookup in lookups for address in lookup.found))
        return random.sample(found, len(found))

    def name_of(self, ip: str, port: int) -> str:
        """The name that an address was found by, which is what a certificate is for; else the IP address itself."""
        return self._names.get((ip, port), ip)

    def _lookup(self, address: Address) -> _Lookup:
        running = self._lookups.get(address)
        if running is not None:
            return running
        lookup = _Lookup()
        if _is_ip(address[0]):
            lookup.found.append(address)
            lookup.ended.set()
        else:
            self._lookups[address] = lookup
            self._nursery.start_soon(self._run, address, lookup, name=f"lookup {address[0]}")
        return lookup

    async def _run(self, address: Address, lookup: _Lookup) -> None:
        host, port = address
        problem = f"no answer within {LOOKUP:g} s"
        try:
            with trio.move_on_after(LOOKUP):
                # Of both families, IPv4 and IPv6.
                answers = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                lookup.found = [(str(sockaddr[0]), port) for *_, sockaddr in answers]
                self._remember(host, lookup.found)
                problem = "no address"
        except (OSError, UnicodeError) as exc:  # the latter: names that IDNA does not allow
            problem = str(getattr(exc, "strerror", None) or exc)
        finally:
            del self._lookups[address]
            lookup.ended.set()
        self._tell(address, None if lookup.found else problem)

    def _remember(self, host: str, found: Sequence[Address]) -> None:
        for address in found:
            self._names[address] = host
            self._names.move_to_end(address)
        while len(self._names) > MAX_NAMES:
            self._names.popitem(last=False)

    def _tell(self, address: Address, problem: str | None) -> None:
        """Once when a name begins to fail, and once when that is over."""
        if problem is not None and address not in self._failing:
            self._failing.add(address)
            logger.warning(
                "a name in CONNECT_TUNNEL_URL cannot be resolved", extra={"host": address[0], "reason": problem}
            )
        elif problem is None and address in self._failing:
            self._failing.discard(address)
            logger.info("a name in CONNECT_TUNNEL_URL can be resolved again", extra={"host": address[0]})


@asynccontextmanager
async def open_tunnel_servers(addresses: Sequence[str]) -> AsyncIterator[TunnelServers]:
    """The servers at these "host:port". Lookups end with the block."""
    async with trio.open_nursery() as nursery:
        yield TunnelServers(addresses, nursery)
        nursery.cancel_scope.cancel("nobody looks for servers any more")


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
