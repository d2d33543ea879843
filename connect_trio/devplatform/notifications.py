"""Telling clients that somebody has logged out (OpenID Connect Back-Channel Logout 1.0), behind the browser's back."""

from __future__ import annotations

import logging
import math
import secrets
from typing import NoReturn
from urllib.parse import urlsplit

import httpx2
import trio

from connect_trio.devplatform.keys import KeyRing
from connect_trio.devplatform.state import Client, Login

logger = logging.getLogger(__name__)

KIND = "logout+jwt"
EVENT = "http://schemas.openid.net/event/backchannel-logout"
_LIFE = 120  # seconds of a logout token
_TIMEOUT = 5.0
_ATTEMPTS = 3
_PAUSE = 1.0
_WAITING = 1000
_AT_ONCE = 8


def logout_token(keys: KeyRing, client: Client, login: Login, *, issuer: str, now: float) -> str:
    """The logout token of one session (section 2.4). now: Unix time."""
    claims = {
        "iss": issuer,
        "aud": client.client_id,
        "sub": login.user.subject,
        "sid": login.sid,
        "iat": int(now),
        "exp": int(now) + _LIFE,
        "jti": secrets.token_hex(16),
        "events": {EVENT: {}},
    }
    return keys.sign(claims, kind=KIND)


class Notifier:
    """A queue that `run` works off: a logout waits for nobody, and what does not fit into it is not told."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[tuple[str, str]](_WAITING)

    def tell(self, url: str, token: str) -> None:
        """Send this logout token to a client's address, soon."""
        try:
            self._send.send_nowait((url, token))
        except trio.WouldBlock:
            logger.warning("a client is not told of a logout: too many others are to be told")

    async def run(self) -> NoReturn:
        """Until cancelled."""
        async with (
            httpx2.AsyncClient(trust_env=False, timeout=None, follow_redirects=False) as http,
            trio.open_nursery() as nursery,
        ):
            for _ in range(_AT_ONCE):
                nursery.start_soon(self._work, http)
        raise AssertionError("it runs until it is cancelled")

    async def _work(self, http: httpx2.AsyncClient) -> NoReturn:
        while True:
            url, token = await self._receive.receive()
            for attempt in range(_ATTEMPTS):
                if await _told(http, url, token):
                    break
                await trio.sleep(_PAUSE if attempt + 1 < _ATTEMPTS else 0)


async def _told(http: httpx2.AsyncClient, url: str, token: str) -> bool:
    """Whether there was an answer that another attempt would not change."""
    status = math.inf
    parts = urlsplit(url)
    headers = {"host": parts.netloc}
    if parts.scheme == "http" and (parts.hostname or "").endswith(".localhost"):
        # RFC 6761 section 6.3: names under localhost are this machine, whatever the resolver says.
        url = parts._replace(netloc=f"127.0.0.1:{parts.port or 80}").geturl()
    try:
        with trio.fail_after(_TIMEOUT):
            async with http.stream("POST", url, data={"logout_token": token}, headers=headers) as answer:
                status = answer.status_code  # what else it says is of no interest
    except (httpx2.HTTPError, trio.TooSlowError, OSError) as exc:
        logger.info("%s cannot be told of a logout: %s", parts.netloc, str(exc) or type(exc).__name__)
    else:
        if status != 200:
            logger.warning("%s was told of a logout, and answered with status %d", parts.netloc, status)
    return status < 500
