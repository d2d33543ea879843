"""The command line: `connect-trio server | proxy | agent | platform | dev`, and `config ROLE`.

Exit codes: 0 stopped as asked, 1 cannot run here (a port in use, no Redis, ...), 2 asked for wrongly (the command line
or a variable). Each error is one line on stderr.
"""

from __future__ import annotations

import argparse
import difflib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from connect_trio import __version__

COMMANDS = {
    "dev": "the whole stack on this machine, with a development Platform",
    "server": "holds the tunnels of agents",
    "proxy": "what visitors and agents reach",
    "agent": "beside the tool; dials out",
    "platform": "a Platform for development only",
    "ssh-config": "a block for ~/.ssh/config, to reach a Studio by its name",
    "config": "what holds for a role, where each value comes from, and all that is wrong",
}

_ROLES = ("server", "proxy", "agent", "platform")

OK, CANNOT_RUN, WRONG = 0, 1, 2

_MOST_PROCESSES = 16
_LONGEST_LEVEL = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Until a role has its own way to stop, a signal just ends us, without a traceback.
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    try:
        return _run(given)
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else WRONG
    except Exception as exc:  # noqa: BLE001 - what is no error of our caller's is raised again
        from connect_trio.roles.problems import explain

        code, lines = explain(exc)
        _complain(lines)
        return code


def _run(given: list[str]) -> int:
    if given and not given[0].startswith("-") and given[0] not in COMMANDS:
        close = difflib.get_close_matches(given[0], COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(COMMANDS)}"
        _complain([f"there is no command {given[0]!r}; {hint}"])
        return WRONG
    # What follows "--" is a tool's command, in which no option is ours.
    at = given.index("--") if "--" in given else len(given)
    command = tuple(given[at + 1 :])
    options = _parser().parse_args(given[:at])
    if command and options.command not in ("dev", "agent"):
        _complain([f"{options.command} takes no tool's command after --"])
        return WRONG
    if options.command == "dev":
        return _dev(options, command)
    if options.command == "config":
        return _config(options.role)
    if options.command == "ssh-config":
        return _ssh_config(options)
    if options.command == "agent":
        from connect_trio.roles.init import under_init

        return under_init(partial(_role, "agent", command))
    return _role(options.command, command)


def _leave(number: int, frame: object) -> NoReturn:
    raise SystemExit(OK)


def _complain(lines: Sequence[str]) -> None:
    for line in lines:
        print(f"connect-trio: {line}", file=sys.stderr, flush=True)


def _warn(lines: Sequence[str]) -> None:
    _complain([f"warning: {line}" for line in lines])


def _role(role: str, command: tuple[str, ...]) -> int:
    from connect_trio import config, logs
    from connect_trio.roles import open_files
    from connect_trio.roles.running import announcer, run_until_stopped

    environ = os.environ
    announce = announcer(role, environ)
    _warn(config.warnings_for(environ))
    start: Callable[..., Awaitable[None]]
    settings: Any
    # Each role imports its own libraries only.
    if role == "server":
        from connect_trio.roles.server import run_server

        start, settings = run_server, config.load_server(environ)
    elif role == "proxy":
        from connect_trio.roles.proxy import run_proxy

        start, settings = run_proxy, config.load_proxy(environ)
    elif role == "agent":
        from connect_trio.roles.agent import run_agent

        start, settings = run_agent, config.load_agent(environ, command=command)
    else:
        from connect_trio.roles.platform import run_platform

        start, settings = run_platform, config.load_platform(environ)
    _warn(config.settings_warnings(settings))
    logs.configure(settings.log_level, role=role, secrets=config.secret_texts(type(settings), environ))
    open_files.provide(role)
    import trio

    reloads = None if role == "platform" else {"log level": partial(_reload_level, settings.log_level_file)}
    trio.run(partial(run_until_stopped, partial(start, settings), announce=announce, reloads=reloads))
    return OK


def _reload_level(path: Path | None) -> str:
    """Take the log level from its file; which it is now. Raises OSError and ValueError."""
    from connect_trio import config, logs

    if path is None:
        raise ValueError("no file is named to read it from")
    with path.open(encoding="utf-8") as file:
        level = config.log_level(file.read(_LONGEST_LEVEL).strip())
    logs.set_level(level)
    return level


def _config(role: str) -> int:
    """The table on stdout, warnings and errors on stderr."""
    from connect_trio import config

    report = config.report(role, os.environ)
    print("\n".join(report.table()), flush=True)
    _warn(report.warnings)
    _complain(report.errors)
    return WRONG if report.errors else OK


def _ssh_config(options: argparse.Namespace) -> int:
    from connect_trio.routing.names import HostNames
    from connect_trio.ssh.client_config import client_config

    try:
        host = options.host or HostNames(os.environ.get("CONNECT_PROXY_URL", "http://connect.localhost:8080")).host
        block = client_config(label=options.session, host=host, port=options.port, user=options.user)
    except ValueError as exc:
        _complain([f"ssh-config: {exc}"])
        return WRONG
    print(block, end="", flush=True)
    return OK


