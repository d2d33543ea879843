"""What the proxies remember together about logins, in the shared Store.

A record is kept under the SHA-256 of the secret that a browser holds: who reads the Store cannot act as anybody.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Final, TypeVar

import attrs

from connect_trio.identity.refresh import Tokens
from connect_trio.routing.registry import Store

PENDING_LIFE: Final = 600.0
TRANSFER_LIFE: Final = 30.0


@attrs.frozen(kw_only=True)
class Ticket:
    """A visitor sent from a Studio to the login. path: where to return. bind: digest of the browser's nonce.

    below_path: whether the Studio was visited below a path of Connect's own host; the path is still the Studio's.
    """

    label: str
    path: str
    bind: str
    below_path: bool = False


@attrs.frozen(kw_only=True)
class LogoutTicket:
    """The right to end a login, for the form that asks whether to. login: digest of its secret."""

    login: str


@attrs.frozen(kw_only=True)
class PendingLogin:
    """A login under way at Platform. bind: digest of the pre-login cookie. label, ticket: what it is for.

    offline: whether refresh tokens were asked for by their scope, which Platform may refuse.
    """

    nonce: str
    verifier: str = attrs.field(repr=False)
    client_id: str
    bind: str
    label: str | None
    ticket: str | None = attrs.field(repr=False)
    offline: bool = False


@attrs.frozen(kw_only=True)
class Login:
    """Somebody is logged in; never changed, so that nothing can bring back a login that has ended.

    created: Unix time of ours. issued: of Platform's. sid: Platform's name for this session, None if it has none.
    browser: what it has in common with logins that were begun in the same browser together with it, or before it.
    """

    subject: str
    username: str
    created: float
    issued: float
    sid: str | None = None
    browser: str = ""


@attrs.frozen(kw_only=True)
class Transfer:
    """The right to a session cookie on one Studio's host, once. login: digest of the login's secret."""

    session: str
    path: str
    bind: str
    login: str


@attrs.frozen(kw_only=True)
class StudioSession:
    """Somebody may ask for pages of one Studio for as long as their login lasts."""

    subject: str
    username: str
    session: str
    created: float
    login: str


Record = Ticket | PendingLogin | Login | Tokens | Transfer | StudioSession | LogoutTicket
R = TypeVar("R", Ticket, PendingLogin, Login, Tokens, Transfer, StudioSession, LogoutTicket)


class LoginRecords:
    """Records by secret, or by the digest of it. All methods raise RegistryUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, record: Record, *, ttl: float) -> str:
        """Keep a record under a new secret, which is returned."""
        secret = new_secret()
        await self.put(digest(secret), record, ttl=ttl)
        return secret

    async def put(self, key: str, record: Record, *, ttl: float) -> None:
        value = json.dumps(attrs.asdict(record)).encode()
        await self._store.put(_key(type(record), key), value, ttl=ttl)

    async def replace(self, key: str, record: Record) -> bool:
        """Change a record that is there, and leave it its time; whether it was there."""
        return await self._store.replace(_key(type(record), key), json.dumps(attrs.asdict(record)).encode())

    async def prolong(self, kind: type[Record], key: str, *, ttl: float) -> None:
        """Let a record live for `ttl` seconds from now, unless it lives longer or is gone."""
        await self._store.prolong(_key(kind, key), ttl=ttl)

    async def get(self, kind: type[R], key: str) -> R | None:
        return _deserialised(kind, await self._store.get(_key(kind, key)))

    async def take(self, kind: type[R], key: str) -> R | None:
        """Get and remove: only one caller has it."""
        return _deserialised(kind, await self._store.take(_key(kind, key)))

    async def delete(self, kind: type[R], key: str) -> None:
        await self._store.delete(_key(kind, key))


def new_secret() -> str:
    """256 random bits as 43 characters for URLs and cookies."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _key(kind: type[Record], key: str) -> str:
    return f"login:{kind.__name__.lower()}:{key}"


def _deserialised(kind: type[R], value: bytes | None) -> R | None:
    if value is None:
        return None
    try:
        return kind(**json.loads(value))
    except (ValueError, TypeError):
        return None  # written by another version of Connect: as good as gone
