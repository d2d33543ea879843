"""SSH in the development stack: ports, host key, whose keys come in."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from connect_trio.config import load_proxy
from connect_trio.roles.dev_plan import SSH_PORT, CannotRun, DevOptions, make_plan
from connect_trio.roles.dev_ssh import make_ssh_files
from connect_trio.roles.listeners import CannotListen, listen, port_of
from tests.support.ssh import client, keygen, run


async def test_the_host_key_stays_the_same_and_is_private(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path / "state")}
    files = make_ssh_files(DevOptions(), work=tmp_path, environ=environ)
    assert make_ssh_files(DevOptions(), work=tmp_path, environ=environ) == files
    assert files.host_key.parent == tmp_path / "state" / "connect-trio"
    assert stat.S_IMODE(files.host_key.stat().st_mode) == 0o600
    shown = await run([client("ssh-keygen"), "-lf", str(files.host_key)], folder=tmp_path)
    assert shown.out.decode().split()[1] == files.fingerprint


def test_without_a_home_it_lasts_as_long_as_the_stack(tmp_path: Path) -> None:
    files = make_ssh_files(DevOptions(), work=tmp_path, environ={})
    assert files.host_key.parent == tmp_path
    assert files.keys == ()


def test_the_users_own_keys_come_in_unless_others_are_named(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    keygen(tmp_path / ".ssh" / "id_ed25519")
    keygen(tmp_path / ".ssh" / "id_rsa", "rsa", "-b", "2048")
    (tmp_path / ".ssh" / "notes.pub").write_text("no key\n")
    keygen(tmp_path / "other")
    environ = {"HOME": str(tmp_path)}
    own = make_ssh_files(DevOptions(), work=tmp_path, environ=environ).keys
    assert [line.split()[0] for line in own] == ["ssh-ed25519", "ssh-rsa"]
    named = DevOptions(authorized_key=tmp_path / "other.pub")
    assert make_ssh_files(named, work=tmp_path, environ=environ).keys == ((tmp_path / "other.pub").read_text().strip(),)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("missing", None, "cannot be read (No such file or directory)"),
        ("empty", b"", "there is no public key in it; name a file like id_ed25519.pub"),
        ("private", b"-----BEGIN OPENSSH PRIVATE KEY-----\n", "there is no public key in it"),
        ("binary", b"\xff\xfe", "cannot be read (it is not text)"),
    ],
)
def test_a_file_without_keys_is_told(tmp_path: Path, name: str, text: bytes | None, says: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(CannotRun) as caught:
        make_ssh_files(DevOptions(authorized_key=path), work=tmp_path, environ={})
    assert str(caught.value).startswith(f"--authorized-key {path}")
    assert says in str(caught.value)


def test_a_port_that_was_asked_for_is_had_or_told_of(tmp_path: Path) -> None:
    with listen("127.0.0.1", 0, variable="X") as taken, pytest.raises(CannotListen, match="--ssh-port"):
        make_plan(DevOptions(port=0, platform_port=0, ssh_port=port_of(taken)), work=tmp_path, environ={})


def test_the_usual_port_is_left_to_stacks_on_usual_ports(tmp_path: Path) -> None:
    plan = make_plan(DevOptions(port=0, platform_port=0), work=tmp_path, environ={})
    assert plan.ssh_port not in (0, SSH_PORT, plan.port, plan.platform_port)
    settings = load_proxy(plan.proxy_env(0))
    assert (settings.ssh_enabled, settings.ssh_addr) == (True, ("127.0.0.1", plan.ssh_port))
