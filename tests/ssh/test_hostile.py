"""Somebody who is logged in and means no good, or tries to be: floods, games with windows and packets, odd bytes."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

import asyncssh
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.ssh.bridge_bounds import FORGIVEN, FREE, PIECE, REKEYS, SMALLEST, TRIES, Received, Rekeys
from connect_trio.ssh.bridge_connection import SLICE
from connect_trio.ssh.listener import WINDOW_MOST
from connect_trio.ssh.transport import READ
from tests.ssh.test_bounds import connections, settled
from tests.support.ssh import LABEL, PATIENCE, ssh_bench
from tests.support.ssh_clients import IGNORE, string
from tests.support.ssh_hostile import (
    ADJUST,
    CLOSE,
    DATA,
    EOF,
    FAILURE,
    GLOBAL_REQUEST,
    MINE,
    OPEN,
    OPEN_FAILED,
    OPENED,
    REQUEST_SUCCESS,
    SUCCESS,
    WIDE,
    attacker_of,
    number,
    why_it_ends,
)


@pytest.mark.parametrize("size", [1, SMALLEST - 1])
async def test_a_client_of_tiny_packets_has_no_channel(tmp_path: Path, size: int) -> None:
    """64 KiB in packets of one byte would take seconds, in which nobody else is served."""
    async with ssh_bench(tmp_path) as bench, attacker_of(bench) as attacker:
        for kind, parts in (
            (b"session", b""),
            (b"direct-tcpip", string(b"localhost") + number(1) + string(b"") + number(0)),
            (b"direct-streamlocal@openssh.com", string(b"/x") + string(b"") + number(0)),
        ):
            answer, payload = await attacker.open(kind, parts, size=size)
            assert answer == OPEN_FAILED
            assert b"are too small; take 512 at least" in payload
        assert bench.edge.counts.open == 0
        channel = await attacker.session(size=SMALLEST)
        attacker.request(channel, b"exec", string(b"echo fine"))
        assert (DATA, string(b"fine\n")) in await attacker.until(DATA)


async def test_nor_does_it_confirm_one_that_the_studio_opens(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench, attacker_of(bench) as attacker:
        attacker.say(GLOBAL_REQUEST, string(b"tcpip-forward"), b"\1", string(b"localhost"), number(0))
        ((_, port),) = await attacker.until(REQUEST_SUCCESS)
        async with await trio.open_tcp_stream("127.0.0.1", int.from_bytes(port)) as stream:
            ((_, opening),) = await attacker.until(OPEN)
            assert opening.startswith(string(b"forwarded-tcpip"))
            theirs = opening[len(string(b"forwarded-tcpip")) :][:4]
            attacker.say(OPENED, theirs, number(MINE), number(WIDE), number(1))
            await attacker.ends()
            assert isinstance(attacker.connection.why, asyncssh.ProtocolError)
            assert attacker.connection.why.reason == "The packets of a channel are too small"
            with trio.fail_after(PATIENCE), suppress(trio.BrokenResourceError):
                assert await stream.receive_some() == b""
        assert (await bench.ssh("echo fine")).out == b"fine\n"


async def test_tiny_packets_do_not_fill_the_memory(tmp_path: Path) -> None:
    """A window of a mebibyte is a mebibyte, however it is filled. Nothing is started yet, so nobody takes it."""
    async with ssh_bench(tmp_path) as bench, attacker_of(bench) as attacker:
        channel = await attacker.session()
        (connection,) = connections(bench)
        (kept,) = [one._recv_buf for one in connection._channels.values()]
        for _ in range(20):
            for _ in range(1000):
                attacker.say(DATA, number(channel), string(b"xy"))
            await trio.sleep(0)
        assert await attacker.is_well()
        assert len(kept) <= 40_000 // PIECE + 1
        attacker.request(channel, b"exec", string(b"wc -c"))
        attacker.say(EOF, number(channel))
        await attacker.until(DATA)
        assert (DATA, string(b"40000\n")) in attacker.heard(DATA)


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=3 * PIECE // 2), st.sampled_from([None, 1])), max_size=30))
def test_what_is_kept_of_packets_is_what_they_had_in_their_order(packets: list[tuple[bytes, int | None]]) -> None:
    kept = Received()
    for packet in packets:
        kept.append(packet)
    for kind in (None, 1):
        whole = b"".join(data for data, its in packets if its == kind)
        assert b"".join(data for data, its in kept if its == kind) == whole
    runs = [kind for at, (_, kind) in enumerate(packets) if not at or packets[at - 1][1] != kind]
    assert len(kept) <= len(runs) + sum(len(data) for data, _ in packets) // PIECE


async def test_windows_beyond_all_measure_are_no_more_than_a_wide_one(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench, attacker_of(bench) as attacker:
        channel = await attacker.session(window=2**32 - 1)
        for _ in range(1000):
            attacker.say(ADJUST, number(channel), number(2**32 - 1))
        attacker.request(channel, b"exec", string(b"head -c 300000 /dev/zero"))
        await attacker.until(CLOSE)
        assert sum(len(payload) - 4 for kind, payload in attacker.heard(DATA)) == 300_000


async def test_a_window_that_is_never_opened_holds_up_its_command_and_nobody_else(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench, attacker_of(bench) as attacker:
        channel = await attacker.session(window=0)
        attacker.request(channel, b"exec", string(b"yes"))
        await attacker.until(SUCCESS)
        (connection,) = connections(bench)
        (its,) = connection._channels.values()
        assert await settled(its.get_write_buffer_size) <= 64 * 1024
        assert attacker.heard(DATA) == []
        assert await attacker.is_well()
        assert (await bench.ssh("echo fine")).out == b"fine\n"
        attacker.say(CLOSE, number(channel))
        await attacker.until(CLOSE)
        assert bench.agent is not None
        await bench.agent.until_idle()


async def test_more_data_than_the_window_ends_the_connection(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench, attacker_of(bench) as attacker:
        channel = await attacker.session()
        for _ in range(WINDOW_MOST // 30_000 + 1):
            attacker.say(DATA, number(channel), string(bytes(30_000)))
        await attacker.ends()
        assert isinstance(attacker.connection.why, asyncssh.ProtocolError)
        assert attacker.connection.why.reason == "Window exceeded"


async def test_a_flood_of_channels_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path, max_channels=5) as bench, attacker_of(bench) as attacker:
        for _ in range(2000):
            attacker.say(OPEN, string(b"session"), number(MINE), number(WIDE), number(32768))
        await attacker.until(OPENED, OPEN_FAILED, count=2000)
        assert len(attacker.heard(OPENED)) == 5
        (connection,) = connections(bench)
        assert await settled(lambda: len(connection._channels)) == 5
        assert bench.edge.counts.open == 5
        assert await attacker.is_well()


@pytest.mark.parametrize(
    "kind", [b"channel", b"tun@openssh.com", b"x11", b"", b"\xff\xfe", b"session\0", b"a" * 30_000]
)
async def test_channels_of_other_types_are_refused_and_that_is_all(
    tmp_path: Path, kind: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with ssh_bench(tmp_path) as bench, attacker_of(bench) as attacker:
        answer, payload = await attacker.open(kind, bytes(100))
        assert (answer, payload[4:8]) == (OPEN_FAILED, number(asyncssh.OPEN_UNKNOWN_CHANNEL_TYPE))
        assert await attacker.is_well()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


REQUESTS = [
    *((b"env", string(b"LC_" + bytes([at])) + string(b"x" * 4000)) for at in range(65, 91)),
    (b"env", string(b"LANG\n") + string(b"x")),
    (b"env", string(b"\xff") + string(b"x")),
    (b"env", string(b"x" * 20_000) + string(b"x")),
    (b"env", string(b"LANG") + string(b"x" * 20_000)),
    (b"env", string(b"LANG") + string(b"a\0b")),
    (b"pty-req", string(b"x" * 20_000) + bytes(16) + string(b"")),
    (b"pty-req", string(b"xterm\n\x1b") + b"\xff" * 16 + string(bytes(10_000))),
    (b"exec", string(b"x" * 200_000)),
    (b"exec", string(b"a\0b")),
    (b"exec", string(b"")),
    (b"subsystem", string(b"\xff\xfe")),
    (b"subsystem", string(b"sftp\0")),
    (b"subsystem", string(b"../../bin/sh")),
    (b"subsystem", string(b"")),
    (b"subsystem", string(b"x" * 20_000)),
    (b"signal", string(b"\x1b[2J")),
    (b"window-change", b"\xff" * 16),
    (b"shell-please", b""),
    (b"x11-req", b"\0" + string(b"") + string(b"") + number(0)),
    (b"service_next", b""),
]


async def test_requests_of_odd_bytes_are_refused_and_that_is_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with ssh_bench(tmp_path) as bench, attacker_of(bench) as attacker:
        for name, content in REQUESTS:
            channel = await attacker.session()
            attacker.request(channel, name, content)
            assert await attacker.is_well(), (name, content[:50])
            attacker.say(CLOSE, number(channel))
        channel = await attacker.session()
        attacker.request(channel, b"exec", string(b"echo fine"))
        await attacker.until(DATA)
        assert (DATA, string(b"fine\n")) in attacker.heard(DATA)
        assert len(attacker.heard(FAILURE)) >= 15
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_subsystem_of_another_name_is_told_and_not_run(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench:
        done = await bench.run("-s", "studio", "../../bin/sh", stdin=b"echo run\n")
        assert b"run" not in done.out
        assert done.status != 0


async def test_an_environment_without_end_is_cut_off(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench, attacker_of(bench) as attacker:
        channel = await attacker.session()
        for at in range(5000):
            attacker.request(channel, b"env", string(b"LC_%d" % at), string(b"x" * 4000))
        attacker.request(channel, b"exec", string(b"env | grep -c ^LC_"))
        await attacker.until(CLOSE)
        assert (len(attacker.heard(SUCCESS)), len(attacker.heard(FAILURE))) == (65, 5000 - 64)
        assert (DATA, string(b"64\n")) in attacker.heard(DATA)


async def test_nothing_is_asked_for_before_the_login(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench:
        for kind, content in (
            (OPEN, string(b"session") + bytes(12)),
            (GLOBAL_REQUEST, string(b"tcpip-forward") + b"\1"),
        ):
            why = await said_before_the_login(bench.port, kind, content)
            assert "before authentication was complete" in why
        assert bench.edge.counts.channels == 0


async def test_tries_to_log_in_by_other_methods_are_counted(tmp_path: Path) -> None:
    tries = b"".join(string(part) for part in (f"alice@{LABEL}".encode(), b"ssh-connection", b"none"))
    async with ssh_bench(tmp_path) as bench:
        assert "too many tries to log in" in await said_before_the_login(bench.port, 50, tries, times=TRIES + 1)
        with trio.fail_after(PATIENCE):
            while not bench.edge.counts.refused:
                await trio.sleep(0.01)


async def test_names_that_would_be_written_on_two_lines_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    names = [
        b"alice\nssh: logged in user=root@" + LABEL.encode(),
        b"\xff\xfe",
        b"a" * 1000,
        b"a@" * 400,
        "\u202e".encode(),
    ]
    async with ssh_bench(tmp_path) as bench:
        for name in names:
            tries = b"".join(string(part) for part in (name, b"ssh-connection", b"none"))
            why = await said_before_the_login(bench.port, 50, tries)
            assert why
            assert "\n" not in why.strip()
    for record in caplog.records:
        assert "logged in" not in record.getMessage()
        assert all("\n" not in str(value) for value in vars(record).values() if isinstance(value, str))


async def said_before_the_login(port: int, kind: int, content: bytes, *, times: int = 1) -> str:
    """Why the connection is ended of a client that says this instead of logging in."""

    class Rude(asyncssh.SSHClientConnection):
        def _process_service_accept(self, *_: object) -> None:
            for _number in range(times):
                self._auth_complete = True  # else it would be kept back here
                self.send_packet(kind, content)

        _packet_handlers = {  # noqa: RUF012 - as in the class above
            **asyncssh.SSHClientConnection._packet_handlers,
            6: _process_service_accept,
            51: lambda *_: None,
        }

    return await why_it_ends(port, Rude)


async def test_new_keys_again_and_again_end_the_connection(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench, attacker_of(bench) as attacker:
        with trio.fail_after(PATIENCE):
            while not attacker.client.over.is_set():
                with attacker.client.loop.entered():
                    if attacker.connection._kex_complete and not attacker.connection._kex:
                        attacker.connection._send_kexinit()
                        attacker.connection._kexinit_sent = True
                await trio.sleep(0.001)
        assert isinstance(attacker.connection.why, asyncssh.ProtocolError)
        assert attacker.connection.why.reason == "Too many key exchanges"
        assert (await bench.ssh("echo fine")).out == b"fine\n"


def test_new_keys_for_what_was_carried_are_free_and_others_are_forgiven() -> None:
    rekeys = Rekeys()
    assert not any(rekeys.too_many(at * FREE, now=at / 1000) for at in range(1, 1000))
    rekeys = Rekeys()
    assert [rekeys.too_many(0, now=1.0) for _ in range(int(REKEYS) + 1)] == [False] * int(REKEYS) + [True]
    assert not rekeys.too_many(0, now=1.0 + 2 / FORGIVEN)
    slow = Rekeys()
    assert not any(slow.too_many(0, now=at / FORGIVEN) for at in range(1000))


async def test_a_flood_of_tiny_packets_is_taken_in_slices_and_large_ones_are_not(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench, attacker_of(bench) as attacker:
        (connection,) = connections(bench)
        before, seen = connection.transport.received, set()
        with attacker.client.loop.entered():
            for _ in range(20_000):
                attacker.connection.send_packet(IGNORE, string(b""))
        with trio.fail_after(PATIENCE):
            while connection.transport.received < before + 20_000 * 36:
                seen.add(connection.transport.piece)
                await trio.lowlevel.checkpoint()
        assert SLICE in seen
        for _ in range(20):
            attacker.say(IGNORE, string(bytes(30_000)))
        assert await attacker.is_well()
        assert connection.transport.piece == READ
