"""Who may do what with which session: workspaces, roles, private sessions, the one extra user."""

from __future__ import annotations

import pytest

from connect_trio.devplatform.state import PlatformState
from connect_trio.devplatform.studios import (
    LIFE,
    LONGEST_LIFE,
    NotStarted,
    Permission,
    Role,
    Rules,
    Studio,
    StudioPolicy,
    Workspace,
)

OPENERS = {Role.OWNER, Role.ADMIN, Role.MAINTAIN, Role.LAUNCH, Role.CONNECT}
ALL = Permission.OPEN, Permission.EXTEND, Permission.MANAGE, Permission.SHARE


def rules(*, allowed: tuple[int, ...] | None = None) -> Rules:
    """A workspace with a member of each role, called like it, and another one with a stranger."""
    members = {str(role): role for role in Role}
    main = Workspace(id=1, name="Main", members=members)
    other = Workspace(id=2, name="Other", members={"stranger": Role.OWNER})
    return Rules([main, other], allowed=allowed)


def studio(*, owner: str = "launch", **fields: object) -> Studio:
    return Studio(id="23ce7967", name="A Studio", owner=owner, tool="files", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("role", Role)
def test_every_role_but_view_opens_what_is_shared_with_the_workspace(role: Role) -> None:
    refusal = rules().refusal(role, studio(private=False))
    assert (refusal is None) is (role in OPENERS)
    assert role in OPENERS or "Your role in its workspace is View" in str(refusal)


@pytest.mark.parametrize("role", Role)
def test_a_private_session_is_for_its_owner_whatever_the_others_are(role: Role) -> None:
    refusal = rules().refusal(role, studio(private=True))
    assert (refusal is None) is (role == "launch")


def test_one_more_user_may_open_a_private_session_if_the_role_lets_them() -> None:
    shared = studio(private=True, guests=frozenset({"connect", "view", "stranger"}))
    assert rules().refusal("connect", shared) is None
    assert "role" in str(rules().refusal("view", shared))
    assert "not a member" in str(rules().refusal("stranger", shared))
    assert "private to launch" in str(rules().refusal("admin", shared))


@pytest.mark.parametrize("username", ["stranger", "nobody", None])
def test_whoever_is_no_member_has_no_role_and_no_permission(username: str | None) -> None:
    assert rules().refusal(username, studio(private=False)) is not None
    assert rules().role(username, studio()) is None
    assert rules().permissions(username, studio(private=False, owner=username or "")) == []


@pytest.mark.parametrize(("allowed", "offered"), [(None, True), ((1, 2), True), ((2,), False), ((), False)])
def test_studios_of_other_workspaces_can_be_switched_off(allowed: tuple[int, ...] | None, offered: bool) -> None:
    assert (rules(allowed=allowed).refusal("owner", studio(private=False)) is None) is offered
    assert bool(rules(allowed=allowed).permissions("owner", studio(private=False))) is offered


@pytest.mark.parametrize(
    ("username", "private", "permissions"),
    [
        ("launch", True, ALL),
        ("connect", False, (Permission.OPEN,)),
        ("maintain", False, ALL[:3]),
        ("admin", True, (Permission.MANAGE,)),
        ("view", False, ()),
    ],
    ids=["its owner", "Connect", "Maintain", "Admin, private", "View"],
)
def test_permissions_follow_role_and_ownership(
    username: str, private: bool, permissions: tuple[Permission, ...]
) -> None:
    assert rules().permissions(username, studio(private=private)) == list(permissions)


def test_an_owner_who_is_only_a_viewer_now_may_do_nothing() -> None:
    assert rules().permissions("view", studio(owner="view")) == []


def test_a_session_runs_for_its_time_and_no_longer() -> None:
    now = 1000.0
    state = PlatformState(tool="files", clock=lambda: now)
    found = state.studio("23ce7967")
    assert found is not None
    assert found.ends_at == now + LIFE
    now += LIFE - 1
    assert found.running
    found.extend(now, 3600)
    now += 3599
    assert state.all_studios()[0].running
    now += 1
    assert [s.state for s in state.all_studios()] == ["stopped"] * 3
    assert found.ends_at is None


def test_extending_never_shortens_and_has_a_bound() -> None:
    one = studio(ends_at=5000.0)
    one.extend(1000.0, 1)
    assert one.ends_at == 5000.0
    one.extend(1000.0, 10 * LONGEST_LIFE)
    assert one.ends_at == 1000.0 + LONGEST_LIFE
    endless = studio()
    endless.extend(1000.0, 60)
    assert endless.ends_at is None


def test_xpra_is_not_started_where_studios_have_paths() -> None:
    xpra = Studio(id="23ce7967", name="A Studio", owner="alice", tool="xpra", state="stopped")
    with pytest.raises(NotStarted, match="TOWER_DATA_STUDIO_ENABLE_PATH_ROUTING is true: unset it"):
        xpra.start(0.0, StudioPolicy(path_routing=True))
    assert not xpra.running
    xpra.start(0.0, StudioPolicy())
    assert xpra.running


def test_xpra_does_not_run_from_the_start_either_where_studios_have_paths() -> None:
    state = PlatformState(tool="xpra", policy=StudioPolicy(path_routing=True))
    assert not any(s.running for s in state.all_studios())
    assert PlatformState(tool="xpra").all_studios()[0].running
