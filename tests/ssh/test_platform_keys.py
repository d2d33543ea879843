"""Logins that a real Platform decides: whose key it is, what their role may, whether the Studio runs."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from connect_trio.edge.scopes import SessionScopes
from connect_trio.identity.activity import Activity
from connect_trio.identity.reporter import ActivityReporter
from connect_trio.identity.service import open_identity
from connect_trio.identity.watcher import SessionWatcher
from connect_trio.identity.watcher_access import AccessWatcher
from connect_trio.identity.watcher_keys import KeyWatcher
from connect_trio.roles.reporting import report_activity
from connect_trio.roles.ssh import SshScopes
from connect_trio.routing.memory import MemoryStore
from connect_trio.routing.names import label_of
from connect_trio.ssh.bridge_keys import make_host_key
from connect_trio.ssh.listener import SshEdge
from connect_trio.ssh.platform_keys import PlatformKeys
from tests.ssh.test_refusals import NoAgent
from tests.support.platform import CONNECT_URL, DEV_KEY, PRIVATE, SHARED, RunningPlatform, running_platform
from tests.support.ssh import PATIENCE, Result, client, keygen, listening, run

IN = "connect: The Studio's agent is not connected."  # what somebody sees who is let in here


@attrs.define
class Scene:
    platform: RunningPlatform
    edge: SshEdge
    port: int
    home: Path

    async def ssh(self, user: str, session: str = SHARED, *options: str, key: str | None = None) -> Result:
        """options: instead of a command. key: a name of `add_key`'s, None for the user's."""
        identity = (
            "-F",
            "none",
            "-i",
            str(self.home / f"id_{key or user}"),
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "BatchMode=yes",
        )
        hosts = ("-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={self.home}/known")
        where = f"{user}@{label_of(session)}@127.0.0.1"
        command = [
            client("ssh"),
            *identity,
            *hosts,
            "-p",
            str(self.port),
            *options,
            where,
            *([] if options else ["true"]),
        ]
        return await run(command, folder=self.home)

    async def add_key(self, user: str, key: str | None = None) -> str:
        """A new key of this user's; its fingerprint."""
        line = keygen(self.home / f"id_{key or user}").with_suffix(".pub").read_text()
        answer = await self._keys(user, "", {"key": line})
        return str(answer["fingerprint"])

    async def remove_key(self, user: str, fingerprint: str) -> None:
        await self._keys(user, "/remove", {"fingerprint": fingerprint})

    async def _keys(self, user: str, call: str, document: object) -> Any:
        async with self.platform.browser() as http:
            url, headers = f"/api/dev/users/{user}/ssh-keys{call}", {"authorization": f"Bearer {DEV_KEY}"}
            answer = await http.post(url, json=document, headers=headers)
            assert answer.status_code == 200
            return answer.json()


@asynccontextmanager
async def scene_of(home: Path) -> AsyncIterator[Scene]:
    async with (
        running_platform() as platform,
        open_identity(platform_url=platform.url, proxy_url=CONNECT_URL, store=MemoryStore()) as identity,
        trio.open_nursery() as nursery,
    ):
        scopes, activity = SessionScopes(), Activity(trio.current_time)
        edge = SshEdge(
            host_key=make_host_key()[0],
            checker=PlatformKeys(identity.control_plane),
            authorize=identity.authorizer.check,
            dialer=NoAgent(),
            scopes=SshScopes(scopes),
            activity=activity,
        )
        nursery.start_soon(report_activity, ActivityReporter(activity, identity.background, reporter="1" * 32))
        nursery.start_soon(SessionWatcher(identity.control_plane).run, scopes.live, scopes.end)
        nursery.start_soon(AccessWatcher(identity.authorizer).run, scopes.grants, scopes.judge)
        nursery.start_soon(KeyWatcher(identity.control_plane).run, scopes.keys, scopes.end_key)
        listener, port = listening()
        await nursery.start(edge.serve, listener)
        yield Scene(platform, edge, port, home)
        nursery.cancel_scope.cancel()


async def test_users_come_in_by_their_keys_as_far_as_their_roles_reach(tmp_path: Path) -> None:
    async with scene_of(tmp_path) as scene:
        for user in ("alice", "bob", "carol"):
            await scene.add_key(user)
        assert IN in (await scene.ssh("alice")).said
        assert IN in (await scene.ssh("alice", PRIVATE)).said
        assert IN in (await scene.ssh("bob")).said
        denied = (await scene.ssh("bob", PRIVATE)).said
        assert "private" in denied.lower()
        assert IN not in denied
        viewer = (await scene.ssh("carol")).said
        assert "view" in viewer.lower()
        assert IN not in viewer


