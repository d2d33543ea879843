"""The development Platform, served for real on a free port, and small clients for it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
import httpx2
import trio

from connect_trio.devplatform.keys import KeyRing
from connect_trio.devplatform.server import serve
from connect_trio.devplatform.studios import StudioPolicy
from connect_trio.identity.oidc import code_challenge

CONNECT_URL = "http://connect.localhost:8080"
DEV_KEY = "key-for-tests"
SHARED, PRIVATE = "23ce7967", "5f0c1d2e"
VERIFIER = "v" * 43


@cache
def shared_keys() -> KeyRing:
    """One key ring for all tests: making RSA keys takes time."""
    return KeyRing()


@attrs.frozen
class RunningPlatform:
    url: str
    keys: KeyRing
    _scope: trio.CancelScope
    _ended: trio.Event

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def stop(self) -> None:
        """End it as a role ends: by cancelling."""
        self._scope.cancel()
        await self._ended.wait()

    @property
    def issuer(self) -> str:
        return self.url + "/api"

    def browser(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.url, trust_env=False, timeout=10)

    async def set_state(self, session: str, action: str) -> None:
        """action: "stop" or "start"."""
        async with self.browser() as http:
            url = f"/api/dev/sessions/{session}/{action}"
            answer = await http.post(url, headers={"authorization": f"Bearer {DEV_KEY}"})
            assert answer.status_code == 200

    async def agent_token(self, session: str) -> str:
        async with self.browser() as http:
            answer = await http.post(
                "/api/dev/agent-tokens", json={"session": session}, headers={"authorization": f"Bearer {DEV_KEY}"}
            )
            token = answer.json()["token"]
            assert isinstance(token, str)
            return token


@asynccontextmanager
async def running_platform(
    *,
    port: int = 0,
    keys: KeyRing | None = None,
    registration_token: str | None = None,
    state_dir: Path | None = None,
    connect_url: str = CONNECT_URL,
    policy: StudioPolicy | None = None,
    tool: str = "files",
) -> AsyncIterator[RunningPlatform]:
    if keys is None and state_dir is None:
        keys = shared_keys()
    scope, ended = trio.CancelScope(), trio.Event()
    run = partial(
        serve,
        url=None,
        port=port,
        connect_url=connect_url,
        dev_key=DEV_KEY,
        registration_token=registration_token,
        state_dir=state_dir,
        tool=tool,
        policy=policy,
        keys=keys,
    )

    async def run_in_scope(task_status: trio.TaskStatus[str]) -> None:
        with scope:
            await run(task_status=task_status)
        ended.set()

    async with trio.open_nursery() as nursery:
        url = await nursery.start(run_in_scope)
        platform = RunningPlatform(url, keys or shared_keys(), scope, ended)
        yield platform
        await platform.stop()


async def register(http: httpx2.AsyncClient, **metadata: Any) -> dict[str, Any]:
    """A client with a callback at https://app.example/cb."""
    document = {
        "client_name": "an app",
        "redirect_uris": ["https://app.example/cb"],
        "post_logout_redirect_uris": ["https://app.example/bye"],
        **metadata,
    }
    answer = await http.post("/api/register", json=document)
    assert answer.status_code == 201, answer.text
    client: dict[str, Any] = answer.json()
    return client


def authorization_query(client: dict[str, Any], **changes: str | None) -> dict[str, str]:
    """A right authorization request, but for `changes`; None leaves a parameter out."""
    query = {
        "response_type": "code",
        "client_id": client["client_id"],
        "redirect_uri": "https://app.example/cb",
        "scope": "openid profile",
        "state": "state-1",
        "nonce": "nonce-1",
        "code_challenge": code_challenge(VERIFIER),
        "code_challenge_method": "S256",
        **changes,
    }
    return {name: value for name, value in query.items() if value is not None}


async def log_in(http: httpx2.AsyncClient, username: str, **query: str) -> httpx2.Response:
    """Follow redirects to the login page, fill the form in, and return the answer to that."""
    page = await http.get("/api/authorize" if query else "/", params=query, follow_redirects=True)
    assert page.status_code == 200, page.text
    return await post_login(http, page, username)


async def post_login(http: httpx2.AsyncClient, page: httpx2.Response, username: str) -> httpx2.Response:
    assert re.search(r'name="username"', page.text)
    return await http.post(page.url, data={"username": username, "password": username})


def parameters(location: str) -> dict[str, str]:
    """Query parameters of an address, each of which occurs once."""
    values = parse_qs(urlsplit(location).query, strict_parsing=True)
    assert all(len(value) == 1 for value in values.values())
    return {name: value[0] for name, value in values.items()}


async def login_code(http: httpx2.AsyncClient, client: dict[str, Any], username: str = "alice") -> str:
    answer = await log_in(http, username, **authorization_query(client))
    assert answer.status_code == 303, answer.text
    return parameters(answer.headers["location"])["code"]


async def redeem(
    http: httpx2.AsyncClient, client: dict[str, Any], code: str, /, **changes: str | None
) -> httpx2.Response:
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": "https://app.example/cb",
        "code_verifier": VERIFIER,
        **changes,
    }
    data = {name: value for name, value in form.items() if value is not None}
    return await http.post("/api/token", data=data, auth=(client["client_id"], client["client_secret"]))
