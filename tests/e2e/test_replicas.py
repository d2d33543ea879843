"""Two replicas of the proxy behind HAProxy, which gives each request to the next one and remembers nobody.

Whatever one replica begins the other one has to go on with: logins, callbacks, transfer codes, logouts; also if one is
killed in the middle, or if Platform is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Response, expect

from connect_trio.identity.control_plane import FRESH, STALE
from tests.support.balancer import SERVED_BY
from tests.support.browser import People
from tests.support.cluster import Cluster, Member, cluster
from tests.support.cluster_platform import OWNER
from tests.support.e2e import FULL, wait_until
from tests.support.parts import require
from tests.support.visits import Answer, Visitor

REPLICAS = 2
TRIES = 6
"""Logins until one went as it was to go: agents, too, dial through HAProxy now and then, and shift whose turn it is."""

THERE = "no such path"
"""What the Studios' tool says to visitors who have reached it."""

IN_FOR = STALE - 2 * FRESH if FULL else 3 * FRESH
"""Seconds without Platform in which who is in must stay in: longer than its answers count as new; in full, nearly as
long as they count at all, and then it is seen that they count no longer."""


class Walker(Visitor):
    """A visitor who notes which replica has answered what. seen: path and replica of each request to Connect."""

    def __init__(self, *, via: int | None = None) -> None:
        super().__init__(via=via)
        self.seen: list[tuple[str, str]] = []

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        form: Mapping[str, str] | None = None,
    ) -> Answer:
        answer = super().request(method, url, headers=headers, body=body, form=form)
        if SERVED_BY.lower() in answer.headers:
            self.seen.append((urlsplit(url).path, answer.headers[SERVED_BY.lower()]))
        return answer

    def replica(self, path: str) -> str:
        """Who has answered at this path the last time."""
        return next(replica for seen, replica in reversed(self.seen) if seen == path)

    def copy_of(self, other: Visitor) -> Walker:
        """Take another visitor's cookies, as a thief would."""
        self._cookies = {host: dict(jar) for host, jar in other._cookies.items()}
        return self


@contextmanager
def stack(name: str, factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    require("redis-server")
    require("haproxy")
    size = {"servers": 1, "proxies": REPLICAS, "agents": 2}
    with cluster(name, factory.mktemp(name), **size, grace="2s", balanced=True, alternating=True) as running:
        yield running


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with stack("replicas", tmp_path_factory) as running:
        yield running


@pytest.fixture
def without_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One of its own: a Platform that was killed has forgotten all that it knew, the key of agents' tokens too."""
    with stack("replicas-without-platform", tmp_path_factory) as running:
        yield running


def studio(replicas: Cluster, number: int = 0) -> str:
    return replicas.plan.studio_url(replicas.sessions[number])


def own(replicas: Cluster, path: str) -> str:
    return f"http://connect.localhost:{replicas.plan.port}{path}"


def until_one(goes: Callable[[], Walker | None], what: str) -> Walker:
    """The first visitor for whom it went so."""
    for _ in range(TRIES):
        walker = goes()
        if walker is not None:
            return walker
    raise AssertionError(f"not once in {TRIES} times: {what}")


def logged_in(url: str) -> Walker:
    alice = Walker()
    assert THERE in alice.log_in(url, OWNER).text
    return alice


def restart(replicas: Cluster, member: Member) -> None:
    """Kill it and start it anew, and wait until HAProxy knows that."""
    member.kill()
    until_balanced(replicas, "DOWN", "UP")
    member.restart()
    until_balanced(replicas, "UP")


def until_balanced(replicas: Cluster, *states: str) -> None:
    """Until HAProxy sees replicas in these states, and in no others."""
    balancer = replicas.balancer
    assert balancer is not None
    wait_until(lambda: set(balancer.states()) == set(states), f"replicas that are {' and '.join(states)}")


def ports(replicas: Cluster) -> list[int]:
    """Each replica's own one, past HAProxy."""
    return [replicas.port(number) for number in range(REPLICAS)]


def test_each_part_of_a_login_may_be_at_another_replica(replicas: Cluster) -> None:
    def one() -> Walker | None:
        alice = logged_in(studio(replicas))
        steps = ["/_connect/login", "/_connect/callback", "/_connect/transfer"]
        begun, called_back, transferred = map(alice.replica, steps)
        return alice if begun != called_back != transferred else None

    alice = until_one(one, "login, callback and transfer at one replica each")
    for _ in range(2 * REPLICAS):
        assert THERE in alice.request("GET", studio(replicas)).text
    assert len({replica for path, replica in alice.seen[-2 * REPLICAS :]}) == REPLICAS, "connections do alternate"


def test_a_login_on_connects_own_host_counts_at_the_other_replica(replicas: Cluster) -> None:
    def one() -> Walker | None:
        alice = Walker()
        page = alice.log_in(own(replicas, "/_connect/login"), OWNER)
        assert f"You are logged in as {OWNER}." in page.text
        return alice if alice.replica("/_connect/callback") != alice.replica("/") else None

    alice = until_one(one, "a front page at another replica than the callback")
    assert THERE in alice.open(studio(replicas, 1)).text, "without another question"


@pytest.mark.parametrize("where", ["the Studio's host", "Connect's own host"])
def test_a_logout_at_one_replica_ends_the_visit_at_the_other_within_seconds(replicas: Cluster, where: str) -> None:
    alice = logged_in(studio(replicas))
    thieves = [Walker(via=port).copy_of(alice) for port in ports(replicas)]
    for thief in thieves:
        assert THERE in thief.request("GET", studio(replicas)).text, "each replica knows the visit"
    host = own(replicas, "") if where == "Connect's own host" else studio(replicas).rstrip("/")
    page = alice.request("GET", f"{host}/_connect/logout")
    assert f"You are logged in as {OWNER}." in page.text
    answer = alice.request("POST", f"{host}/_connect/logout", headers={"Origin": host}, form={})
    assert answer.status == 303, answer
    for thief in thieves:
        wait_until(partial(anonymous, thief, studio(replicas)), "a visit that has ended")
        wait_until(lambda: "You are not logged in." in thief.open(own(replicas, "/")).text, "the same on its own host")  # noqa: B023


def anonymous(visitor: Visitor, url: str) -> bool:
    """Whether a request is asked for a login; one that was let in just before the end hears "Your login has ended."."""
    answer = visitor.request("GET", url)
    return answer.status == 401 and "login_required" in answer.text


def test_a_login_outlives_the_replicas_that_began_it(replicas: Cluster) -> None:
    """The one that began it, and then the other one, so that whoever is asked to finish it was not there before."""
    alice = Walker()
    page = alice.open(studio(replicas))
    assert 'name="password"' in page.text
    for member in replicas.proxies:
        restart(replicas, member)
    form = {"username": OWNER, "password": OWNER}
    answer = alice.request("POST", page.url, headers={"Accept": "text/html"}, form=form)
    assert THERE in alice.open(answer.headers["location"]).text


def test_a_login_goes_on_at_the_other_replica_while_one_is_gone(replicas: Cluster) -> None:
    alice = Walker()
    page = alice.open(studio(replicas))
    begun = alice.replica("/_connect/login")
    gone = replicas.proxies[int(begun.removeprefix("proxy"))]
    gone.kill()
    try:
        form = {"username": OWNER, "password": OWNER}
        answer = alice.request("POST", page.url, headers={"Accept": "text/html"}, form=form)
        assert THERE in alice.open(answer.headers["location"]).text
        assert alice.replica("/_connect/callback") != begun
    finally:
        gone.restart()
        until_balanced(replicas, "UP")


@pytest.mark.browser
def test_a_browser_logs_in_and_out_while_the_replicas_take_turns(replicas: Cluster, people: People) -> None:
    alice = people.come(OWNER)
    page = alice.page
    served = note_replicas(page)
    page.goto(studio(replicas))
    expect(page.get_by_label("Password")).to_be_visible()
    restart(replicas, replicas.proxies[0])
    alice.log_in()
    expect(page.get_by_text(THERE)).to_be_visible()
    assert page.url == studio(replicas)
    page.goto(studio(replicas, 1))
    expect(page.get_by_text(THERE)).to_be_visible()
    assert len(set(served.values())) == REPLICAS, served
    page.goto(studio(replicas) + "_connect/logout")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_text("You are not logged in.")).to_be_visible()
    for number in (0, 1):
        wait_until(partial(is_asked, page, studio(replicas, number)), "a Studio that asks again")


