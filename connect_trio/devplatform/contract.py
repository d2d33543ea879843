"""What Connect asks of Platform, and what only a development Platform offers besides."""

from __future__ import annotations

import secrets

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from connect_trio.devplatform.clients import authenticate
from connect_trio.devplatform.forms import NOT_STORED, Refusal, read_json, require_bearer
from connect_trio.devplatform.keys import KeyRing
from connect_trio.devplatform.state import PlatformState, Studio
from connect_trio.identity.tokens import AGENT_AUDIENCE

_AGENT_TOKEN_LIFE = 7 * 86400


class Contract:
    """The calls of Connect's proxies, authenticated by Basic with the OIDC client."""

    def __init__(self, state: PlatformState) -> None:
        self._state = state

    async def access(self, request: Request) -> Response:
        authenticate(request, self._state)
        wish = await read_json(request)
        session, subject, method = (wish.get(name) for name in ("session", "subject", "method"))
        if not (isinstance(session, str) and isinstance(subject, str) and isinstance(method, str)):
            raise Refusal(400, "invalid_request", "session, subject and method must be strings.")
        studio = _studio(self._state, session)
        user = self._state.user_by_subject(subject)
        reason = studio.refusal(user.username if user is not None else None)
        answer = {"allowed": reason is None, "reason": reason, "session": studio.document()}
        return JSONResponse(answer, headers=NOT_STORED)

    async def session(self, request: Request) -> Response:
        authenticate(request, self._state)
        return JSONResponse(_studio(self._state, request.path_params["id"]).document(), headers=NOT_STORED)


class DevelopmentCalls:
    """Agent tokens, and starting and stopping, for whoever has the development key."""

    def __init__(self, state: PlatformState, keys: KeyRing, *, issuer: str, dev_key: str) -> None:
        self._state = state
        self._keys = keys
        self._issuer = issuer
        self._dev_key = dev_key

    async def agent_token(self, request: Request) -> Response:
        require_bearer(request, self._dev_key)
        studio = _studio(self._state, (await read_json(request)).get("session"))
        now = int(self._state.clock())
        claims = {
            "iss": self._issuer,
            "aud": AGENT_AUDIENCE,
            "sub": studio.id,
            "iat": now,
            "exp": now + _AGENT_TOKEN_LIFE,
            "jti": secrets.token_hex(16),
        }
        return JSONResponse({"token": self._keys.sign(claims)}, headers=NOT_STORED)

    async def stop(self, request: Request) -> Response:
        return self._set_state(request, "stopped")

    async def start(self, request: Request) -> Response:
        return self._set_state(request, "running")

    def _set_state(self, request: Request, state: str) -> Response:
        require_bearer(request, self._dev_key)
        studio = _studio(self._state, request.path_params["id"])
        studio.state = state
        return JSONResponse(studio.document(), headers=NOT_STORED)


def _studio(state: PlatformState, session: object) -> Studio:
    studio = state.studios.get(session) if isinstance(session, str) else None
    if studio is None:
        raise Refusal(404, "not_found", "There is no such session.")
    return studio