def _dev(options: argparse.Namespace, command: tuple[str, ...]) -> int:
    if not options.processes and (options.servers, options.proxies, options.redis) != (None, None, None):
        _complain(["--servers, --proxies and --redis need --processes: in one process there is one of each role"])
        return WRONG
    from connect_trio import logs
    from connect_trio.roles.dev import dev
    from connect_trio.roles.dev_plan import DevOptions
    from connect_trio.roles.open_files import raise_limit

    environ = os.environ
    logs.configure("DEBUG" if environ.get("CONNECT_LOG_LEVEL", "").upper() == "DEBUG" else "WARN", role="dev")
    wanted = DevOptions(
        port=options.port,
        platform_port=options.platform_port,
        root=options.root.resolve(),
        command=command,
        processes=options.processes,
        servers=options.servers or 1,
        proxies=options.proxies or 1,
        redis=options.redis,
        json=options.json,
        state=options.state,
        ssh_port=options.ssh_port,
        authorized_key=options.authorized_key,
    )
    raise_limit()
    dev(wanted, environ=environ)
    return OK


class _Parser(argparse.ArgumentParser):
    """Errors are one line, not a page of usage."""

    def error(self, message: str) -> NoReturn:
        _complain([f"{message}; see {self.prog} --help"])
        raise SystemExit(WRONG)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="connect-trio", description="A session gateway.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"connect-trio {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for name, meaning in COMMANDS.items():
        raw = argparse.RawDescriptionHelpFormatter
        command = commands.add_parser(
            name, help=meaning, description=f"{name}: {meaning}.", formatter_class=raw, allow_abbrev=False
        )
        if name == "dev":
            _add_dev_options(command)
        elif name == "ssh-config":
            _add_ssh_config_options(command)
        elif name == "config":
            command.add_argument("role", metavar="ROLE", choices=_ROLES, help=" | ".join(_ROLES))
        else:
            command.format_help = partial(_role_help, command, name, command.format_help)  # type: ignore[method-assign]
    return parser


def _role_help(command: argparse.ArgumentParser, role: str, format_help: Callable[[], str]) -> str:
    """Help with the variables of the role, which only help needs to know."""
    from connect_trio.config import ROLES, file_of, variables

    lines = ["environment variables:"]
    for _, spec in variables(ROLES[role]):
        default = "required" if spec.required else f"default {spec.default}" if spec.default else "not set by default"
        file = file_of(ROLES[role], spec)
        named = f" Or {file}: a file that holds it." if file else ""
        lines += [f"  {spec.name} ({default})", f"      {spec.meaning}{named}"]
    if role == "agent":
        lines += ["", "A tool's command may follow --; {port} in it is replaced by the port it is to listen on."]
    command.epilog = "\n".join(lines)
    return format_help()


def _add_ssh_config_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("session", metavar="SESSION", help="label of the Studio, as in its address: a23ce7967")
    add("--host", metavar="HOST", help="where Connect is reached by SSH (the host of CONNECT_PROXY_URL)")
    add("--port", type=_port, default=2222, help="its port for SSH (2222)")
    add("--user", default=os.environ.get("USER", "alice"), help="your user name at Platform (that of this machine)")


def _add_dev_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--port", type=_port, default=8080, help="port of Connect (8080; 0: any free one)")
    add("--platform-port", type=_port, default=8081, help="port of the development Platform (8081; 0: any free one)")
    add("--ssh-port", type=_port, metavar="PORT", help="port for SSH (2222; 0: any free one)")
    add("--authorized-key", type=Path, metavar="FILE", help="public keys of alice (by default your own, ~/.ssh/*.pub)")
    add("--root", type=_folder, default=Path(), metavar="DIR", help="folder that Studios show (the current one)")
    add("--processes", action="store_true", help="every role as processes of its own, over Redis")
    add("--servers", type=_count, metavar="N", help="with --processes: how many servers (1)")
    add("--proxies", type=_count, metavar="N", help="with --processes: how many proxies, which share --port (1)")
    add("--redis", type=_address, metavar="HOST:PORT", help="with --processes: a Redis that runs; otherwise our own")
    add("--json", action="store_true", help="when ready, one line of JSON on stdout; the rest goes to stderr")
    add("--state", type=Path, metavar="FILE", help="keep the same JSON in a file, replaced whenever it changes")
    parser.epilog = (
        "-- COMMAND ... runs an own tool in both Studios instead of the file server: in --root,\n"
        "with CONNECT_TOOL_PORT in its environment, and {port} in COMMAND replaced; likewise\n"
        "CONNECT_TOOL_PATH_PREFIX and {prefix}, both empty unless CONNECT_PATH_ROUTING is on."
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:6]) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give a number from 0 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= _MOST_PROCESSES):
        raise argparse.ArgumentTypeError(f"{text!r} is no count; give a number from 1 to {_MOST_PROCESSES}")
    return int(text)


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no folder; give one that exists")
    return Path(text)


def _address(text: str) -> str:
    from connect_trio.routing.names import join_address, split_address

    try:
        return join_address(*split_address(text))
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{text!r}: {exc}") from exc
