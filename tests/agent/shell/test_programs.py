from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.agent.shell.programs import (
    ACCEPTED,
    CannotRun,
    Order,
    Setup,
    accepted,
    environment_of,
    program_of,
    sftp_server_of,
    shell_of,
)
from connect_trio.channels.messages import Env, Exec, Shell, Subsystem


def setup(**environ: str) -> Setup:
    return Setup(environ=environ, folder=Path("/"))


def test_the_shell_is_the_one_of_the_tools_environment() -> None:
    assert shell_of(setup(SHELL="/bin/bash")) == "/bin/bash"


@pytest.mark.parametrize("shell", ["/nonexistent", "/bin/false", "/usr/sbin/nologin", "bash", "/etc/passwd", ""])
def test_what_is_no_shell_is_not_taken(shell: str) -> None:
    assert shell_of(setup(SHELL=shell)) not in ("", shell)


def test_commands_are_the_shells_and_a_login_shell_knows_that_it_is_one() -> None:
    here = setup(SHELL="/bin/bash")
    assert program_of(Order(start=Exec(b"a 'b'")), here) == ["/bin/bash", "-c", b"a 'b'"]
    assert program_of(Order(start=Shell()), here) == ["/bin/bash", "-l"]


def test_an_sftp_server_that_is_missing_is_named_with_what_mends_it(tmp_path: Path) -> None:
    missing = Setup(environ={}, folder=tmp_path, sftp_server=tmp_path / "sftp-server")
    with pytest.raises(CannotRun, match=r"no sftp-server .*/sftp-server\): install OpenSSH's"):
        sftp_server_of(missing)
    tmp_path.joinpath("sftp-server").touch(0o755)
    assert program_of(Order(start=Subsystem("sftp")), missing) == [str(tmp_path / "sftp-server")]


@pytest.mark.parametrize("name", ["LANG", "LC_ALL", "COLORTERM", "TZ", "GIT_PROTOCOL", "GIT_AUTHOR_NAME"])
def test_what_a_client_may_set(name: str) -> None:
    assert accepted([Env(name, b"x")], ACCEPTED) == [Env(name, b"x")]


@pytest.mark.parametrize(
    "name", ["PATH", "LD_PRELOAD", "BASH_ENV", "HOME", "SSH_AUTH_SOCK", "CONNECT_AGENT_TOKEN", "TERM", "PYTHONPATH"]
)
def test_what_a_client_may_never_set_whatever_is_configured(name: str) -> None:
    assert accepted([Env(name, b"x")], ("*", name)) == []


@given(st.text("ABLC_DPATH*[]?x", min_size=1, max_size=12))
def test_names_cannot_be_patterns(name: str) -> None:
    assert accepted([Env(name, b"x")], ("LANG",)) == ([Env(name, b"x")] if name == "LANG" else [])


@pytest.mark.parametrize("client", [{}, {"client": "x"}, {"client": "1.2.3.4 5", "server": "6"}, {"client": "1 2 3"}])
def test_where_a_client_comes_from_is_told_whole_or_not(client: dict[str, str]) -> None:
    env = environment_of(Order(start=Shell()), setup(), client=client)
    assert not env.keys() & {b"SSH_CLIENT", b"SSH_CONNECTION"}
