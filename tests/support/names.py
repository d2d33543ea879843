"""Names for tests: a resolver that knows what it is told, asked by everything that dials on trio."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

import attrs
import trio


@attrs.define
class Names(trio.abc.HostnameResolver):
    """A resolver. known: addresses of names. slow: seconds that a name takes. asked: names, in order."""

    known: dict[str, Sequence[str]] = attrs.field(factory=dict)
    slow: dict[str, float] = attrs.field(factory=dict)
    asked: list[str] = attrs.field(factory=list)

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: Any,
        family: int = 0,
        type: int = 0,  # noqa: A002 - as the interface calls it
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        assert host is not None
        name = host.decode()
        self.asked.append(name)
        assert (family, type) == (socket.AF_UNSPEC, socket.SOCK_STREAM)
        await trio.sleep(self.slow.get(name, 0))
        if not self.known.get(name):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6, type, 6, "", (ip, port, 0, 0)) if ":" in ip else (socket.AF_INET, type, 6, "", (ip, port))
            for ip in self.known[name]
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError
