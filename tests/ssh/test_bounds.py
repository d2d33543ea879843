"""What a client cannot do: fill the memory, wait for ever, get in others' way. One test for each gap of asyncssh."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from connect_trio.ssh import bridge_connection
from connect_trio.ssh.bridge import open_engine
from connect_trio.ssh.bridge_connection import BEFORE_LOGIN, Connection
from connect_trio.ssh.bridge_keys import make_host_key, read_host_key
from connect_trio.ssh.client import Client, Handler, Key, Listening, SessionHandler
from connect_trio.ssh.transport import FULL, HIGH
from tests.support.ssh import PATIENCE, SshBench, keygen, ssh_bench
from tests.support.ssh_clients import IGNORE, VERSION, client_of, kexinit, packet, string

MIB = 1024 * 1024


def connections(bench: SshBench) -> list[Connection]:
    return [visitor._client._connection for visitor in bench.edge._visitors]  # type: ignore[attr-defined]


async def settled(read: Any) -> Any:
    """What `read` gives once it gives the same for a while."""
    before, since = read(), trio.current_time()
    with trio.fail_after(PATIENCE):
        while trio.current_time() - since < 0.5:
            await trio.sleep(0.05)
            if read() != before:
                before, since = read(), trio.current_time()
    return before


async def test_a_client_that_does_not_read_holds_up_its_agent_and_nobody_else(tmp_path: Path) -> None:
    """It announces a window of 2 GiB, so that SSH itself holds nothing back."""
    async with ssh_bench(tmp_path) as bench, client_of(bench.port, bench.home / "id_ed25519") as greedy:
        outputs = []
        for number in range(10):
            command = f"head -c {8 * MIB} /dev/zero; echo {number} > done{number}"
            outputs.append((await greedy.session(command, window=2**31 - 1))[1])
        greedy.transport.pause_reading()
        (connection,) = connections(bench)
        queued = await settled(connection.transport.get_write_buffer_size)
        assert queued <= HIGH + 10 * 64 * 1024
        assert len(list(bench.folder.glob("done*"))) < 10  # their commands wait, too
        assert (await bench.ssh("echo fine")).out == b"fine\n"
        greedy.transport.resume_reading()
        with trio.fail_after(PATIENCE):
            for output in outputs:
                await output.over.wait()
        assert [output.received for output in outputs] == [8 * MIB] * 10


async def test_new_keys_that_are_never_agreed_on_hold_up_data_and_end_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_connection, "REKEY", 2.0)
    async with ssh_bench(tmp_path) as bench, client_of(bench.port, bench.home / "id_ed25519") as client:
        _, output = await client.session("yes")
        with trio.fail_after(PATIENCE):
            while output.received < MIB:
                await trio.sleep(0.01)
        (connection,) = connections(bench)
        # What comes is dropped: the client asks for new keys, and then says nothing.
        client.transport._protocol = Deaf()
        with client.loop.entered():
            client.connection._send_kexinit()
        waiting = 0
        with trio.fail_after(PATIENCE):
            while not client.over.is_set():
                waiting = max(waiting, sum(len(part) for _, parts in connection._deferred_packets for part in parts))
                await trio.sleep(0.02)
        assert waiting < 256 * 1024
        assert (await bench.ssh("echo fine")).out == b"fine\n"


async def test_a_flood_before_the_login_ends_the_connection(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench:
        stream = await trio.open_tcp_stream("127.0.0.1", bench.port)
        await stream.send_all(VERSION)
        sent = 0
        with trio.fail_after(PATIENCE):
            try:
                while True:
                    await stream.send_all(packet(IGNORE, string(bytes(30_000))))
                    sent += 30_000
            except trio.BrokenResourceError:
                pass
        assert sent < BEFORE_LOGIN + 8 * MIB  # what the kernels keep
        await stream.aclose()


@pytest.mark.parametrize("strict", [True, False])
async def test_strict_key_exchange_takes_nothing_in_between(tmp_path: Path, strict: bool) -> None:
    async with ssh_bench(tmp_path) as bench:
        stream = await trio.open_tcp_stream("127.0.0.1", bench.port)
        await stream.send_all(VERSION + kexinit(strict=strict) + packet(IGNORE, string(b"x")))
        said = bytearray()
        with trio.move_on_after(1 if not strict else PATIENCE) as patience:
            while data := await stream.receive_some():
                said += data
        assert (b"Strict key exchange violation" in said) == strict
        assert patience.cancelled_caught != strict
        await stream.aclose()


async def test_more_requests_than_answers_end_the_connection(tmp_path: Path) -> None:
    """Each one waits for an agent that takes its time."""
    async with ssh_bench(tmp_path) as bench, client_of(bench.port, bench.home / "id_ed25519") as client:
        with client.loop.entered():
            for number in range(200):
                arguments = string(b"localhost") + (20_000 + number).to_bytes(4)
                client.loop.create_task(client.connection._make_global_request(b"tcpip-forward", arguments))
        with trio.fail_after(PATIENCE):
            await client.over.wait()
        assert (await bench.ssh("echo fine")).out == b"fine\n"


async def test_a_client_that_asks_and_does_not_read_is_not_listened_to(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench, client_of(bench.port, bench.home / "id_ed25519", buffer=4096) as client:
        client.transport._protocol = Deaf()  # for the read that has begun already
        client.transport.pause_reading()
        (connection,) = connections(bench)
        connection.transport._stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # type: ignore[attr-defined]
        for _ in range(200):
            with client.loop.entered():
                for _ in range(500):
                    client.connection._send_global_request(b"keepalive@openssh.com", want_reply=True)
            await trio.sleep(0)
        assert FULL < await settled(connection.transport.get_write_buffer_size) < FULL + 128 * 1024


async def test_a_host_key_for_two_algorithms_at_once(tmp_path: Path) -> None:
    """Overlapping handshakes that sign by SHA-256 and SHA-512 do not get each other's signature."""
    key = read_host_key(keygen(tmp_path / "rsa", "rsa", "-b", "2048").read_bytes())
    async with ssh_bench(tmp_path, host_key=key) as bench, trio.open_nursery() as nursery:

        async def login(algorithm: str) -> None:
            for _ in range(5):
                done = await bench.ssh("true", "-o", f"HostKeyAlgorithms={algorithm}")
                assert (done.status, done.said) == (0, "")

        for algorithm in ["rsa-sha2-256", "rsa-sha2-512"] * 4:
            nursery.start_soon(login, algorithm)


