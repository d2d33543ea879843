"""What users see when they do not come in, or are shown out; and what nobody sees of probes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Any

import pytest
import trio

from connect_trio.dial import Dialer, DialError, Failure, Target, ToolStream
from connect_trio.edge.scopes import Kind
from connect_trio.identity.control_plane import RUNNING, STOPPED, UNKNOWN, Decision
from connect_trio.identity.grants import SSH
from connect_trio.ssh.bridge_keys import read_public_keys
from connect_trio.ssh.crowd import STRANGERS_OF_ADDRESS
from tests.support.grants import granted
from tests.support.ssh import LABEL, PATIENCE, SshBench, keygen, ssh_bench, ssh_edge

V1 = b"PROXY TCP4 192.0.2.7 127.0.0.1 50022 2222\r\n"
V2_LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"  # as balancers begin their own probes
PROBES = [
    *(b"", b"SSH-2.0-probe\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\0\xff" * 100, b"x" * 5000),
    *(V1, V1 + b"SSH-2.0-probe\r\n", V2_LOCAL, b"PROXY ", b"PROXY TCP4 nonsense\r\n"),
]


class NoAgent:
    """A dialer that finds no agent."""

    async def dial(self, target: Target) -> ToolStream:
        await trio.lowlevel.checkpoint()
        raise DialError(Failure(status=503, part="agent", text="The Studio's agent is not connected."))

    def explain(self, error: BaseException) -> Failure:
        return Failure(status=502, part="agent", text=str(error))


@asynccontextmanager
async def lonely_bench(tmp_path: Path, dialer: Dialer | None = None, **options: Any) -> AsyncIterator[SshBench]:
    """An edge with nobody behind it."""
    async with ssh_edge(tmp_path, dialer or NoAgent(), **options) as (edge, judge, scopes, port):
        yield SshBench(edge, judge, scopes, port, tmp_path, tmp_path, None)


async def test_a_wrong_key_is_named(tmp_path: Path) -> None:
    async with lonely_bench(tmp_path) as bench:
        wrong = keygen(tmp_path / "wrong")
        fingerprint = read_public_keys(wrong.with_suffix(".pub").read_text())[0].fingerprint
        done = await bench.run("-F", "none", *plain(bench, wrong), f"alice@{LABEL}@127.0.0.1")
    assert done.status == 255
    assert f"connect: {fingerprint} is no key of a user alice." in done.said
    assert "Permission denied (publickey)" in done.said


def plain(bench: SshBench, key: Path | None = None) -> tuple[str, ...]:
    """Options instead of the configuration file. key: None for alice's."""
    return (
        *("-p", str(bench.port), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"),
        *("-o", f"UserKnownHostsFile={bench.home}/known_hosts", "-i", str(key or bench.home / "id_ed25519")),
    )


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ("alice", 'the user name "alice" names no Studio; write it as USER@STUDIO, for example alice@a23ce7967'),
        ("alice@nowhere", '"nowhere" is no Studio'),
    ],
)
async def test_a_user_name_without_a_studio_is_explained(tmp_path: Path, user: str, says: str) -> None:
    async with lonely_bench(tmp_path) as bench:
        done = await bench.run("-F", "none", *plain(bench), "-l", user, "127.0.0.1")
    assert done.status == 255
    assert says in done.said


@pytest.mark.parametrize(
    ("decision", "says"),
    [
        (Decision(allowed=False, reason="Viewers may not.", session_state=RUNNING), "Viewers may not."),
        (Decision(allowed=True, reason=None, session_state=STOPPED), f"the Studio {LABEL} is stopped; start it"),
        (Decision(allowed=False, reason=None, session_state=UNKNOWN), f"there is no Studio {LABEL}"),
    ],
)
async def test_who_may_not_come_in_is_told_why(tmp_path: Path, decision: Decision, says: str) -> None:
    async with lonely_bench(tmp_path) as bench:
        bench.judge.decision = decision
        done = await bench.ssh("true")
    assert done.status == 255
    assert says in done.said


async def test_without_the_private_key_nobody_is_judged(tmp_path: Path) -> None:
    """Public keys are public: whoever has only one of these learns nothing of a session."""
    async with lonely_bench(tmp_path) as bench:
        other = keygen(tmp_path / "other")
        other.with_suffix(".pub").write_text((tmp_path / "id_ed25519.pub").read_text())
        done = await bench.run("-F", "none", *plain(bench, other), f"alice@{LABEL}@127.0.0.1")
    assert done.status == 255
    assert bench.judge.asked == []


async def test_an_agent_that_is_away_is_told(tmp_path: Path) -> None:
    async with lonely_bench(tmp_path) as bench:
        done = await bench.ssh("true")
        assert (done.status, done.said) == (255, "connect: The Studio's agent is not connected.\n")
        done = await bench.run("-W", "127.0.0.1:1", "studio")
        assert "The Studio's agent is not connected." in done.said