def is_asked(page: Page, url: str) -> bool:
    """Whether this address leads to Platform's form."""
    page.goto(url)
    return page.get_by_label("Password").is_visible()


def note_replicas(page: Page) -> dict[str, str]:
    """Which replica has answered at which address, as the page goes on."""
    served: dict[str, str] = {}

    def note(response: Response) -> None:
        if SERVED_BY.lower() in response.headers:
            served[response.url] = response.headers[SERVED_BY.lower()]

    page.on("response", note)
    return served


def test_without_platform_who_is_in_stays_in_and_others_are_told(without_platform: Cluster) -> None:
    replicas = without_platform
    alice, bob, stranger = logged_in(studio(replicas)), Walker(), Walker()
    assert "You are logged in as bob." in bob.log_in(own(replicas, "/_connect/login"), "bob").text
    doors = [Walker(via=port).copy_of(alice) for port in ports(replicas)]
    for door in doors:
        assert THERE in door.request("GET", studio(replicas)).text, "each replica has an answer of Platform's"
    killed = time.monotonic()
    replicas.platform.kill()
    try:
        while time.monotonic() < killed + IN_FOR:
            for door in doors:
                assert THERE in door.request("GET", studio(replicas)).text
            time.sleep(0.2)
        for _ in range(REPLICAS):
            is_told(stranger.open(studio(replicas)))
            is_told(bob.open(studio(replicas)))  # who is logged in, but nobody knows whether to this Studio
        if FULL:
            time.sleep(STALE - IN_FOR + 1)
            for door in doors:
                is_told(door.open(studio(replicas)))
    finally:
        replicas.platform.restart()
    for port in ports(replicas):
        back = wait_until(partial(let_in, studio(replicas), port), "a login at Platform again")
        assert THERE in back.request("GET", studio(replicas)).text


def is_told(answer: Answer) -> None:
    """That Platform is away, that Studios that are open go on, and when to come again."""
    assert answer.status == 503, answer
    assert "Platform does not answer" in answer.text
    assert "Studios that you have open go on for a while." in answer.text
    assert int(answer.headers["retry-after"]) > 0


def let_in(url: str, port: int) -> Walker | None:
    """Somebody new, if this replica lets them in; it leaves a Platform alone for a moment that was away."""
    alice = Walker(via=port)
    try:
        return alice if THERE in alice.log_in(url, OWNER).text else None
    except (AssertionError, OSError):
        return None
