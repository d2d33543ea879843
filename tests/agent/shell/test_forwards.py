from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import trio

from connect_trio.agent.listening import ListenPolicy
from connect_trio.agent.shell.targets import LOOPBACK, TargetPolicy, is_permitted
from connect_trio.agent.tool import free_port
from connect_trio.channels.messages import AgentSocket, Exec, Exit
from connect_trio.identity.grants import SSH
from connect_trio.mux.codes import RejectCode
from connect_trio.mux.stream import MuxStream, StreamBroken
from connect_trio.reverse import Connection, ListenError, open_reverse
from tests.support.channels import PATIENCE, ShellBench, shell_bench
from tests.support.grants import granted
from tests.support.reverse import connect
from tests.support.tables import SESSION

GRANT = granted(SESSION, method=SSH)

EVERYWHERE = TargetPolicy(networks=(ip_network("0.0.0.0/0"), ip_network("::/0")))


async def echo(stream: trio.SocketStream) -> None:
    async with stream:
        async for data in stream:
            await stream.send_all(data)
        await stream.send_eof()


@asynccontextmanager
async def echo_server(sock: socket.socket) -> AsyncIterator[None]:
    sock.listen()
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, echo, [listener])
        yield
        nursery.cancel_scope.cancel()


def tcp_socket(host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.bind((host, 0))
    return sock


def unix_socket(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    return sock


async def echoed(stream: MuxStream, data: bytes) -> bytes:
    got = bytearray()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await stream.send_all(data)
                await stream.send_eof()

            nursery.start_soon(send)
            async for part in stream:
                got += part
    await stream.aclose()
    return bytes(got)


async def refusal(stream: MuxStream) -> tuple[int, str]:
    with trio.fail_after(PATIENCE), pytest.raises(StreamBroken) as caught:
        await stream.wait_accepted()
    return caught.value.end.code, caught.value.end.text


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "127.9.9.9", "LOCALHOST.", "::ffff:127.0.0.1"),
        *("127.1", "2130706433", "0177.0.0.1", "0x7f.1"),  # all of them are what they say
    ],
)
async def test_connections_to_loopback_are_forwarded(host: str, tmp_path: Path) -> None:
    data = os.urandom(1_000_000)
    with tcp_socket("127.9.9.9" if host == "127.9.9.9" else "127.0.0.1") as sock:
        async with echo_server(sock), shell_bench(tmp_path) as bench:
            stream = bench.open("tcp", {"host": host, "port": str(sock.getsockname()[1]), "origin": "1.2.3.4 5"})
            assert await echoed(stream, data) == data
            await bench.until_idle()


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "::",
        "192.0.2.1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "224.0.0.1",
        "0",
        "0x0",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
    ],
)
async def test_connections_to_elsewhere_are_refused_with_what_is_allowed(host: str, tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench:
        code, text = await refusal(bench.open("tcp", {"host": host, "port": "80"}))
        assert code == RejectCode.REFUSED
        assert text == f"connections from this Studio's agent may go to 127.0.0.0/8, ::1/128 only, not to {host}"
        await bench.until_idle()


CREDENTIALS = [
    *("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    *("fe80::1", "fe80::1%lo", "fd00:ec2::254", "fd20:ce::254"),
    # in other clothes: mapped, compatible, by NAT64, by 6to4, by Teredo
    *("::ffff:169.254.169.254", "::169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe"),
    *("2002:a9fe:a9fe::1", "2001:0:a9fe:a9fe::1", "64:ff9b::a83f:8110"),
    # and in other letters, which the resolver reads
    *("2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.16689662", "169.254.43518"),
]


@pytest.mark.parametrize("host", CREDENTIALS)
async def test_where_clouds_keep_credentials_nothing_goes_whatever_is_configured(host: str, tmp_path: Path) -> None:
    async with shell_bench(tmp_path, targets=EVERYWHERE) as bench:
        code, _ = await refusal(bench.open("tcp", {"host": host, "port": "80"}))
        assert code == RejectCode.REFUSED


def test_what_is_judged_is_the_address_and_not_its_spelling() -> None:
    assert is_permitted(ip_address("::ffff:127.0.0.1"), LOOPBACK)
    assert not is_permitted(ip_address("::ffff:8.8.8.8"), LOOPBACK)
    assert is_permitted(ip_address("10.1.2.3"), [ip_network("10.0.0.0/8")])
    assert not is_permitted(ip_address("0.0.0.0"), EVERYWHERE.networks)
    for plain in ("2001:db8::1", "64:ff9b::808:808", "2002:808:808::1", "fd00::1", "::1"):
        assert is_permitted(ip_address(plain), EVERYWHERE.networks)


async def test_a_name_is_judged_by_what_it_resolves_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    class Resolver(trio.abc.HostnameResolver):
        async def getaddrinfo(self, host: object, port: object, *args: object) -> list[tuple[object, ...]]:  # type: ignore[override]
            asked.append(host)
            found = ("10.0.0.1", "127.0.0.1") if host == b"mixed.example" else ("169.254.169.254",)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in found]

        async def getnameinfo(self, sockaddr: object, flags: int) -> tuple[str, str]:
            raise NotImplementedError

    with tcp_socket() as sock:
        async with echo_server(sock), shell_bench(tmp_path) as bench:
            trio.socket.set_custom_hostname_resolver(Resolver())
            port = str(sock.getsockname()[1])
            assert (await refusal(bench.open("tcp", {"host": "metadata.example", "port": port})))[
                0
            ] == RejectCode.REFUSED
            assert await echoed(bench.open("tcp", {"host": "mixed.example", "port": port}), b"hello") == b"hello"
    assert asked == [b"metadata.example", b"mixed.example"]


@pytest.mark.parametrize(
    "metadata",
    [{}, {"host": "localhost"}, {"host": "localhost", "port": "0"}, {"host": "", "port": "80"}]
    + [{"host": "localhost", "port": port} for port in ("65536", "-1", "x", "٣", "80 ")],
)
async def test_what_makes_no_sense_is_refused(metadata: dict[str, str], tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench:
        assert await refusal(bench.open("tcp", metadata)) == (RejectCode.REFUSED, "not a host and a port")


async def test_a_port_that_nobody_listens_on_is_unreachable(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench:
        code, text = await refusal(bench.open("tcp", {"host": "localhost", "port": str(free_port())}))
        assert code == RejectCode.UNREACHABLE
        assert "Connection refused" in text


async def test_connections_to_sockets_of_the_user_are_forwarded(tmp_path: Path) -> None:
    data = os.urandom(1_000_000)
    with unix_socket(tmp_path / "s") as sock:
        async with echo_server(sock), shell_bench(tmp_path) as bench:
            assert await echoed(bench.open("unix", {"path": str(tmp_path / "s")}), data) == data


async def test_other_sockets_are_not(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench:
        (tmp_path / "file").touch()
        for path, code, says in (
            ("", RejectCode.REFUSED, "begins with /"),
            ("s", RejectCode.REFUSED, "begins with /"),
            ("@abstract", RejectCode.REFUSED, "begins with /"),
            (str(tmp_path / "file"), RejectCode.UNREACHABLE, "is not a unix socket"),
            (str(tmp_path / "none"), RejectCode.UNREACHABLE, "No such file"),
            ("/" + "x" * 200, RejectCode.UNREACHABLE, "No such file"),
        ):
            found, text = await refusal(bench.open("unix", {"path": path}))
            assert (found, says in text) == (code, True), text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a socket to somebody else")
async def test_a_socket_of_somebody_else_is_refused(tmp_path: Path) -> None:
    with unix_socket(tmp_path / "s") as sock:
        os.chown(tmp_path / "s", 12345, 12345)
        async with echo_server(sock), shell_bench(tmp_path) as bench:
            code, text = await refusal(bench.open("unix", {"path": str(tmp_path / "s")}))
            assert (code, "does not belong to the Studio's user" in text) == (RejectCode.REFUSED, True)


async def test_forwards_can_be_switched_off(tmp_path: Path) -> None:
    async with shell_bench(tmp_path, targets=TargetPolicy(allowed=False)) as bench:
        for kind, metadata in (("tcp", {"host": "127.0.0.1", "port": "1"}), ("unix", {"path": "/x"})):
            found = await refusal(bench.open(kind, metadata))
            assert found == (RejectCode.REFUSED, "this Studio forwards no connections into it")


async def test_a_forward_that_the_proxy_gives_up_leaves_nothing(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench:
        stream = bench.open("tcp", {"host": "localhost", "port": str(free_port())})
        stream.reset("never mind")
        await bench.until_idle()


# What begins in the agent.


async def keep(connection: Connection) -> None:
    await connection.stream.send_all(b"hello from afar")
    await trio.sleep_forever()


async def greeting(address: str) -> bytes:
    with trio.fail_after(PATIENCE):
        client = await connect(address)
        async with client:
            return await client.receive_some()


@pytest.mark.parametrize("network", ["tcp", "unix"])
async def test_remote_forwards_reach_the_proxy(network: str, tmp_path: Path) -> None:
    places = ListenPolicy(directory=tmp_path / "sockets")
    async with (
        shell_bench(tmp_path, places=places) as bench,
        open_reverse(bench.dialer, GRANT, keep) as reverse,
    ):
        listener = await reverse.listen(network, "127.0.0.1:0" if network == "tcp" else "")
        assert await greeting(listener.address) == b"hello from afar"


async def test_remote_forwards_can_be_switched_off(tmp_path: Path) -> None:
    places = ListenPolicy(directory=tmp_path, forwards=False)
    async with (
        shell_bench(tmp_path, places=places) as bench,
        open_reverse(bench.dialer, GRANT, keep) as reverse,
    ):
        for network in ("tcp", "unix"):
            with pytest.raises(ListenError, match="forwards no connections out of it"):
                await reverse.listen(network, "127.0.0.1:0")


async def agent_of(bench: ShellBench, path: str) -> str:
    async with bench.session(AgentSocket(path), Exec(b'printf %s "$SSH_AUTH_SOCK"')) as client:
        assert await client.wait() == Exit(0)
    return client.stdout.decode()


async def test_a_forwarded_agent_is_found_by_the_session_and_reaches_the_proxy(tmp_path: Path) -> None:
    policy = ListenPolicy(directory=tmp_path / "sockets", agents=True)
    async with (
        shell_bench(tmp_path, places=policy) as bench,
        open_reverse(bench.dialer, GRANT, keep) as reverse,
    ):
        listener = await reverse.listen("agent", "")
        path = Path(listener.address)
        assert path.parent == tmp_path / "sockets"
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert await agent_of(bench, listener.address) == listener.address
        assert await greeting(listener.address) == b"hello from afar"
        await listener.aclose()
        assert not path.exists()
        assert await agent_of(bench, listener.address) == ""


async def test_a_path_that_is_no_forwarded_agent_is_not_passed_on(tmp_path: Path) -> None:
    policy = ListenPolicy(directory=tmp_path / "sockets", agents=True)
    async with (
        shell_bench(tmp_path, places=policy) as bench,
        open_reverse(bench.dialer, GRANT, keep) as reverse,
    ):
        listener = await reverse.listen("unix", "x")
        assert await agent_of(bench, listener.address) == ""
        with pytest.raises(ListenError, match="write nothing"):
            await reverse.listen("agent", "here")


async def test_agents_are_not_forwarded_unless_the_studio_allows_it(tmp_path: Path) -> None:
    places = ListenPolicy(directory=tmp_path)
    async with (
        shell_bench(tmp_path, places=places) as bench,
        open_reverse(bench.dialer, GRANT, keep) as reverse,
    ):
        with pytest.raises(ListenError, match="takes no forwarded SSH agent"):
            await reverse.listen("agent", "")
