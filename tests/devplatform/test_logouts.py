"""What Platform does when somebody logs out there: clients are told, and refresh tokens end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import attrs
import httpx2
import pytest
import trio

from connect_trio.identity.tokens import import_keys
from connect_trio.identity.tokens_logout import verify_logout_token
from tests.support.platform import (
    RunningPlatform,
    authorization_query,
    login_code,
    parameters,
    redeem,
    register,
)


@attrs.define
class Client:
    """A client's address for logouts. statuses: of its next answers, the last one stays; None: it never answers."""

    url: str = ""
    statuses: list[int | None] = attrs.field(factory=lambda: [200])
    told: list[str] = attrs.field(factory=list)
    heard: trio.Event = attrs.field(factory=trio.Event)

    async def handle(self, stream: trio.SocketStream) -> None:
        async with stream:
            data = b""
            while b"logout_token=" not in data:
                data += await stream.receive_some()
            length = int(data.lower().partition(b"content-length:")[2].split()[0])
            while len(body := data.partition(b"\r\n\r\n")[2]) < length:
                data += await stream.receive_some()
            status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
            if status is None:
                await trio.sleep_forever()
            self.told.append(parse_qs(body.decode())["logout_token"][0])
            await stream.send_all(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
            if status == 200:
                self.heard.set()


@asynccontextmanager
async def listening_client() -> AsyncIterator[Client]:
    client = Client()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, client.handle, 0, host="127.0.0.1"))
        client.url = f"http://client.localhost:{listeners[0].socket.getsockname()[1]}/told"
        yield client
        nursery.cancel_scope.cancel()


async def log_out(http: httpx2.AsyncClient, tokens: dict[str, Any]) -> None:
    answer = await http.get("/api/end-session", params={"id_token_hint": tokens["id_token"]})
    assert answer.status_code in (200, 303)


async def refresh(http: httpx2.AsyncClient, client: dict[str, Any], tokens: dict[str, Any]) -> httpx2.Response:
    data = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    return await http.post("/api/token", data=data, auth=(client["client_id"], client["client_secret"]))


@pytest.mark.parametrize("statuses", [[200], [503, 200]], ids=["at once", "at the second attempt"])
async def test_a_client_is_told_which_session_has_ended(
    platform: RunningPlatform, http: httpx2.AsyncClient, statuses: list[int | None]
) -> None:
    async with listening_client() as listening:
        listening.statuses = list(statuses)
        client = await register(http, backchannel_logout_uri=listening.url)
        tokens = (await redeem(http, client, await login_code(http, client))).json()
        claims = platform.keys.claims(tokens["id_token"])
        assert claims is not None
        await log_out(http, tokens)
        with trio.fail_after(60):
            await listening.heard.wait()
    keys = import_keys((await http.get("/api/.well-known/jwks.json")).json())
    told = verify_logout_token(listening.told[-1], keys=keys, issuer=platform.issuer, now=claims["iat"])
    assert (told.subject, told.sid, told.audience) == (claims["sub"], claims["sid"], (client["client_id"],))
    assert len(listening.told) == len(statuses)


async def test_a_client_that_does_not_answer_holds_up_no_logout(http: httpx2.AsyncClient) -> None:
    async with listening_client() as silent, listening_client() as listening:
        silent.statuses = [None]
        pairs: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for url in (silent.url, listening.url):
            client = await register(http, backchannel_logout_uri=url)
            if not pairs:
                code = await login_code(http, client)
            else:  # the browser is logged in already
                code = await code_of(http, client)
            pairs.append((client, (await redeem(http, client, code)).json()))
        await log_out(http, pairs[0][1])
        with trio.fail_after(60):
            await listening.heard.wait()
        assert not silent.told


async def code_of(http: httpx2.AsyncClient, client: dict[str, Any]) -> str:
    answer = await http.get("/api/authorize", params=authorization_query(client))
    return parameters(answer.headers["location"])["code"]


async def test_refresh_tokens_of_a_session_end_with_it(http: httpx2.AsyncClient) -> None:
    client = await register(http)
    tokens = (await redeem(http, client, await login_code(http, client))).json()
    tokens = (await refresh(http, client, tokens)).json()
    await log_out(http, tokens)
    answer = await refresh(http, client, tokens)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


async def test_refreshed_tokens_are_of_the_same_session(platform: RunningPlatform, http: httpx2.AsyncClient) -> None:
    client = await register(http)
    first = (await redeem(http, client, await login_code(http, client))).json()
    second = (await refresh(http, client, first)).json()
    sids = [(platform.keys.claims(tokens["id_token"]) or {})["sid"] for tokens in (first, second)]
    assert sids[0] == sids[1]


async def test_a_client_without_that_grant_gets_no_refresh_token(http: httpx2.AsyncClient) -> None:
    client = await register(http, grant_types=["authorization_code"])
    assert client["grant_types"] == ["authorization_code"]
    assert "refresh_token" not in (await redeem(http, client, await login_code(http, client))).json()


@pytest.mark.parametrize("url", ["ftp://a.example/", "https://a.example/#f", 7, ""])
async def test_an_address_for_logouts_that_cannot_be_is_refused(http: httpx2.AsyncClient, url: object) -> None:
    document = {"redirect_uris": ["https://app.example/cb"], "backchannel_logout_uri": url}
    assert (await http.post("/api/register", json=document)).status_code == 400


async def test_discovery_says_so(http: httpx2.AsyncClient) -> None:
    document = (await http.get("/api/.well-known/openid-configuration")).json()
    assert document["backchannel_logout_supported"] is True
    assert document["backchannel_logout_session_supported"] is True
    assert "offline_access" in document["scopes_supported"]
