"""Where an agent listens: on loopback and in its own directory, and nowhere else."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest
import trio

from connect_trio.agent.listening import CannotListen, Listener, ListenPolicy, open_listener, private_directory
from tests.support.reverse import connect

NOWHERE = ListenPolicy()


async def takes_connections(listener: Listener) -> dict[str, str]:
    """Whether a client reaches it; what is told about the client."""
    with trio.fail_after(60):
        client = await connect(listener.address)
        sock, told = await listener.accept()
    await client.send_all(b"hello")
    assert await sock.receive_some() == b"hello"
    sock.close()
    await client.aclose()
    return told


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:0", "[::1]:0"])
async def test_a_free_port_of_loopback_is_listened_on(address: str) -> None:
    listener = open_listener("tcp", address, NOWHERE)
    host, _, port = listener.address.rpartition(":")
    assert host == address.rpartition(":")[0].replace("localhost", "127.0.0.1")
    assert int(port) > 0
    told = await takes_connections(listener)
    assert told["address"] == listener.address
    assert told["peer"].rpartition(":")[0] == host
    listener.close()


async def test_a_port_that_was_given_up_can_be_had_again() -> None:
    listener = open_listener("tcp", "127.0.0.1:0", NOWHERE)
    address = listener.address
    with pytest.raises(CannotListen, match="cannot be listened on: Address already in use"):
        open_listener("tcp", address, NOWHERE)
    await takes_connections(listener)
    listener.close()
    listener.close()
    again = open_listener("tcp", address, NOWHERE)
    assert again.address == address
    again.close()


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:0",
        "[::]:0",
        "*:0",
        "10.0.0.1:80",
        "127.0.0.2:0",
        "[::ffff:127.0.0.1]:0",
        "example.org:80",
        "[::1%lo]:0",
    ],
)
def test_other_addresses_are_not_listened_on(address: str) -> None:
    with pytest.raises(CannotListen, match=r"listens on 127\.0\.0\.1, ::1 only|not an address"):
        open_listener("tcp", address, NOWHERE)


@pytest.mark.parametrize("address", ["", "127.0.0.1", ":80", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "::1:80"])
def test_what_is_no_address_says_what_to_write(address: str) -> None:
    with pytest.raises(CannotListen, match="write HOST:PORT"):
        open_listener("tcp", address, NOWHERE)


async def test_other_addresses_are_listened_on_where_the_agent_was_told_so() -> None:
    listener = open_listener("tcp", "0.0.0.0:0", ListenPolicy(hosts=("0.0.0.0",)))
    assert listener.address.startswith("0.0.0.0:")
    listener.close()


async def test_a_unix_socket_is_its_users_alone_and_goes_when_closed(tmp_path: Path) -> None:
    directory = tmp_path / "sockets"
    for address in ("", "agent.1", str(directory / "agent.2")):
        listener = open_listener("unix", address, ListenPolicy(directory=directory))
        path = Path(listener.address)
        assert path.parent == directory
        assert listener.address.endswith(address)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert await takes_connections(listener) == {"address": listener.address}
        listener.close()
        listener.close()
        assert not path.exists()


@pytest.mark.parametrize("address", ["../x", "/tmp/x", "a/b", ".", "..", ".hidden", "a b", "-x", "x\0y", "ä"])
def test_unix_sockets_are_nowhere_else(address: str, tmp_path: Path) -> None:
    with pytest.raises(CannotListen, match="keeps its unix sockets in"):
        open_listener("unix", address, ListenPolicy(directory=tmp_path))


def test_without_a_directory_there_are_no_unix_sockets() -> None:
    with pytest.raises(CannotListen, match="no directory for unix sockets"):
        open_listener("unix", "x", NOWHERE)


def test_a_directory_that_others_can_enter_is_not_used(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(CannotListen, match="is not private"):
        open_listener("unix", "x", ListenPolicy(directory=tmp_path))
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(CannotListen, match="is not private"):
        open_listener("unix", "x", ListenPolicy(directory=tmp_path / "link"))


def test_a_directory_whose_name_cannot_be_told_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(CannotListen, match="a name that cannot be told"):
        open_listener("unix", "x", ListenPolicy(directory=tmp_path / "odd\udcff"))


def test_a_directory_that_cannot_be_made_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(CannotListen, match="cannot be listened on: No such file or directory"):
        open_listener("unix", "x", ListenPolicy(directory=tmp_path / "gone" / "sockets"))


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "x").write_text("mine")
    with pytest.raises(CannotListen, match="Address already in use"):
        open_listener("unix", "x", ListenPolicy(directory=tmp_path))
    assert (tmp_path / "x").read_text() == "mine"


def test_a_name_that_is_too_long_is_a_reason(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(CannotListen, match="too long"):
        open_listener("unix", "x" * 200, ListenPolicy(directory=tmp_path))


async def test_a_socket_file_that_somebody_removed_is_no_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    listener = open_listener("unix", "x", ListenPolicy(directory=tmp_path))
    Path(listener.address).unlink()
    listener.close()


async def test_closing_ends_the_wait_for_a_connection() -> None:
    listener = open_listener("tcp", "127.0.0.1:0", NOWHERE)
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        listener.close()


def test_an_agents_directory_goes_with_it() -> None:
    with private_directory() as directory:
        assert directory is not None
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(directory / "left"))
    assert not directory.exists()


def test_an_agent_without_room_for_a_directory_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(prefix: str) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    with private_directory() as directory:
        assert directory is None
