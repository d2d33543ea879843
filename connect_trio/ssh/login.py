"""A login: who wants to come in where, with which keys, and what is said to those who may not."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Final

import attrs

from connect_trio.control import one_line
from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.control_plane import STOPPED, UNKNOWN, Decision
from connect_trio.identity.grants import SSH, Grant
from connect_trio.identity.watcher_keys import UsedKey
from connect_trio.routing.names import session_of
from connect_trio.ssh.client import Disconnect, Key, Why
from connect_trio.ssh.keys import Allowed, KeyChecker, KeysUnknown, Refused

MAX_KEYS: Final = 10  # that a client may offer
MAX_QUESTIONS: Final = 40  # about them: each key is asked about twice
MAX_TOLD: Final = 3  # keys that the user is told of
_LONGEST_USER = 128
_LONGEST_SHOWN = 40

_HOW = "write it as USER@STUDIO, for example alice@a23ce7967"
_AWAY = "Platform cannot be asked at the moment; try again in a minute"

Authorize = Callable[[str, str, str], Awaitable[Decision]]
"""(subject, session, method) to what is decided: `identity.control_plane.Authorizer.check`."""


@attrs.frozen
class Account:
    """Who wants to come in. user: a name at Platform. label, session: of a Studio."""

    user: str
    label: str
    session: str


def parse_user(text: str) -> Account:
    """ "alice@a23ce7967". Raises ValueError, with a text for the user."""
    user, _, label = text.rpartition("@")
    if not user:
        raise ValueError(f"the user name {_shown(text)} names no Studio; {_HOW}")
    if len(user) > _LONGEST_USER or not user.isprintable() or " " in user:
        raise ValueError(f"this is no name of a user; {_HOW}")
    try:
        return Account(user, label, session_of(label))
    except ValueError:
        raise ValueError(f"{_shown(label)} is no Studio; {_HOW}") from None


class Login:
    """banner: shows a line to the user.

    account: who it is, once the client has said so. key, grant: by which they come in, in the end.
    """

    def __init__(self, checker: KeyChecker, authorize: Authorize, banner: Callable[[str], object]) -> None:
        self._checker = checker
        self._authorize = authorize
        self._banner = banner
        self._user: str | None = None
        self._account: Account | None = None
        self._answers: dict[bytes, Allowed | Refused] = {}
        self._questions = 0
        self.key: Key | None = None
        self.grant: Grant | None = None
        self.refusal: str | None = None

    @property
    def user(self) -> str | None:
        """As the client says it, whatever that is."""
        return self._user

    @property
    def account(self) -> Account | None:
        return self._account

    def used_key(self) -> UsedKey:
        """By what they are in, once they are."""
        account, key, grant = self._account, self.key, self.grant
        assert account is not None
        assert key is not None
        assert grant is not None
        return UsedKey(
            subject=grant.subject,
            fingerprint=key.fingerprint,
            username=account.user,
            key=base64.b64encode(key.blob).decode(),
            session=grant.session,
        )

    def names(self, user: str) -> None:
        """The client says who it is. Raises Disconnect."""
        if self._user not in (None, user):
            raise self._refuse(Why.PROTOCOL_ERROR, "the user name may not change")
        self._user = user
        try:
            self._account = parse_user(user)
        except ValueError as exc:
            raise self._refuse(Why.ILLEGAL_USER_NAME, str(exc)) from None

    async def offers(self, key: Key) -> bool:
        """Whether this key could let the user in. Raises Disconnect."""
        account = self._account
        if account is None:  # asyncssh does not tell of an empty name
            raise self._refuse(Why.ILLEGAL_USER_NAME, f"there is no user name; {_HOW}")
        self._questions += 1
        if self._questions > MAX_QUESTIONS or (len(self._answers) >= MAX_KEYS and key.blob not in self._answers):
            raise self._refuse(
                Why.NO_MORE_AUTH_METHODS_AVAILABLE,
                "too many keys were tried; name the right one with -i and -o IdentitiesOnly=yes",
            )
        answer = self._answers.get(key.blob)
        if answer is None:
            answer = await self._ask(account, key)
            self._answers[key.blob] = answer
            if isinstance(answer, Refused):
                self._tell(answer)
        return isinstance(answer, Allowed)

    async def proves(self, key: Key) -> bool:
        """Whether the user comes in, who has the private key of this one. Raises Disconnect."""
        account, answer = self._account, self._answers.get(key.blob)
        assert account is not None
        if not isinstance(answer, Allowed):
            return False
        try:
            decision = await self._authorize(answer.subject, account.session, SSH)
        except PlatformUnavailable:
            raise self._refuse(Why.SERVICE_NOT_AVAILABLE, _AWAY) from None
        if decision.grant is None:
            raise self._refuse(Why.NO_MORE_AUTH_METHODS_AVAILABLE, _why_not(account, decision))
        self.key, self.grant = key, decision.grant
        return True

    async def _ask(self, account: Account, key: Key) -> Allowed | Refused:
        try:
            return await self._checker.check(account.user, key, account.session)
        except (KeysUnknown, PlatformUnavailable):
            raise self._refuse(Why.SERVICE_NOT_AVAILABLE, _AWAY) from None

    def _tell(self, refused: Refused) -> None:
        """A client that has other keys goes on, so this is only a line for its user."""
        if refused.hopeless:
            raise self._refuse(Why.NO_MORE_AUTH_METHODS_AVAILABLE, refused.reason)
        self.refusal = one_line(refused.reason)
        if len(self._answers) <= MAX_TOLD:
            self._banner(f"connect: {self.refusal}")

    def _refuse(self, why: Why, text: str) -> Disconnect:
        """text: also Platform's, which nobody has promised to be one line."""
        self.refusal = one_line(text)
        return Disconnect(why, self.refusal)


def _why_not(account: Account, decision: Decision) -> str:
    if decision.session_state == UNKNOWN:
        return f"there is no Studio {account.label}"
    if not decision.allowed:
        return decision.reason or f"you may not connect to {account.label} by SSH"
    if decision.session_state == STOPPED:
        return f"the Studio {account.label} is stopped; start it, then connect again"
    return f"the Studio {account.label} does not run ({_shown(decision.session_state)}); start it, then connect again"


def _shown(text: str) -> str:
    shown = "".join(char if char.isprintable() else "?" for char in text[:_LONGEST_SHOWN])
    return f'"{shown}"'
