"""Tokens that Platform signed: what they say, once it is certain that Platform says it.

Pure: keys and `now` are given. The rules are those of RFC 7519 and RFC 8725 and of OpenID Connect Core 3.1.3.7: the
algorithm comes from our list and never from the token's wish, `kid` only picks one of Platform's published keys, keys
or addresses inside a token's header are never followed, and issuer, audience and times are all required.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import Any, Final, cast

import attrs
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, InvalidClaimError, InvalidKeyIdError, JoseError, MissingClaimError
from joserfc.jwk import ECKey, JWKRegistry, Key, KeySet, RSAKey
from joserfc.jwt import ClaimsOption

ALGORITHMS: Final = ("RS256", "ES256")
AGENT_AUDIENCE: Final = "connect-agent"
SKEW: Final = 30  # seconds that Platform's clock and ours may differ
MAX_TOKEN: Final = 8192  # characters
_MAX_KEYS: Final = 32
_MIN_RSA_BITS: Final = 2048
_LAST_DATE: Final = 1 << 40  # seconds since 1970; integers of JSON have no bound of their own

_SESSION_ID = re.compile(r"[0-9a-f]{8}")
SUBJECT: Final = re.compile(r"[\x21-\x7e]{1,255}")
_SID = re.compile(r"[\x20-\x7e]{1,255}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class TokenInvalid(Exception):
    """This token proves nothing. `reason` is safe to show: it never repeats the token."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnknownKey(TokenInvalid):
    """The token names a key that is not among those given; newer keys may have it."""


class KeysInvalid(Exception):
    """A key set in which there is no key that we could use."""


@attrs.frozen(kw_only=True)
class IdToken:
    """Who logged in. username is for people to read, subject is what decides.

    expires, issued, auth_time: Unix time of Platform's clock; auth_time: when the visitor proved who they are, None if
    it is not said. sid: Platform's name for the visitor's session there, None if it has none.
    """

    subject: str
    username: str
    expires: float
    issued: float
    auth_time: float | None = None
    sid: str | None = None


@attrs.frozen(kw_only=True)
class AgentToken:
    """An agent's right to serve one session. issued, expires: Unix time by Platform's clock; issued in whole seconds,
    from 1 to 2**40."""

    session: str
    token_id: str
    issued: int
    expires: float


def import_keys(document: object) -> KeySet:
    """The usable keys of a JWK set (RFC 7517 section 5): public RSA from 2,048 bits and P-256.

    Others are left out, symmetric ones above all: whoever reads a published symmetric key could sign with it.
    Raises KeysInvalid if nothing usable is left.
    """
    entries = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(entries, list):
        raise KeysInvalid("the key set is not a JSON object with a list of keys")
    keys = [key for key in map(_import_key, entries[:_MAX_KEYS]) if key is not None]
    if not keys:
        raise KeysInvalid("the key set has no RSA key from 2048 bits and no P-256 key")
    return KeySet(keys)


def _import_key(entry: object) -> Key | None:
    if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC") or entry.get("use", "sig") != "sig":
        return None
    if entry["kty"] == "RSA" and len(str(entry.get("n", "")).rstrip("=")) * 6 < _MIN_RSA_BITS:
        return None  # base64url carries 6 bits per character
    try:
        key = JWKRegistry.import_key(cast("dict[str, Any]", entry))
    except (JoseError, ValueError, TypeError, KeyError):
        return None  # one key that we cannot read must not take the others away
    if isinstance(key, RSAKey):
        return key if key.public_key.key_size >= _MIN_RSA_BITS else None
    return key if isinstance(key, ECKey) and key.curve_name == "P-256" else None


def verify_id_token(token: str, *, keys: KeySet, issuer: str, client_id: str, nonce: str, now: float) -> IdToken:
    """Verify an id token that answers the login with `nonce` (OpenID Connect Core 3.1.3.7). Raises TokenInvalid."""
    claims = _verified_claims(token, keys=keys, issuer=issuer, audience=client_id, now=now)
    given = claims.get("nonce")
    if not isinstance(given, str) or not hmac.compare_digest(given.encode(), nonce.encode()):
        raise TokenInvalid("the token does not answer this login (nonce)")
    return _identity(claims, client_id)


def verify_refreshed_id_token(
    token: str,
    *,
    keys: KeySet,
    issuer: str,
    client_id: str,
    subject: str,
    nonce: str,
    auth_time: float | None,
    now: float,
) -> IdToken:
    """Verify an id token that came with a refresh of the login of `subject` (OpenID Connect Core 12.2).

    nonce, auth_time: those of the first token; a newer one need not repeat them, but may not contradict them. Raises
    TokenInvalid.
    """
    claims = _verified_claims(token, keys=keys, issuer=issuer, audience=client_id, now=now)
    identity = _identity(claims, client_id)
    if identity.subject != subject:
        raise TokenInvalid("the token is about somebody else (sub)")
    if "nonce" in claims and claims["nonce"] != nonce:
        raise TokenInvalid("the token is of another login (nonce)")
    if None not in (auth_time, identity.auth_time) and identity.auth_time != auth_time:
        raise TokenInvalid("the token is of another login (auth_time)")
    return identity