async def test_another_host_key_is_the_clients_to_refuse(tmp_path: Path) -> None:
    async with lonely_bench(tmp_path) as bench:
        line = keygen(tmp_path / "foreign").with_suffix(".pub").read_text()
        (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{bench.port} {line}")
        done = await bench.ssh("true")
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in done.said
    assert bench.edge.counts.refused == 0


async def test_one_connection_too_many_is_told(tmp_path: Path) -> None:
    async with lonely_bench(tmp_path, max_connections=2) as bench:
        streams = [await trio.open_tcp_stream("127.0.0.1", bench.port) for _ in range(2)]
        for stream in streams:
            assert (await stream.receive_some()).startswith(b"SSH-2.0-")
        done = await bench.ssh("true")
        assert done.status == 255
        assert "there are too many connections (the limit is 2); try again later" in done.said
        for stream in streams:
            await stream.aclose()
        with trio.fail_after(PATIENCE):
            while bench.edge.connections:
                await trio.sleep(0.01)
        assert (await bench.ssh("true")).said.startswith("connect: The Studio's agent")
        assert bench.edge.counts.turned_away == 1


async def test_an_address_with_too_many_logins_at_once_is_told(tmp_path: Path) -> None:
    async with lonely_bench(tmp_path) as bench:
        streams = [await trio.open_tcp_stream("127.0.0.1", bench.port) for _ in range(STRANGERS_OF_ADDRESS)]
        for stream in streams:
            await stream.receive_some()
        done = await bench.ssh("true")
        assert "there are too many logins from your address at once" in done.said
        for stream in streams:
            await stream.aclose()


@pytest.mark.parametrize("trusted", [(), (ip_network("127.0.0.0/8"),)], ids=["direct", "behind a balancer"])
@pytest.mark.parametrize("says", PROBES)
async def test_probes_are_no_failures_and_no_noise(
    tmp_path: Path, says: bytes, trusted: Sequence[IPv4Network], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with lonely_bench(tmp_path, trusted_proxies=trusted) as bench:
        for _ in range(5):
            stream = await trio.open_tcp_stream("127.0.0.1", bench.port)
            if says:
                await stream.send_all(says)
            await stream.aclose()
        with trio.fail_after(PATIENCE):
            while bench.edge.connections:
                await trio.sleep(0.01)
        assert bench.edge.counts.refused == 0
    assert not [record for record in caplog.records if record.name.startswith(("connect_trio.ssh", "asyncssh"))]


async def test_the_log_names_user_session_connection_and_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with lonely_bench(tmp_path) as bench:
        await bench.ssh("secret-command")
    (entered,) = [record for record in caplog.records if record.message == "ssh: logged in"]
    assert entered.user == "alice"  # type: ignore[attr-defined]
    assert entered.session == bench.session  # type: ignore[attr-defined]
    assert entered.key.startswith("SHA256:")  # type: ignore[attr-defined]
    assert "secret-command" not in caplog.text


async def test_a_balancers_header_is_believed_of_trusted_addresses_only(tmp_path: Path) -> None:
    async def forward(stream: trio.SocketStream, *, port: int) -> None:
        """A balancer: the header, then bytes both ways."""
        async with await trio.open_tcp_stream("127.0.0.1", port) as onward, trio.open_nursery() as nursery:
            await onward.send_all(V1)

            async def copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
                try:
                    async for data in source:
                        await sink.send_all(data)
                    await sink.send_eof()
                except trio.BrokenResourceError:
                    pass

            nursery.start_soon(copy, stream, onward)
            await copy(onward, stream)

    for trusted, enters in (((ip_network("127.0.0.0/8"),), True), ((), False)):
        home = tmp_path / str(enters)
        home.mkdir()
        async with lonely_bench(home, trusted_proxies=trusted) as bench, trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, partial(forward, port=bench.port), 0, host="127.0.0.1")
            [listener] = await nursery.start(serve)
            port, alias = listener.socket.getsockname()[1], f"HostKeyAlias=[127.0.0.1]:{bench.port}"
            done = await bench.ssh("true", "-p", str(port), "-o", alias)
            assert (bench.edge.counts.logins == 1) == enters, done.said
            nursery.cancel_scope.cancel()


async def test_whose_session_ends_is_out_at_once_and_told_why(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench, trio.open_nursery() as nursery:
        results = []

        async def work() -> None:
            results.append(await bench.ssh("echo begun; sleep 1000"))

        nursery.start_soon(work)
        with trio.fail_after(PATIENCE):
            while not bench.edge.counts.open:
                await trio.sleep(0.01)
            assert bench.scopes.grants() == {granted(bench.session, "sub-alice", SSH)}
            assert bench.scopes.kinds() == {Kind.SSH: 1}
            assert bench.scopes.end(bench.session, "the session was stopped") == 1
            while not results:
                await trio.sleep(0.01)
        assert "the session was stopped" in results[0].said
        assert results[0].status == 255
        assert bench.agent is not None
        await bench.agent.until_idle()
        assert bench.scopes.live() == {}


async def test_whoever_loses_the_right_is_out_at_once_and_told_so(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench, trio.open_nursery() as nursery:
        results = []

        async def work() -> None:
            results.append(await bench.ssh("sleep 1000"))

        nursery.start_soon(work)
        with trio.fail_after(PATIENCE):
            while not bench.edge.counts.open:
                await trio.sleep(0.01)
            (grant,) = bench.scopes.grants()
            bench.scopes.judge(grant, Decision(allowed=False, reason="You were removed.", session_state=RUNNING))
            while not results:
                await trio.sleep(0.01)
        assert "your access to this Studio has ended" in results[0].said
        assert results[0].status == 255


async def test_a_drain_tells_everybody_and_ends(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench, trio.open_nursery() as nursery:
        results = []

        async def work() -> None:
            results.append(await bench.ssh("echo begun; sleep 1000"))

        nursery.start_soon(work)
        with trio.fail_after(PATIENCE):
            while not bench.edge.counts.open:
                await trio.sleep(0.01)
            await bench.edge.drain(1.0)
            while not results:
                await trio.sleep(0.01)
        assert "Connect is being restarted; connect again" in results[0].said
        assert "Connection refused" in (await bench.ssh("true")).said
