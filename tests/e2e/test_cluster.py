"""Many servers, proxies, agents and streams: parts are killed and restarted one after the other, and nothing is lost.

How long things paused is printed at the end of the run and kept in test-artifacts/survival.json; nothing here asserts
it. In full: `CONNECT_E2E_FULL=1 .venv/bin/python -m pytest -o faulthandler_timeout=1800 tests/e2e/test_cluster.py`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import attrs
import pytest

from tests.support.cluster import Clock, Cluster, Member, cluster
from tests.support.e2e import FULL, PATIENCE, wait_until
from tests.support.parts import require
from tests.support.survival import LoadProcess, Measured, calm, keep, running_load, summary, told

SERVERS, PROXIES = 3, 2
AGENTS = 200 if FULL else 12
CONVERSATIONS = 300 if FULL else 18
TRANSFERS = 100 if FULL else 6
"""Downloads, and as many uploads."""

CALLERS = 50 if FULL else 6
RETURNED = 20 if FULL else 4
KILLS, PERIOD = (60, 10.0) if FULL else (3, 3.0)
RATE = {"interval": 0.5, "rate": 32 * 1024}

ROLLED = SERVERS if FULL else 2
GRACE = 20.0 if FULL else 5.0
GOODBYE = min(2.0, GRACE / 4)
"""Seconds at the end of the grace in which WebSockets are closed, as docs/operations.md says."""

CALM = 10.0 if FULL else 1.0
STACK = f"{SERVERS} servers, {PROXIES} proxies"


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Visitors come in at the proxies' own ports, agents at one that the proxies share."""
    require("redis-server")
    work = tmp_path_factory.mktemp("cluster")
    with cluster("cluster", work, servers=SERVERS, proxies=PROXIES, agents=AGENTS, grace=f"{GRACE:g}s") as running:
        yield running


@pytest.fixture
def balanced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """All come in through HAProxy."""
    require("redis-server")
    require("haproxy")
    work = tmp_path_factory.mktemp("cluster-balanced")
    with cluster(
        "cluster-balanced",
        work,
        servers=SERVERS,
        proxies=PROXIES,
        agents=AGENTS,
        grace=f"{GRACE:g}s",
        balanced=True,
    ) as running:
        yield running


@attrs.frozen
class Loads:
    """Half of the visitors at each proxy. measured: what happened to them all. before: counts of the proxies."""

    cluster: Cluster
    at: list[LoadProcess]
    measured: Measured
    before: dict[str, int]
    clock: Clock = attrs.field(factory=Clock)

    def watch(self, act: Callable[[], object], until: float = 0.0) -> None:
        """Do something, wait until that time and until everything went on, and note what it cost. Asserts no loss."""
        for load in self.at:
            load.ask("forget")
        since = time.monotonic()
        act()
        time.sleep(max(0.0, until - time.monotonic()))
        for load in self.at:
            waiting = load.settle(since)
            assert waiting == [], f"did not go on: {waiting[:10]} and {len(waiting)} in all"
        outcomes = [load.ask("pauses", since=since) for load in self.at]
        broken = [one for outcome in outcomes for one in outcome["broken"]]
        self.measured.broken = len(broken)
        for outcome in outcomes:
            self.measured.pauses += outcome["pauses"]
            self.measured.silences += outcome["silences"]
        self.measured.rounds += 1
        print(f"round {self.measured.rounds}: {summary([one for each in outcomes for one in each['pauses']])} ms")
        if broken:
            pytest.fail(f"round {self.measured.rounds}: {told(broken)}", pytrace=False)

    def finish(self, **facts: object) -> None:
        """End everything, and keep what happened. Asserts that nothing was lost."""
        now = self.cluster.counts(range(len(self.at)))
        reports = [load.finish() for load in self.at]
        sums = {name: sum(report[name] for report in reports) for name in ("messages", "bytes")}
        self.keep(**sums, **{name: now[name] - self.before[name] for name in now}, **facts)

    def keep(self, **facts: object) -> None:
        keep("pauses", self.measured.document())
        seconds = time.monotonic() - self.clock.since
        facts |= {"seconds": round(seconds), "busy": round(self.clock.busy(), 2)}
        keep(
            "cluster",
            {"stack": STACK, "fault": self.measured.fault, "agents": AGENTS, **facts, **self.cluster.spread()},
        )