async def test_a_key_that_platform_does_not_know(tmp_path: Path) -> None:
    async with scene_of(tmp_path) as scene:
        keygen(tmp_path / "id_alice")
        said = (await scene.ssh("alice")).said
        assert "Platform has no key SHA256:" in said
        assert "add it at Platform, under SSH keys" in said
        assert "Permission denied (publickey)" in said


async def test_a_session_that_does_not_run_or_does_not_exist(tmp_path: Path) -> None:
    async with scene_of(tmp_path) as scene:
        await scene.add_key("alice")
        await scene.platform.set_state(SHARED, "stop")
        assert f"the Studio {label_of(SHARED)} is stopped; start it" in (await scene.ssh("alice")).said
        assert "there is no Studio a00000000" in (await scene.ssh("alice", "00000000")).said


async def test_a_platform_that_is_away(tmp_path: Path) -> None:
    async with scene_of(tmp_path) as scene:
        await scene.add_key("alice")
        await scene.platform.stop()
        assert "Platform cannot be asked at the moment; try again in a minute" in (await scene.ssh("alice")).said


async def stays_until(scene: Scene, happens: Callable[[], Awaitable[None]]) -> str:
    """What somebody sees who is connected, without any channel, until this happens."""
    seen: list[str] = []

    async def stay() -> None:
        seen.append((await scene.ssh("alice", SHARED, "-N")).said)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stay)
            while not scene.edge.counts.logins:
                await trio.sleep(0.01)
            await happens()
    return seen[0]


async def test_the_end_of_a_session_ends_its_connections(tmp_path: Path) -> None:
    async with scene_of(tmp_path) as scene:
        await scene.add_key("alice")
        said = await stays_until(scene, lambda: scene.platform.set_state(SHARED, "stop"))
        assert "the session was stopped" in said


async def test_a_key_that_is_removed_ends_its_connections_and_no_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with scene_of(tmp_path) as scene:
        removed = await scene.add_key("alice")
        await scene.add_key("alice", "other")
        await scene.add_key("bob")
        seen: dict[str, Result] = {}

        async def stay(user: str, session: str, key: str | None, name: str) -> None:
            seen[name] = await scene.ssh(user, session, "-N", key=key)

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stay, "alice", SHARED, None, "one")
                nursery.start_soon(stay, "alice", PRIVATE, None, "another session")
                nursery.start_soon(stay, "alice", SHARED, "other", "another key")
                nursery.start_soon(stay, "bob", SHARED, None, "another user")
                while scene.edge.counts.logins < 4:
                    await trio.sleep(0.01)
                await scene.remove_key("alice", removed)
                while len(seen) < 2 or scene.edge.connections > 2:
                    await trio.sleep(0.01)
                assert scene.edge.connections == 2
                nursery.cancel_scope.cancel()
        assert seen.keys() == {"one", "another session"}
        for result in seen.values():
            assert result.status == 255
            assert f"your key {removed} was removed at Platform; log in with another one" in result.said
        again = (await scene.ssh("alice")).said
        assert f"Platform has no key {removed}" in again
    ends = [record for record in caplog.records if record.message == "ssh: a connection is ended"]
    assert {(record.user, record.session, record.key) for record in ends} == {  # type: ignore[attr-defined]
        ("alice", SHARED, removed),
        ("alice", PRIVATE, removed),
    }
    assert all(len(record.connection) == 8 and "was removed" in record.reason for record in ends)  # type: ignore[attr-defined]


async def test_who_is_in_by_ssh_is_known_to_platform(tmp_path: Path) -> None:
    """As who is in by a browser: one visit, however many connections it has."""
    async with scene_of(tmp_path) as scene:
        await scene.add_key("alice")
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(scene.ssh, "alice", SHARED, "-N")
            with trio.fail_after(PATIENCE):
                while scene.edge.counts.logins < 2 or not (visits := await visits_at(scene)):
                    await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
        assert [(visit["session"], visit["disconnected_at"]) for visit in visits] == [(SHARED, None)]
        assert visits[0]["subject"] == "user-5d1f0a9c"


async def visits_at(scene: Scene) -> list[dict[str, Any]]:
    async with scene.platform.browser() as http:
        answer = await http.get("/api/dev/activity", headers={"authorization": f"Bearer {DEV_KEY}"})
        visits: list[dict[str, Any]] = answer.json()["visits"]
        return visits
