"""What a client may make of its packets: bounds that asyncssh does not keep, apart from connections and channels."""

from __future__ import annotations

from typing import Any, Final

import asyncssh
import attrs
from asyncssh.packet import SSHPacket

KINDS: Final = frozenset((b"session", b"direct-tcpip", b"direct-streamlocal@openssh.com"))
"""Of channels that a client may open."""
SMALLEST: Final = 512
"""Bytes that a client must take in one packet, at the least: each packet costs the same, however little is in it."""
PIECE: Final = 32 * 1024  # bytes

TRIES: Final = 64
"""Requests for a login in one connection, of whatever method."""

FREE: Final = 64 * 1024  # bytes after which new keys cost nothing
REKEYS: Final = 20.0  # that a client may ask for without that, at once,
FORGIVEN: Final = 0.5  # and in a second


@attrs.frozen
class Opening:
    """What each message that opens a channel, or confirms that one is open, says. number: of the client."""

    number: int
    packet_size: int


def kind_of_open(packet: SSHPacket) -> tuple[bytes, Opening]:
    """What a CHANNEL_OPEN asks for; `packet` stays as it is. Raises asyncssh's PacketDecodeError."""
    ahead = SSHPacket(packet.get_remaining_payload())
    kind = ahead.get_string()
    number, _, size = ahead.get_uint32(), ahead.get_uint32(), ahead.get_uint32()
    return kind, Opening(number, size)


def confirmation_of(packet: SSHPacket) -> Opening:
    """What a CHANNEL_OPEN_CONFIRMATION says; `packet` stays as it is. Raises asyncssh's PacketDecodeError."""
    ahead = SSHPacket(packet.get_remaining_payload())
    ahead.get_uint32()  # ours
    number, _, size = ahead.get_uint32(), ahead.get_uint32(), ahead.get_uint32()
    return Opening(number, size)


class Received(list[Any]):
    """What asyncssh keeps of a channel that is paused: (data, type of data).

    It keeps each packet by itself, which for packets of one byte is a hundred times what the window says, and takes
    them out one by one from the front of the list.
    """

    def append(self, item: tuple[bytes, asyncssh.DataType]) -> None:
        data, kind = item
        if self and self[-1][1] == kind and len(self[-1][0]) < PIECE:
            self[-1][0].extend(data)
        else:
            super().append((bytearray(data), kind))


@attrs.define
class Rekeys:
    """How often a client has asked for new keys, without having sent or received what would be worth them."""

    _count: float = 0.0
    _when: float = 0.0
    _bytes: int = 0

    def too_many(self, carried: int, now: float) -> bool:
        """The client asks once more. carried: bytes both ways so far."""
        worth, self._bytes = carried - self._bytes >= FREE, carried
        if worth:
            return False
        self._count = max(0.0, self._count - (now - self._when) * FORGIVEN) + 1
        self._when = now
        return self._count > REKEYS