class Deaf(asyncio.Protocol):
    """A client that takes no notice of anything."""


class Nobody:
    """A visitor who does not get far."""

    def began(self, client: Client) -> None: ...

    def heard(self) -> None: ...

    def names(self, user: str) -> None: ...

    async def offers(self, key: Key) -> bool:
        return False

    async def proves(self, key: Key) -> bool:
        return False

    def entered(self) -> None: ...

    async def session(self) -> SessionHandler:
        raise NotImplementedError

    async def forward_tcp(self, host: str, port: int) -> Handler:
        raise NotImplementedError

    async def forward_unix(self, path: str) -> Handler:
        raise NotImplementedError

    async def listen_tcp(self, host: str, port: int) -> Listening | None:
        return None

    async def listen_unix(self, path: str) -> Listening | None:
        return None


@pytest.mark.parametrize("says", [b"", VERSION, VERSION + kexinit()], ids=["nothing", "a version", "half a handshake"])
async def test_who_does_not_log_in_in_time_is_out(autojump_clock: trio.testing.MockClock, says: bytes) -> None:
    async with open_engine(make_host_key()[0], login_timeout=60.0) as engine:
        ours, theirs = trio.testing.memory_stream_pair()
        if says:
            await theirs.send_all(says)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read_all, theirs)
            await engine.serve(ours, Nobody(), peer=("192.0.2.1", 1))
        assert trio.current_time() - began == pytest.approx(60.0)


async def _read_all(stream: trio.abc.HalfCloseableStream) -> None:
    while await stream.receive_some():
        pass
    await stream.aclose()


async def test_a_bug_in_one_connection_is_told_and_ends_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from connect_trio.ssh.session import Session

    def fail(*_: object) -> bool:
        raise ZeroDivisionError

    async with ssh_bench(tmp_path) as bench:
        with monkeypatch.context() as patch:
            patch.setattr(Session, "start", fail)
            assert (await bench.ssh("true")).status == 255
        with monkeypatch.context() as patch:
            patch.setattr(Session, "_metadata", fail)
            done = await bench.ssh("true")
            assert (done.status, done.said) == (255, "connect: an internal error; it is logged\n")
        assert (await bench.ssh("echo fine")).out == b"fine\n"
        with trio.fail_after(PATIENCE):
            while bench.edge.counts.open:
                await trio.sleep(0.01)
    assert caplog.text.count("this is a bug") == 2
