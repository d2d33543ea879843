"""Platform's answers to Connect's questions (docs/platform-api.md): what they say, if they are what the contract says.

Pure. Members that the contract's first version did not have are read where they are there. Every function that reads
an answer raises PlatformUnavailable for one against the contract.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final, NoReturn

import attrs

from connect_trio.identity.client import PlatformUnavailable

UNKNOWN: Final = "unknown"
STATES_AT_MOST: Final = 500
SESSIONS_AT_MOST: Final = 100
KEYS_AT_MOST: Final = 250
_LONGEST = 500  # characters
_PERMISSIONS = 50
_LAST_DATE = float(1 << 40)

_SESSION = re.compile(r"[0-9a-f]{8}")
_SUBJECT = re.compile(r"[\x21-\x7e]{1,255}")


@attrs.frozen(kw_only=True)
class SessionInfo:
    """A session at Platform. owner: a user name for people to read. workspace: a name. ends_at: when Platform will stop
    it, in Unix time; None for never."""

    id: str
    name: str
    owner: str
    state: str
    tool: str
    workspace: str | None = None
    ends_at: float | None = None


@attrs.frozen
class SessionState:
    """state: as in SessionInfo, or "unknown". ends_at: Unix time."""

    state: str
    ends_at: float | None = None


@attrs.frozen(kw_only=True)
class Access:
    """Platform's answer to one visitor's wish. role: what they are in the workspace. permissions: "open", "extend"."""

    allowed: bool
    reason: str | None
    session: SessionInfo
    role: str | None = None
    permissions: frozenset[str] = frozenset()


@attrs.frozen(kw_only=True)
class KeyAccess:
    """Whose SSH key it is, and whether they may come in. subject, username: None where it is nobody's."""

    access: Access
    subject: str | None
    username: str | None


@attrs.frozen(kw_only=True)
class PlatformInfo:
    """path_routing: whether Studios have addresses below a path of Connect's own host."""

    path_routing: bool


def access_untrusted(document: object, session: str) -> Access:
    if not isinstance(document, Mapping) or not isinstance(document.get("allowed"), bool):
        _wrong("about access")
    permissions = document.get("permissions")
    return Access(
        allowed=document["allowed"],
        reason=_text(document.get("reason")),
        session=session_untrusted(document.get("session"), session),
        role=_text(document.get("role")),
        permissions=_permissions(permissions) if isinstance(permissions, list) else frozenset(),
    )


def key_access_untrusted(document: object, session: str) -> KeyAccess:
    access = access_untrusted(document, session)
    subject = document.get("subject") if isinstance(document, Mapping) else None
    username = document.get("username") if isinstance(document, Mapping) else None
    known = isinstance(subject, str) and _SUBJECT.fullmatch(subject) is not None
    if not known and (subject is not None or access.allowed):
        _wrong("about an SSH key")
    return KeyAccess(access=access, subject=subject if known else None, username=_text(username))


def removed_keys_untrusted(document: object, wanted: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of `wanted`, (subject, fingerprint), that are said to be gone; what is left out is not."""
    removed = document.get("removed") if isinstance(document, Mapping) else None
    if not isinstance(removed, list) or not all(isinstance(entry, Mapping) for entry in removed):
        _wrong("about SSH keys that were removed")
    said = [(entry.get("subject"), entry.get("fingerprint")) for entry in removed]
    return {one for one in wanted if one in said}


def session_untrusted(document: object, session: str) -> SessionInfo:
    """session: the id that was asked about."""
    if not isinstance(document, Mapping):
        _wrong("about a session")
    texts = {name: document.get(name) for name in ("id", "name", "owner", "state", "tool")}
    if texts["id"] != session or not all(isinstance(text, str) and len(text) <= _LONGEST for text in texts.values()):
        _wrong("about a session")
    workspace = document.get("workspace")
    return SessionInfo(
        **{name: str(text) for name, text in texts.items()},
        workspace=_text(workspace.get("name")) if isinstance(workspace, Mapping) else None,
        ends_at=_time(document.get("ends_at")),
    )


def states_untrusted(document: object, wanted: Collection[str]) -> dict[str, SessionState]:
    """By session; an id that is left out is one of which nothing is known, and says nothing about it."""
    sessions = document.get("sessions") if isinstance(document, Mapping) else None
    if not isinstance(sessions, Mapping):
        _wrong("about states")
    return {session: _state_untrusted(sessions[session]) for session in wanted if session in sessions}


def _state_untrusted(document: object) -> SessionState:
    state = document.get("state") if isinstance(document, Mapping) else None
    if not isinstance(document, Mapping) or not isinstance(state, str) or not 0 < len(state) <= _LONGEST:
        _wrong("about states")
    return SessionState(state, _time(document.get("ends_at")))


def sessions_untrusted(document: object) -> list[SessionInfo]:
    """At most 100."""
    sessions = document.get("sessions") if isinstance(document, Mapping) else None
    if not isinstance(sessions, list):
        _wrong("about a visitor's sessions")
    found = []
    for entry in sessions[:SESSIONS_AT_MOST]:
        session = entry.get("id") if isinstance(entry, Mapping) else None
        if not isinstance(session, str) or not _SESSION.fullmatch(session):
            _wrong("about a visitor's sessions")
        found.append(session_untrusted(entry, session))
    return found


def info_untrusted(document: object) -> PlatformInfo:
    if not isinstance(document, Mapping) or not isinstance(document.get("path_routing"), bool):
        _wrong("about itself")
    return PlatformInfo(path_routing=document["path_routing"])


def taken_untrusted(document: object, report: str) -> None:
    """Whether a report of activity was taken. report: its id."""
    if not isinstance(document, Mapping) or document.get("id") != report:
        _wrong("to a report of activity")


def _permissions(values: list[object]) -> frozenset[str]:
    return frozenset(value for value in values[:_PERMISSIONS] if isinstance(value, str) and len(value) <= _LONGEST)


def _text(value: object) -> str | None:
    return value[:_LONGEST] if isinstance(value, str) else None


def _time(value: object) -> float | None:
    """A wrong one counts as none: nobody is to be thrown out by it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= _LAST_DATE:
        return None
    return float(value)


def _wrong(about: str) -> NoReturn:
    raise PlatformUnavailable(f"Platform's answer {about} is not what the contract says")
