"""Who is connected, by what proxies report: once each, bounded, and over when nobody speaks of it any more."""

from __future__ import annotations

from typing import Any

import pytest

from connect_trio.devplatform import visits as module
from connect_trio.devplatform.visits import MAX_VISITS, SILENCE, BadReport, Visits, report_untrusted

ONE, TWO = "1" * 32, "2" * 32
VISIT = {
    "session": "23ce7967",
    "subject": "user-1",
    "connected_at": 100.0,
    "last_active": 150,
    "disconnected_at": None,
}


class Clock:
    now = 200.0

    def __call__(self) -> float:
        return self.now


def report(number: int, *visits: dict[str, Any], reporter: str = ONE) -> dict[str, Any]:
    return {"id": f"{number:032x}", "reporter": reporter, "visits": list(visits)}


def test_a_report_counts_once() -> None:
    visits = Visits(clock=Clock())
    assert visits.take(report_untrusted(report(1, VISIT)))
    assert visits.take(report_untrusted(report(2, {**VISIT, "disconnected_at": 180.0})))
    assert not visits.take(report_untrusted(report(1, VISIT)))
    assert visits.present("23ce7967") == {}


def test_a_user_is_there_as_long_as_any_proxy_says_so() -> None:
    visits = Visits(clock=Clock())
    visits.take(report_untrusted(report(1, VISIT)))
    visits.take(report_untrusted(report(2, {**VISIT, "last_active": 190}, reporter=TWO)))
    assert visits.present("23ce7967") == {"user-1": 190}
    visits.take(report_untrusted(report(3, {**VISIT, "disconnected_at": 195}, reporter=TWO)))
    assert visits.present("23ce7967") == {"user-1": 150}
    assert visits.present("5f0c1d2e") == {}


def test_a_visit_that_nobody_speaks_of_any_more_is_over() -> None:
    clock = Clock()
    visits = Visits(clock=clock)
    visits.take(report_untrusted(report(1, VISIT)))
    clock.now += SILENCE
    assert visits.present("23ce7967")
    clock.now += 1
    assert not visits.present("23ce7967")
    assert [visit.disconnected_at for visit in visits.all()] == [200.0]


def test_nothing_grows_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT", 10)
    monkeypatch.setattr(module, "_REPORTS", 5)
    visits = Visits(clock=Clock())
    for number in range(20):
        visits.take(report_untrusted(report(number, {**VISIT, "subject": f"user-{number}"})))
    assert len(list(visits.all())) == 10
    assert visits.take(report_untrusted(report(0)))
    assert not visits.take(report_untrusted(report(19)))


@pytest.mark.parametrize(
    "document",
    [
        {},
        report(1, VISIT) | {"id": "x"},
        report(1, VISIT) | {"reporter": None},
        report(1, VISIT) | {"visits": None},
        report(1, VISIT) | {"visits": ["x"]},
        report(1, *[VISIT] * (MAX_VISITS + 1)),
        report(1, VISIT | {"session": "no"}),
        report(1, VISIT | {"subject": ""}),
        report(1, VISIT | {"subject": "a b"}),
        report(1, VISIT | {"connected_at": "now"}),
        report(1, VISIT | {"last_active": True}),
        report(1, VISIT | {"last_active": float("nan")}),
        report(1, VISIT | {"last_active": 1e300}),
        report(1, VISIT | {"disconnected_at": -1}),
    ],
)
def test_what_is_no_report_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(BadReport):
        report_untrusted(document)
