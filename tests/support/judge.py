"""What must be true of a network after every step, and of one that has become good again."""

from __future__ import annotations

from connect_trio.mux.acceptor import waits
from connect_trio.mux.attachments import Attachment
from connect_trio.mux.codes import DetachCode, ResetCode
from connect_trio.mux.frames import FrameType
from connect_trio.mux.streams import StreamEnd
from connect_trio.mux.switch import Leg
from tests.support.apps import App, Pair
from tests.support.network import PATIENCE, Network

SHORT_RUN = 90.0  # seconds after which, at the earliest, an accepted stream may be given up: less than an orphan's time


def check_step(net: Network) -> None:
    """Cheap enough for after every step."""
    used = [0, 0]
    for pair in net.pairs:
        for side, app in enumerate(pair.sides):
            _check_bounds(net, app)
            window, incoming = app.core.send.window, app.core.receive.window
            used[side] += window.end - window.base + sum(len(piece) for piece, _ in app.core.receive.queue)
            assert incoming.buffered >= 0
        if pair.opener.trusted:
            check_honest(net, pair)
    assert used == [endpoint.budget.used for endpoint in net.endpoints], "the budget is not what is in use"
    for line in net.lines:
        for port in line.ends:
            if port.alive:
                assert not port.wire.outbox.overflow
                for leg in port.wire.ports.values():
                    if isinstance(leg, Leg):
                        _check_leg(leg)
    if not net.setting.liars:
        _check_nobody_lies(net)


def _check_bounds(net: Network, app: App) -> None:
    window = app.core.send.window
    assert window.end - window.base <= net.setting.allowance, "more is kept than allowed"
    assert len(app.core.send.kept) <= 41
    assert sum(len(piece) for piece, _ in app.core.receive.queue) <= net.setting.window, "more is buffered than granted"


def _check_leg(leg: Leg) -> None:
    payload = leg.peer.high - max(leg.peer.forwarded, leg.peer.received)
    assert payload <= leg.switch.window + 1, "a switch promises more than its window"
    held = sum(len(data) for data, _, _ in leg.queue)
    assert held <= 17 * (leg.switch.window + 1), "a switch holds more than its window"


def _check_nobody_lies(net: Network) -> None:
    assert not any(endpoint.violations for endpoint in net.endpoints), "an honest peer was called a liar"
    for line in net.lines:
        for port in line.ends:
            assert not port.wire._lies, "an honest peer was called a liar by a switch"
    attachments = sum(
        isinstance(place, Attachment) and place.stream.home is not place
        for line in net.lines
        for place in line.ends[0].wire.ports.values()
        if line.ends[0].alive and line.ends[0].wire.handler is net.opener
    )
    assert attachments <= 2 * len(net.opener.streams), "attachments leak"


def check_honest(net: Network, pair: Pair) -> None:
    """Both ends of a stream that nobody lies about agree."""
    near, far = pair.opener, pair.acceptor
    if far is not None:
        for app, other in ((near, far), (far, near)):
            window, incoming = app.core.send.window, other.core.receive.window
            assert incoming.received <= app.wrote + window.finished, "bytes from nowhere"
            if app.core.end is None:
                assert window.base <= incoming.received, "bytes were dropped that the peer does not hold"
                if other.core.end is None:
                    assert window.limit <= incoming.granted, "more is allowed than the receiver granted"
    end = near.core.end
    if end is not None and end.cause is FrameType.DONE:
        assert far is not None
        assert far.core.end is not None, "the opener forgot a stream that its peer has not finished"
        assert far.core.end.cause is FrameType.DONE, "the opener forgot a stream that its peer has not finished"
    if far is not None and (end is None or end.cause is FrameType.DONE):
        gave_up = far.core.end is not None and far.core.end.code == ResetCode.DETACHED_TIMEOUT
        assert not gave_up or far.core.lost == DetachCode.LINK_LOST, "the acceptor gave up first"
    if not pair.dropped:
        for app in pair.sides:
            _check_reason(net, pair, app.core.end)


def _check_reason(net: Network, pair: Pair, end: StreamEnd | None) -> None:
    """A stream that no application gave up ends because it is done, or for want of time or memory."""
    if end is None or end.cause is FrameType.DONE or excused(net, pair):
        return
    raise AssertionError(f"a stream was lost: {end}")


def excused(net: Network, pair: Pair) -> bool:
    """Whether a stream may have ended early: its OPEN was not answered in time, it was detached for too long, or the
    memory was needed."""
    setting = net.setting
    codes = {
        app.core.end.code for app in pair.sides if app.core.end is not None and app.core.end.cause is FrameType.RESET
    }
    if ResetCode.DETACHED_TIMEOUT in codes:
        return net.now > SHORT_RUN or (net.now >= 30 and not pair.opener.core.accepted)
    refused = any(app.core.end is not None and app.core.end.cause is FrameType.REJECT for app in pair.sides)
    return min(setting.opener_budget, setting.acceptor_budget) < 1 << 20 and (ResetCode.BUDGET in codes or refused)


def check_healed(net: Network) -> None:
    """Heal the network, and judge what became of every stream; then time passes and nothing is remembered."""
    stubs = [stream.token for stream in net.opener.streams if stream.end is not None]
    net.heal()
    check_step(net)
    for pair in net.pairs:
        if not (pair.dropped or excused(net, pair)) and pair.opener.trusted:
            assert pair.opener.core.end is not None, "a stream hangs"
            assert pair.whole, "a stream lacks bytes or its end"
    assert not net.opener.streams, "the opener remembers"
    for pair in net.pairs:
        if pair.opener.core.token in stubs and pair.acceptor is not None and net.now < SHORT_RUN:
            assert pair.acceptor.core.end is not None, "the acceptor was never told of a reset"
    check_nothing_remembered(net)


def check_nothing_remembered(net: Network) -> None:
    for line in net.lines:
        for port in line.ends:
            if port.alive:
                assert not port.wire.ports, "an id or a circuit is remembered"
    for server in net.servers:
        assert not server.switch._ending
    for line in net.lines:
        for end in (0, 1):
            line.lose(end, net.now)
    for _ in range(3):
        net.tick(waits(PATIENCE) + 1)
    for app in (app for pair in net.pairs for app in pair.sides):
        app.core.receive.drop()
    assert not net.acceptor._streams, "the acceptor remembers"
    assert not net.acceptor.tombstones._stones, "the acceptor remembers"
    assert not net.acceptor.asked
    for endpoint in net.endpoints:
        assert not endpoint._unacknowledged
        assert not endpoint.detached
        assert not len(endpoint.timers), "a timer is left"
        assert not endpoint.budget.used, "the budget leaks"
    assert not net.chunks.in_use, "sent buffers were not given back"
    assert not any(pool.in_use for pool in (*net.pools, *(server.pool for server in net.servers))), "buffers leak"
