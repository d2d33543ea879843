"""How a Studio is and when it ends, for its visitors: the page that warns, since nothing can be put into a tool's."""

from __future__ import annotations

from datetime import UTC, datetime

from connect_trio.edge.gate import Reply, VisitorRequest
from connect_trio.edge.login_pages import Link, Notice, json_reply
from connect_trio.identity.control_plane import SessionInfo

_REFRESH = ((b"Refresh", b"30"),)


def session_notice(request: VisitorRequest, session: SessionInfo, now: float) -> Reply:
    """A page that stays true while it is open, or JSON. now: Unix time."""
    if not request.wants_html:
        left = round(session.ends_at - now) if session.ends_at is not None else None
        known = {"id": session.id, "name": session.name, "owner": session.owner, "state": session.state}
        return json_reply(200, {**known, "ends_at": session.ends_at, "seconds_left": left})
    notice = Notice(
        status=200,
        code="session",
        title=session.name or session.id,
        paragraphs=(f"This Studio of {session.owner} is {session.state}.", _end(session.ends_at, now)),
        links=(Link("To the Studio", request.base + "/"),),
        headers=_REFRESH,
    )
    return notice.reply(request)


def _end(ends_at: float | None, now: float) -> str:
    if ends_at is None:
        return "No end is planned."
    when = datetime.fromtimestamp(ends_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    minutes = max(int(ends_at - now) // 60, 0)
    left = f"in {minutes} minute{'s' if minutes != 1 else ''}" if minutes else "in less than a minute"
    return f"It ends at {when}, {left}. Save your work before; at Platform its life may be extended."