def _identity(claims: Mapping[str, Any], client_id: str) -> IdToken:
    """Raises TokenInvalid for a token that was issued to another client."""
    audience = claims["aud"]
    party = claims.get("azp")
    if party not in (None, client_id) or (isinstance(audience, list) and len(audience) > 1 and party is None):
        raise TokenInvalid("the token was issued to another client (azp)")
    subject, auth_time = claims["sub"], claims.get("auth_time")
    return IdToken(
        subject=subject,
        username=readable_name(claims.get("preferred_username"), otherwise=subject),
        expires=float(claims["exp"]),
        issued=float(claims["iat"]),
        auth_time=float(auth_time) if isinstance(auth_time, int | float) and 0 <= auth_time <= _LAST_DATE else None,
        sid=readable_sid(claims.get("sid")),
    )


def readable_sid(sid: object) -> str | None:
    """Platform's name for a session, None for what cannot be one: 1 to 255 printable characters of ASCII."""
    return sid if isinstance(sid, str) and _SID.fullmatch(sid) else None


def readable_name(name: object, *, otherwise: str) -> str:
    """A name that Platform gave, for people to read: one line of at most 100 characters."""
    text = _UNPRINTABLE.sub("", name) if isinstance(name, str) else ""
    return (text if text.strip() else otherwise)[:100]


def verify_agent_token(token: str, *, keys: KeySet, issuer: str, now: float) -> AgentToken:
    """Verify the token with which an agent opens its tunnel. Raises TokenInvalid."""
    claims = _verified_claims(token, keys=keys, issuer=issuer, audience=AGENT_AUDIENCE, now=now)
    if claims["aud"] not in (AGENT_AUDIENCE, [AGENT_AUDIENCE]):
        raise TokenInvalid("the token is for more than agents (aud)")
    if not _SESSION_ID.fullmatch(claims["sub"]):
        raise TokenInvalid("the token names no session: sub must be 8 hex digits")
    token_id = claims.get("jti")
    if not isinstance(token_id, str) or not token_id:
        raise TokenInvalid("the token has no id (jti)")
    issued = int(claims["iat"])
    if issued < 1:
        raise TokenInvalid("the token's time of issue is not a date (iat)")
    return AgentToken(session=claims["sub"], token_id=token_id, issued=issued, expires=float(claims["exp"]))


def _verified_claims(token: str, *, keys: KeySet, issuer: str, audience: str, now: float) -> dict[str, Any]:
    """Claims whose signature, issuer, audience and times are right, with a printable `sub`. Raises TokenInvalid."""
    claims = signed_untrusted(token, keys).claims
    check_claims(
        claims,
        now=now,
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": audience},
        sub={"essential": True},
    )
    if not SUBJECT.fullmatch(claims["sub"]):
        raise TokenInvalid("the token's subject is not 1 to 255 printable ASCII characters (sub)")
    return claims


def check_claims(claims: dict[str, Any], *, now: float, **wanted: ClaimsOption) -> None:
    """Whether there are times, and they are right, and whether there is what is `wanted`. Raises TokenInvalid."""
    registry = jwt.JWTClaimsRegistry(
        now=int(now),
        leeway=SKEW,
        exp={"essential": True},
        iat={"essential": True},
        **wanted,
    )
    try:
        registry.validate(claims)
    except ExpiredTokenError as exc:
        raise TokenInvalid("the token has expired (exp)") from exc
    except MissingClaimError as exc:
        raise TokenInvalid(f"the token lacks {exc.description or 'a claim'}") from exc
    except InvalidClaimError as exc:
        raise TokenInvalid(_wrong_claim(exc)) from exc
    for claim, name in (("exp", "expiry"), ("iat", "time of issue")):
        if not -_LAST_DATE <= claims[claim] <= _LAST_DATE:  # which NaN is not either
            raise TokenInvalid(f"the token's {name} is not a date ({claim})")


def signed_untrusted(token: str, keys: KeySet) -> jwt.Token:
    """A token that one of these keys signed, whatever it says. Raises TokenInvalid."""
    if len(token) > MAX_TOKEN:
        raise TokenInvalid(f"the token is longer than {MAX_TOKEN} characters")
    try:
        return jwt.decode(token, keys, algorithms=ALGORITHMS)
    except InvalidKeyIdError as exc:
        raise UnknownKey("the token is signed with a key that Platform does not publish (kid)") from exc
    except JoseError as exc:
        raise TokenInvalid(f"the token is not signed by Platform ({exc.error or 'bad signature'})") from exc
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        # What the library raises for bytes that are no token at all.
        raise TokenInvalid("this is not a signed token") from exc


def _wrong_claim(error: InvalidClaimError) -> str:
    claim = getattr(error, "claim", "")
    text = {
        "iss": "the token is from another issuer (iss)",
        "aud": "the token is for another audience (aud)",
        "nbf": "the token is not valid yet (nbf)",
        "iat": "the token was issued in the future (iat)",
    }
    return text.get(claim, f"the token has a wrong claim ({claim or error.description})")
