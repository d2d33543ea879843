"""Where forwards of SSH users may end: on this machine's loopback and on their own sockets, if nothing else is set."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import trio

from connect_trio.control import one_line
from connect_trio.mux.codes import RejectCode
from connect_trio.transport.sockets import Socket

CONNECT_TIMEOUT = 10.0  # seconds, for all addresses of a name together
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
LOCALHOST = ("127.0.0.1", "::1")

# Where clouds keep the credentials of a machine. No forward goes there, whatever is configured.
METADATA: tuple[Network, ...] = tuple(
    map(
        ipaddress.ip_network,
        (
            "169.254.0.0/16",
            "fe80::/10",
            "fd00:ec2::/32",  # Amazon
            "fd20:ce::/32",  # Google
            "100.100.100.200/32",  # Alibaba
            "168.63.129.16/32",  # Azure
            "192.0.0.192/32",  # Oracle
        ),
    )
)

# Ways to write an IPv4 address as an IPv6 one that a gateway turns into it again.
NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
COMPATIBLE = ipaddress.IPv6Network("::/96")


class CannotConnect(Exception):
    """No connection there; the text says why, for the user. code: why, for the proxy."""

    def __init__(self, text: str, code: RejectCode = RejectCode.REFUSED) -> None:
        super().__init__(one_line(text))
        self.code = code


@attrs.frozen(kw_only=True)
class TargetPolicy:
    """allowed: whether there are forwards at all. networks: where TCP may go; unix sockets must be their user's own."""

    allowed: bool = True
    networks: Sequence[Network] = LOOPBACK


async def connect_target(kind: str, metadata: Mapping[str, str], policy: TargetPolicy) -> Socket:
    """A connection to what a stream of the kind "tcp" or "unix" names. Raises CannotConnect."""
    if not policy.allowed:
        raise CannotConnect("this Studio forwards no connections into it")
    try:
        with trio.fail_after(CONNECT_TIMEOUT):
            if kind == "tcp":
                return await _connect_tcp(metadata.get("host", ""), metadata.get("port", ""), policy)
            return await _connect_unix(metadata.get("path", ""))
    except trio.TooSlowError:
        text = f"nobody has taken the connection within {CONNECT_TIMEOUT:g} s"
        raise CannotConnect(text, RejectCode.UNREACHABLE) from None


async def _connect_tcp(host: str, port: str, policy: TargetPolicy) -> Socket:
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16) or not host:
        raise CannotConnect("not a host and a port")
    found = await _resolve(host)
    permitted = [address for address in found if is_permitted(address, policy.networks)]
    if not permitted:
        where = ", ".join(map(str, policy.networks))
        raise CannotConnect(f"connections from this Studio's agent may go to {where} only, not to {host}")
    reason = ""
    for address in permitted:
        try:
            return await _connect(
                socket.AF_INET if address.version == 4 else socket.AF_INET6, (str(address), int(port))
            )
        except OSError as exc:
            reason = exc.strerror or str(exc)
    raise CannotConnect(f"{host}:{port}: {reason}", RejectCode.UNREACHABLE)


async def _resolve(host: str) -> list[Address]:
    """The addresses of a host. What is judged is what is connected to: a name is looked up once."""
    literals = LOCALHOST if host.lower().rstrip(".") == "localhost" else (host,)
    try:
        return [ipaddress.ip_address(literal) for literal in literals]
    except ValueError:
        pass
    try:
        found = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise CannotConnect(f"{host} cannot be looked up: {exc}", RejectCode.UNREACHABLE) from exc
    return list(dict.fromkeys(ipaddress.ip_address(info[4][0]) for info in found))


def is_permitted(address: Address, networks: Sequence[Network]) -> bool:
    """Whether a connection may go there; an IPv4 address in IPv6 clothes is judged by what it is."""
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    for one in (address, *_inside(address)):
        if one.is_multicast or one.is_unspecified or any(one in network for network in METADATA):
            return False
    return any(address in network for network in networks)


def _inside(address: Address) -> list[ipaddress.IPv4Address]:
    """IPv4 addresses that a gateway may find in an IPv6 one."""
    if address.version == 4:
        return []
    found = [address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in NAT64) or (address in COMPATIBLE and int(address) > 1):
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in found if one is not None]


async def _connect_unix(path: str) -> Socket:
    if not path.startswith("/"):
        raise CannotConnect("the path of a unix socket begins with /")
    try:
        _check_owner(path)
        return await _connect(socket.AF_UNIX, path)
    except OSError as exc:  # also a path that is too long
        raise CannotConnect(f"{path}: {exc.strerror or exc}", RejectCode.UNREACHABLE) from exc


def _check_owner(path: str) -> None:
    """Raises CannotConnect, OSError."""
    found = Path(path).stat()
    if not stat.S_ISSOCK(found.st_mode):
        raise CannotConnect(f"{path} is not a unix socket", RejectCode.UNREACHABLE)
    if found.st_uid != os.geteuid():
        raise CannotConnect(f"{path} does not belong to the Studio's user")


async def _connect(family: socket.AddressFamily, address: tuple[str, int] | str) -> Socket:
    """Raises OSError."""
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        await sock.connect(address)
        if family != socket.AF_UNIX and sock.getsockname() == sock.getpeername():
            raise ConnectionRefusedError("it met itself: nobody listens there")  # see agent.tool.is_its_own_peer
        return Socket(socket.socket(fileno=sock.detach()))
    finally:
        sock.close()
