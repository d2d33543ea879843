"""`python -m benchmarks.ssh_edge`: what SSH connections, channels, logins and floods cost one proxy, and those in it.

A stack as `connect_trio dev --processes` starts it, and asyncssh's clients in processes of their own on this machine
(`benchmarks.ssh_clients`). In turn: as many connections as the proxy takes, logged in and idle, and one more; as many
channels as a connection takes on some of them, and one more on each; then, with half of the connections still in, what
somebody who is in waits for a key's echo and for a `true`, without and with a flood of logins beside connections that
stand around half open; last, logins as fast as they go, with nobody else there.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs

from benchmarks.__main__ import positive
from benchmarks.load import cpu_seconds
from benchmarks.report import circumstances, write
from benchmarks.revocation_parts import quantiles
from benchmarks.ssh_clients import Answer
from benchmarks.ssh_figures import Channels, Figures, Held, Logins, Waits, table
from benchmarks.ssh_parts import Crew, SshStack, crew, forget_peak, resident, shown_by_openssh, ssh_stack
from benchmarks.targets import CannotMeasure
from connect_trio.roles.open_files import raise_limit

HOLDERS = 2  # processes in which connections are held
PROBER, LOGINS, LOITERERS = 50, 100, 150  # numbers of the other processes
AT_ONCE = 16  # logins of each process
WARM_UP = 20  # logins before memory is looked at
EMPTY = 5.0  # seconds that the proxy without connections is looked at
BEGIN = 1.0  # seconds until a flood is one
SPARE_FILES = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        figures = measure(options)
    except CannotMeasure as exc:
        print(f"benchmarks.ssh_edge: {exc}", file=sys.stderr)
        return 1
    print(table(figures))
    used = {name: value for name, value in vars(options).items() if name != "output"}
    result = {**circumstances(used), "ssh_edge": attrs.asdict(figures)}
    print(f"\nwritten to {write(result, options.output)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ssh_edge", description=__doc__)
    parser.add_argument("--connections", type=positive, default=2000, help="that the proxy takes (2000)")
    parser.add_argument("--channels", type=positive, default=30, help="that a connection takes (30)")
    parser.add_argument("--busy", type=positive, default=50, help="connections with as many channels (50)")
    parser.add_argument("--half-open", type=positive, default=500, help="connections that never log in (500)")
    parser.add_argument("--floods", type=positive, default=1, help="processes that log in as fast as they can (1)")
    parser.add_argument("--settle", type=float, default=10.0, metavar="S", help="before idle ones count (10)")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each measurement (20)")
    parser.add_argument("--output", type=Path, help="the JSON file, instead of one in benchmarks/results/")
    return parser


def measure(options: argparse.Namespace) -> Figures:
    """Raises CannotMeasure."""
    _check(options)
    begin = os.getloadavg()[0]
    caps = {
        "CONNECT_SSH_MAX_CONNECTIONS": options.connections,
        "CONNECT_SSH_MAX_CONN_CHANNELS": options.channels,
    }
    with ExitStack() as entered:
        stack = entered.enter_context(ssh_stack(caps))
        bench = _Bench(
            options,
            stack,
            holders=[entered.enter_context(crew(stack.clients(number))) for number in range(HOLDERS)],
            prober=entered.enter_context(crew(stack.clients(PROBER))),
            flood=[entered.enter_context(crew(stack.clients(LOGINS + number))) for number in range(options.floods)],
            loiterers=entered.enter_context(crew(stack.clients(LOITERERS))),
        )
        for each in (*bench.holders, bench.prober, *bench.flood, bench.loiterers):
            each.hear()  # it is ready
        held = bench.hold()
        channels = bench.fill()
        bench.keep(options.connections // 2)
        quiet, flood = bench.wait(), bench.wait_in_a_flood()
        bench.keep(0)
        logins = bench.log_in()
        return Figures(
            held=held,
            channels=channels,
            quiet=quiet,
            flood=flood,
            logins=logins,
            bugs=stack.bugs(),
            load=(begin, os.getloadavg()[0]),
        )


def _check(options: argparse.Namespace) -> None:
    if options.connections < 4 or options.busy >= options.connections:
        raise CannotMeasure("--connections must be at least 4, and more than --busy")
    raise_limit()
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < options.connections + SPARE_FILES:
        raise CannotMeasure(f"a process may open {limit} files, too few: raise it (ulimit -Hn)")


@attrs.define
class _Bench:
    """holders: two processes, each with half of those who are in, apart from one connection of `prober`."""

    options: argparse.Namespace
    stack: SshStack
    holders: Sequence[Crew]
    prober: Crew
    flood: Sequence[Crew]
    loiterers: Crew
    kept: int = 0

    def hold(self) -> Held:
        """Until the proxy takes nobody more."""
        pid, count = self.stack.proxy, self.options.connections - 1
        # What a first login brings along is no part of what each costs.
        self.prober.ask("hold", count=min(WARM_UP, count), at_once=AT_ONCE)
        self.prober.ask("keep", count=1)
        _progress("one connection")
        time.sleep(1)
        before, empty = resident(pid), self._share(min(EMPTY, self.options.seconds))
        forget_peak(pid)
        _progress(f"{count + 1} connections")
        since = time.monotonic()
        for holder, part in zip(self.holders, _parts(count), strict=True):
            holder.order("hold", count=part, at_once=AT_ONCE)
        answers = [holder.hear() for holder in self.holders]
        seconds, self.kept = time.monotonic() - since, sum(answer["up"] for answer in answers)
        if self.kept < count:
            raise CannotMeasure(f"only {self.kept} of {count} connections came in: {dict(_failures(answers))}")
        status, text = shown_by_openssh(self.stack)
        time.sleep(self.options.settle)
        idle = self._share(self.options.seconds)
        self._all_live()
        return Held(
            connections=count + 1,
            seconds=seconds,
            next_status=status,
            next_text=text,
            before=before,
            after=resident(pid),
            peak=resident(pid, "VmHWM:"),
            empty=empty,
            idle=idle,
        )

    def fill(self) -> Channels:
        """With channels, until connections take no more of them."""
        _progress(f"{self.options.channels} channels on {self.options.busy} of them")
        for holder, count in zip(self.holders, _parts(self.options.busy), strict=True):
            holder.order("open_channels", connections=count, each=self.options.channels)
        answers = [holder.hear() for holder in self.holders]
        after = resident(self.stack.proxy)
        _everybody(self.holders, "close_channels")
        self._all_live()
        names = ("open", "echoed", "echoed_after", "refused")
        return Channels(
            connections=self.options.busy,
            **{name: sum(answer[name] for answer in answers) for name in names},
            seconds=max(answer["seconds"] for answer in answers),
            refusals=sorted({text for answer in answers for text in answer["refusals"]}),
            after=after,
        )

    def keep(self, count: int) -> None:
        """So many stay, and one of `prober`."""
        for holder, part in zip(self.holders, _parts(count), strict=True):
            holder.order("keep", count=part)
        for holder in self.holders:
            holder.hear()
        self.kept = count
        time.sleep(BEGIN)

    def wait(self) -> Waits:
        """What somebody waits for who is in; whatever else goes on."""
        _progress(f"waits beside {self.kept} connections")
        since, cpu = time.monotonic(), cpu_seconds(self._roles())
        answer = self.prober.ask("probe", seconds=self.options.seconds)
        used = cpu_seconds(self._roles())["proxy"] - cpu["proxy"]
        share = used / (time.monotonic() - since)
        return Waits(
            beside=self.kept,
            live=self._live(),
            keys=quantiles(answer["keys"]),
            commands=quantiles(answer["commands"]),
            key_count=len(answer["keys"]),
            command_count=len(answer["commands"]),
            proxy=share,
        )

    def wait_in_a_flood(self) -> Waits:
        self.loiterers.ask("start_half_open", count=self.options.half_open)
        _everybody(self.flood, "start_logins", at_once=AT_ONCE)
        time.sleep(BEGIN)
        waits = self.wait()
        ended = [each.ask("stop") for each in self.flood]
        loiterers = self.loiterers.ask("stop")
        time.sleep(BEGIN)
        return attrs.evolve(
            waits,
            flood=True,
            live=self._live(),
            logins=sum(answer["logins"] for answer in ended),
            failures=_failures(ended),
            standing=loiterers["standing"],
            cut=loiterers["cut"],
        )

    def log_in(self) -> Logins:
        """As fast as it goes."""
        _progress("logins")
        cpu = cpu_seconds(self._roles())
        _everybody(self.flood, "start_logins", at_once=AT_ONCE)
        time.sleep(self.options.seconds)
        ended = [each.ask("stop") for each in self.flood]
        used = cpu_seconds(self._roles())
        times = [seconds for answer in ended for seconds in answer["times"]]
        if not times:
            raise CannotMeasure(f"no login went well: {dict(_failures(ended))}")
        return Logins(
            count=len(times),
            seconds=max(answer["seconds"] for answer in ended),
            times=quantiles(times),
            failures=_failures(ended),
            cpu={role: used[role] - cpu[role] for role in used},
        )

    def _roles(self) -> dict[str, list[int]]:
        return {role: list(pids) for role, pids in self.stack.pids.items() if pids}

    def _share(self, seconds: float) -> float:
        """Of a core, that the proxy takes."""
        roles = {"proxy": [self.stack.proxy]}
        since, first = time.monotonic(), cpu_seconds(roles)["proxy"]
        time.sleep(seconds)
        return (cpu_seconds(roles)["proxy"] - first) / (time.monotonic() - since)

    def _live(self) -> int:
        return int(sum(answer["live"] for answer in _everybody(self.holders, "live")))

    def _all_live(self) -> None:
        if (live := self._live()) != self.kept:
            raise CannotMeasure(f"only {live} of {self.kept} connections are still in")


def _everybody(crews: Sequence[Crew], do: str, **arguments: object) -> list[Answer]:
    """Have something done by all of them at the same time."""
    for each in crews:
        each.order(do, **arguments)
    return [each.hear() for each in crews]


def _parts(count: int) -> list[int]:
    """For each of the holders."""
    return [(count + number) // HOLDERS for number in range(HOLDERS)]


def _failures(answers: Sequence[Answer]) -> Mapping[str, int]:
    return sum((Counter(answer["failures"]) for answer in answers), Counter[str]())


def _progress(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
