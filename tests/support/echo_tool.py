"""A tool for end-to-end tests: WebSockets that echo, and one that sends as fast as it may: `echo_tool.py PORT`.

| path | does |
|---|---|
| /echo | sends each message back |
| /flood | once it has heard a message, sends FLOOD messages of BLOCK bytes, each beginning with its number |
| /flood-report | answers each message with JSON: bytes that the floods so far could write, seconds that one waits |
"""

from __future__ import annotations

import json
import sys
from functools import partial

import trio
import trio_websocket

BLOCK = 64 * 1024
FLOOD = 1024
NUMBER = 8
MAX_MESSAGE = 2 << 20


class EchoTool:
    def __init__(self) -> None:
        self._written = 0
        self._since: float | None = None

    async def serve(self, request: trio_websocket.WebSocketRequest) -> None:
        handlers = {"/echo": self._echo, "/flood": self._flood, "/flood-report": self._report}
        handler = handlers.get(request.path)
        if handler is None:
            await request.reject(404)
            return
        connection = await request.accept()
        try:
            await handler(connection)
        except trio_websocket.ConnectionClosed:
            return

    async def _echo(self, connection: trio_websocket.WebSocketConnection) -> None:
        while True:
            await connection.send_message(await connection.get_message())

    async def _flood(self, connection: trio_websocket.WebSocketConnection) -> None:
        await connection.get_message()
        for number in range(FLOOD):
            self._since = trio.current_time()
            await connection.send_message(number.to_bytes(NUMBER, "big") + bytes(BLOCK - NUMBER))
            self._written += BLOCK
        self._since = None
        await connection.get_message()

    async def _report(self, connection: trio_websocket.WebSocketConnection) -> None:
        while True:
            await connection.get_message()
            waits = 0.0 if self._since is None else trio.current_time() - self._since
            await connection.send_message(json.dumps({"written": self._written, "waits": waits}))


def main() -> None:
    serve = partial(trio_websocket.serve_websocket, max_message_size=MAX_MESSAGE)
    trio.run(serve, EchoTool().serve, "127.0.0.1", int(sys.argv[1]), None)


if __name__ == "__main__":
    main()
