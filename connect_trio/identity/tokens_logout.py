"""Logout tokens: Platform says that somebody's login there has ended (OpenID Connect Back-Channel Logout 1.0, 2.4).

Pure, like tokens.py. The rules are those of section 2.6, and the type is required: without it an id token that lacks a
nonce could be taken for a logout.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs
from joserfc.jwk import KeySet

from connect_trio.identity.tokens import (
    SKEW,
    SUBJECT,
    TokenInvalid,
    check_claims,
    readable_sid,
    signed_untrusted,
)

EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
MAX_AGE: Final = 300.0
"""Seconds that a token may be on its way, repetitions included: for longer, nobody need remember that it was used."""

_KINDS: Final = ("logout+jwt", "application/logout+jwt")
_MAX_AUDIENCE: Final = 8
_MAX_ID: Final = 255


@attrs.frozen(kw_only=True)
class LogoutToken:
    """Who is out. sid: of the one session that has ended; without it, all sessions of `subject` have. One is there.

    audience: the clients that it is for. token_id: to notice its second use, until `usable_until`. issued,
    usable_until: Unix time, the former by Platform's clock.
    """

    subject: str | None
    sid: str | None
    audience: tuple[str, ...]
    token_id: str
    issued: float
    usable_until: float


def verify_logout_token(token: str, *, keys: KeySet, issuer: str, now: float) -> LogoutToken:
    """Verify all but the audience, which is the caller's to compare with its clients. Raises TokenInvalid."""
    signed = signed_untrusted(token, keys)
    kind = signed.header.get("typ")
    if not isinstance(kind, str) or kind.lower() not in _KINDS:
        raise TokenInvalid("this is no logout token (typ)")
    claims = signed.claims
    check_claims(claims, now=now, iss={"essential": True, "value": issuer}, aud={"essential": True})
    if not now - MAX_AGE - SKEW <= claims["iat"] <= now + SKEW:
        raise TokenInvalid("the token was not issued just now (iat)")
    if "nonce" in claims:
        raise TokenInvalid("a logout token has no nonce")
    events = claims.get("events")
    if not isinstance(events, Mapping) or not isinstance(events.get(EVENT), Mapping):
        raise TokenInvalid("the token tells of no logout (events)")
    token_id = claims.get("jti")
    if not isinstance(token_id, str) or not 0 < len(token_id) <= _MAX_ID:
        raise TokenInvalid("the token has no usable id (jti)")
    subject, sid = _whom(claims)
    return LogoutToken(
        subject=subject,
        sid=sid,
        audience=_audience(claims["aud"]),
        token_id=token_id,
        issued=float(claims["iat"]),
        usable_until=min(float(claims["exp"]), claims["iat"] + MAX_AGE) + SKEW,
    )


def _whom(claims: Mapping[str, object]) -> tuple[str | None, str | None]:
    """Subject and sid, of which one is there. What is there has to be right."""
    subject, sid = claims.get("sub"), claims.get("sid")
    if "sub" in claims and not (isinstance(subject, str) and SUBJECT.fullmatch(subject)):
        raise TokenInvalid("the token's subject is not 1 to 255 printable ASCII characters (sub)")
    if "sid" in claims and readable_sid(sid) is None:
        raise TokenInvalid("the token's session is not 1 to 255 printable ASCII characters (sid)")
    if subject is None and sid is None:
        raise TokenInvalid("the token names nobody: it needs a sub or a sid")
    return (subject if isinstance(subject, str) else None), readable_sid(sid)


def _audience(audience: object) -> tuple[str, ...]:
    given = audience if isinstance(audience, list) else [audience]
    if not 0 < len(given) <= _MAX_AUDIENCE or not all(isinstance(one, str) and one for one in given):
        raise TokenInvalid("the token's audience is not a few clients (aud)")
    return tuple(given)
