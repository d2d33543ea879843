"""The two ends of a session channel: what each may say and when, and what it may believe of the other.

    proxy                                           agent
    PTY? ENV* AGENT?, then one of
    SHELL | EXEC | SUBSYSTEM          ->
                                      <-            STARTED, or FAILED and the end
    DATA* EOF  (within the window)    <->           DATA* STDERR* EOF (within the window)
    RESIZE, SIGNAL                    ->
                                      <-            EXIT or EXIT_SIGNAL (after EOF), and the end

WINDOW may be sent at any time. The end of the proxy's direction closes the channel: what runs is hung up.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto

from connect_trio.channels.frames import Decoder, encode, name_of
from connect_trio.channels.messages import (
    AgentSocket,
    ChannelError,
    Data,
    Env,
    Eof,
    Exec,
    Exit,
    ExitSignal,
    Failed,
    Frame,
    Pty,
    Resize,
    Shell,
    Signal,
    Started,
    Stderr,
    Subsystem,
    Window,
)
from connect_trio.channels.windows import ReceiveWindow, SendWindow

VERSION = "1"
SESSION = "session"  # the kind of the streams that carry these channels
MAX_ENV = 64  # ENV frames of a channel


class _Proxy(Enum):
    ASKING = auto()
    SENDING = auto()  # SHELL, EXEC or SUBSYSTEM was said
    FINISHED = auto()  # EOF was said


class _Agent(Enum):
    WAITING = auto()
    RUNNING = auto()  # STARTED was said
    FINISHED = auto()  # EOF was said
    ENDED = auto()  # FAILED, EXIT or EXIT_SIGNAL was said


class _ProxyWords:
    """What the proxy has said, and so may say. `say` raises ChannelError for what it may not."""

    def __init__(self) -> None:
        self._state = _Proxy.ASKING
        self.asked = False
        self._pty = self._agent = False
        self._env = 0

    def say(self, frame: Frame) -> None:
        asking = self._state is _Proxy.ASKING
        match frame:
            case Window():
                pass
            case Pty() if asking and not self._pty:
                self._pty = True
            case Env() if asking and self._env < MAX_ENV:
                self._env += 1
            case AgentSocket() if asking and not self._agent:
                self._agent = True
            case Shell() | Exec() | Subsystem() if asking:
                self._state = _Proxy.SENDING
                self.asked = True
            case Data() if self._state is _Proxy.SENDING:
                pass
            case Eof() if self._state is _Proxy.SENDING:
                self._state = _Proxy.FINISHED
            case Resize() if self._pty:
                pass
            case Signal() if not asking:
                pass
            case _:
                raise ChannelError(f"{name_of(frame)} is not for the proxy to say now")


class _AgentWords:
    """What the agent has said, and so may say. `say` raises ChannelError for what it may not."""

    def __init__(self, proxy: _ProxyWords) -> None:
        self._state = _Agent.WAITING
        self._proxy = proxy

    @property
    def ended(self) -> bool:
        return self._state is _Agent.ENDED

    def say(self, frame: Frame) -> None:
        state = self._state
        match frame:
            case Window() if state is not _Agent.ENDED:
                pass
            case Started() if state is _Agent.WAITING and self._proxy.asked:
                self._state = _Agent.RUNNING
            case Failed() if state is _Agent.WAITING:
                self._state = _Agent.ENDED
            case Data() | Stderr() if state is _Agent.RUNNING:
                pass
            case Eof() if state is _Agent.RUNNING:
                self._state = _Agent.FINISHED
            case Exit() | ExitSignal() if state is _Agent.FINISHED:
                self._state = _Agent.ENDED
            case _:
                raise ChannelError(f"{name_of(frame)} is not for the agent to say now")


class End:
    """What both ends have in common.

    sending: what the other end lets us send. receiving: what we let it send; `grant` says it when that is worthwhile.
    """

    def __init__(self, window: int) -> None:
        self.sending = SendWindow()
        self.receiving = ReceiveWindow(window)
        self._decoder = Decoder()
        self._proxy = _ProxyWords()
        self._agent = _AgentWords(self._proxy)
        self._ours: _ProxyWords | _AgentWords
        self._theirs: _ProxyWords | _AgentWords

    def send(self, frame: Frame) -> bytes:
        """A frame as it travels. Raises ValueError if it may not be said now, or is not one that may travel."""
        data = encode(frame)
        size = len(frame.data) if isinstance(frame, Data | Stderr) else 0
        if size > self.sending.room:
            raise ValueError(f"{size} bytes where {self.sending.room} may be sent")
        try:
            self._ours.say(frame)
        except ChannelError as exc:
            raise ValueError(str(exc)) from None
        self.sending.sent(size)
        if isinstance(frame, Window):
            self.receiving.grant(frame.count)
        return data

    def grant(self) -> bytes:
        """A WINDOW frame as it travels, if there is something worth granting, else nothing."""
        due = 0 if self._agent.ended else self.receiving.due()
        return self.send(Window(due)) if due else b""

    def receive_data(self, data: bytes | bytearray | memoryview) -> Iterator[Frame]:
        """The frames that `data` completes, each judged: windows and order are kept. WINDOW counts here already.

        Raises ChannelError, after the frames before the wrong one, and is of no use after that.
        """
        for frame in self._decoder.receive_data(data):
            self._theirs.say(frame)
            if isinstance(frame, Data | Stderr):
                self.receiving.received(len(frame.data))
            elif isinstance(frame, Window):
                self.sending.granted(frame.count)
            yield frame

    def receive_eof(self) -> None:
        """The other end's direction has ended. Raises ChannelError if that cuts a frame."""
        self._decoder.receive_eof()


class ProxyEnd(End):
    """The proxy's end. window: bytes of output that it is ready to keep."""

    def __init__(self, window: int) -> None:
        super().__init__(window)
        self._ours, self._theirs = self._proxy, self._agent

    def receive_eof(self) -> None:
        """Raises ChannelError if the agent has not said how the session ended."""
        super().receive_eof()
        if not self._agent.ended:
            raise ChannelError("the agent has ended the channel without a word")


class AgentEnd(End):
    """The agent's end. window: bytes of stdin that it is ready to keep."""

    def __init__(self, window: int) -> None:
        super().__init__(window)
        self._ours, self._theirs = self._agent, self._proxy

    @property
    def ended(self) -> bool:
        """Whether the last word was said."""
        return self._agent.ended
