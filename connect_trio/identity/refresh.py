"""What Platform gave for a login, and asking for it anew (RFC 6749 section 6, OpenID Connect Core section 12).

Connect has no use for the tokens of a refresh. What counts is whether Platform still gives any: so it says that a
login, which nobody logged out of, has ended there.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, TypeVar

import attrs

from connect_trio.identity.client import Answer, PlatformClient, PlatformUnavailable
from connect_trio.identity.provider import Provider
from connect_trio.identity.registration import ClientCredentials, Registration
from connect_trio.identity.tokens import IdToken, TokenInvalid, verify_refreshed_id_token

T = TypeVar("T")

logger = logging.getLogger(__name__)

CALL_TIMEOUT: Final = 5.0
LATER: Final = 60.0
"""Seconds until Platform is asked again whether it knows Connect's client by now."""

_LIFE = 3600.0  # of tokens that Platform does not say it of
_AT = 0.8  # of their life that has passed when tokens are refreshed
_SOONEST = 30.0
_TOKEN = re.compile(r"[\x20-\x7e]{1,8192}")


class LoginEnded(Exception):
    """Platform has ended this login, or answers about somebody else. The text is for the log."""


@attrs.frozen(kw_only=True)
class Tokens:
    """What Platform gave for a login, and what an answer to a refresh has to fit.

    id_token: for the logout at Platform. refresh_token: None if it cannot be refreshed (any more). due: when it is to
    be, Unix time. unsure: whether it was tried before, and no answer came: the refresh token may be spent.
    """

    id_token: str = attrs.field(repr=False)
    refresh_token: str | None = attrs.field(repr=False)
    client_id: str
    nonce: str
    auth_time: float | None
    due: float
    unsure: bool = False


def first_tokens(
    answer: Mapping[object, object], *, id_token: str, identity: IdToken, client_id: str, nonce: str, now: float
) -> Tokens:
    """What the answer that began a login gave. identity: what its (verified) id token says."""
    return Tokens(
        id_token=id_token,
        refresh_token=_token_untrusted(answer),
        client_id=client_id,
        nonce=nonce,
        auth_time=identity.auth_time,
        due=_due(answer, now, identity.expires),
    )


def _token_untrusted(answer: Mapping[object, object]) -> str | None:
    given = answer.get("refresh_token")
    return given if isinstance(given, str) and _TOKEN.fullmatch(given) else None


def _due(answer: Mapping[object, object], now: float, expires: float | None) -> float:
    said = answer.get("expires_in")
    lives = [float(said)] if isinstance(said, int | float) and 0 < said < 1 << 40 else []
    if expires is not None:
        lives.append(expires - now)
    return now + max(min(lives, default=_LIFE) * _AT, _SOONEST)


class Refresher:
    """Asks Platform for new tokens. wall_clock: Unix time."""

    def __init__(
        self,
        *,
        client: PlatformClient,
        provider: Provider,
        registration: Registration,
        wall_clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._provider = provider
        self._registration = registration
        self._now = wall_clock

    async def refresh(self, tokens: Tokens, *, subject: str) -> Tokens:
        """The tokens of `subject` afterwards; without a refresh token if it is of no use any more.

        Raises LoginEnded, and PlatformUnavailable, which ends nothing; its `sent` says whether the refresh token may be
        spent nevertheless.
        """
        assert tokens.refresh_token is not None, "only what can be refreshed is"
        credentials = await self._registration.credentials_of(tokens.client_id)
        if credentials is None:
            return attrs.evolve(tokens, refresh_token=None)  # of a client that Connect no longer is
        answer = await self._client.call(
            "POST",
            (await _asked_besides(self._provider.metadata)).token_endpoint,
            timeout=CALL_TIMEOUT,
            form={"grant_type": "refresh_token", "refresh_token": tokens.refresh_token},
            basic=(credentials.client_id, credentials.client_secret),
        )
        document = answer.document if isinstance(answer.document, Mapping) else {}
        if answer.status == 200:
            return await self._renewed(tokens, document, subject)
        return await self._refused(tokens, answer, document, credentials)

    async def _renewed(self, tokens: Tokens, answer: Mapping[object, object], subject: str) -> Tokens:
        id_token, now = answer.get("id_token"), self._now()
        rotated = _token_untrusted(answer) or tokens.refresh_token
        renewed = attrs.evolve(tokens, refresh_token=rotated, due=_due(answer, now, None), unsure=False)
        if id_token is None:  # Core 12.2: there may be none
            return renewed
        if not isinstance(id_token, str):
            raise LoginEnded("Platform's answer to a refresh cannot be trusted: its id token is no text")
        try:
            identity = await self._verified(tokens, id_token, subject)
        except PlatformUnavailable as exc:
            logger.info("a refreshed id token cannot be verified now: %s", exc)
            return attrs.evolve(renewed, due=now + LATER)  # the old refresh token is spent: keep the new one
        except TokenInvalid as exc:
            raise LoginEnded(f"Platform's answer to a refresh cannot be trusted: {exc.reason}") from exc
        return attrs.evolve(renewed, id_token=id_token, due=_due(answer, now, identity.expires))

    async def _verified(self, tokens: Tokens, id_token: str, subject: str) -> IdToken:
        verify = partial(
            verify_refreshed_id_token,
            id_token,
            issuer=self._provider.issuer,
            client_id=tokens.client_id,
            subject=subject,
            nonce=tokens.nonce,
            auth_time=tokens.auth_time,
            now=self._now(),
        )
        return await self._provider.verified(lambda keys: verify(keys=keys))

    async def _refused(
        self, tokens: Tokens, answer: Answer, document: Mapping[object, object], credentials: ClientCredentials
    ) -> Tokens:
        """What follows from a no (RFC 6749 section 5.2)."""
        error = document.get("error")
        if answer.status == 401 or error == "invalid_client":
            if await _asked_besides(self._registration.credentials) == credentials:
                # It is Connect that Platform does not know (yet, or for now), which says nothing about a visitor.
                return attrs.evolve(tokens, due=self._now() + LATER)
            return attrs.evolve(tokens, refresh_token=None)
        if error == "invalid_grant" and not tokens.unsure:
            raise LoginEnded("Platform has ended this login")
        if error != "invalid_grant":
            logger.warning("Platform does not refresh a login: status %d, %.50r", answer.status, error)
        # After a lost answer the token may be spent by ourselves: nobody is logged out for that, and from now on only
        # a logout, or its time, ends this login.
        return attrs.evolve(tokens, refresh_token=None)


async def _asked_besides(ask: Callable[[], Awaitable[T]]) -> T:
    """Another question to Platform: if that fails, nothing has become of the refresh token."""
    try:
        return await ask()
    except PlatformUnavailable as exc:
        raise PlatformUnavailable(str(exc)) from exc
