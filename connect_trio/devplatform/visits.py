"""Who is connected to which session, by what Connect's proxies report. In memory, and all of it bounded."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import attrs

MAX_VISITS: Final = 500  # of one report
SILENCE: Final = 300.0  # seconds after which a visit that is no longer reported is over: its proxy has died
_REPORTS = 10_000  # whose ids are remembered
_KEPT = 10_000  # visits

_ID = re.compile(r"[0-9a-f]{32}")
_SESSION = re.compile(r"[0-9a-f]{8}")
_SUBJECT = re.compile(r"[\x21-\x7e]{1,255}")
_LAST_DATE = float(1 << 40)


class BadReport(Exception):
    """A report that is not what the contract says; the text says where."""


@attrs.frozen(kw_only=True)
class Visit:
    """One user at one session by way of one proxy. Unix times; disconnected_at is None as long as it lasts."""

    session: str
    subject: str
    connected_at: float
    last_active: float
    disconnected_at: float | None


@attrs.frozen(kw_only=True)
class Report:
    """id: the same for the same report. reporter: the proxy's process."""

    id: str
    reporter: str
    visits: tuple[Visit, ...]


@attrs.frozen
class _Heard:
    visit: Visit
    at: float


class Visits:
    """clock: Unix time."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._reports: OrderedDict[str, None] = OrderedDict()
        self._heard: OrderedDict[tuple[str, str, str], _Heard] = OrderedDict()

    def take(self, report: Report) -> bool:
        """Take a report in; False if it was taken before."""
        if report.id in self._reports:
            return False
        self._reports[report.id] = None
        while len(self._reports) > _REPORTS:
            self._reports.popitem(last=False)
        now = self._clock()
        for visit in report.visits:
            key = visit.session, visit.subject, report.reporter
            self._heard[key] = _Heard(visit, now)
            self._heard.move_to_end(key)
        while len(self._heard) > _KEPT:
            self._heard.popitem(last=False)
        return True

    def present(self, session: str) -> dict[str, float]:
        """Who is connected: when each subject was last active."""
        found: dict[str, float] = {}
        for visit in self.all():
            if visit.session == session and visit.disconnected_at is None:
                found[visit.subject] = max(visit.last_active, found.get(visit.subject, 0.0))
        return found

    def all(self) -> Iterator[Visit]:
        """The last thing that was heard of each visit; one that nobody speaks of any more ended then."""
        silent = self._clock() - SILENCE
        for heard in self._heard.values():
            if heard.visit.disconnected_at is None and heard.at < silent:
                yield attrs.evolve(heard.visit, disconnected_at=heard.at)
            else:
                yield heard.visit


def report_untrusted(document: Mapping[str, Any]) -> Report:
    """Raises BadReport."""
    ids = document.get("id"), document.get("reporter")
    if not all(isinstance(name, str) and _ID.fullmatch(name) for name in ids):
        raise BadReport("id and reporter must be 32 lower-case hex digits")
    visits = document.get("visits")
    if not isinstance(visits, list) or len(visits) > MAX_VISITS:
        raise BadReport(f"visits must be a list of at most {MAX_VISITS}")
    return Report(
        id=str(ids[0]),
        reporter=str(ids[1]),
        visits=tuple(_visit_untrusted(visit, number) for number, visit in enumerate(visits)),
    )


def _visit_untrusted(document: object, number: int) -> Visit:
    if not isinstance(document, Mapping):
        raise BadReport(f"visit {number} is not an object")
    session, subject = document.get("session"), document.get("subject")
    if not isinstance(session, str) or not _SESSION.fullmatch(session):
        raise BadReport(f"visit {number} has no session of 8 lower-case hex digits")
    if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
        raise BadReport(f"visit {number} has no subject of 1 to 255 printable characters")
    left = document.get("disconnected_at")
    return Visit(
        session=session,
        subject=subject,
        connected_at=_time_untrusted(document, "connected_at", number),
        last_active=_time_untrusted(document, "last_active", number),
        disconnected_at=_time_untrusted(document, "disconnected_at", number) if left is not None else None,
    )


def _time_untrusted(document: Mapping[str, Any], name: str, number: int) -> float:
    value = document.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LAST_DATE:
        raise BadReport(f"visit {number}: {name} must be Unix time")
    return float(value)
