"""What must be true of a network after every step, and of one that has become good again."""

from __future__ import annotations

from connect_trio.mux.acceptor import waits
from connect_trio.mux.attachments import Attachment
from connect_trio.mux.codes import DetachCode, ResetCode
from connect_trio.mux.frames import FrameType
from connect_trio.mux.streams import CoreStream, StreamEnd
from connect_trio.mux.switch import Leg
from tests.support.apps import App, Pair
from tests.support.network import PATIENCE, Network
from tests.support.shares import MODEST, check_shares

SHORT_RUN = 90.0  # seconds after which, at the earliest, an accepted stream may be given up: less than an orphan's time


def check_step(net: Network) -> None:
    """Cheap enough for after every step."""
    for pair in net.pairs:
        for app in pair.sides:
            _check_bounds(net, app)
            check_shares(app)
            app.check_woken()
        if pair.opener.trusted:
            check_honest(net, pair)
    _check_budgets(net)
    for line in net.lines:
        for port in line.ends:
            if port.alive:
                assert line.tainted or not port.wire._lies, "an honest peer was called a liar by a switch"
                assert not port.wire.outbox.overflow
                for leg in port.wire.ports.values():
                    if isinstance(leg, Leg):
                        _check_leg(leg)
    if not net.setting.liars:
        _check_nobody_lies(net)


def _check_budgets(net: Network) -> None:
    ours = {app.core for pair in net.pairs for app in pair.sides}
    others = set(net.acceptor._streams.values()) - ours
    for endpoint in net.endpoints:
        streams = [stream for stream in (*ours, *others) if stream.endpoint is endpoint]
        used = sum(stream.send.window.end - stream.send.window.base + _buffered(stream) for stream in streams)
        assert used == endpoint.budget.used, "the budget is not what is in use"

    for endpoint, living in ((net.opener, net.opener.streams), (net.acceptor, net.acceptor._streams)):
        assert endpoint.budget.streams == len(living), "a stream is not counted, or one that is no more"
    for budget in net.budgets:
        budget.forget()


def _buffered(stream: CoreStream) -> int:
    return sum(len(piece) for piece, _ in stream.receive.queue)


def _check_bounds(net: Network, app: App) -> None:
    window = app.core.send.window
    assert window.end - window.base <= net.setting.allowance, "more is kept than allowed"
    assert len(app.core.send.kept) <= 41
    assert app.core.receive.window.buffered >= 0
    assert _buffered(app.core) <= net.setting.window, "more is buffered than granted"


def _check_leg(leg: Leg) -> None:
    payload = leg.peer.high - max(leg.peer.forwarded, leg.peer.received)
    assert payload <= leg.switch._most + 1, "a switch promises more than its window"
    held = sum(len(data) for data, _, _ in leg.queue)
    assert held <= 17 * (leg.switch._most + 1), "a switch holds more than its window"


def _check_nobody_lies(net: Network) -> None:
    assert not any(endpoint.violations for endpoint in net.endpoints), "an honest peer was called a liar"
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


def check_settled(net: Network) -> None:
    """All lines are up and were quiet for a second: both ends agree on the way, all is acknowledged, and nobody is
    stuck who could go on."""
    if any(line.cut for line in net.lines):
        return
    for pair in net.pairs:
        near, far = pair.opener, pair.acceptor
        if far is None or not pair.opener.trusted or near.core.trial is not None or not near.core.attached:
            continue
        if near.core.end is None and far.core.end is None:
            assert far.core.attached, "the opener has a way and the acceptor has not"
            _check_flow(near, far)
            _check_flow(far, near)


def _check_flow(app: App, other: App) -> None:
    window, incoming = app.core.send.window, other.core.receive.window
    assert window.base + window.fin_acknowledged == incoming.received, "what has come is not acknowledged"
    if not (other.core.receive.queue or window.finished):
        assert app.core.room, "there is room, and nobody tells"


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
    return min(setting.opener_budget, setting.acceptor_budget) < MODEST and (ResetCode.BUDGET in codes or refused)


def check_healed(net: Network) -> None:
    """Heal the network, and judge what became of every stream; then time passes and nothing is remembered."""
    stubs = [stream.token for stream in net.opener.streams if stream.end is not None]
    net.heal(5)
    for pair in net.pairs:
        if pair.opener.core.token in stubs and pair.acceptor is not None and pair.opener.trusted:
            assert pair.acceptor.core.end is not None, "the acceptor was never told of a reset"
    net.heal()
    check_step(net)
    for pair in net.pairs:
        if pair.opener.trusted and not (pair.dropped or excused(net, pair)):
            assert pair.opener.core.end is not None, "a stream hangs"
            assert pair.whole, "a stream lacks bytes or its end"
    if not net.setting.liars:
        assert not net.opener.streams, "the opener remembers"
        ports = [port.wire.ports for line in net.lines for port in line.ends if port.alive]
        assert not any(ports), "an id or a circuit is remembered"
        assert not any(server.switch._ending or server.switch._circuits for server in net.servers)
    check_nothing_remembered(net)


def check_nothing_remembered(net: Network) -> None:
    """Everything is cut, and all lingers pass."""
    for line in net.lines:
        for end in (0, 1):
            line.lose(end, net.now)
    for _ in range(6):
        net.tick(waits(PATIENCE) + 1)
    for app in (app for pair in net.pairs for app in pair.sides):
        app.core.receive.drop()
    assert not net.opener.streams, "the opener remembers"
    assert not net.acceptor._streams, "the acceptor remembers"
    assert not net.acceptor.tombstones._stones, "the acceptor remembers"
    assert not net.acceptor.asked
    assert not any(server.switch._ending or server.switch._circuits for server in net.servers)
    for endpoint in net.endpoints:
        assert not endpoint._unacknowledged
        assert not endpoint.detached
        assert not len(endpoint.timers), "a timer is left"
        assert not endpoint.budget.used, "the budget leaks"
        assert not endpoint.budget.streams, "a stream is counted that is no more"
    assert not net.chunks.in_use, "sent buffers were not given back"
    assert not any(pool.in_use for pool in (*net.pools, *(server.pool for server in net.servers))), "buffers leak"
