"""The task of a proxy that tells Platform who is connected, to its very end."""

from __future__ import annotations

from typing import Final

import trio

from connect_trio.identity.reporter import ActivityReporter
from connect_trio.roles.life import this_life

FAREWELL: Final = 2.0  # seconds at the end, to say that everybody has left


async def report_activity(reporter: ActivityReporter) -> None:
    """Run until cancelled, and then for FAREWELL seconds at most, unless the process is to hurry."""
    try:
        await reporter.run()
    finally:
        with this_life().farewell(), trio.move_on_after(FAREWELL):
            await reporter.finish()
