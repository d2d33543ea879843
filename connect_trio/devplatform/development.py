"""What only a development Platform offers: agents' tokens, and switches for tests and scripts."""

from __future__ import annotations

import secrets
from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connect_trio.devplatform.contract import known_studio
from connect_trio.devplatform.forms import NOT_STORED, Refusal, read_json, require_bearer
from connect_trio.devplatform.keys import KeyRing
from connect_trio.devplatform.state import PlatformState
from connect_trio.devplatform.studios import NotStarted, Role, Studio
from connect_trio.identity.tokens import AGENT_AUDIENCE

_AGENT_TOKEN_LIFE = 7 * 86400


class DevelopmentCalls:
    """For whoever has the development key."""

    def __init__(self, state: PlatformState, keys: KeyRing, *, issuer: str, dev_key: str) -> None:
        self._state = state
        self._keys = keys
        self._issuer = issuer
        self._dev_key = dev_key

    def routes(self) -> list[Route]:
        """Below the issuer."""
        return [
            Route("/dev/agent-tokens", self.agent_token, methods=["POST"]),
            Route("/dev/activity", self.activity),
            Route("/dev/sessions/{id}", self.change, methods=["POST"]),
            Route("/dev/sessions/{id}/stop", self.stop, methods=["POST"]),
            Route("/dev/sessions/{id}/start", self.start, methods=["POST"]),
            Route("/dev/workspaces/{id:int}/members", self.member, methods=["POST"]),
            Route("/dev/users/{name}/ssh-keys", self.ssh_key, methods=["POST"]),
            Route("/dev/users/{name}/ssh-keys/remove", self.remove_ssh_key, methods=["POST"]),
        ]

    async def agent_token(self, request: Request) -> Response:
        require_bearer(request, self._dev_key)
        studio = known_studio(self._state, (await read_json(request)).get("session"))
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

    async def activity(self, request: Request) -> Response:
        """Every visit that is remembered."""
        require_bearer(request, self._dev_key)
        visits = [attrs.asdict(visit) for visit in self._state.visits.all()]
        return JSONResponse({"visits": visits}, headers=NOT_STORED)

    async def stop(self, request: Request) -> Response:
        require_bearer(request, self._dev_key)
        studio = known_studio(self._state, request.path_params["id"])
        studio.stop()
        return self._told(studio)

    async def start(self, request: Request) -> Response:
        require_bearer(request, self._dev_key)
        studio = known_studio(self._state, request.path_params["id"])
        try:
            studio.start(self._state.clock(), self._state.policy)
        except NotStarted as exc:
            raise Refusal(409, "not_started", str(exc)) from exc
        return self._told(studio)

    async def change(self, request: Request) -> Response:
        """Change `private`, `guest` (a user name or null) or `ends_in` (seconds, null for never) of a session."""
        require_bearer(request, self._dev_key)
        wish = await read_json(request)
        studio = known_studio(self._state, request.path_params["id"])
        private, guest, ends_in = (wish.get(name) for name in ("private", "guest", "ends_in"))
        if not isinstance(private, bool | None) or guest not in (None, *self._state.users):
            raise Refusal(400, "invalid_request", "private must be a boolean, and guest a user's name or null.")
        if isinstance(ends_in, bool) or not isinstance(ends_in, int | float | None):
            raise Refusal(400, "invalid_request", "ends_in must be a number of seconds or null.")
        if private is not None:
            studio.private = private
        if "guest" in wish:
            studio.guests = frozenset({guest} if guest is not None else ())
        if "ends_in" in wish:
            studio.ends_at = self._state.clock() + ends_in if ends_in is not None else None
        return self._told(studio)

    async def member(self, request: Request) -> Response:
        """Give a user (`username`) a role in a workspace (`role`), or none (null)."""
        require_bearer(request, self._dev_key)
        wish = await read_json(request)
        workspace = self._state.rules.workspaces.get(request.path_params["id"])
        username, role = wish.get("username"), wish.get("role")
        if workspace is None:
            raise Refusal(404, "not_found", "There is no such workspace.")
        if (
            not isinstance(username, str)
            or username not in self._state.users
            or not (role is None or role in set(Role))
        ):
            raise Refusal(400, "invalid_request", f"Give a user's name, and a role of {', '.join(Role)} or null.")
        if role is None:
            workspace.members.pop(username, None)
        else:
            workspace.members[username] = Role(role)
        members: dict[str, Any] = dict(workspace.members)
        return JSONResponse({"members": members}, headers=NOT_STORED)

    async def ssh_key(self, request: Request) -> Response:
        """Add a key, `key` as OpenSSH writes it."""
        require_bearer(request, self._dev_key)
        line = (await read_json(request)).get("key")
        username = self._user_of(request)
        try:
            key = self._state.ssh_keys.add(username, line if isinstance(line, str) else "")
        except ValueError as exc:
            raise Refusal(400, "invalid_request", str(exc)) from exc
        return JSONResponse({"fingerprint": key.fingerprint}, headers=NOT_STORED)

    async def remove_ssh_key(self, request: Request) -> Response:
        """Remove the key with this `fingerprint`, if the user has it."""
        require_bearer(request, self._dev_key)
        fingerprint = (await read_json(request)).get("fingerprint")
        username = self._user_of(request)
        if not isinstance(fingerprint, str):
            raise Refusal(400, "invalid_request", "fingerprint must be a string.")
        self._state.ssh_keys.remove(username, fingerprint)
        left = [key.fingerprint for key in self._state.ssh_keys.of(username)]
        return JSONResponse({"fingerprints": left}, headers=NOT_STORED)

    def _user_of(self, request: Request) -> str:
        """Raises Refusal (404)."""
        username: str = request.path_params["name"]
        if username not in self._state.users:
            raise Refusal(404, "not_found", "There is no such user.")
        return username

    def _told(self, studio: Studio) -> Response:
        return JSONResponse(self._state.rules.document(studio), headers=NOT_STORED)
