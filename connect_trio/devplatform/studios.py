"""Sessions, workspaces, and who may do what: the rules of the development Platform. Pure; times are Unix time."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import Any, Final

import attrs

RUNNING: Final = "running"
STOPPED: Final = "stopped"
LIFE: Final = 8 * 3600.0  # seconds that a session runs unless it is extended
LONGEST_LIFE: Final = 120 * 3600.0
XPRA: Final = "xpra"
MAIN: Final = 1


class Role(StrEnum):
    """What somebody is in a workspace."""

    OWNER = "owner"
    ADMIN = "admin"
    MAINTAIN = "maintain"
    LAUNCH = "launch"
    CONNECT = "connect"
    VIEW = "view"


class Permission(StrEnum):
    """What somebody may do with a session. MANAGE: start, stop and extend it."""

    OPEN = "open"
    EXTEND = "extend"
    MANAGE = "manage"
    SHARE = "share"


_MAY_OPEN = frozenset(Role) - {Role.VIEW}
_MAY_EXTEND = _MAY_OPEN - {Role.CONNECT}
_MAY_MANAGE = frozenset((Role.OWNER, Role.ADMIN, Role.MAINTAIN))


class NotStarted(Exception):
    """A session that cannot run like this; the text says why, and how to mend it."""


@attrs.frozen(kw_only=True)
class Workspace:
    """members: roles by user name."""

    id: int
    name: str
    members: dict[str, Role]


@attrs.define(kw_only=True)
class Studio:
    """A session. owner and guests: user names.

    private: open to its owner and its guests (of whom Platform's page permits one) only, otherwise to everybody whose
    role in the workspace lets them. ends_at: when it stops by itself; None for never.
    """

    id: str
    name: str
    owner: str
    guests: frozenset[str] = frozenset()
    tool: str
    workspace: int = MAIN
    private: bool = True
    state: str = RUNNING
    ends_at: float | None = None

    @property
    def label(self) -> str:
        return "a" + self.id

    @property
    def running(self) -> bool:
        return self.state == RUNNING

    def stop(self) -> None:
        self.state, self.ends_at = STOPPED, None

    def start(self, now: float, policy: StudioPolicy) -> None:
        """Raises NotStarted."""
        problem = policy.problem(self)
        if problem is not None:
            raise NotStarted(problem)
        self.state, self.ends_at = RUNNING, now + LIFE

    def extend(self, now: float, seconds: float) -> None:
        """Let it run for so many seconds from now, or as long as it would anyway if that is longer."""
        until = now + min(seconds, LONGEST_LIFE)
        self.ends_at = max(until, self.ends_at) if self.ends_at is not None else None

    def expire(self, now: float) -> None:
        """Stop it if its time is over."""
        if self.running and self.ends_at is not None and now >= self.ends_at:
            self.stop()


@attrs.frozen(kw_only=True)
class StudioPolicy:
    """allowed_workspaces: ids of those that may use Studios; None for all of them. path_routing: whether Studios have
    addresses below a path of Connect's own host instead of sub-domains."""

    allowed_workspaces: Collection[int] | None = None
    path_routing: bool = False

    def problem(self, studio: Studio) -> str | None:
        """Why a session cannot run like this, and how to mend it."""
        if self.path_routing and studio.tool == XPRA:
            return (
                "Xpra does not work under a path, and TOWER_DATA_STUDIO_ENABLE_PATH_ROUTING is true: "
                "unset it, so that Studios have sub-domains, or choose another tool."
            )
        return None


class Rules:
    """Who may do what. allowed: ids of the workspaces that may use Studios; None for all of them."""

    def __init__(self, workspaces: Iterable[Workspace], *, allowed: Collection[int] | None = None) -> None:
        self.workspaces = {workspace.id: workspace for workspace in workspaces}
        self._allowed = frozenset(allowed) if allowed is not None else None

    def role(self, username: str | None, studio: Studio) -> Role | None:
        """What somebody is in the session's workspace; None for nobody there."""
        workspace = self.workspaces.get(studio.workspace)
        return workspace.members.get(username) if workspace is not None and username is not None else None

    def refusal(self, username: str | None, studio: Studio) -> str | None:
        """Why this user may not open the session, as people read it; None if they may."""
        role = self.role(username, studio)
        if not self.offered(studio):
            return "Studios are switched off for its workspace."
        if username is None:
            return "Platform does not know you."
        if role is None:
            return "You are not a member of its workspace; ask an owner of the workspace to add you."
        if role not in _MAY_OPEN:
            return f"Your role in its workspace is {role.capitalize()}, which may not open Studios; Connect is needed."
        if studio.private and username not in (studio.owner, *studio.guests):
            return f"It is private to {studio.owner}, who can share it."
        return None

    def offered(self, studio: Studio) -> bool:
        return self._allowed is None or studio.workspace in self._allowed

    def permissions(self, username: str | None, studio: Studio) -> list[Permission]:
        role = self.role(username, studio)
        if role is None or not self.offered(studio):
            return []
        mine = username == studio.owner and role in _MAY_OPEN
        opens = self.refusal(username, studio) is None
        held = {
            Permission.OPEN: opens,
            Permission.EXTEND: opens and (mine or role in _MAY_EXTEND),
            Permission.MANAGE: mine or role in _MAY_MANAGE,
            Permission.SHARE: mine,
        }
        return [permission for permission, given in held.items() if given]

    def document(self, studio: Studio) -> dict[str, Any]:
        """The session as the contract describes it."""
        workspace = self.workspaces.get(studio.workspace)
        return {
            "id": studio.id,
            "name": studio.name,
            "owner": studio.owner,
            "state": studio.state,
            "tool": studio.tool,
            "workspace": {"id": str(studio.workspace), "name": workspace.name if workspace is not None else "unknown"},
            "ends_at": int(studio.ends_at) if studio.ends_at is not None else None,
        }


def default_workspaces() -> list[Workspace]:
    main = {"alice": Role.OWNER, "bob": Role.CONNECT, "carol": Role.VIEW, "erin": Role.ADMIN}
    return [
        Workspace(id=MAIN, name="Main", members=main),
        Workspace(id=2, name="Research", members={"dave": Role.OWNER, "bob": Role.VIEW}),
    ]


def default_studios(tool: str, *, now: float) -> list[Studio]:
    """Two that run, with an agent each in `connect_trio dev`, and a stopped one that has no agent there."""
    ends = now + LIFE
    return [
        Studio(id="23ce7967", name="Shared Studio", owner="alice", tool=tool, private=False, ends_at=ends),
        Studio(id="5f0c1d2e", name="Private Studio", owner="alice", tool=tool, ends_at=ends),
        Studio(
            id="7be1d004", name="Research Studio", owner="dave", tool=tool, workspace=2, private=False, state=STOPPED
        ),
    ]
