"""The PROXY protocol, versions 1 and 2: how a balancer in front says whose connection it passes on. Pure.

A parser for the beginning of a connection, fed with whatever comes. A connection that begins otherwise has no header.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Final

import attrs

_V1: Final = b"PROXY "
_V2: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V1_LONGEST: Final = 107  # with its line feed
_V2_FIXED: Final = 16
_V2_LONGEST: Final = _V2_FIXED + 536 + 1024  # addresses of a unix socket, and as much again for extensions
_PROXIED: Final = 1


class HeaderError(Exception):
    """What comes is no header of the PROXY protocol, though it begins like one."""


@attrs.frozen
class Found:
    """source: address and port of the client; None where the header or its absence says nothing. rest: what follows."""

    source: tuple[str, int] | None
    rest: bytes


class HeaderParser:
    """Feed it until it has found how the connection begins."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> Found | None:
        """None: more is needed to tell. Raises HeaderError."""
        self._data += data
        if self._data.startswith(_V1):
            return self._line()
        if self._data.startswith(_V2):
            return self._binary()
        if self._data and (_V1.startswith(self._data) or _V2.startswith(self._data)):
            return None
        return Found(None, self._data) if self._data else None

    def end(self) -> Found:
        """The connection has ended before there was enough to tell."""
        return Found(None, self._data)

    def _line(self) -> Found | None:
        line, found, rest = self._data.partition(b"\r\n")
        if not found:
            if len(self._data) >= _V1_LONGEST:
                raise HeaderError("a header of version 1 without an end")
            return None
        if len(line) + 2 > _V1_LONGEST or not line.isascii():
            raise HeaderError("a header of version 1 that is too long or not ASCII")
        words = line.decode().split(" ")
        if words[1] == "UNKNOWN":
            return Found(None, rest)
        if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
            raise HeaderError("a header of version 1 without a protocol, two addresses and two ports")
        source = _address(words[2], words[4], 4 if words[1] == "TCP4" else 6)
        _address(words[3], words[5], 4 if words[1] == "TCP4" else 6)
        return Found(source, rest)

    def _binary(self) -> Found | None:
        if len(self._data) < _V2_FIXED:
            return None
        version, family, length = struct.unpack_from("!BBH", self._data, len(_V2))
        if version >> 4 != 2 or version & 0xF not in (0, _PROXIED):
            raise HeaderError(f"a header of version 2 that says {version:#04x} of itself")
        end = _V2_FIXED + length
        if end > _V2_LONGEST:
            raise HeaderError(f"a header of version 2 of {end} bytes")
        if len(self._data) < end:
            return None
        body, rest = self._data[_V2_FIXED:end], self._data[end:]
        sizes = {0x11: 4, 0x21: 16}
        if version & 0xF != _PROXIED or family not in sizes:  # the balancer's own connection, or no TCP
            return Found(None, rest)
        size = sizes[family]
        if len(body) < 2 * size + 4:
            raise HeaderError("a header of version 2 with too few bytes for its addresses")
        (port,) = struct.unpack_from("!H", body, 2 * size)
        return Found((str(ip_address(body[:size])), port), rest)


def _address(text: str, port: str, version: int) -> tuple[str, int]:
    try:
        parsed = ip_address(text)
    except ValueError:
        raise HeaderError("a header of version 1 with a wrong address") from None
    if parsed.version != version or not (port.isdigit() and len(port) <= 5 and int(port) <= 0xFFFF):
        raise HeaderError("a header of version 1 with a wrong address or port")
    return str(parsed), int(port)
