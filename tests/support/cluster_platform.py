"""The development Platform with as many sessions as asked for: `python -m tests.support.cluster_platform COUNT`.

Configured by the variables of the role `platform`; it tells as a role does when it is ready.
"""

from __future__ import annotations

import os
import sys
from functools import partial

import trio

from connect_trio.devplatform.server import serve
from connect_trio.devplatform.state import Studio
from connect_trio.roles.running import announcer, run_until_stopped

OWNER = "alice"
_FIRST = 0xC1000000


def studios(count: int) -> list[Studio]:
    """Sessions of alice's."""
    return [
        Studio(id=f"{_FIRST + number:08x}", name=f"Studio {number}", owner=OWNER, guests=frozenset(), tool="survival")
        for number in range(count)
    ]


def main(count: int) -> None:
    announce = announcer("platform", os.environ)
    run = partial(
        serve,
        url=os.environ["PLATFORM_URL"],
        port=int(os.environ["PLATFORM_URL"].rpartition(":")[2]),
        connect_url=os.environ["CONNECT_PROXY_URL"],
        dev_key=os.environ["CONNECT_DEVPLATFORM_KEY"],
        registration_token=os.environ["CONNECT_OIDC_CLIENT_REGISTRATION_TOKEN"],
        studios=studios(count),
    )
    trio.run(partial(run_until_stopped, run, announce=announce))


if __name__ == "__main__":
    main(int(sys.argv[1]))
