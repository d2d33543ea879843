"""Who a visitor is and what a tool is told about it: X-Forwarded-* and Forwarded (RFC 7239). Pure.

What a visitor says about itself is not believed. Only a peer inside a trusted network, usually the ingress, may speak
for somebody else, and of what it hands on only the part that trusted proxies themselves wrote counts.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from connect_trio.edge.headers import Items, values

_DEFAULT_PORTS = {"http": "80", "https": "443"}
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """CIDRs or single addresses. Raises ValueError that names the one that is wrong."""
    networks = []
    for text in texts:
        try:
            networks.append(ipaddress.ip_network(text.strip()))
        except ValueError as exc:
            raise ValueError(f"not a network: {text!r} ({exc}); write for example 10.0.0.0/8 or 192.0.2.7") from exc
    return tuple(networks)


def parse_address(text: str) -> Address | None:
    """An address as it stands in X-Forwarded-For, with or without a port; None if it is none."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class Forwarding:
    """How visitors are described.

    scheme: "http" or "https", by which browsers reach Connect. trusted: the networks of proxies in front of it.
    """

    def __init__(self, scheme: str, trusted: Sequence[Network] = ()) -> None:
        self.scheme = scheme
        self._trusted = tuple(trusted)

    def trusts(self, peer: str) -> bool:
        """Whether this peer may speak for others."""
        address = parse_address(peer) if self._trusted else None
        return address is not None and self._is_trusted(address)

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)

    def path(self, peer: str, items: Items) -> list[str]:
        """The addresses from the visitor to `peer`, which is trusted: the visitor, then trusted proxies.

        Read from right to left; whatever stands left of the first address that is not trusted may be invented.
        """
        hops = [peer]
        chain = b",".join(values(items, b"x-forwarded-for")).decode("latin-1").split(",")
        for text in reversed(chain):
            address = parse_address(text)
            if address is None:
                break
            hops.append(str(address))
            if not self._is_trusted(address):
                break
        return hops[::-1]

    def lines(self, path: Sequence[str], host: bytes, items: Items, *, trusted: bool) -> bytes:
        """The header lines for a tool. path: addresses, the visitor's first. host: the Host header as it came."""
        scheme, port = self.scheme, ""
        if trusted:
            scheme = _SCHEMES.get(_single(items, b"x-forwarded-proto").lower(), scheme)
            port = _single(items, b"x-forwarded-port")
        if not (port.isascii() and port.isdigit()):
            port = _port_of(host.decode("latin-1")) or _DEFAULT_PORTS[scheme]
        node = f'"[{path[0]}]"' if ":" in path[0] else path[0]
        return (
            f"X-Forwarded-For: {', '.join(path)}\r\nX-Forwarded-Proto: {scheme}\r\nX-Forwarded-Port: {port}\r\n"
            f'Forwarded: for={node};host="{host.decode("latin-1")}";proto={scheme}\r\n'
        ).encode("latin-1") + b"X-Forwarded-Host: %b\r\n" % host


def _single(items: Items, name: bytes) -> str:
    """The last value of a header: the one that the nearest proxy wrote."""
    found = b",".join(values(items, name)).decode("latin-1")
    return found.rpartition(",")[2].strip()


def _port_of(host: str) -> str:
    return host.rpartition(":")[2] if ":" in host and not host.endswith("]") else ""
