"""What Platform says about sessions and who may use them: typed calls, and the one authorisation function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import attrs
import trio

from connect_trio.identity.cache import ReadThrough
from connect_trio.identity.client import Answer, PlatformClient, PlatformUnavailable
from connect_trio.identity.registration import Registration

FRESH: Final = 2.0  # seconds; with a call's time-out it bounds how long a revoked visitor stays in
STALE: Final = 60.0  # seconds that visitors stay in while Platform is away
STATES_AT_ONCE: Final = 8  # questions about sessions: a server that dies makes thousands of agents dial at once
QUEUE: Final = 8.0  # seconds that such a question may wait and take: less than an agent waits for its tunnel
_CALL_TIMEOUT = 2.0
_CACHE_SIZE = 8192

_NO_SESSION = "00000000"

RUNNING: Final = "running"
STOPPED: Final = "stopped"
UNKNOWN: Final = "unknown"


@attrs.frozen(kw_only=True)
class SessionInfo:
    """A session at Platform. owner: a user name for people to read."""

    id: str
    name: str
    owner: str
    state: str
    tool: str


@attrs.frozen(kw_only=True)
class Access:
    """Platform's answer to one visitor's wish."""

    allowed: bool
    reason: str | None
    session: SessionInfo


@attrs.frozen(kw_only=True)
class Decision:
    """Whether a visitor may use a session, and how the session is ("unknown": Platform has no such session)."""

    allowed: bool
    reason: str | None
    session_state: str
    session: SessionInfo | None = None

    @property
    def open(self) -> bool:
        return self.allowed and self.session_state == RUNNING


class ControlPlane:
    """Platform's contract, one method per call, authenticated as Connect's OIDC client."""

    def __init__(self, *, client: PlatformClient, registration: Registration) -> None:
        self._client = client
        self._registration = registration
        self._base = client.platform_url + "/api/connect"

    async def access(self, *, session: str, subject: str, method: str) -> Access | None:
        """May `subject` use `session` by `method` ("http")? None: no such session. Raises PlatformUnavailable."""
        document = {"session": session, "subject": subject, "method": method}
        answer = await self._call("POST", "/access", document=document)
        if answer.status == 404:
            return None
        return _access_untrusted(answer, session)

    async def session(self, session: str) -> SessionInfo | None:
        """The session; None if there is none. Raises PlatformUnavailable."""
        answer = await self._call("GET", f"/sessions/{session}")
        if answer.status == 404:
            return None
        return _session_untrusted(answer.document, session)

    async def _call(self, method: str, path: str, document: Mapping[str, str] | None = None) -> Answer:
        credentials = await self._registration.credentials()
        for last in (False, True):
            answer = await self._client.call(
                method,
                self._base + path,
                timeout=_CALL_TIMEOUT,
                document=document,
                basic=(credentials.client_id, credentials.client_secret),
            )
            if answer.status in (200, 404):
                return answer
            if answer.status != 401 or last:
                break
            credentials = await self._registration.replace(credentials)
        raise PlatformUnavailable(f"Platform refused a question of Connect's (status {answer.status})")

    async def path_routing(self) -> bool | None:
        """Whether Studios have addresses below a path; None where Platform does not say. Raises PlatformUnavailable."""
        answer = await self._call("GET", "/info")
        said = answer.document.get("path_routing") if isinstance(answer.document, Mapping) else None
        return said if answer.status == 200 and isinstance(said, bool) else None


class Authorizer:
    """The one place where it is decided who may use what: cached for 2 s, denying by default."""

    def __init__(self, control_plane: ControlPlane, *, clock: Callable[[], float] = trio.current_time) -> None:
        self._control_plane = control_plane
        # Visitors come first: a call has its time for an answer, not for the ones before it.
        self._asking_states = trio.Semaphore(STATES_AT_ONCE)
        # Only what let somebody in is worth keeping while Platform is away.
        self._decisions: ReadThrough[tuple[str, str, str], Decision] = ReadThrough(
            fresh=FRESH, stale=STALE, size=_CACHE_SIZE, away=PlatformUnavailable, keep=lambda d: d.open, clock=clock
        )
        self._states: ReadThrough[str, str] = ReadThrough(
            fresh=FRESH, stale=STALE, size=_CACHE_SIZE, away=PlatformUnavailable, keep=RUNNING.__eq__, clock=clock
        )

    async def check(self, subject: str, session: str, method: str) -> Decision:
        """Decide; no checkpoint if the answer is cached. Raises PlatformUnavailable if nothing is known."""
        return await self._decisions.get((subject, session, method), partial(self._ask, subject, session, method))

    async def session_state(self, session: str) -> str:
        """ "running", "stopped" or "unknown". Raises PlatformUnavailable if nothing is known."""
        return await self._states.get(session, partial(self._ask_state, session))

    async def check_client(self) -> None:
        """Make sure that Platform knows Connect as its client, registering again if not. Raises PlatformUnavailable."""
        await self.session_state(_NO_SESSION)

    async def _ask(self, subject: str, session: str, method: str) -> Decision:
        access = await self._control_plane.access(session=session, subject=subject, method=method)
        if access is None:
            return Decision(allowed=False, reason="There is no such Studio.", session_state=UNKNOWN)
        return Decision(
            allowed=access.allowed,
            reason=access.reason,
            session_state=access.session.state,
            session=access.session,
        )

    async def _ask_state(self, session: str) -> str:
        with trio.move_on_after(QUEUE):
            await self._asking_states.acquire()
            try:
                info = await self._control_plane.session(session)
            finally:
                self._asking_states.release()
            return info.state if info is not None else UNKNOWN
        raise PlatformUnavailable(f"too many sessions are asked about, and this one's turn did not come in {QUEUE:g} s")


def _access_untrusted(answer: Answer, session: str) -> Access:
    document = answer.document
    if not isinstance(document, Mapping) or not isinstance(document.get("allowed"), bool):
        raise PlatformUnavailable("Platform's answer about access is not what the contract says")
    reason = document.get("reason")
    return Access(
        allowed=document["allowed"],
        reason=reason[:500] if isinstance(reason, str) else None,
        session=_session_untrusted(document.get("session"), session),
    )


def _session_untrusted(document: object, session: str) -> SessionInfo:
    if isinstance(document, Mapping):
        texts = {name: document.get(name) for name in ("id", "name", "owner", "state", "tool")}
        if texts["id"] == session and all(isinstance(text, str) and len(text) <= 500 for text in texts.values()):
            return SessionInfo(**{name: str(text) for name, text in texts.items()})
    raise PlatformUnavailable("Platform's answer about a session is not what the contract says")
