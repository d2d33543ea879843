"""An edge with its real gate and watchers, in front of a Platform that answers what a test says."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from connect_trio.edge.login import LoginGate
from connect_trio.edge.login_ends import Lives, Logins, Visit
from connect_trio.edge.login_records import Login, LoginRecords, digest
from connect_trio.identity.refresh import Tokens
from connect_trio.identity.service import open_identity
from connect_trio.identity.tokens import AGENT_AUDIENCE
from connect_trio.roles.watching import Watching
from connect_trio.routing.memory import MemoryStore
from connect_trio.routing.names import HostNames
from tests.support.edge import OWN, SESSION, SWITCHED, Peer, World, get, open_world, upgrade
from tests.support.platform import shared_keys
from tests.support.scripted import ScriptedPlatform, scripted_platform

ACCESS = "POST /api/connect/access"
STATE = f"GET /api/connect/sessions/{SESSION}"
INSTANCE = "0123456789abcdef" * 2
DOCUMENT = {"id": SESSION, "name": "A Studio", "owner": "alice", "state": "running", "tool": "files"}


@attrs.define
class Guarded:
    world: World
    platform: ScriptedPlatform
    logins: Logins

    def say(self, *, allowed: bool = True, reason: str | None = None, **session: object) -> None:
        """What Platform answers from now on about access and session."""
        document = {**DOCUMENT, **session}
        self.answer((200, {"allowed": allowed, "reason": reason, "session": document}), (200, document))

    def answer(self, access: tuple[int, Any] | None, state: tuple[int, Any] | None) -> None:
        self.platform.answers[ACCESS] = access
        self.platform.answers[STATE] = state

    async def log_in(self, session: str = SESSION) -> tuple[str, str]:
        """The header of a visitor who has logged in, and what its login is called."""
        now = time.time()
        login = Login(subject="user-alice", username="alice", created=now, issued=now)
        tokens = Tokens(id_token="none", refresh_token=None, client_id="none", nonce="none", auth_time=None, due=now)
        key = digest(await self.logins.begin(login, tokens))
        return f"Cookie: connect_session={await self.logins.open_studio(Visit(key, login), session)}", key

    def token(self, **changes: object) -> str:
        now = int(time.time())
        claims = {"iss": f"{self.platform.url}/api", "aud": AGENT_AUDIENCE, "sub": SESSION, "iat": now, "exp": now + 99}
        return shared_keys().sign({**claims, "jti": "1", **changes})

    async def websocket(self, cookie: str) -> tuple[Peer, Peer]:
        """One that is open, and the tool's end of it."""
        client, tool = await self.world.request(upgrade("/ws", cookie))
        await tool.head()
        await tool.send(SWITCHED)
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        return client, tool

    async def streaming(self, cookie: str) -> tuple[Peer, Peer]:
        """An answer that has begun, and the tool's end of it."""
        client, tool = await self.world.request(get("/", cookie))
        await tool.head()
        await tool.send(b"HTTP/1.1 200 OK\r\n\r\n")
        assert (await client.head()).startswith(b"HTTP/1.1 200 ")
        return client, tool

    async def tunnel(self) -> tuple[Peer, Peer]:
        """One that is open, and the server's end of it."""
        server = await self.world.listen()
        self.world.servers[:] = [("127.0.0.1", server.port)]
        agent = await self.world.client()
        await agent.send(tunnel(f"Authorization: Bearer {self.token()}"))
        wire = await server.accept()
        await wire.head()
        await wire.send(SWITCHED)
        assert (await agent.head()).startswith(b"HTTP/1.1 101 ")
        return agent, wire


def tunnel(*headers: str) -> bytes:
    return upgrade("/_connect/tunnel", f"X-Connect-Instance: {INSTANCE}", *headers, host=OWN)


@asynccontextmanager
async def open_guarded() -> AsyncIterator[Guarded]:
    """Everybody who is logged in may use the session, which runs, until the test says something else."""
    store, names = MemoryStore(), HostNames(f"http://{OWN}")
    async with (
        scripted_platform() as platform,
        open_identity(platform_url=platform.url, proxy_url=names.own_origin, store=store) as identity,
        trio.open_nursery() as nursery,
    ):
        platform.serve_metadata()
        platform.serve_registration()
        platform.answers["GET /api/jwks"] = (200, shared_keys().published())
        gate = LoginGate(
            names=names,
            platform_url=platform.url,
            oidc=identity.oidc,
            authorizer=identity.authorizer,
            store=store,
        )
        async with open_world(gate=gate) as world:
            Watching(world.edge.scopes, gate, identity, nursery)
            logins = Logins(store, LoginRecords(store), Lives(), wall_clock=time.time)
            guarded = Guarded(world, platform, logins)
            guarded.say()
            yield guarded
        nursery.cancel_scope.cancel()
