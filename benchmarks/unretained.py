"""Connect that keeps nothing of what it sends, only to be measured: `python -m benchmarks.unretained ROLE ...`.

The same program but for what a stream is resumed from: no list of pieces that are not acknowledged, no references to
their buffers, and nothing to release when credit comes. Offsets, credit and budgets are counted as ever. Its streams do
not survive the loss of a wire.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import attrs

from connect_trio import cli
from connect_trio.mux.frames import encode_data
from connect_trio.mux.halves import Chunk, SendHalf
from connect_trio.mux.windows import SendWindow
from connect_trio.roles import dev_processes
from connect_trio.roles.dev_processes import Process

MODULE = "benchmarks.unretained"


def keep_nothing() -> None:
    """Patch this process."""
    SendHalf.write = _write  # type: ignore[method-assign]
    SendHalf.write_chunk = _write_chunk  # type: ignore[method-assign]
    SendHalf.credit = _credit  # type: ignore[method-assign]


def _write(self: SendHalf, sid: int, data: bytes | bytearray | memoryview) -> bytes:
    return encode_data(sid, _wrote(self.window, len(data)), bytes(data))


def _write_chunk(self: SendHalf, sid: int, chunk: Chunk, size: int) -> memoryview:
    return chunk.frame(sid, _wrote(self.window, size), size)


def _wrote(window: SendWindow, size: int) -> int:
    offset = window.wrote(size)
    window.position = window.end
    return offset


def _credit(self: SendHalf, received: int, limit: int) -> None:
    self.window.credit(received, limit)


def start_children_alike() -> None:
    """`dev --processes` starts each role by way of this module too. Patches this process."""
    original = dev_processes.role_process

    def role_process(
        role: str, env: Mapping[str, str], *arguments: str, number: int = 0, vital: bool = True
    ) -> Process:
        process = original(role, env, *arguments, number=number, vital=vital)
        start, rest = process.command[:2], process.command[3:]  # python -m connect_trio ...
        return attrs.evolve(process, command=[*start, MODULE, *rest])

    dev_processes.role_process = role_process


def main() -> int:
    """Returns the exit code."""
    keep_nothing()
    start_children_alike()
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
