"""What `benchmarks.ssh_edge` measures, and as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import attrs

from benchmarks.report import aligned

Quantiles = Mapping[str, float]  # of seconds


@attrs.frozen(kw_only=True)
class Held:
    """connections: logged in and idle. seconds: that they took to come in. next_status, next_text: what OpenSSH's
    client says of one more.

    before, after, peak: resident memory of the proxy with one connection, with all of them, and at most, MiB. empty,
    idle: share of a core that the proxy took with one and with all of them.
    """

    connections: int
    seconds: float
    next_status: int
    next_text: str
    before: float
    after: float
    peak: float
    empty: float
    idle: float


@attrs.frozen(kw_only=True)
class Channels:
    """open: channels on so many connections, of which `echoed` gave a line back, `echoed_after` once more after the
    refusals. refused: how many further ones were, by these texts. after: resident memory of the proxy with all of them.
    """

    connections: int
    open: int
    seconds: float
    echoed: int
    echoed_after: int
    refused: int
    refusals: Sequence[str]
    after: float


@attrs.frozen(kw_only=True)
class Waits:
    """What somebody who is in waits for. beside: connections that are in, `live` of them still at the end. logins, cut:
    of the flood, if there is one, and how many half-open connections were closed meanwhile. standing: half-open ones at
    the end. proxy: its share of a core.
    """

    beside: int
    live: int
    keys: Quantiles
    commands: Quantiles
    key_count: int
    command_count: int
    proxy: float
    flood: bool = False
    logins: int = 0
    failures: Mapping[str, int] = attrs.field(factory=dict)
    standing: int = 0
    cut: int = 0


@attrs.frozen(kw_only=True)
class Logins:
    """count: in so many seconds. times: of each. cpu: seconds of each role for all of them."""

    count: int
    seconds: float
    times: Quantiles
    failures: Mapping[str, int]
    cpu: Mapping[str, float]


@attrs.frozen(kw_only=True)
class Figures:
    """bugs: what the log of the stack tells of unexpected errors. load: of the machine, begin and end."""

    held: Held
    channels: Channels
    quiet: Waits
    flood: Waits
    logins: Logins
    bugs: Sequence[str]
    load: tuple[float, float]


def table(figures: Figures) -> str:
    """For people."""
    numbers = aligned(
        [
            *_held(figures.held),
            *_channels(figures.channels),
            *_waits("waits of somebody who is in", figures.quiet),
            *_waits("the same in a flood", figures.flood),
            *_logins(figures.logins),
            ["bugs in the log", f"{len(figures.bugs):,}"],
            ["load average, begin and end", " ".join(f"{each:.1f}" for each in figures.load)],
        ]
    )
    texts = [f"one more connection: {figures.held.next_text}"]
    texts += [f"one more channel: {text}" for text in figures.channels.refusals]
    failures = Counter(figures.flood.failures) + Counter(figures.logins.failures)
    texts += [f"{count:,} failed logins: {text}" for text, count in failures.items()]
    return "\n".join([numbers, "", *texts, *figures.bugs])


def _held(held: Held) -> list[list[str]]:
    return [
        [f"{held.connections:,} connections", ""],
        ["  seconds until all were in", f"{held.seconds:.1f}"],
        ["  one more: status of ssh", f"{held.next_status}"],
        ["  proxy's resident memory with one, MiB", f"{held.before:.1f}"],
        ["  above that, with all of them", f"{held.after - held.before:.1f}"],
        ["  above that, at most", f"{held.peak - held.before:.1f}"],
        ["  KiB for each", f"{1024 * (held.after - held.before) / (held.connections - 1):.1f}"],
        ["  proxy's share of a core with one", f"{held.empty:.2%}"],
        ["  proxy's share of a core with all of them", f"{held.idle:.2%}"],
    ]


def _channels(channels: Channels) -> list[list[str]]:
    return [
        [f"{channels.open:,} channels on {channels.connections:,} of them", ""],
        ["  seconds to open them", f"{channels.seconds:.1f}"],
        ["  gave a line back, and again later", f"{channels.echoed:,}, {channels.echoed_after:,}"],
        ["  one more on each: refused", f"{channels.refused:,}"],
        ["  proxy's resident memory, MiB", f"{channels.after:.1f}"],
    ]


def _waits(title: str, waits: Waits) -> list[list[str]]:
    lines = [
        [f"{title}, beside {waits.beside:,}", "p50 ms, p99 ms, max ms"],
        [f"  a key's echo ({waits.key_count:,})", _ms(waits.keys)],
        [f"  `true` ({waits.command_count:,})", _ms(waits.commands)],
        ["  connections lost", f"{waits.beside - waits.live:,}"],
        ["  proxy's share of a core", f"{waits.proxy:.1%}"],
    ]
    if waits.flood:
        lines += [
            ["  logins meanwhile, failed ones", f"{waits.logins:,}, {sum(waits.failures.values()):,}"],
            ["  half-open connections, closed meanwhile", f"{waits.standing:,}, {waits.cut:,}"],
        ]
    return lines


def _logins(logins: Logins) -> list[list[str]]:
    each = {role: 1000 * seconds / logins.count for role, seconds in logins.cpu.items()}
    return [
        ["logins, one after the other left", ""],
        ["  a second", f"{logins.count / logins.seconds:.0f}"],
        ["  p50 ms, p99 ms, max ms", _ms(logins.times)],
        ["  failed", f"{sum(logins.failures.values()):,}"],
        *([f"  CPU ms for each: {role}", f"{ms:.2f}"] for role, ms in each.items()),
    ]


def _ms(times: Quantiles) -> str:
    return ", ".join(f"{1000 * times[name]:.1f}" for name in ("p50", "p99", "max"))
