"""A tool whose answers tell each byte that was lost, came twice or went astray: `survival_tool.py PORT`.

| request | answer |
|---|---|
| GET /echo (WebSocket) | each message comes back |
| GET /down/N/RATE | `content(N, ...)` at RATE bytes a second, until somebody asks for its end |
| POST /end/N | ends download N; JSON: the bytes that it had |
| POST /up/N | JSON at the end of its body: how many bytes that had, and where it first was not `content(N, ...)` |

Light on purpose: it shares the machine with what it tests, so messages are frames cut out of bytes, and no library's.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import sys
from array import array
from functools import partial

import attrs
import h11
import trio

BLOCK = 16 * 1024
BINARY, CLOSE, PING, PONG = 0x2, 0x8, 0x9, 0xA
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_WORD = 8
_STREAM_SHIFT = 40  # a stream may have 8 TiB
_BACKLOG = 4096


def content(stream: int, offset: int, count: int) -> bytes:
    """`count` bytes of a stream from `offset`: numbers of 64 bits, none of which occurs twice anywhere."""
    first = offset // _WORD
    end = -(-(offset + count) // _WORD)
    base = stream << _STREAM_SHIFT
    words = array("Q", range(base + first, base + end)).tobytes()
    begin = offset - first * _WORD
    return words[begin : begin + count]


@attrs.define
class Checked:
    """The bytes of a stream that have come. wrong: where the first piece begins that is not what belongs there."""

    stream: int
    seen: int = 0
    wrong: int | None = None

    def check(self, data: bytes) -> None:
        if self.wrong is None and data != content(self.stream, self.seen, len(data)):
            self.wrong = self.seen
        self.seen += len(data)


class Frames:
    """Whole WebSocket frames out of bytes (RFC 6455 section 5.2), of up to 64 KiB, masked or not."""

    def __init__(self, rest: bytes = b"") -> None:
        self._buffer = bytearray(rest)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The opcodes and payloads that are complete now. Raises ValueError for a frame that is none of ours."""
        self._buffer += data
        found = []
        while (frame := self._next()) is not None:
            found.append(frame)
        return found

    def _next(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        length, at = buffer[1] & 0x7F, 2
        if length == 127 or buffer[0] & 0xF0 != 0x80:
            raise ValueError(f"a frame that nobody sends here: {bytes(buffer[:16])!r}")
        if length == 126:
            length, at = int.from_bytes(buffer[2:4], "big"), 4
        start = at + 4 if buffer[1] & 0x80 else at
        if len(buffer) < start + length:
            return None
        opcode, key, payload = buffer[0] & 0xF, buffer[at:start], bytes(buffer[start : start + length])
        del buffer[: start + length]
        if any(key):
            payload = bytes(byte ^ key[index & 3] for index, byte in enumerate(payload))
        return opcode, payload


def frame(opcode: int, payload: bytes, *, masked: bool = False) -> bytes:
    """A WebSocket frame; as a client's it is masked with zeros, which costs nothing."""
    size = len(payload)
    mask = 0x80 if masked else 0
    length = bytes([mask | size]) if size < 126 else bytes([mask | 126]) + size.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + (bytes(4) if masked else b"") + payload


@attrs.define
class Download:
    """asked: to end. written: how many bytes, once it has ended."""

    asked: trio.Event = attrs.field(factory=trio.Event)
    ended: trio.Event = attrs.field(factory=trio.Event)
    written: int = 0


class SurvivalTool:
    def __init__(self) -> None:
        self._downloads: dict[int, Download] = {}

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer the requests of one connection until either side ends it."""
        async with stream:
            try:
                http = Http(stream)
                while (request := await http.request()) is not None:
                    path = request.target.decode().split("/")[1:]
                    if path[0] == "echo":
                        await echo(stream, await http.accept(request))
                        return
                    await self._answer(http, path)
            except (trio.BrokenResourceError, h11.RemoteProtocolError):
                return

    async def _answer(self, http: Http, path: list[str]) -> None:
        match path:
            case ["down", number, rate]:
                await self._download(http, int(number), int(rate))
            case ["end", number]:
                await http.body()
                download = self._downloads[int(number)]
                download.asked.set()
                await download.ended.wait()
                await http.respond({"written": download.written})
            case ["up", number]:
                checked = Checked(int(number))
                await http.body(checked)
                await http.respond({"seen": checked.seen, "wrong": checked.wrong})
            case _:
                await http.body()
                await http.respond({"error": "no such path"}, status=404)

    async def _download(self, http: Http, number: int, rate: int) -> None:
        download = self._downloads[number] = Download()
        await http.body()
        await http.send(h11.Response(status_code=200, headers=[("Content-Type", "application/octet-stream")]))
        while not download.asked.is_set():
            await http.send(h11.Data(content(number, download.written, BLOCK)))
            download.written += BLOCK
            await trio.sleep(BLOCK / rate)
        # So that the end is not always that of a block.
        tail = content(number, download.written, number % 100 * 1000 + 1)
        await http.send(h11.Data(tail))
        download.written += len(tail)
        await http.send(h11.EndOfMessage())
        download.ended.set()


class Http:
    """A server's side of a connection, by h11."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._h11 = h11.Connection(h11.SERVER)

    async def request(self) -> h11.Request | None:
        """The next one; None at the end."""
        if self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        event = await self._event()
        return event if isinstance(event, h11.Request) else None

    async def body(self, checked: Checked | None = None) -> None:
        """Read the request's body to its end."""
        while isinstance(event := await self._event(), h11.Data):
            if checked is not None:
                checked.check(bytes(event.data))

    async def send(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            await self._stream.send_all(data)

    async def respond(self, document: object, *, status: int = 200) -> None:
        text = json.dumps(document).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(text)))]
        await self.send(h11.Response(status_code=status, headers=headers))
        await self.send(h11.Data(text))
        await self.send(h11.EndOfMessage())

    async def accept(self, request: h11.Request) -> bytes:
        """Switch to the protocol WebSocket; what came after the request."""
        key = dict(request.headers)[b"sec-websocket-key"]
        digest = base64.b64encode(hashlib.sha1(key + GUID).digest())
        headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", digest.decode())]
        await self._event()
        await self.send(h11.InformationalResponse(status_code=101, headers=headers))
        return self._h11.trailing_data[0]

    async def _event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        while True:
            event = self._h11.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._h11.receive_data(await self._stream.receive_some(4 * BLOCK))


async def echo(stream: trio.SocketStream, first: bytes) -> None:
    """Send back what comes, until the end."""
    frames = Frames()
    data = first or await stream.receive_some(BLOCK)
    while data:
        for opcode, payload in frames.feed(data):
            if opcode == PONG:
                continue
            await stream.send_all(frame(PONG if opcode == PING else opcode, payload))
            if opcode == CLOSE:
                return
        data = await stream.receive_some(BLOCK)


async def main(port: int) -> None:
    listener = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
    tool = SurvivalTool()
    listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]
    await trio.serve_listeners(tool.serve, listeners)


if __name__ == "__main__":
    trio.run(partial(main, int(sys.argv[1])))
