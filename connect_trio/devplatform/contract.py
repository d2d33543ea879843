"""What Connect asks of Platform: docs/platform-api.md, one method for each call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connect_trio.devplatform.clients import authenticate
from connect_trio.devplatform.forms import NOT_STORED, Refusal, read_json
from connect_trio.devplatform.ssh_keys import decode_blob, fingerprint
from connect_trio.devplatform.state import PlatformState, User
from connect_trio.devplatform.studios import LIFE, LONGEST_LIFE, Permission, Studio
from connect_trio.devplatform.visits import BadReport, report_untrusted

CONTRACT: Final = 1
MAX_STATES: Final = 500
MAX_KEYS: Final = 250
METHODS: Final = ("http", "websocket", "tunnel", "ssh")
_MAX_REPORT = 512 * 1024  # bytes
_MAX_KEY_WISHES = 256 * 1024
_MAX_SESSIONS = 100

_SESSION = re.compile(r"[0-9a-f]{8}")


class Contract:
    """The calls of Connect's proxies, authenticated by Basic with the OIDC client."""

    def __init__(self, state: PlatformState) -> None:
        self._state = state
        self._rules = state.rules

    def routes(self) -> list[Route]:
        """Below the issuer."""
        return [
            Route("/connect/info", self.info),
            Route("/connect/access", self.access, methods=["POST"]),
            Route("/connect/sessions", self.sessions),
            Route("/connect/sessions/states", self.states, methods=["POST"]),
            Route("/connect/sessions/{id}", self.session),
            Route("/connect/sessions/{id}/extend", self.extend, methods=["POST"]),
            Route("/connect/ssh-keys/check", self.check_ssh_key, methods=["POST"]),
            Route("/connect/ssh-keys/removed", self.removed_ssh_keys, methods=["POST"]),
            Route("/connect/activity", self.activity, methods=["POST"]),
        ]

    async def info(self, request: Request) -> Response:
        authenticate(request, self._state)
        return _answer({"contract": CONTRACT, "path_routing": self._state.policy.path_routing})

    async def access(self, request: Request) -> Response:
        authenticate(request, self._state)
        wish = await read_json(request)
        session, subject, method = _strings(wish, "session", "subject", "method")
        if method not in METHODS:
            raise Refusal(400, "invalid_request", f"method must be one of {', '.join(METHODS)}.")
        studio = known_studio(self._state, session)
        if method == "tunnel":
            return _answer(self._tunnel(studio, subject))
        return _answer(self._access(studio, self._state.user_by_subject(subject)))

    async def sessions(self, request: Request) -> Response:
        """Those that a user may open."""
        authenticate(request, self._state)
        subject = request.query_params.get("subject", "")
        if not subject:
            raise Refusal(400, "invalid_request", "Say whose sessions: ?subject=...")
        user = self._state.user_by_subject(subject)
        open_to = [s for s in self._state.all_studios() if user and self._rules.refusal(user.username, s) is None]
        listed = [{**self._rules.document(studio), **self._rights(studio, user)} for studio in open_to[:_MAX_SESSIONS]]
        return _answer({"sessions": listed, "truncated": len(open_to) > _MAX_SESSIONS})

    async def states(self, request: Request) -> Response:
        authenticate(request, self._state)
        wanted = (await read_json(request)).get("sessions")
        if not isinstance(wanted, list) or len(wanted) > MAX_STATES:
            raise Refusal(400, "invalid_request", f"sessions must be a list of at most {MAX_STATES} ids.")
        if not all(isinstance(session, str) and _SESSION.fullmatch(session) for session in wanted):
            raise Refusal(400, "invalid_request", "A session's id is 8 lower-case hex digits.")
        return _answer({"sessions": {session: self._state_of(session) for session in wanted}})

    async def session(self, request: Request) -> Response:
        authenticate(request, self._state)
        return _answer(self._rules.document(known_studio(self._state, request.path_params["id"])))

    async def extend(self, request: Request) -> Response:
        authenticate(request, self._state)
        wish = await read_json(request)
        (subject,) = _strings(wish, "subject")
        seconds = wish.get("seconds", int(LIFE))
        if isinstance(seconds, bool) or not isinstance(seconds, int) or not 0 < seconds <= LONGEST_LIFE:
            raise Refusal(400, "invalid_request", f"seconds must be a whole number from 1 to {LONGEST_LIFE:.0f}.")
        studio = known_studio(self._state, request.path_params["id"])
        user = self._state.user_by_subject(subject)
        reason = self._no_extension(studio, user)
        if reason is None:
            studio.extend(self._state.clock(), seconds)
        return _answer({**self._access(studio, user), "allowed": reason is None, "reason": reason})

    async def check_ssh_key(self, request: Request) -> Response:
        """Whose key it is; whether they may come in. A wrong answer is told so that its reader can mend it."""
        authenticate(request, self._state)
        wish = await read_json(request)
        session, username, encoded, given = _strings(wish, "session", "username", "key", "fingerprint")
        try:
            blob = decode_blob(encoded)
        except ValueError as exc:
            raise Refusal(400, "invalid_request", "key must be a public key in base64.") from exc
        if fingerprint(blob) != given:
            raise Refusal(400, "invalid_request", "fingerprint is not the one of key.")
        studio = known_studio(self._state, session)
        user = self._state.users.get(username)
        if user is None or not self._state.ssh_keys.has(username, blob):
            text = f"Platform has no key {given} for a user {username[:100]}; add it at Platform, under SSH keys."
            return _answer({**self._denied(studio, text), "subject": None, "username": None})
        return _answer({**self._access(studio, user), "subject": user.subject, "username": user.username})

    async def removed_ssh_keys(self, request: Request) -> Response:
        """Which of the keys are not their users' any more."""
        authenticate(request, self._state)
        keys = (await read_json(request, limit=_MAX_KEY_WISHES)).get("keys")
        if not isinstance(keys, list) or len(keys) > MAX_KEYS or not all(isinstance(key, dict) for key in keys):
            raise Refusal(400, "invalid_request", f"keys must be a list of at most {MAX_KEYS} objects.")
        wanted = [_strings(key, "subject", "fingerprint") for key in keys]
        removed = [{"subject": subject, "fingerprint": key} for subject, key in wanted if not self._has(subject, key)]
        return _answer({"removed": removed})

    def _has(self, subject: str, fingerprint: str) -> bool:
        user = self._state.user_by_subject(subject)
        return user is not None and any(
            key.fingerprint == fingerprint for key in self._state.ssh_keys.of(user.username)
        )

    async def activity(self, request: Request) -> Response:
        authenticate(request, self._state)
        document = await read_json(request, limit=_MAX_REPORT)
        try:
            report = report_untrusted(document)
        except BadReport as exc:
            raise Refusal(400, "invalid_request", f"{exc}.") from exc
        return _answer({"id": report.id, "duplicate": not self._state.visits.take(report)})

    def _state_of(self, session: str) -> dict[str, Any]:
        studio = self._state.studio(session)
        if studio is None:
            return {"state": "unknown", "ends_at": None}
        document = self._rules.document(studio)
        return {"state": document["state"], "ends_at": document["ends_at"]}

    def _access(self, studio: Studio, user: User | None) -> dict[str, Any]:
        reason = self._rules.refusal(user.username if user is not None else None, studio)
        return {**self._denied(studio, reason), "allowed": reason is None, **self._rights(studio, user)}

    def _tunnel(self, studio: Studio, subject: str) -> dict[str, Any]:
        """The subject of an agent's token is its session."""
        reason = None
        if subject != studio.id:
            reason = "An agent serves the session only that its token names."
        elif not self._rules.offered(studio):
            reason = "Studios are switched off for its workspace."
        return {**self._denied(studio, reason), "allowed": reason is None}

    def _denied(self, studio: Studio, reason: str | None) -> dict[str, Any]:
        document = self._rules.document(studio)
        return {"allowed": False, "reason": reason, "role": None, "permissions": [], "session": document}

    def _rights(self, studio: Studio, user: User | None) -> dict[str, Any]:
        username = user.username if user is not None else None
        return {"role": self._rules.role(username, studio), "permissions": self._rules.permissions(username, studio)}

    def _no_extension(self, studio: Studio, user: User | None) -> str | None:
        username = user.username if user is not None else None
        permissions = self._rules.permissions(username, studio)
        if not studio.running:
            return "It is not running, so there is nothing to extend."
        if Permission.EXTEND in permissions or Permission.MANAGE in permissions:
            return None
        return self._rules.refusal(username, studio) or "Your role may open this Studio, but not extend it."


def known_studio(state: PlatformState, session: object) -> Studio:
    """Raises Refusal (404)."""
    studio = state.studio(session)
    if studio is None:
        raise Refusal(404, "not_found", "There is no such session.")
    return studio


def _answer(document: Mapping[str, Any]) -> Response:
    return JSONResponse(document, headers=NOT_STORED)


def _strings(document: Mapping[str, Any], *names: str) -> list[str]:
    """Raises Refusal (400)."""
    values = [document.get(name) for name in names]
    if not all(isinstance(value, str) and value for value in values):
        raise Refusal(400, "invalid_request", f"These must be strings: {', '.join(names)}.")
    return [str(value) for value in values]
