"""What runs while parts of a stack die: conversations, downloads and uploads that know which byte must come next."""

from __future__ import annotations

import json
import socket
import time
from collections import deque

import attrs
import h11
import trio

from tests.support.survival_tool import BINARY, BLOCK, CLOSE, PING, PONG, Checked, Frames, content, frame
from tests.support.visits import HERE

CONNECT = 30.0
_READ = 64 * 1024
_CONVERSATION = 1 << 16
"""What is added to a conversation's number, so that its bytes are no transfer's."""


class Broken(Exception):
    """A flow has lost a byte, or got one that is not its own, or was ended; the text says how."""


@attrs.frozen
class Door:
    """Where a visitor comes in: a port of loopback, with this header Host and these cookies."""

    port: int
    host: str
    cookie: str

    def headers(self, *more: tuple[str, str]) -> list[tuple[str, str]]:
        return [("Host", self.host), ("Origin", f"http://{self.host}"), ("Cookie", self.cookie), *more]


@attrs.define(eq=False)
class Flow:
    """One of them.

    error: why it is broken; None while it is whole. broke_at: when that was (time.monotonic). ended: nothing moves
    any more.
    """

    number: int
    door: Door
    error: str | None = None
    broke_at: float = 0.0
    ended: bool = False

    @property
    def name(self) -> str:
        return f"{type(self).__name__.lower()} {self.number}"

    def break_off(self, why: str) -> None:
        if self.error is None:
            self.error = why
            self.broke_at = time.monotonic()
            self.ended = True

    def forget(self) -> None:
        """Begin to measure anew."""

    def went_on(self, since: float) -> bool:
        """Whether something has arrived that shows it works after `since`; of some flows nobody can say."""
        return True


