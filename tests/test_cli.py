"""The command line: what is wrong is told in one line, with an exit code that says whose turn it is."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from connect_trio import __version__
from connect_trio.cli import main


@pytest.fixture(autouse=True)
def _process() -> Iterator[None]:
    """`main` is made to own its process; put ours back as it was."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("CONNECT_", "PLATFORM_")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["serer"], "there is no command 'serer'; did you mean server?"),
        (["xyz"], "there is no command 'xyz'; there are dev, server, proxy, agent, platform, ssh-config, config"),
        ([], "the following arguments are required: COMMAND; see connect-trio --help"),
        (["server", "--prot", "1"], "unrecognized arguments: --prot 1; see connect-trio --help"),
        (["server", "--", "tool"], "server takes no tool's command after --"),
        (["dev", "--port", "70000"], "argument --port: '70000' is no port; give a number from 0 to 65535; see"),
        (["dev", "--port", "eighty"], "argument --port: 'eighty' is no port"),
        (["dev", "--root", "/no/such"], "argument --root: '/no/such' is no folder"),
        (["dev", "--servers", "2"], "--servers, --proxies and --redis need --processes"),
        (["dev", "--processes", "--servers", "0"], "argument --servers: '0' is no count"),
        (["dev", "--processes", "--redis", "redis"], "argument --redis: 'redis': not an address"),
        (["proxy"], "CONNECT_REDIS_ADDRESS is not set"),
        (["agent"], "CONNECT_PROXY_URL is not set"),
        (["platform"], "CONNECT_DEVPLATFORM_KEY is not set"),
        (["dev", "--ssh-port", "x"], "argument --ssh-port: 'x' is no port"),
        (["ssh-config"], "the following arguments are required: SESSION; see connect-trio ssh-config --help"),
        (["ssh-config", "23ce7967"], "ssh-config: "),
        (["config"], "the following arguments are required: ROLE; see connect-trio config --help"),
        (["config", "sever"], "argument ROLE: invalid choice: 'sever'"),
        (["config", "server", "--", "tool"], "config takes no tool's command after --"),
    ],
)
def test_asking_wrongly_is_told_in_a_line(arguments: list[str], line: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[0].startswith(f"connect-trio: {line}")


def test_every_error_of_the_configuration_is_told_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["proxy"]) == 2
    lines = capfd.readouterr().err.splitlines()
    named = {line.split()[1] for line in lines}
    assert named == {"CONNECT_REDIS_ADDRESS", "CONNECT_PROXY_URL", "CONNECT_TUNNEL_URL", "PLATFORM_URL"}


def test_a_variable_that_nobody_reads_is_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONNECT_PROXI_URL", "http://connect.localhost")
    main(["proxy"])
    assert "did you mean CONNECT_PROXY_URL?" in capfd.readouterr().err.splitlines()[0]


def test_a_port_in_use_is_named_with_what_changes_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        monkeypatch.setenv("CONNECT_TUNNEL_PORT", port)
        monkeypatch.setenv("CONNECT_LISTENER_PORT", "0")
        assert main(["server"]) == 1
        assert main(["dev", "--port", port]) == 1
    server, dev = capfd.readouterr().err.splitlines()
    assert server.startswith(f"connect-trio: port {port} on :: is in use")
    assert "CONNECT_TUNNEL_PORT" in server
    assert dev.startswith(f"connect-trio: port {port} on 127.0.0.1 is in use")
    assert "--port" in dev


def test_the_version_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capfd.readouterr().out == f"connect-trio {__version__}\n"


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("dev", "--platform-port"),
        ("server", "CONNECT_TUNNEL_PORT (default 7070)"),
        ("proxy", "PLATFORM_URL (required)"),
    ],
)
def test_help_lists_options_and_variables(command: str, part: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert part in capfd.readouterr().out


def test_help_is_quick_since_it_imports_no_role() -> None:
    code = (
        "import sys; from connect_trio.cli import main; main(['--help']); "
        "sys.exit(any(name in sys.modules for name in ('trio', 'hypercorn', 'coredis')))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_ssh_config_prints_a_block_for_the_clients_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ssh-config", "a23ce7967", "--host", "connect.example.com", "--user", "alice"]) == 0
    block = capsys.readouterr().out
    assert block.startswith(
        "Host a23ce7967\n    HostName connect.example.com\n    Port 2222\n    User alice@a23ce7967\n"
    )
    assert main(["ssh-config", "a23ce7967", "--port", "2200"]) == 0
    assert "    HostName 127.0.0.1\n    Port 2200\n" in capsys.readouterr().out
