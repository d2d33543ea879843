"""Connections through a Studio, both ways: -L, -R, -D, -W, -J, -A, and several sessions over one connection."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from connect_trio.agent.listening import ListenPolicy
from tests.support.ssh import PATIENCE, SshBench, client, run, ssh_bench

MIB = 1024 * 1024


async def echo(stream: trio.abc.HalfCloseableStream) -> None:
    """Say everything again, and end when the other end does."""
    while data := await stream.receive_some():
        await stream.send_all(data)
    await stream.send_eof()


@asynccontextmanager
async def echoing() -> AsyncIterator[int]:
    """A port of loopback where everything is said again."""
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, echo, 0, host="127.0.0.1")
        [listener] = await nursery.start(serve)
        port: int = listener.socket.getsockname()[1]
        yield port
        nursery.cancel_scope.cancel()


async def tried(connect: Callable[[], object]) -> trio.SocketStream:
    """What `connect` gives as soon as it succeeds."""
    with trio.fail_after(PATIENCE):
        while True:
            try:
                return await connect()  # type: ignore[misc, no-any-return]
            except OSError:
                await trio.sleep(0.02)


async def listens(port: int) -> bool:
    try:
        await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
    except OSError:
        return False
    return True


async def exchange(stream: trio.abc.HalfCloseableStream, size: int = 2 * MIB) -> None:
    """Send much, and check that it comes back, to its end."""
    data = os.urandom(size)
    received = bytearray()

    async def receive() -> None:
        while more := await stream.receive_some():
            received.extend(more)

    with trio.fail_after(PATIENCE):
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await stream.send_all(data)
            await stream.send_eof()
    assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()


@asynccontextmanager
async def connected(bench: SshBench, *options: str) -> AsyncIterator[trio.Process]:
    """A client without a command that keeps running."""
    process = await trio.lowlevel.open_process(
        bench.command("-N", "-o", "ExitOnForwardFailure=yes", *options, "studio"),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        yield process
    finally:
        process.terminate()
        await process.wait()
        await process.stderr.aclose()


def free_port() -> int:
    with trio.socket.socket() as probe:
        probe._sock.bind(("127.0.0.1", 0))  # type: ignore[attr-defined]
        return int(probe.getsockname()[1])


async def test_a_port_of_the_studio(tmp_path: Path) -> None:
    port = free_port()
    async with (
        ssh_bench(tmp_path) as bench,
        echoing() as tool,
        connected(bench, "-L", f"127.0.0.1:{port}:localhost:{tool}"),
    ):
        await exchange(await tried(partial(trio.open_tcp_stream, "127.0.0.1", port)))
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                nursery.start_soon(exchange, stream, 100_000)


async def test_a_socket_of_the_studio(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench, trio.open_nursery() as nursery:
        there, here = bench.folder / "there.sock", bench.home / "here.sock"
        listener = trio.socket.socket(trio.socket.AF_UNIX)
        await listener.bind(str(there))
        listener.listen()
        nursery.start_soon(trio.serve_listeners, echo, [trio.SocketListener(listener)])
        async with connected(bench, "-L", f"{here}:{there}"):
            await exchange(await tried(partial(trio.open_unix_socket, str(here))))
        nursery.cancel_scope.cancel()


async def test_a_socks_proxy_into_the_studio(tmp_path: Path) -> None:
    port = free_port()
    async with ssh_bench(tmp_path) as bench, echoing() as tool, connected(bench, "-D", f"127.0.0.1:{port}"):
        stream = await tried(partial(trio.open_tcp_stream, "127.0.0.1", port))
        await stream.send_all(b"\x05\x01\x00")
        assert await stream.receive_some(2) == b"\x05\x00"
        await stream.send_all(b"\x05\x01\x00\x03\x09localhost" + tool.to_bytes(2))
        assert (await stream.receive_some(10))[:2] == b"\x05\x00"
        await exchange(stream)


async def test_standard_input_and_output_as_a_connection(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench, echoing() as tool:
        done = await bench.run("-W", f"127.0.0.1:{tool}", "studio", stdin=b"to and fro")
    assert done.out == b"to and fro"


async def test_a_port_where_nobody_listens(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench:
        done = await bench.run("-W", f"127.0.0.1:{free_port()}", "studio")
    assert done.status == 255
    assert "open failed: connect failed: " in done.said
    assert "Connection refused" in done.said


async def test_a_port_of_the_client_in_the_studio(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench, echoing() as mine:
        port = free_port()
        async with connected(bench, "-R", f"{port}:127.0.0.1:{mine}"):
            await exchange(await tried(partial(trio.open_tcp_stream, "127.0.0.1", port)))
        with trio.fail_after(PATIENCE):
            while await listens(port):  # it goes with its connection
                await trio.sleep(0.02)


async def test_any_free_port_of_the_studio(tmp_path: Path) -> None:
    async with (
        ssh_bench(tmp_path) as bench,
        echoing() as mine,
        connected(bench, "-v", "-R", f"0:127.0.0.1:{mine}") as process,
    ):
        assert process.stderr is not None
        said = b""
        with trio.fail_after(PATIENCE):
            while b"Allocated port" not in said or not said.endswith(b"\n"):
                said += await process.stderr.receive_some()
        port = int(said.partition(b"Allocated port ")[2].split()[0])
        await exchange(await trio.open_tcp_stream("127.0.0.1", port))


async def test_a_remote_forward_that_cannot_be(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench, echoing() as taken:
        for where in (f"{taken}", "203.0.113.9:0"):
            done = await bench.run("-N", "-o", "ExitOnForwardFailure=yes", "-R", f"{where}:127.0.0.1:1", "studio")
            assert done.status == 255
            assert "remote port forwarding failed" in done.said


async def test_a_socket_of_the_client_in_the_studio(tmp_path: Path) -> None:
    async with (
        ssh_bench(tmp_path) as bench,
        echoing() as mine,
        connected(bench, "-R", f"./back.sock:127.0.0.1:{mine}"),
    ):
        await exchange(await tried(partial(trio.open_unix_socket, str(tmp_path / "sockets" / "back.sock"))))


@asynccontextmanager
async def ssh_agent(bench: SshBench) -> AsyncIterator[dict[str, str]]:
    """An agent that holds alice's key; the environment that leads to it."""
    socket = bench.home / "agent.sock"
    process = await trio.lowlevel.open_process(
        [client("ssh-agent"), "-D", "-a", str(socket)], stdout=subprocess.DEVNULL
    )
    environ = {"SSH_AUTH_SOCK": str(socket)}
    try:
        await (await tried(partial(trio.open_unix_socket, str(socket)))).aclose()
        done = await run([client("ssh-add"), "-q", str(bench.home / "id_ed25519")], folder=bench.home, environ=environ)
        assert done.status == 0, done.said
        yield environ
    finally:
        process.terminate()
        await process.wait()


