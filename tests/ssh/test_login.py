"""Logins: who is who, and what is said to those who do not come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.control_plane import RUNNING, STOPPED, UNKNOWN, Decision
from connect_trio.ssh.client import Disconnect, Key, Why
from connect_trio.ssh.keys import Allowed, FixedKeys, KeysUnknown, Refused
from connect_trio.ssh.login import MAX_KEYS, MAX_QUESTIONS, MAX_TOLD, Account, Login, parse_user
from tests.support.ssh import Judge

ALICE = Key(b"\0\0\0\x0bssh-ed25519alice")
OTHER = Key(b"\0\0\0\x0bssh-ed25519other")
USER = "alice@a23ce7967"


class Scene:
    def __init__(self, decision: Decision | None = None) -> None:
        self.judge = Judge()
        if decision is not None:
            self.judge.decision = decision
        self.banners: list[str] = []
        self.asked = 0
        self._keys = FixedKeys({"alice": [ALICE]}, {"alice": "sub-alice"})
        self.login = Login(self, self.judge.check, self.banners.append)

    async def check(self, user: str, key: Key, session: str) -> Allowed | Refused:
        self.asked += 1
        return await self._keys.check(user, key, session)


@pytest.mark.parametrize(
    ("text", "account"),
    [
        ("alice@a23ce7967", Account("alice", "a23ce7967", "23ce7967")),
        ("alice@example.org@a23ce7967", Account("alice@example.org", "a23ce7967", "23ce7967")),
    ],
)
def test_a_user_name_is_a_user_and_a_studio(text: str, account: Account) -> None:
    assert parse_user(text) == account


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("alice", 'the user name "alice" names no Studio; write it as USER@STUDIO, for example alice@a23ce7967'),
        ("@a23ce7967", "names no Studio"),
        ("alice@23ce7967", '"23ce7967" is no Studio; write it as USER@STUDIO'),
        ("alice@A23CE7967", "is no Studio"),
        ("", 'the user name "" names no Studio'),
        ("a b@a23ce7967", "this is no name of a user"),
        ("x" * 200 + "@a23ce7967", "this is no name of a user"),
        ("a\x1b[2J", 'the user name "a?[2J" names no Studio'),
    ],
)
def test_another_one_is_told_how_it_is_written(text: str, says: str) -> None:
    with pytest.raises(ValueError, match="write it as USER@STUDIO") as caught:
        parse_user(text)
    assert says in str(caught.value)


@given(st.text())
def test_any_text_is_a_user_name_or_is_told_on_one_line(text: str) -> None:
    try:
        account = parse_user(text)
    except ValueError as exc:
        said = str(exc)
    else:
        said = f"{account.user}@{account.label}"
        assert said == text
    assert said.isprintable()


async def test_who_proves_to_have_the_key_of_a_user_comes_in() -> None:
    scene = Scene()
    scene.login.names(USER)
    assert await scene.login.offers(ALICE)
    assert await scene.login.offers(ALICE)  # asked once to probe, once with the signature
    assert await scene.login.proves(ALICE)
    assert scene.login.grant is not None
    assert (scene.login.grant.subject, scene.login.key, scene.asked) == ("sub-alice", ALICE, 1)
    assert scene.judge.asked == [("sub-alice", "23ce7967", "ssh")]
    assert scene.banners == []


async def test_a_wrong_key_is_named_to_its_user() -> None:
    scene = Scene()
    scene.login.names(USER)
    assert not await scene.login.offers(OTHER)
    assert not await scene.login.proves(OTHER)
    assert scene.banners == [f"connect: {OTHER.fingerprint} is no key of a user alice."]
    assert await scene.login.offers(ALICE)


async def test_not_every_wrong_key_is_told_of() -> None:
    scene = Scene()
    scene.login.names(USER)
    for number in range(MAX_KEYS):
        await scene.login.offers(Key(bytes([number])))
    assert len(scene.banners) == MAX_TOLD


async def test_too_many_keys_end_the_connection() -> None:
    scene = Scene()
    scene.login.names(USER)
    for number in range(MAX_KEYS):
        await scene.login.offers(Key(bytes([number])))
    with pytest.raises(Disconnect, match="too many keys were tried") as caught:
        await scene.login.offers(ALICE)
    assert caught.value.why is Why.NO_MORE_AUTH_METHODS_AVAILABLE
    assert scene.asked == MAX_KEYS


async def test_so_does_the_same_key_again_and_again() -> None:
    scene = Scene()
    scene.login.names(USER)
    for _ in range(MAX_QUESTIONS):
        await scene.login.offers(OTHER)
    with pytest.raises(Disconnect, match="too many keys were tried"):
        await scene.login.offers(OTHER)


async def test_without_a_name_there_is_no_login() -> None:
    """asyncssh does not tell of an empty one."""
    with pytest.raises(Disconnect, match="there is no user name; write it as USER@STUDIO"):
        await Scene().login.offers(ALICE)


async def test_the_user_name_may_not_change() -> None:
    scene = Scene()
    scene.login.names(USER)
    scene.login.names(USER)
    with pytest.raises(Disconnect, match="may not change"):
        scene.login.names("bob@a23ce7967")


@pytest.mark.parametrize(
    ("decision", "says"),
    [
        (Decision(allowed=False, reason="The role View may not.", session_state=RUNNING), "The role View may not."),
        (Decision(allowed=False, reason=None, session_state=RUNNING), "you may not connect to a23ce7967 by SSH"),
        (Decision(allowed=True, reason=None, session_state=STOPPED), "a23ce7967 is stopped; start it"),
        (Decision(allowed=False, reason=None, session_state=UNKNOWN), "there is no Studio a23ce7967"),
        (Decision(allowed=True, reason=None, session_state="building"), 'does not run ("building")'),
    ],
)
async def test_why_somebody_does_not_come_in_is_said(decision: Decision, says: str) -> None:
    scene = Scene(decision)
    scene.login.names(USER)
    assert await scene.login.offers(ALICE)
    with pytest.raises(Disconnect) as caught:
        await scene.login.proves(ALICE)
    assert says in caught.value.text
    assert scene.login.grant is None


@pytest.mark.parametrize("error", [PlatformUnavailable("away"), KeysUnknown("away")])
async def test_a_platform_that_is_away_is_no_refusal_of_the_key(error: Exception) -> None:
    class Away:
        async def check(self, user: str, key: Key, session: str) -> Allowed | Refused:
            raise error

    login = Login(Away(), Judge().check, lambda _: None)
    login.names(USER)
    with pytest.raises(Disconnect, match="try again in a minute"):
        await login.offers(ALICE)


async def test_a_reason_that_no_other_key_mends_ends_the_connection() -> None:
    class Nowhere:
        async def check(self, user: str, key: Key, session: str) -> Allowed | Refused:
            return Refused("there is no Studio a23ce7967", hopeless=True)

    login = Login(Nowhere(), Judge().check, lambda _: None)
    login.names(USER)
    with pytest.raises(Disconnect, match="there is no Studio a23ce7967"):
        await login.offers(ALICE)


async def test_what_platform_says_is_told_on_one_line_whatever_it_is() -> None:
    odd = "first\r\nssh: logged in\x1b[2J \ud800 \u202e" + "x" * 5000
    told: list[str] = []

    class Odd:
        async def check(self, user: str, key: Key, session: str) -> Allowed | Refused:
            return Refused(odd)

    login = Login(Odd(), Judge().check, told.append)
    login.names(USER)
    assert not await login.offers(ALICE)
    scene = Scene(Decision(allowed=False, reason=odd, session_state=RUNNING))
    scene.login.names(USER)
    assert await scene.login.offers(ALICE)
    with pytest.raises(Disconnect) as caught:
        await scene.login.proves(ALICE)
    for text in (*told, caught.value.text, login.refusal, scene.login.refusal):
        assert text is not None
        assert text.isprintable()
        assert "first  ssh: logged in" in text
        assert len(text.encode()) < 1000
