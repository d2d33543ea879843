"""Ways to the login and back that led nowhere: after how many a browser is told so, and when they are forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.edge import login_cookies
from connect_trio.edge.gate import Headers
from connect_trio.edge.login_cookies import BrowserNonce, Cookies
from connect_trio.edge.login_rounds import Rounds

WINDOW = 60


class Clock:
    """Unix time that a test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def rounds(clock: Clock, cookie: str = login_cookies.NONCE) -> Rounds:
    return Rounds(Cookies(secure=False), cookie, wall_clock=clock)


def sent_back(headers: Headers) -> Headers:
    """What a browser sends after this answer."""
    return tuple((b"cookie", value.split(b";")[0]) for name, value in headers if name == b"Set-Cookie")


def test_a_new_browser_has_gone_no_round_and_a_secret_of_its_own() -> None:
    clock = Clock()
    first, second = rounds(clock).nonce(()), rounds(clock).nonce(())
    assert (first.rounds, first.since) == (0, int(clock.now))
    assert first.secret != second.secret


def test_the_browser_carries_its_count_and_its_secret() -> None:
    clock = Clock()
    mine = rounds(clock)
    nonce = mine.nonce(())
    for made in range(1, 4):
        nonce = mine.nonce(sent_back(mine.set(mine.one_more(nonce))))
        assert nonce.rounds == made
    assert nonce.secret == mine.nonce(sent_back(mine.set(nonce))).secret


@pytest.mark.parametrize(("returned", "most"), [(False, 2), (True, 5)], ids=["no cookie", "one of a login that ended"])
def test_two_rounds_are_enough_where_no_cookie_comes_back(returned: bool, most: int) -> None:
    mine = rounds(Clock())
    nonce = mine.nonce(())
    for made in range(most + 1):
        assert mine.are_spent(nonce, returned=returned) is (made >= most)
        nonce = mine.one_more(nonce)


def test_rounds_of_long_ago_do_not_count_and_the_secret_stays() -> None:
    """Or who logs in twice a day would be told of blocked cookies one day."""
    clock = Clock()
    mine = rounds(clock)
    spent = mine.one_more(mine.one_more(mine.nonce(())))
    clock.now += WINDOW
    assert mine.are_spent(mine.nonce(sent_back(mine.set(spent))), returned=False)
    clock.now += 1
    again = mine.nonce(sent_back(mine.set(spent)))
    assert (again.rounds, again.since, again.secret) == (0, int(clock.now), spent.secret)
    assert mine.one_more(spent).rounds == 1


def test_a_clock_that_is_set_back_forgets_nothing() -> None:
    clock = Clock()
    mine = rounds(clock)
    spent = mine.one_more(mine.one_more(mine.nonce(())))
    clock.now -= 1000
    assert mine.are_spent(mine.nonce(sent_back(mine.set(spent))), returned=False)


def test_hosts_and_paths_count_apart() -> None:
    clock = Clock()
    host, path = rounds(clock), rounds(clock, login_cookies.STUDIO_NONCE)
    sent = sent_back(host.set(host.one_more(host.nonce(()))))
    assert host.nonce(sent).rounds == 1
    assert path.nonce(sent).rounds == 0


@given(st.binary(max_size=80).filter(lambda value: b";" not in value))
def test_whatever_a_browser_sends_there_is_a_count(value: bytes) -> None:
    clock = Clock()
    nonce = rounds(clock).nonce(((b"cookie", b"connect_nonce=" + value),))
    assert 0 <= nonce.rounds <= 99


@given(st.integers(0, 10**9))
def test_a_count_fits_into_its_cookie(made: int) -> None:
    nonce = BrowserNonce("x" * 43, made, 1_800_000_000)
    headers = ((b"cookie", f"connect_nonce={nonce.serialise()}".encode()),)
    read = Cookies(secure=False).nonce(headers)
    assert read is not None
    assert (read.secret, read.rounds) == (nonce.secret, min(made, 99))
