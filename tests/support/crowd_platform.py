"""The development Platform for many sessions: `python -m tests.support.crowd_platform PORT CONNECT_URL COUNT FILE`.

Writes {session: an agent's token} to FILE, and prints a line when it serves.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path

import trio

from connect_trio.devplatform.keys import KeyRing
from connect_trio.devplatform.server import serve
from connect_trio.devplatform.state import Studio
from connect_trio.identity.tokens import AGENT_AUDIENCE


def sessions(count: int) -> list[str]:
    return [f"{number:08x}" for number in range(1, count + 1)]


def token(keys: KeyRing, issuer: str, session: str) -> str:
    now = int(time.time())
    claims = {"iss": issuer, "aud": AGENT_AUDIENCE, "sub": session, "iat": now, "exp": now + 3600, "jti": session}
    return keys.sign(claims)


async def main(port: int, connect_url: str, count: int, file: Path) -> None:
    keys = KeyRing()
    url = f"http://localhost:{port}"
    file.write_text(json.dumps({session: token(keys, f"{url}/api", session) for session in sessions(count)}))
    studios = [
        Studio(id=session, name=session, owner="alice", guests=frozenset(), tool="none") for session in sessions(count)
    ]
    async with trio.open_nursery() as nursery:
        start = partial(serve, url=url, port=port, connect_url=connect_url, dev_key=None, keys=keys, studios=studios)
        await nursery.start(start)
        print("serving", flush=True)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