def loads(running: Cluster, fault: str, stack: ExitStack) -> Loads:
    """The whole load, spread over both proxies, when all of it runs; and how it is without a fault."""
    half = {"conversations": CONVERSATIONS // 2, "downloads": TRANSFERS // 2, "uploads": TRANSFERS // 2, **RATE}
    started = [
        stack.enter_context(
            running_load(
                f"cluster-{fault}-{proxy + 1}",
                doors=running.doors(running.port(proxy))[proxy::PROXIES],
                first=running.numbers(CONVERSATIONS // 2 + TRANSFERS),
                tool=running.tool,
                **half,
            )
        )
        for proxy in range(PROXIES)
    ]
    measured = Measured(STACK, fault, visible=True, tunnels=2)
    return Loads(running, started, measured, running.counts(range(PROXIES)))


def test_servers_are_killed_one_after_the_other(direct: Cluster) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)

    def strike() -> None:
        victim = chance.choice(direct.servers)
        victim.kill()
        victim.start()
        victim.wait_until_ready()

    with ExitStack() as stack:
        running = loads(direct, "random server killed", stack)
        keep("pauses", calm(running.at[0], CALM, stack=STACK).document())
        begin = time.monotonic()
        for number in range(1, KILLS + 1):
            running.watch(strike, until=begin + number * PERIOD)
        late = time.monotonic() - begin - KILLS * PERIOD
        running.finish(streams=CONVERSATIONS + 2 * TRANSFERS, lost=0, late=round(late, 1))


def test_a_proxy_is_killed_and_the_visitors_of_the_other_lose_nothing(direct: Cluster) -> None:
    doors = direct.doors(direct.port(1))
    after = {"conversations": RETURNED, "downloads": RETURNED, "uploads": RETURNED, **RATE}
    with ExitStack() as stack:
        all_of_them = loads(direct, "one of two proxies killed", stack)
        others = attrs.evolve(all_of_them, at=all_of_them.at[:1], before=direct.counts(range(1)))
        theirs = all_of_them.at[1]
        others.watch(partial(kill_and_restart, direct.proxies[1]))
        mine = CONVERSATIONS // 2 + TRANSFERS
        wait_until(lambda: len(theirs.ask("pauses", since=0.0)["broken"]) == mine, "each of its visitors to know")
        lost = theirs.ask("pauses", since=0.0)["broken"]
        assert not any("instead of" in why or "other bytes" in why for _, why, _ in lost), told(lost)
        with running_load("cluster-again", doors=doors, first=direct.numbers(3 * RETURNED), **after) as again:
            again.finish()
        others.finish(streams=mine, lost=0)


def test_servers_are_restarted_one_after_the_other(direct: Cluster) -> None:
    with ExitStack() as stack:
        running = loads(direct, "rolling restart of servers", stack)
        for server in direct.servers[:ROLLED]:
            running.watch(partial(stop_and_restart, server))
        running.finish(streams=CONVERSATIONS + 2 * TRANSFERS, lost=0)


def test_proxies_are_restarted_one_after_the_other_behind_a_balancer(balanced: Cluster) -> None:
    front = balanced.balancer
    assert front is not None
    doors = balanced.doors(front.port)
    flows = {"returning": CONVERSATIONS, "callers": CALLERS, "interval": RATE["interval"]}
    name = "rolling restart of proxies"
    with running_load(f"cluster-{name}", doors=doors, first=balanced.numbers(CONVERSATIONS + CALLERS), **flows) as load:
        running = Loads(balanced, [load], Measured(STACK, f"{name} behind HAProxy", visible=True, tunnels=2), {})
        graces: list[tuple[float, float]] = []

        def roll(proxy: Member) -> None:
            stop_and_restart(proxy)
            wait_until(lambda: front.states() == ["UP"] * PROXIES, "proxies that HAProxy sees as up", patience=PATIENCE)

        for proxy in balanced.proxies:
            since = time.monotonic()
            running.watch(partial(roll, proxy))
            # All have come back by then, and so have heard of it.
            graces.append((since + GRACE - GOODBYE, time.monotonic()))
        returns = load.ask("returns")
        report = load.finish()
    assert len(returns["restarts"]) >= CONVERSATIONS, "each conversation was at one proxy or at the other"
    early = [when for when in returns["restarts"] if not any(begin <= when <= end for begin, end in graces)]
    assert early == [], "1012 comes at the end of the grace only"
    running.keep(
        streams=CONVERSATIONS,
        lost=0,
        messages=report["messages"],
        requests=returns["answered"],
        asked_again=returns["stale"],
        restarts=len(returns["restarts"]),
        unanswered=returns["unanswered"],
        longest_request=round(returns["longest"], 2),
    )


def kill_and_restart(member: Member) -> None:
    member.kill()
    member.restart()


def stop_and_restart(member: Member) -> None:
    member.terminate()
    member.wait_for_end()
    member.restart()