async def test_the_clients_ssh_agent_in_the_studio(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench, ssh_agent(bench) as environ:
        mine = (bench.home / "id_ed25519.pub").read_text().split()[1]
        done = await bench.run("-A", "studio", f"{client('ssh-add')} -L", environ=environ)
        assert mine in done.out.decode()
        done = await bench.run("studio", "echo x$SSH_AUTH_SOCK", environ=environ)
        assert done.out == b"x\n"


async def test_a_studio_that_takes_no_ssh_agent_has_a_session_without_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As all do, unless their settings say otherwise."""
    caplog.set_level(logging.INFO)
    assert not ListenPolicy().agents
    async with ssh_bench(tmp_path, places=ListenPolicy(directory=tmp_path / "sockets")) as bench:
        async with ssh_agent(bench) as environ:
            done = await bench.run("-A", "studio", "echo x$SSH_AUTH_SOCK", environ=environ)
        assert (done.status, done.out) == (0, b"x\n")
    (told,) = [record for record in caplog.records if record.message == "no SSH agent is forwarded"]
    assert "this Studio takes no forwarded SSH agent" in told.reason  # type: ignore[attr-defined]


async def test_channels_that_the_studio_opens_count_among_those_of_the_client(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path, max_channels=2) as bench, echoing() as mine:
        port = free_port()
        async with connected(bench, "-R", f"{port}:127.0.0.1:{mine}"):
            streams = [await tried(partial(trio.open_tcp_stream, "127.0.0.1", port))]
            streams.append(await trio.open_tcp_stream("127.0.0.1", port))
            for stream in streams:
                await stream.send_all(b"x")
                assert await stream.receive_some() == b"x"
            assert bench.edge.counts.open == 2
            extra = await trio.open_tcp_stream("127.0.0.1", port)
            with trio.fail_after(PATIENCE):
                with suppress(trio.BrokenResourceError):
                    assert await extra.receive_some() == b""
            assert bench.edge.counts.channels_refused == 1
            await streams[0].aclose()
            again = await trio.open_tcp_stream("127.0.0.1", port)  # waits for the place, if need be
            await again.send_all(b"y")
            with trio.fail_after(PATIENCE):
                assert await again.receive_some() == b"y"
            for stream in (streams[1], extra, again):
                await stream.aclose()


async def test_a_jump_through_the_studio(tmp_path: Path) -> None:
    """To the edge itself, which stands for any SSH server that the Studio reaches."""
    async with ssh_bench(tmp_path) as bench:
        with bench.config.open("a") as config:
            config.write(f"Host inner\n    HostName localhost\n    Port {bench.port}\n    ProxyJump studio\n")
            config.write(f"    User alice@{'a' + bench.session}\n    IdentityFile {bench.home}/id_ed25519\n")
            config.write(
                f"    UserKnownHostsFile {bench.home}/known_hosts\n    HostKeyAlias [127.0.0.1]:{bench.port}\n"
            )
        done = await bench.run("inner", "echo through")
    assert (done.out, done.status) == (b"through\n", 0), done.said


async def test_thirty_sessions_over_one_connection_and_no_more(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench:
        path = bench.home / "master"
        shared = ("-o", f"ControlPath={path}", "-o", "ProxyCommand=false")  # no connection of its own
        async with connected(bench, "-M", "-o", f"ControlPath={path}"):
            await (await tried(partial(trio.open_unix_socket, str(path)))).aclose()
            processes = []
            for number in range(30):
                process = await trio.lowlevel.open_process(
                    bench.command(*shared, "studio", f"echo {number}; cat"),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
                assert process.stdout is not None
                processes.append(process)
                assert await process.stdout.receive_some() == f"{number}\n".encode()
            done = await bench.run(*shared, "studio", "echo one too many")
            assert done.out == b""
            assert "Session open refused by peer" in done.said
            assert bench.edge.counts.channels_refused == 1

            async def end_one() -> None:
                stdin = processes[0].stdin
                assert stdin is not None
                await trio.sleep(0.3)  # while the next one waits for its place
                await stdin.aclose()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(end_one)
                done = await bench.run(*shared, "studio", "echo waited")
            assert done.out == b"waited\n"
            for process in processes:
                process.kill()
                await process.wait()
                for pipe in (process.stdin, process.stdout):
                    assert pipe is not None
                    await pipe.aclose()


async def test_the_31st_forward_is_told_why(tmp_path: Path) -> None:
    port = free_port()
    async with (
        ssh_bench(tmp_path, max_channels=3) as bench,
        echoing() as tool,
        connected(bench, "-L", f"127.0.0.1:{port}:localhost:{tool}") as process,
    ):
        streams = [await tried(partial(trio.open_tcp_stream, "127.0.0.1", port))]
        streams += [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
        for stream in streams:
            await stream.send_all(b"x")
            assert await stream.receive_some() == b"x"
        extra = await trio.open_tcp_stream("127.0.0.1", port)
        with trio.fail_after(PATIENCE):
            assert await extra.receive_some() == b""
        assert process.stderr is not None
        said = bytes(await process.stderr.receive_some()).decode()
        assert "open failed: resource shortage: too many channels on this connection (the limit is 3)" in said
        for stream in (*streams, extra):
            await stream.aclose()
