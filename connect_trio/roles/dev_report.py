"""What is running, told to people (a few lines), to programs (one line of JSON) and to whoever watches a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from connect_trio.ports import LOOPBACK
from connect_trio.roles.dev_plan import Plan


class Report:
    """What is running now. With `DevOptions.state` every change rewrites that file."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._ready = False
        self._pids: dict[str, dict[int, int]] = {}

    @property
    def pids(self) -> Mapping[str, Sequence[int]]:
        """Process ids of each role by number of the process; one that is being started again is missing."""
        return {role: [pid for _, pid in sorted(numbered.items())] for role, numbered in self._pids.items()}

    def runs(self, role: str, pid: int, *, number: int = 0) -> None:
        """A process of a role is there. Raises OSError if the state file cannot be written."""
        self._pids.setdefault(role, {})[number] = pid
        self._changed()

    def ended(self, role: str, *, number: int = 0) -> None:
        """A process of a role is gone. Raises as `runs`."""
        self._pids.get(role, {}).pop(number, None)
        self._changed()

    def ready(self) -> None:
        """Everything has been started once. Raises as `runs`."""
        self._ready = True
        self._changed()

    def stopped(self) -> None:
        """Nothing runs any more. Raises as `runs`."""
        self._ready = False
        self._pids.clear()
        self._changed()

    def document(self) -> dict[str, Any]:
        """What `--json` and `--state` show: at least ready, platform_url, connect_url, sessions, users, pids.

        ssh: where SSH clients connect, and the fingerprint of the host key. management: where each server and proxy is
        managed, {role: [urls]} in the order of `pids`, with management_key; empty in one process.
        """
        plan = self._plan
        return {
            "ready": self._ready,
            "platform_url": plan.platform_url,
            "connect_url": plan.connect_url,
            "sessions": [
                {
                    "id": studio.id,
                    "label": studio.label,
                    "name": studio.name,
                    "url": plan.studio_url(studio),
                    "path_url": plan.path_url(studio),
                    "owner": studio.owner,
                    "tool": studio.tool,
                }
                for studio in plan.studios
            ],
            # In development a password is the user name (devplatform/state.py).
            "users": [{"username": user.username, "password": user.username} for user in plan.users],
            "pids": self.pids,
            "proxies": [f"http://{LOOPBACK}:{port}" for port in plan.extra_ports or (plan.port,)],
            "ssh": {"host": LOOPBACK, "port": plan.ssh_port, "fingerprint": plan.ssh_fingerprint},
            "management": plan.management,
            "management_key": plan.management_key if plan.management else None,
            "redis": plan.redis_address if plan.options.processes else None,
        }

    def line(self) -> str:
        """The document as one line of JSON, with its end."""
        return json.dumps(self.document(), separators=(",", ":")) + "\n"

    def greeting(self) -> str:
        """Where to click, whom to log in as, how to stop."""
        plan = self._plan
        processes = sum(map(len, self.pids.values()))
        how = f"{processes} processes over Redis at {plan.redis_address}" if plan.options.processes else "one process"
        tool = " ".join(plan.options.command) or f"files of {plan.options.root}"
        rows = [
            ("Open", f"{plan.connect_url}/"),
            *((studio.name, plan.studio_url(studio)) for studio in plan.studios),
            *((studio.name, url) for studio in plan.studios if (url := plan.path_url(studio)) is not None),
            ("Tool", tool),
            ("Platform", f"{plan.platform_url}/"),
            ("SSH", f"ssh -p {plan.ssh_port} {plan.studios[0].owner}@{plan.studios[0].label}@{LOOPBACK}"),
            *(("Log in as", f"{user.username}, password {user.username}") for user in plan.users),
            *((f"Manage {role}", " ".join(urls)) for role, urls in plan.management.items()),
            ("Stop", "Ctrl-C"),
        ]
        width = max(len(name) for name, _ in rows)
        lines = [f"Connect runs in {how}.", "", *(f"  {name:{width}}  {what}" for name, what in rows)]
        return "\n".join(lines) + "\n"

    def _changed(self) -> None:
        if self._plan.options.state is not None:
            replace_file(self._plan.options.state, self.line())


def replace_file(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write a small file so that readers see the old text or the new one, never a part. Raises OSError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
