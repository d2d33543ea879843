"""Whether this process can be used, and what for it waits: a few named checks, and whether it is being drained."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable

import attrs
import trio

CHECK = 1.5  # seconds that a dependency has to answer
FRESH = 0.5  # seconds for which an answer is given again: whoever asks without a key must not cost anybody anything

Check = Callable[[], Awaitable[bool]]

logger = logging.getLogger(__name__)


@attrs.frozen
class Finding:
    """ok: whether the dependency is there. needed: whether the process is of no use without it."""

    ok: bool
    needed: bool


@attrs.frozen
class Report:
    """ready: whether visitors and agents are to be sent here."""

    ready: bool
    draining: bool
    checks: dict[str, Finding]

    def document(self) -> dict[str, object]:
        checks = {name: attrs.asdict(finding) for name, finding in self.checks.items()}
        return {"ready": self.ready, "draining": self.draining, "checks": checks}


class Health:
    """needed: names of dependencies that are not there before `provide` says how to look.

    draining: the process is to be left; it is never ready again.
    """

    def __init__(self, *needed: str) -> None:
        self.draining = False
        self._needed = set(needed)
        self._checks: dict[str, Check] = dict.fromkeys(needed, _missing)
        self._found: dict[str, Finding] = {}
        self._asked_at = -math.inf
        self._asking = trio.Lock()

    def provide(self, name: str, check: Check) -> None:
        """How to look for a dependency; one that is not needed is only told of. An exception means that it is away."""
        self._checks[name] = check
        self._asked_at = -math.inf

    async def look(self) -> Report:
        """Ask everything, all at once, unless that was done just now. Never takes much longer than CHECK."""
        async with self._asking:
            if trio.current_time() - self._asked_at > FRESH:
                found: dict[str, Finding] = {}
                async with trio.open_nursery() as nursery:
                    for name, check in self._checks.items():
                        nursery.start_soon(self._ask, name, check, found)
                self._found = {name: found[name] for name in self._checks if name in found}
                self._asked_at = trio.current_time()
        there = all(finding.ok for finding in self._found.values() if finding.needed)
        return Report(there and not self.draining, self.draining, self._found)

    async def _ask(self, name: str, check: Check, found: dict[str, Finding]) -> None:
        ok = False
        with trio.move_on_after(CHECK):
            try:
                ok = await check()
            except Exception as exc:  # noqa: BLE001 - whatever it is, the dependency cannot be used
                # Told to the log only: the answer goes to anybody.
                logger.debug("a dependency is away", extra={"dependency": name, "reason": str(exc)})
        found[name] = Finding(ok, name in self._needed)


async def _missing() -> bool:
    """Of what is still being started."""
    await trio.lowlevel.checkpoint()
    return False
