"""What the development Platform remembers: users, sessions, clients, logins. In memory, and all of it bounded."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import attrs

from connect_trio.devplatform.ssh_keys import SshKeys
from connect_trio.devplatform.studios import Rules, StudioPolicy, default_studios, default_workspaces
from connect_trio.devplatform.studios import Studio as Studio
from connect_trio.devplatform.visits import Visits

logger = logging.getLogger(__name__)

V = TypeVar("V")

CODE_LIFE = 60.0
PARKED_LIFE = 600.0
LOGIN_LIFE = 12 * 3600.0
REFRESH_LIFE = 24 * 3600.0
_LIMIT = 1000


@attrs.frozen(kw_only=True)
class User:
    """A person who can log in. The password of a development user is the user name."""

    username: str
    subject: str

    def has_password(self, password: str) -> bool:
        return hmac.compare_digest(password.encode(), self.username.encode())


@attrs.frozen(kw_only=True)
class Client:
    """A registered OAuth client; of its secret only the SHA-256 is kept.

    backchannel_logout_uri: where it is told of logouts, None for nowhere. refreshes: whether it gets refresh tokens.
    """

    client_id: str
    secret_sha256: str
    name: str
    redirect_uris: tuple[str, ...]
    post_logout_redirect_uris: tuple[str, ...]
    auth_method: str
    backchannel_logout_uri: str | None = None
    refreshes: bool = True

    def has_secret(self, secret: str) -> bool:
        digest = hashlib.sha256(secret.encode()).hexdigest()
        return hmac.compare_digest(digest, self.secret_sha256)


@attrs.frozen(kw_only=True)
class AuthorizationRequest:
    """A validated request of the authorization endpoint."""

    client_id: str
    redirect_uri: str
    scope: str
    state: str | None
    nonce: str | None
    challenge: str


@attrs.define(kw_only=True)
class ParkedLogin:
    """A login page that somebody looks at. request: what goes on afterwards, None for Platform's own page.

    browser: the cookie of the browser that the page was made for.
    """

    browser: str
    request: AuthorizationRequest | None
    failures: int = 0


@attrs.frozen(kw_only=True)
class Login:
    """A browser that is logged in. form_token goes into forms, where other sites cannot read it.

    sid: what clients know this session by. clients: ids of those that somebody was logged in to by it.
    """

    user: User
    form_token: str
    since: float
    sid: str = attrs.field(factory=lambda: secrets.token_hex(16))
    clients: set[str] = attrs.field(factory=set)


@attrs.define(kw_only=True)
class Code:
    """An authorization code. sid: of the session. used: the id of the refresh token that it was exchanged for."""

    request: AuthorizationRequest
    user: User
    sid: str
    since: float
    used: str | None = None


class ExpiringMap(Generic[V]):
    """Values that live for `life` seconds; where there are too many the oldest goes."""

    def __init__(self, *, life: float, clock: Callable[[], float], limit: int = _LIMIT) -> None:
        self._life = life
        self._clock = clock
        self._limit = limit
        self._entries: OrderedDict[str, tuple[float, V]] = OrderedDict()

    def put(self, key: str, value: V) -> None:
        self._entries[key] = (self._clock() + self._life, value)
        self._entries.move_to_end(key)
        while len(self._entries) > self._limit:
            self._entries.popitem(last=False)

    def get(self, key: str | None) -> V | None:
        entry = self._entries.get(key) if key is not None else None
        return entry[1] if entry is not None and self._clock() < entry[0] else None

    def pop(self, key: str | None) -> V | None:
        value = self.get(key)
        if key is not None:
            self._entries.pop(key, None)
        return value


def _users() -> Mapping[str, User]:
    subjects = {
        "alice": "user-5d1f0a9c",
        "bob": "user-c27e83b4",
        "carol": "user-8a40e6d1",
        "dave": "user-f39b7c25",
        "erin": "user-1c6d92ab",
    }
    return {name: User(username=name, subject=subject) for name, subject in subjects.items()}


class PlatformState:
    """Everything that changes.

    tool: what runs in the sessions, for people to read. studios: other sessions than the usual ones.
    policy: which workspaces have Studios, and by which addresses. clock: Unix time.
    """

    def __init__(
        self,
        *,
        tool: str,
        studios: Sequence[Studio] | None = None,
        policy: StudioPolicy | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self.policy = policy or StudioPolicy()
        self.users = _users()
        self.rules = Rules(default_workspaces(), allowed=self.policy.allowed_workspaces)
        self.studios = {studio.id: studio for studio in studios or default_studios(tool, now=clock())}
        for studio in self.studios.values():
            if studio.running and self.policy.problem(studio) is not None:
                logger.warning("%s (%s) is not started: %s", studio.name, studio.id, self.policy.problem(studio))
                studio.stop()
        self.clients: OrderedDict[str, Client] = OrderedDict()
        self.parked: ExpiringMap[ParkedLogin] = ExpiringMap(life=PARKED_LIFE, clock=clock)
        self.logins: ExpiringMap[Login] = ExpiringMap(life=LOGIN_LIFE, clock=clock)
        # A used code is remembered for as long again, so that its second use can be noticed.
        self.codes: ExpiringMap[Code] = ExpiringMap(life=2 * CODE_LIFE, clock=clock)
        self.spent_refresh_tokens: ExpiringMap[str] = ExpiringMap(life=REFRESH_LIFE, clock=clock)
        # Refresh tokens of a session end with it, so that whoever is not told of a logout finds out.
        self.ended_sids: ExpiringMap[str] = ExpiringMap(life=REFRESH_LIFE, clock=clock)
        self.visits = Visits(clock=clock)
        self.ssh_keys = SshKeys()

    def user_by_subject(self, subject: str) -> User | None:
        return next((user for user in self.users.values() if user.subject == subject), None)

    def studio(self, session: object) -> Studio | None:
        """The session with this id, stopped if its time is over."""
        studio = self.studios.get(session) if isinstance(session, str) else None
        if studio is not None:
            studio.expire(self.clock())
        return studio

    def all_studios(self) -> list[Studio]:
        """Each as `studio` answers."""
        return [studio for studio in map(self.studio, self.studios) if studio is not None]

    def add_client(self, client: Client) -> None:
        """Keep a client; the oldest goes where there are too many."""
        self.clients[client.client_id] = client
        while len(self.clients) > _LIMIT:
            self.clients.popitem(last=False)
