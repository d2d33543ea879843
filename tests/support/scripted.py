"""A Platform that answers what a test says: for everything that a right one never does."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio


@attrs.define
class ScriptedPlatform:
    """answers: by "METHOD path", a status and a JSON value (or raw bytes); None never answers. headers: a line
    more of such an answer. asked: what came.

    late: when what never answers does so after all, with 200. heads, bodies: of each request in turn.
    """

    url: str
    answers: dict[str, tuple[int, Any] | None] = attrs.field(factory=dict)
    headers: dict[str, str] = attrs.field(factory=dict)
    asked: list[str] = attrs.field(factory=list)
    late: trio.Event = attrs.field(factory=trio.Event)
    bodies: list[bytes] = attrs.field(factory=list)
    heads: list[bytes] = attrs.field(factory=list)

    def serve_metadata(self, **changes: object) -> None:
        issuer = self.url + "/api"
        document = {
            "issuer": issuer,
            "authorization_endpoint": issuer + "/authorize",
            "token_endpoint": issuer + "/token",
            "jwks_uri": issuer + "/jwks",
            "registration_endpoint": issuer + "/register",
            **changes,
        }
        self.answers["GET /api/.well-known/openid-configuration"] = (200, document)

    def serve_registration(self) -> None:
        self.answers["POST /api/register"] = (201, {"client_id": "id", "client_secret": "secret"})

    def count(self, request: str) -> int:
        return self.asked.count(request)

    async def handle(self, stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            chunk = await stream.receive_some(65536)
            if not chunk:
                return
            head += chunk
        head, _, body = head.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: *([0-9]+)", head, re.IGNORECASE)
        while length is not None and len(body) < int(length[1]):
            body += await stream.receive_some(65536)
        self.heads.append(head)
        self.bodies.append(body)
        method, path, _ = head.split(b" ", 2)
        request = f"{method.decode()} {path.decode()}"
        self.asked.append(request)
        answer = self.answers.get(request, (404, {}))
        if answer is None:
            await self.late.wait()
        status, document = answer or (200, {})
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        more = self.headers[request].encode() + b"\r\n" if request in self.headers else b""
        lines = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n%b\r\n"
        await stream.send_all(lines % (status, len(content), more) + content)


@asynccontextmanager
async def scripted_platform() -> AsyncIterator[ScriptedPlatform]:
    async with trio.open_nursery() as nursery:
        platform = ScriptedPlatform("")

        async def handle(stream: trio.SocketStream) -> None:
            try:
                await platform.handle(stream)
            except trio.BrokenResourceError:
                return  # the client had enough
            finally:
                await stream.aclose()

        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        platform.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        yield platform
        nursery.cancel_scope.cancel()
