"""The client's side of OpenID Connect: codes and refresh tokens for tokens, and the user's data.

RFC 6749 sections 4.1.3 and 6, RFC 7636 section 4.6, OpenID Connect Core 3.1.3 and 5.3, RFC 9068 (access tokens).
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from connect_trio.devplatform.clients import authenticate
from connect_trio.devplatform.forms import NOT_STORED, Refusal, read_form
from connect_trio.devplatform.keys import KeyRing
from connect_trio.devplatform.state import CODE_LIFE, REFRESH_LIFE, Client, Code, PlatformState, User

_TOKEN_LIFE = 3600
ACCESS = "at+jwt"
REFRESH = "rt+jwt"


class Grants:
    """The token endpoint and userinfo."""

    def __init__(self, state: PlatformState, keys: KeyRing, *, issuer: str) -> None:
        self._state = state
        self._keys = keys
        self._issuer = issuer

    async def token(self, request: Request) -> Response:
        form = await read_form(request)
        client = authenticate(request, self._state, form)
        match form.get("grant_type"):
            case "authorization_code":
                answer = self._by_code(client, form)
            case "refresh_token":
                answer = self._by_refresh_token(client, form)
            case _:
                raise Refusal(400, "unsupported_grant_type", "Use authorization_code or refresh_token.")
        return JSONResponse(answer, headers=NOT_STORED)

    async def userinfo(self, request: Request) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        claims = self._keys.claims(token.strip(), kind=ACCESS) if scheme.lower() == "bearer" else None
        user = self._state.user_by_subject(claims["sub"]) if claims is not None and self._valid(claims) else None
        if user is None:
            raise Refusal(
                401, "invalid_token", "The access token is wrong or has expired.", {"WWW-Authenticate": "Bearer"}
            )
        return JSONResponse(_profile(user), headers=NOT_STORED)

    def _by_code(self, client: Client, form: Mapping[str, str]) -> dict[str, object]:
        code = self._state.codes.get(form.get("code"))
        if code is None or code.request.client_id != client.client_id:
            raise Refusal(400, "invalid_grant", "The code is unknown or has expired.")
        if code.used is not None:
            # Somebody else may have had the code: what it was exchanged for ends too (RFC 6749 section 4.1.2).
            self._state.spent_refresh_tokens.put(code.used, "")
            raise Refusal(400, "invalid_grant", "The code was used before.")
        if self._state.clock() >= code.since + CODE_LIFE:
            raise Refusal(400, "invalid_grant", "The code has expired.")
        code.used = secrets.token_hex(16)  # whatever follows: one attempt per code
        if form.get("redirect_uri") != code.request.redirect_uri:
            raise Refusal(400, "invalid_grant", "The redirect_uri is not the one of the authorization request.")
        if not _proves(form.get("code_verifier", ""), code.request.challenge):
            raise Refusal(400, "invalid_grant", "The code_verifier does not fit the code_challenge.")
        return self._answer(client, code.user, code.request.scope, refresh_id=code.used, sid=code.sid, code=code)

    def _by_refresh_token(self, client: Client, form: Mapping[str, str]) -> dict[str, object]:
        claims = self._keys.claims(form.get("refresh_token", ""), kind=REFRESH)
        if claims is None or claims["client_id"] != client.client_id or not self._valid(claims):
            raise Refusal(400, "invalid_grant", "The refresh token is wrong or has expired.")
        user = self._state.user_by_subject(claims["sub"])
        if user is None or self._state.spent_refresh_tokens.get(claims["jti"]) is not None:
            raise Refusal(400, "invalid_grant", "The refresh token was used before or revoked.")
        if self._state.ended_sids.get(claims["sid"]) is not None:
            raise Refusal(400, "invalid_grant", "The session of this refresh token has ended.")
        self._state.spent_refresh_tokens.put(claims["jti"], "")
        return self._answer(client, user, claims["scope"], refresh_id=secrets.token_hex(16), sid=claims["sid"])

    def _valid(self, claims: Mapping[str, object]) -> bool:
        expires = claims.get("exp")
        return claims.get("iss") == self._issuer and isinstance(expires, int) and self._state.clock() < expires

    def _answer(
        self, client: Client, user: User, scope: str, *, refresh_id: str, sid: str, code: Code | None = None
    ) -> dict[str, object]:
        now = int(self._state.clock())
        common = {"iss": self._issuer, "sub": user.subject, "iat": now}
        identity = {**common, **_profile(user), "aud": client.client_id, "exp": now + _TOKEN_LIFE, "sid": sid}
        if code is not None:
            identity["auth_time"] = int(code.since)
            if code.request.nonce is not None:
                identity["nonce"] = code.request.nonce
        limits = {"client_id": client.client_id, "scope": scope, "aud": self._issuer}
        access = {**common, **limits, "exp": now + _TOKEN_LIFE, "jti": secrets.token_hex(16)}
        refresh = {**common, **limits, "exp": now + int(REFRESH_LIFE), "jti": refresh_id, "sid": sid}
        again = {"refresh_token": self._keys.sign(refresh, kind=REFRESH)} if client.refreshes else {}
        return {
            "token_type": "Bearer",
            "expires_in": _TOKEN_LIFE,
            "scope": scope,
            "id_token": self._keys.sign(identity),
            "access_token": self._keys.sign(access, kind=ACCESS),
            **again,
        }


def _profile(user: User) -> dict[str, object]:
    return {"sub": user.subject, "preferred_username": user.username, "name": user.username.capitalize()}


def _proves(verifier: str, challenge: str) -> bool:
    digest = hashlib.sha256(verifier.encode()).digest()
    return secrets.compare_digest(base64.urlsafe_b64encode(digest).rstrip(b"="), challenge.encode())
