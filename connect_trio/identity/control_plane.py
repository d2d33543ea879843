"""What Platform says about sessions and who may use them: typed calls, and the one authorisation function."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import attrs
import trio

from connect_trio.identity import answers
from connect_trio.identity.answers import UNKNOWN as UNKNOWN
from connect_trio.identity.answers import Access as Access
from connect_trio.identity.answers import KeyAccess, PlatformInfo, SessionState
from connect_trio.identity.answers import SessionInfo as SessionInfo
from connect_trio.identity.cache import ReadThrough
from connect_trio.identity.client import Answer, PlatformClient, PlatformUnavailable
from connect_trio.identity.grants import METHODS, TUNNEL, Grant, issue
from connect_trio.identity.registration import Registration

FRESH: Final = 2.0  # seconds; with a call's time-out it bounds how long a revoked visitor stays in
STALE: Final = 60.0  # seconds that visitors stay in while Platform is away
STATES_AT_ONCE: Final = 8  # questions about sessions: a server that dies makes thousands of agents dial at once
QUEUE: Final = 8.0  # seconds that such a question may wait and take: less than an agent waits for its tunnel
_CALL_TIMEOUT = 2.0
REPORT_TIMEOUT: Final = 10.0  # nobody waits for these
_CACHE_SIZE = 8192
_LISTS = 256

_NO_SESSION = "00000000"

RUNNING: Final = "running"
STOPPED: Final = "stopped"

# Answers to a report that will be the same next time: it is not sent again.
_MAY_LACK = (200, 404, 405)
_REPORT_REFUSED = (400, 404, 405, 413, 422)


class NotOffered(PlatformUnavailable):
    """This Platform does not have the call."""


class ReportRefused(Exception):
    """Platform will not take this report, however often it is sent."""


@attrs.frozen(kw_only=True)
class Decision:
    """Whether somebody may use a session, and how the session is ("unknown": Platform has no such session).

    grant: what to show for it; there is one only if all of it is well.
    """

    allowed: bool
    reason: str | None
    session_state: str
    session: SessionInfo | None = None
    grant: Grant | None = None

    @property
    def open(self) -> bool:
        return self.grant is not None

    @property
    def ends_at(self) -> float | None:
        return self.session.ends_at if self.session is not None else None


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
        return answers.access_untrusted(answer.document, session)

    async def session(self, session: str) -> SessionInfo | None:
        """The session; None if there is none. Raises PlatformUnavailable."""
        answer = await self._call("GET", f"/sessions/{session}")
        if answer.status == 404:
            return None
        return answers.session_untrusted(answer.document, session)

    async def states(self, sessions: Collection[str]) -> dict[str, SessionState]:
        """Of at most 500 sessions, as far as Platform answers. Raises PlatformUnavailable, and NotOffered."""
        answer = await self._call("POST", "/sessions/states", document={"sessions": list(sessions)}, expect=_MAY_LACK)
        if answer.status != 200:
            raise NotOffered("Platform does not answer about many sessions at once")
        return answers.states_untrusted(answer.document, sessions)

    async def sessions_of(self, subject: str) -> list[SessionInfo]:
        """Those that `subject` may open, at most 100. Raises PlatformUnavailable, and NotOffered."""
        answer = await self._call("GET", f"/sessions?subject={quote(subject, safe='')}", expect=_MAY_LACK)
        if answer.status != 200:
            raise NotOffered("Platform does not list a visitor's sessions")
        return answers.sessions_untrusted(answer.document)

    async def extend(self, *, session: str, subject: str, seconds: int | None = None) -> Access | None:
        """Let a session run for so many seconds from now, in the name of `subject`; None: Platform's usual time.

        Answers with whether it does, why not, and when it ends now. None: no such session. Raises PlatformUnavailable.
        """
        document: dict[str, object] = {"subject": subject}
        if seconds is not None:
            document["seconds"] = seconds
        answer = await self._call("POST", f"/sessions/{session}/extend", document=document)
        return answers.access_untrusted(answer.document, session) if answer.status == 200 else None

    async def check_ssh_key(self, *, session: str, username: str, key: str, fingerprint: str) -> KeyAccess | None:
        """Whose key is it, and may they use `session`? None: no such session. Raises PlatformUnavailable.

        key: as it is on the wire, in base64. fingerprint: as OpenSSH prints it.
        """
        document = {"session": session, "username": username, "key": key, "fingerprint": fingerprint}
        answer = await self._call("POST", "/ssh-keys/check", document=document)
        return answers.key_access_untrusted(answer.document, session) if answer.status == 200 else None

    async def removed_ssh_keys(self, keys: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """Which of at most 250 keys, (subject, fingerprint), are not their users' any more. Raises PlatformUnavailable,
        and NotOffered."""
        wanted = [{"subject": subject, "fingerprint": fingerprint} for subject, fingerprint in keys]
        answer = await self._call("POST", "/ssh-keys/removed", document={"keys": wanted}, expect=_MAY_LACK)
        if answer.status != 200:
            raise NotOffered("Platform does not answer about many SSH keys at once")
        return answers.removed_keys_untrusted(answer.document, keys)

    async def info(self) -> PlatformInfo | None:
        """What Platform is set to; None where it does not say. Raises PlatformUnavailable."""
        answer = await self._call("GET", "/info", expect=_MAY_LACK)
        return answers.info_untrusted(answer.document) if answer.status == 200 else None

    async def report(self, report: Mapping[str, Any]) -> None:
        """Deliver a report of activity; `id` names it. Raises PlatformUnavailable: send the same one again later, and
        ReportRefused: do not."""
        expect = (200, *_REPORT_REFUSED)
        answer = await self._call("POST", "/activity", document=report, expect=expect, timeout=REPORT_TIMEOUT)
        if answer.status != 200:
            raise ReportRefused(f"Platform does not take reports of activity (status {answer.status})")
        answers.taken_untrusted(answer.document, report["id"])

    async def _call(
        self,
        method: str,
        path: str,
        document: Mapping[str, Any] | None = None,
        *,
        expect: Collection[int] = (200, 404),
        timeout: float = _CALL_TIMEOUT,
    ) -> Answer:
        credentials = await self._registration.credentials()
        for last in (False, True):
            answer = await self._client.call(
                method,
                self._base + path,
                timeout=timeout,
                document=document,
                basic=(credentials.client_id, credentials.client_secret),
            )
            if answer.status in expect:
                return answer
            if answer.status != 401 or last:
                break
            credentials = await self._registration.replace(credentials)
        raise PlatformUnavailable(f"Platform refused a question of Connect's (status {answer.status})")

    async def path_routing(self) -> bool | None:
        """Whether Studios have addresses below a path; None where Platform does not say. Raises PlatformUnavailable."""
        info = await self.info()
        return info.path_routing if info is not None else None


class Authorizer:
    """The one place where it is decided who may use what: cached for 2 s, denying by default.

    clock: seconds that only go forward; wall_clock: Unix time.
    """

    def __init__(
        self,
        control_plane: ControlPlane,
        *,
        clock: Callable[[], float] = trio.current_time,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._control_plane = control_plane
        self._wall_clock = wall_clock
        # Visitors come first: a call has its time for an answer, not for the ones before it.
        self._asking_states = trio.Semaphore(STATES_AT_ONCE)
        # Only what let somebody in is worth keeping while Platform is away.
        self._decisions: ReadThrough[tuple[str, str, str], Decision] = ReadThrough(
            fresh=FRESH, stale=STALE, size=_CACHE_SIZE, away=PlatformUnavailable, keep=lambda d: d.open, clock=clock
        )
        self._states: ReadThrough[str, str] = ReadThrough(
            fresh=FRESH, stale=STALE, size=_CACHE_SIZE, away=PlatformUnavailable, keep=RUNNING.__eq__, clock=clock
        )
        self._lists: ReadThrough[str, list[SessionInfo]] = ReadThrough(
            fresh=FRESH, stale=STALE, size=_LISTS, away=PlatformUnavailable, keep=bool, clock=clock
        )

    async def check(self, subject: str, session: str, method: str) -> Decision:
        """May `subject` use `session` by `method`? No checkpoint if the answer is cached.

        The subject of an agent's tunnel is the session that its token names. Raises PlatformUnavailable if nothing is
        known.
        """
        if method not in METHODS:
            return Decision(allowed=False, reason=f"Nobody is let in by {method}.", session_state=UNKNOWN)
        if method == TUNNEL:
            return await self._check_agent(subject, session)
        asked = partial(self._ask, subject, session, method)
        return self._until_its_end(await self._decisions.get((subject, session, method), asked))

    def known(self, subject: str, session: str, method: str) -> Decision | None:
        """What `check` says, if it need not ask."""
        decision = self._decisions.peek((subject, session, method))
        return self._until_its_end(decision) if decision is not None else None

    def age(self, subject: str, session: str, method: str) -> float | None:
        """Seconds since Platform last said what `check` says; None if it is not known any more that it did."""
        return self._decisions.age((subject, session, method))

    def _until_its_end(self, decision: Decision) -> Decision:
        """A session ends when it was planned to, whether or not Platform can be asked then."""
        ends_at = decision.ends_at
        if ends_at is None or decision.session_state != RUNNING or self._wall_clock() < ends_at:
            return decision
        return attrs.evolve(decision, session_state=STOPPED, grant=None)

    async def _check_agent(self, subject: str, session: str) -> Decision:
        """Who has a token that Platform signed for a session may serve it for as long as it runs."""
        if subject != session:
            return Decision(allowed=False, reason="The token is for another session.", session_state=UNKNOWN)
        state = await self.session_state(session)
        grant = issue(subject=subject, session=session, method=TUNNEL) if state == RUNNING else None
        return Decision(allowed=True, reason=None, session_state=state, grant=grant)

    async def session_state(self, session: str) -> str:
        """ "running", "stopped" or "unknown". Raises PlatformUnavailable if nothing is known."""
        return await self._states.get(session, partial(self._ask_state, session))

    async def sessions_of(self, subject: str) -> list[SessionInfo]:
        """Those that `subject` may open, at most 100. Raises PlatformUnavailable, and NotOffered."""
        return await self._lists.get(subject, partial(self._control_plane.sessions_of, subject))

    async def check_client(self) -> None:
        """Make sure that Platform knows Connect as its client, registering again if not. Raises PlatformUnavailable."""
        await self.session_state(_NO_SESSION)

    async def _ask(self, subject: str, session: str, method: str) -> Decision:
        access = await self._control_plane.access(session=session, subject=subject, method=method)
        if access is None:
            return Decision(allowed=False, reason="There is no such Studio.", session_state=UNKNOWN)
        yes = access.allowed and access.session.state == RUNNING
        return Decision(
            allowed=access.allowed,
            reason=access.reason,
            session_state=access.session.state,
            session=access.session,
            grant=issue(subject=subject, session=session, method=method) if yes else None,
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
