"""Many agents in one process, each with tunnel clients, hub and acceptor of its own; they differ from real ones only in
that they serve nothing: `python -m tests.support.crowd_agents URL FILE FIRST LAST`.

FILE: {session: token}, of which those from FIRST to before LAST are taken. Answers each line that it reads with a line
of JSON. Times are those of time.monotonic, which all processes of a machine share.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
import trio

from connect_trio.agent.client import TunnelClient
from connect_trio.agent.dialling import Dialled, NoTunnel, TunnelDialler, Wishes, _text
from connect_trio.agent.places import Places
from connect_trio.mux.acceptor import Acceptor
from connect_trio.mux.hub import open_hub
from connect_trio.mux.streams import CoreStream
from connect_trio.roles.open_files import raise_limit
from connect_trio.transport.websocket import UpgradeRefused

SLOTS = 2
APART = 0.002  # seconds between the starts of two agents: they are not what is looked at


@attrs.define
class Log:
    """dials: when each connection was begun. opened: when tunnels had their 101. failed: when which dial failed."""

    dials: list[float] = attrs.field(factory=list)
    opened: list[float] = attrs.field(factory=list)
    failed: list[tuple[float, str]] = attrs.field(factory=list)

    def take(self) -> dict[str, Any]:
        document = attrs.asdict(self)
        self.dials, self.opened, self.failed = [], [], []
        return document


class LoggedDialler(TunnelDialler):
    """log: shared by all agents."""

    log: Log

    async def _dial(self, wishes: Wishes) -> Dialled:
        self.log.dials.append(time.monotonic())
        try:
            dialled = await super()._dial(wishes)
        except NoTunnel as exc:
            self.log.failed.append((time.monotonic(), str(exc)))
            raise
        except UpgradeRefused as exc:
            self.log.failed.append((time.monotonic(), f"{exc.status}: {_text(exc.body)}"))
            raise
        self.log.opened.append(time.monotonic())
        return dialled


async def live(url: str, token: str, log: Log) -> None:
    async with open_hub() as hub:
        acceptor = Acceptor(CoreStream.accept)
        acceptor.alarm = hub.alarm
        hub.add(acceptor)
        dialler = LoggedDialler(proxy_url=url, token=lambda: token, instance=secrets.token_bytes(16))
        dialler.log = log
        places = Places()
        for slot in range(SLOTS):
            hub.nursery.start_soon(TunnelClient(hub, acceptor, dialler, places, slot=slot).run)
        await trio.sleep_forever()


async def main(url: str, file: Path, first: int, last: int) -> None:
    raise_limit()
    tokens: dict[str, str] = json.loads(file.read_text())
    log = Log()
    async with trio.open_nursery() as nursery:
        for token in islice(tokens.values(), first, last):
            nursery.start_soon(live, url, token, log)
            await trio.sleep(APART)
        while await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            print(json.dumps(log.take()), flush=True)
        nursery.cancel_scope.cancel("nobody asks any more")


if __name__ == "__main__":
    trio.run(main, sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
