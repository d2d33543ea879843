"""Platform tells Connect that a login there has ended (OpenID Connect Back-Channel Logout 1.0, sections 2.5 to 2.8)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import parse_qsl

from connect_trio.edge.gate import Reply, VisitorRequest
from connect_trio.edge.login_ends import Logins
from connect_trio.edge.login_limit import LoginLimit
from connect_trio.edge.login_pages import json_reply
from connect_trio.edge.login_requests import single_header
from connect_trio.identity.oidc import OidcClient
from connect_trio.identity.tokens import MAX_TOKEN, TokenInvalid
from connect_trio.transport.complaints import Complaints

logger = logging.getLogger(__name__)

PATH: Final = "/_connect/backchannel-logout"
MAX_BODY: Final = 2 * MAX_TOKEN
"""Bytes of a request's body: the form may have other fields."""

_FORM = b"application/x-www-form-urlencoded"
_MAX_FIELDS = 10
_BURST, _PER_SECOND = 1000.0, 50.0  # Platform alone has something to say here, and may log many out at once


class BackchannelLogout:
    """Requests of Platform itself, without a browser. What is told here is noticed everywhere within seconds."""

    def __init__(self, *, oidc: OidcClient, logins: Logins, clock: Callable[[], float]) -> None:
        self._oidc = oidc
        self._logins = logins
        self._clock = clock
        self._complaints = Complaints()
        self._limit = LoginLimit(clock=clock, burst=_BURST, per_second=_PER_SECOND)

    async def handle(self, request: VisitorRequest, _: Mapping[str, str]) -> Reply:
        """Raises PlatformUnavailable and RegistryUnavailable."""
        if not self._limit.admits(request.client):
            return _answer(429, "slow_down", "Too many logouts came from this address.", ((b"Retry-After", b"60"),))
        try:
            told = await self._oidc.logout_told(logout_token_untrusted(request))
        except TokenInvalid as exc:
            self._complain(exc.reason, request.client)
            return _answer(400, "invalid_request", exc.reason)
        if not await self._logins.told(told):
            return _answer(400, "invalid_request", "the token was used before (jti)")
        whom = "one session" if told.sid is not None else "all sessions"
        logger.info("Platform has ended %s", whom, extra={"subject": told.subject})
        return json_reply(200, {})

    def _complain(self, reason: str, client: str) -> None:
        left_out = self._complaints.admit(self._clock())
        if left_out is not None:
            details = {"client": client, "left_out": left_out}
            logger.warning("a back-channel logout is refused: %s", reason, extra=details)


def logout_token_untrusted(request: VisitorRequest) -> str:
    """The one `logout_token` of a form. Raises TokenInvalid."""
    kind = (single_header(request, b"content-type") or b"").partition(b";")[0].strip().lower()
    if kind != _FORM:
        raise TokenInvalid("the request is no form (application/x-www-form-urlencoded)")
    try:
        pairs = parse_qsl(request.body.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError as exc:
        raise TokenInvalid("the form cannot be read") from exc
    tokens = [value for name, value in pairs if name == "logout_token"]
    if len(tokens) != 1:
        raise TokenInvalid("the form has not exactly one logout_token")
    return tokens[0]


def _answer(status: int, error: str, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
    return json_reply(status, {"error": error, "error_description": text}, headers=headers)