@attrs.define(eq=False)
class Conversation(Flow):
    """Numbered messages over a WebSocket that echoes: each must come back, once, in its turn.

    samples: when each message left and came back, since `forget`. last: when the newest that has come back had left.
    """

    sent: int = 0
    back: int = 0
    last: float = 0.0
    samples: list[tuple[float, float]] = attrs.field(factory=list)
    _sock: socket.socket = attrs.field(factory=socket.socket)
    _frames: Frames = attrs.field(factory=Frames)
    _waiting: deque[float] = attrs.field(factory=deque)
    _unsent: bytearray = attrs.field(factory=bytearray)
    _leaving: bool = False

    async def open(self) -> None:
        """Connect. Raises Broken."""
        upgrade = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
        headers = self.door.headers(*upgrade, ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="))
        client = h11.Connection(h11.CLIENT)
        request = client.send(h11.Request(method="GET", target="/echo", headers=headers)) or b""
        client.send(h11.EndOfMessage())
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock = trio.socket.from_stdlib_socket(self._sock.dup())
        with sock:
            await sock.connect((HERE, self.door.port))
            await sock.send(request)
            while (answer := client.next_event()) is h11.NEED_DATA:
                client.receive_data(await sock.recv(_READ))
        if not isinstance(answer, h11.InformationalResponse):
            status = answer.status_code if isinstance(answer, h11.Response) else answer
            raise Broken(f"no WebSocket but {status}")
        self._frames = Frames(client.trailing_data[0])

    async def run(self) -> None:
        """Take what comes back until `leave` or the end."""
        with self._sock:
            try:
                while not self.ended:
                    await trio.lowlevel.wait_readable(self._sock)
                    data = self._sock.recv(_READ)
                    if not data:
                        raise Broken("the connection ended")
                    now = time.monotonic()
                    for opcode, payload in self._frames.feed(data):
                        self._take(opcode, payload, now)
            except (OSError, ValueError, Broken) as exc:
                self.break_off(f"{exc} (sent {self.sent}, back {self.back})")

    def send(self) -> None:
        """The next message."""
        if self.error is None and not self._leaving:
            self._waiting.append(time.monotonic())
            self._write(frame(BINARY, message(self.number, self.sent), masked=True))
            self.sent += 1

    def leave(self) -> None:
        """Say goodbye; `run` ends when that is answered."""
        if self.error is None:
            self._leaving = True
            self._write(frame(CLOSE, (1000).to_bytes(2, "big"), masked=True))

    def forget(self) -> None:
        self.samples.clear()

    def pause(self, since: float) -> float:
        """The longest that a message took, as far as it waited after `since`."""
        return max((back - max(sent, since) for sent, back in self.samples if back >= since), default=0.0)

    def went_on(self, since: float) -> bool:
        """Whether a message that left after `since` has come back, and none waits from before."""
        return self.last >= since

    def _take(self, opcode: int, payload: bytes, now: float) -> None:
        if opcode == PING:
            self._write(frame(PONG, payload, masked=True))
        elif opcode == CLOSE:
            if not self._leaving or self._waiting:
                raise Broken(f"closed with {int.from_bytes(payload[:2], 'big')} {payload[2:].decode(errors='replace')}")
            self.ended = True
        elif not self._waiting or payload != message(self.number, self.back):
            raise Broken(f"instead of message {self.back} there came {describe(payload)}")
        else:
            self.last = self._waiting.popleft()
            self.samples.append((self.last, now))
            self.back += 1

    def _write(self, data: bytes) -> None:
        self._unsent += data
        try:
            count = self._sock.send(self._unsent)
        except BlockingIOError:
            return  # the next message takes it along
        except OSError as exc:
            self.break_off(f"{exc} (sent {self.sent}, back {self.back})")
            return
        del self._unsent[:count]


def message(conversation: int, number: int) -> bytes:
    """A message of its own, of 16 to 116 bytes."""
    head = conversation.to_bytes(8, "big") + number.to_bytes(8, "big")
    return head + content(conversation + _CONVERSATION, number * 128, number * 7 % 101)


def describe(payload: bytes) -> str:
    """Which message this is, if it begins like one."""
    number = int.from_bytes(payload[8:16], "big")
    whose = int.from_bytes(payload[:8], "big")
    return f"message {number} of conversation {whose}" if payload == message(whose, number) else repr(payload[:32])


class Client:
    """A visitor's side of a connection of HTTP, by h11."""

    def __init__(self, stream: trio.SocketStream, door: Door) -> None:
        self._stream = stream
        self._door = door
        self._h11 = h11.Connection(h11.CLIENT)

    async def ask(self, method: str, path: str, *headers: tuple[str, str]) -> None:
        await self.send(h11.Request(method=method, target=path, headers=self._door.headers(*headers)))

    async def send(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            await self._stream.send_all(data)

    async def answer(self) -> None:
        """The head of a good answer. Raises Broken."""
        event = await self.event()
        if not isinstance(event, h11.Response) or event.status_code != 200:
            status = event.status_code if isinstance(event, h11.Response) else event
            raise Broken(f"no good answer but {status}")

    async def document(self) -> dict[str, int | None]:
        """A whole answer of JSON. Raises Broken."""
        await self.answer()
        return await self.rest()

    async def rest(self) -> dict[str, int | None]:
        """What follows after `answer`, as JSON."""
        text = b""
        while isinstance(event := await self.event(), h11.Data):
            text += event.data
        document: dict[str, int | None] = json.loads(text)
        return document

    def again(self) -> bool:
        """Whether the answer that was read allows another request."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    async def event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(await self._stream.receive_some(_READ))
        return event


TROUBLES = (OSError, trio.BrokenResourceError, h11.RemoteProtocolError, ValueError, Broken)
"""What ends a transfer."""


@attrs.define(eq=False)
class Transfer(Flow):
    """Bytes of a stream, in one direction. begun: set once the first ones have moved."""

    rate: int = BLOCK
    begun: trio.Event = attrs.field(factory=trio.Event)
    stopping: trio.Event = attrs.field(factory=trio.Event)

    async def run(self) -> None:
        """Until a while after `stopping` is set, or the end."""
        try:
            async with await trio.open_tcp_stream(HERE, self.door.port) as stream:
                await self.transfer(Client(stream, self.door))
        except* TROUBLES as group:
            exc: BaseException = group
            while isinstance(exc, BaseExceptionGroup):
                exc = exc.exceptions[0]
            self.break_off(f"{exc!r} (after {self.moved} bytes)")
        self.begun.set()
        self.ended = True

    @property
    def moved(self) -> int:
        raise NotImplementedError

    async def transfer(self, http: Client) -> None:
        raise NotImplementedError


@attrs.define(eq=False)
class Download(Transfer):
    """end_at: the port where its end is asked for; 0: that of the door. arrivals: when bytes came, since `forget`."""

    end_at: int = 0
    arrivals: list[float] = attrs.field(factory=list)
    checked: Checked = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.checked = Checked(self.number)

    @property
    def moved(self) -> int:
        return self.checked.seen

    async def transfer(self, http: Client) -> None:
        await http.ask("GET", f"/down/{self.number}/{self.rate}")
        await http.answer()
        written: int | None = None
        async with trio.open_nursery() as nursery:

            async def end() -> None:
                nonlocal written
                await self.stopping.wait()
                async with await trio.open_tcp_stream(HERE, self.end_at or self.door.port) as stream:
                    other = Client(stream, self.door)
                    await other.ask("POST", f"/end/{self.number}", ("Content-Length", "0"))
                    await other.send(h11.EndOfMessage())
                    written = (await other.document())["written"]

            nursery.start_soon(end)
            while isinstance(event := await http.event(), h11.Data):
                self.checked.check(bytes(event.data))
                self.arrivals.append(time.monotonic())
                self.begun.set()
                if self.checked.wrong is not None:
                    raise Broken(f"other bytes than those that belong after {self.checked.wrong}")
        if self.moved != written:
            raise Broken(f"{written} bytes were written")

    def forget(self) -> None:
        del self.arrivals[:-1]

    def silence(self, since: float) -> float:
        """The longest time without bytes, as far as it was after `since`."""
        gaps = zip(self.arrivals, self.arrivals[1:], strict=False)
        return max((after - max(before, since) for before, after in gaps if after >= since), default=0.0)

    def went_on(self, since: float) -> bool:
        return bool(self.arrivals) and self.arrivals[-1] >= since


@attrs.define(eq=False)
class Upload(Transfer):
    sent: int = 0

    @property
    def moved(self) -> int:
        return self.sent

    async def transfer(self, http: Client) -> None:
        await http.ask("POST", f"/up/{self.number}", ("Transfer-Encoding", "chunked"))
        while not self.stopping.is_set():
            await http.send(h11.Data(content(self.number, self.sent, BLOCK)))
            self.sent += BLOCK
            self.begun.set()
            await trio.sleep(BLOCK / self.rate)
        tail = content(self.number, self.sent, self.number % 100 * 1000 + 1)
        await http.send(h11.Data(tail))
        self.sent += len(tail)
        await http.send(h11.EndOfMessage())
        arrived = await http.document()
        if arrived != {"seen": self.sent, "wrong": None}:
            raise Broken(f"the tool saw {arrived}")
