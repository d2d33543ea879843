"""The rules of resumption, each of which can be switched off in the real core: what then goes wrong is their reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

from connect_trio.mux import acceptor, endpoint, frames, opener
from connect_trio.mux.acceptor import Acceptor
from connect_trio.mux.attachments import Attachment
from connect_trio.mux.buffers import Buffer
from connect_trio.mux.codes import DetachCode, ResetCode
from connect_trio.mux.errors import LocalError
from connect_trio.mux.frames import FrameType
from connect_trio.mux.halves import SendHalf
from connect_trio.mux.opener import Opener
from connect_trio.mux.outbox import Outbox
from connect_trio.mux.states import State
from connect_trio.mux.streams import CoreStream, StreamEnd
from connect_trio.mux.switch import Leg, Switch
from connect_trio.mux.tombstones import Tombstones
from connect_trio.mux.windows import ReceiveWindow, SendWindow
from connect_trio.mux.wire import Wire

Off = Callable[[], AbstractContextManager[Any]]


def _replaced(owner: Any, **methods: Any) -> AbstractContextManager[Any]:
    patch: AbstractContextManager[Any] = mock.patch.multiple(owner, **methods)
    return patch


@contextmanager
def _both(first: AbstractContextManager[Any], second: AbstractContextManager[Any]) -> Iterator[None]:
    with first, second:
        yield


def attempts_ordered() -> AbstractContextManager[Any]:
    """The acceptor attaches an older attempt, too."""
    usual = frames.decode_ask_untrusted

    def unbound(self: Acceptor, wire: Wire, kind: int, sid: int, payload: memoryview, now: float) -> None:
        if kind in (FrameType.OPEN, FrameType.RESUME):
            token = usual(payload).token
            known = self._streams.get(token) or self.tombstones.get(token)
            if isinstance(known, CoreStream):
                known.attempt = 0
        before(self, wire, kind, sid, payload, now)

    before = Acceptor._unbound_frame
    return _replaced(Acceptor, _unbound_frame=unbound)


def ids_fresh() -> AbstractContextManager[Any]:
    """A wire gives the lowest id that is free."""

    def new_id(self: Wire) -> int:
        if self.gone:
            raise LocalError("gone")
        sid = 1 if self.dialled else 2
        while sid in self.ports:
            sid += 2
        self._next_id = max(self._next_id, sid + 2)
        return sid

    def admit(self: Wire, sid: int) -> None:
        self._highest_peer_id = max(self._highest_peer_id, sid)

    return _replaced(Wire, new_id=new_id, admit_id_untrusted=admit)


def old_id_unmapped() -> AbstractContextManager[Any]:
    """The acceptor still listens where a stream was before."""
    usual = Acceptor._attach

    def attach(self: Acceptor, stream: CoreStream, *rest: Any) -> None:
        stream.home = None
        usual(self, stream, *rest)

    return _replaced(Acceptor, _attach=attach)


def offsets_explicit() -> AbstractContextManager[Any]:
    """DATA and FIN belong where the receiver is."""
    data, fin = ReceiveWindow.data, ReceiveWindow.fin
    return _replaced(
        ReceiveWindow,
        data=lambda self, offset, length: data(self, self.received, length),
        fin=lambda self, offset: fin(self, self.received - self.finished),
    )


def resume_tells_received() -> AbstractContextManager[Any]:
    """RESUME and RESUMED tell what the application took."""

    def told(self: ReceiveWindow) -> tuple[int, int]:
        return self.taken, tell(self)[1]

    tell, attempt, answer = ReceiveWindow.tell, Opener.attempt, Acceptor._answer

    def within(usual: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            with mock.patch.object(ReceiveWindow, "tell", told):
                usual(*arguments)

        return call

    return _both(_replaced(Opener, attempt=within(attempt)), _replaced(Acceptor, _answer=within(answer)))


def limit_per_attachment() -> AbstractContextManager[Any]:
    """A sender goes on with the highest limit that it was ever told."""
    usual = SendWindow.attach

    def attach(self: SendWindow, received: int, limit: int) -> None:
        usual(self, received, max(limit, self.limit))

    return _replaced(SendWindow, attach=attach)


def credit_after_resumed() -> AbstractContextManager[Any]:
    """The opener does not say again what it told over the old way meanwhile."""
    usual = Opener._attach

    def attach(self: Opener, *rest: Any) -> None:
        with mock.patch.object(Opener, "tell"):
            usual(self, *rest)

    return _replaced(Opener, _attach=attach)


def failed_move_voids_old() -> AbstractContextManager[Any]:
    """After a move that failed the opener stays where it was."""
    return mock.patch.object(opener, "_NOT_FORWARDED", tuple(DetachCode))


def fin_has_offset() -> AbstractContextManager[Any]:
    """FIN is sent once."""
    usual = SendHalf.attach

    def attach(self: SendHalf, received: int, limit: int) -> None:
        window = self.window
        sent = window.finished and window.position > window.end
        usual(self, received, limit)
        if sent and window.position == window.end:
            window.position += 1

    return _replaced(SendHalf, attach=attach)


def opener_waits_for_done() -> AbstractContextManager[Any]:
    """The opener forgets a stream that is complete on its own side."""

    def complete(self: Opener, stream: CoreStream, now: float) -> None:
        if stream.complete and stream.home is not None:
            stream.home.leave()
            self._finish(stream, StreamEnd(FrameType.DONE, by_peer=False), now)

    return mock.patch.object(Opener, "_maybe_complete", complete)


def tombstones() -> AbstractContextManager[Any]:
    """The acceptor forgets what has ended."""
    return _replaced(Tombstones, bury=lambda *arguments: None)


def _not_buried(which: Callable[[StreamEnd], bool]) -> AbstractContextManager[Any]:
    usual = Tombstones.bury

    def bury(self: Tombstones, token: bytes, attempt: int, end: StreamEnd, now: float | None = None) -> None:
        if not which(end):
            usual(self, token, attempt, end, now)

    return _replaced(Tombstones, bury=bury)


def unknown_is_remembered() -> AbstractContextManager[Any]:
    """The acceptor forgets that it was asked for a stream that it did not know."""
    return _not_buried(lambda end: end.code == ResetCode.UNKNOWN)


def refusal_is_remembered() -> AbstractContextManager[Any]:
    """The acceptor forgets what its application refused."""
    return _not_buried(lambda end: end.cause is FrameType.REJECT)


def reset_is_resumed() -> AbstractContextManager[Any]:
    """An opener that has reset a stream does not ask again to say so."""
    usual = Opener.attempt

    def attempt(self: Opener, stream: CoreStream, wire: Wire, now: float) -> None:
        if stream.end is not None:
            raise LocalError("it is over")
        usual(self, stream, wire, now)

    return _replaced(Opener, attempt=attempt)


def detach_on_loss() -> AbstractContextManager[Any]:
    """A switch keeps to itself that one side of a circuit is lost."""

    def on_lost(self: Switch, wire: Wire, now: float) -> None:
        for leg in list(wire.ports.values()):
            self._free(leg)

    return _replaced(Switch, on_lost=on_lost)


def switch_clamps() -> AbstractContextManager[Any]:
    """A switch grants what the receiver grants."""

    def clamp(self: Leg) -> int:
        self.granted = max(self.granted, self.limit)
        return self.granted

    return _replaced(Leg, clamp=clamp)


def switch_skips_acknowledged() -> AbstractContextManager[Any]:
    """A switch counts only what it forwarded itself (and what the first question or answer told)."""
    usual = Leg.heard

    def heard(self: Leg, received: int, limit: int) -> int:
        return usual(self, min(received, self.forwarded) if self.limit else received, limit)

    return _replaced(Leg, heard=heard)


def acceptor_waits_longer() -> AbstractContextManager[Any]:
    """The acceptor gives up before the opener does."""
    return mock.patch.object(acceptor, "waits", lambda patience: patience / 2)


def told_less_is_a_lie() -> AbstractContextManager[Any]:
    """Nobody minds a peer that holds less than it has acknowledged."""
    answer, answered = Acceptor._answer, Opener._answered

    def answering(self: Acceptor, stream: CoreStream, place: Attachment) -> None:
        answer(self, stream, place)
        place.state = State.ATTACHED

    def reply(self: Opener, place: Attachment, kind: int, payload: memoryview, now: float) -> None:
        if kind == FrameType.REJECT:
            answered(self, place, kind, payload, now)
        else:
            self._attach(place.stream, place, frames.decode_answer_untrusted(payload), now)

    return _both(_replaced(Acceptor, _answer=answering), _replaced(Opener, _answered=reply))


def detach_is_answered() -> AbstractContextManager[Any]:
    """Who is told that an id is dead says nothing."""
    usual = Attachment.answer_last

    def answer_last(self: Attachment, kind: FrameType, code: int = 0) -> None:
        if kind is FrameType.DETACH:
            self.leave()
        else:
            usual(self, kind, code)

    return _replaced(Attachment, answer_last=answer_last)


def attempts_back_off() -> AbstractContextManager[Any]:
    """Each attempt has as little time as the first."""
    usual = Opener.attempt

    def attempt(self: Opener, stream: CoreStream, wire: Wire, now: float) -> None:
        stream.tries = 0
        usual(self, stream, wire, now)

    return _replaced(Opener, attempt=attempt)


def sent_again_from_where_the_peer_is() -> AbstractContextManager[Any]:
    """What was sent is not sent again."""
    usual = SendWindow.attach

    def attach(self: SendWindow, received: int, limit: int) -> None:
        usual(self, received, limit)
        self.position = max(self.position, self.end)

    return _replaced(SendWindow, attach=attach)


def cut_head_is_copied() -> AbstractContextManager[Any]:
    """The rest of a cut frame goes out from where the stream addresses it anew."""

    def let_go(self: Outbox, lane: Any) -> None:
        lane.clear()
        self.credits.pop(lane.sid, None)

    return _replaced(Outbox, let_go=let_go)


def acknowledged_in_time() -> AbstractContextManager[Any]:
    """Only credit that is due is told."""
    return mock.patch.object(endpoint, "ACKNOWLEDGE", 1e9)


def clock_before_bytes() -> AbstractContextManager[Any]:
    """A process that was paused acts on what lies in its buffers."""
    usual = Wire.receive

    def receive(self: Wire, buffer: Buffer, end: int, now: float) -> int:
        with mock.patch.object(Wire, "_check_alive"):
            return usual(self, buffer, end, now)

    return _replaced(Wire, receive=receive)


def new_tunnel_displaces() -> AbstractContextManager[Any]:
    """A newer tunnel leaves the older one of the same agent alone."""
    return _replaced(Switch, displace=lambda self, old: None)


RULES: dict[str, Off] = {
    rule.__name__: rule
    for rule in (
        attempts_ordered,
        ids_fresh,
        old_id_unmapped,
        offsets_explicit,
        resume_tells_received,
        limit_per_attachment,
        credit_after_resumed,
        failed_move_voids_old,
        fin_has_offset,
        opener_waits_for_done,
        tombstones,
        unknown_is_remembered,
        refusal_is_remembered,
        reset_is_resumed,
        detach_on_loss,
        switch_clamps,
        switch_skips_acknowledged,
        acceptor_waits_longer,
        told_less_is_a_lie,
        detach_is_answered,
        attempts_back_off,
        sent_again_from_where_the_peer_is,
        cut_head_is_copied,
        acknowledged_in_time,
        clock_before_bytes,
        new_tunnel_displaces,
    )
}
