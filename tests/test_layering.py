"""The layers of the package: who may import whom, who owns which foreign library, and how long things may get.

A new module needs a line in LEVELS; a new foreign library needs one in OWNERS. See docs/design.md, "Layers".
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "connect_trio"
HERE = "tests/test_layering.py"

# Module -> level; "package.*" speaks for every module of a package that has no line of its own.
# A module imports from lower levels, or from its own package what is not above it.
LEVELS = {
    "": 0,  # connect_trio/__init__.py
    # 0: pure. Driven by calls, bytes and `now`; no clock, no randomness, no I/O.
    "mux": 0,
    "mux.*": 0,
    "routing": 0,
    "routing.names": 0,
    "routing.registry": 0,
    "identity": 0,
    "identity.tokens": 0,
    "identity.activity": 0,
    "identity.grants": 0,
    "identity.rounds": 0,
    "edge.gate": 0,
    "edge.headers": 0,
    "edge.framing": 0,
    "edge.path_headers": 0,
    "agent.backoff": 0,
    "ssh.crowd": 0,
    "ssh.proxy_header": 0,
    "metrics": 0,
    "context": 0,
    "control": 0,
    "channels": 0,
    "channels.*": 0,
    "transport.complaints": 0,
    "transport.keyring": 0,
    "transport.proofs": 0,
    # 1: mechanisms on trio.
    "mux.session": 1,
    "mux.hub": 1,
    "mux.stream": 1,
    "mux.splice": 1,
    "mux.transport": 1,
    "transport.*": 1,
    "httpio": 1,
    "pump": 1,
    "control_stream": 1,
    "children": 1,
    "launch": 1,
    "ports": 1,
    # 2: one foreign system each.
    "routing.memory": 2,
    "routing.redis": 2,
    "routing.cache": 2,
    "routing.shared_key": 2,
    "identity.*": 2,
    "asgi": 2,
    # 3: where a name becomes a stream.
    "dial": 3,
    "link_pool": 3,
    "links": 3,
    "ways": 3,
    "sessions": 3,
    "session_tunnels": 3,
    "reverse": 3,
    # 4: services; packages here never import each other.
    "edge.*": 4,
    "agent.*": 4,
    "ssh.*": 4,
    "management.*": 4,
    "devplatform.*": 4,
    # 5: wiring.
    "roles.*": 5,
    "cli": 5,
    "config.*": 5,
    "settings": 5,  # settings_types, settings_env
    "logs": 5,
    "__main__": 5,
}

# One way, at the same level: the pump joins two kinds of streams, so it knows both; transports keep the mux's promise
# of what a transport is, and a tunnel begins with HTTP; a child becomes its program by way of the launcher. What the
# gate says yes with is the authorisation function's.
EXCEPTIONS = {
    ("pump", "mux"),
    ("pump", "transport"),
    ("transport", "mux"),
    ("transport", "httpio"),
    ("children", "launch"),
    ("edge", "identity"),
}

# Modules of one level that form a group of their own, as if they were one package.
GROUPS = (
    {"dial", "link_pool", "links", "reverse", "session_tunnels", "sessions", "ways"},
    {"roles", "cli", "config", "logs", "__main__"},
)

IMPURE = {
    *("trio", "anyio", "sniffio", "asyncio", "concurrent", "threading", "multiprocessing", "subprocess"),
    *("time", "random", "secrets", "os", "pathlib", "tempfile", "logging", "signal"),
    *("socket", "select", "selectors", "ssl"),
}
IMPURE_CALLS = {("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")}

# Foreign library -> the modules or packages that may import it; None: every module.
OWNERS: dict[str, set[str] | None] = {
    "attrs": None,
    "trio": None,
    "anyio": {"routing.redis"},
    "asyncssh": {"ssh.bridge"},
    "coredis": {"routing.redis"},
    "h11": {"httpio"},
    "httpx2": {"identity", "agent", "devplatform", "roles"},
    "hypercorn": {"asgi"},
    "jinja2": {"agent", "devplatform", "edge", "management"},
    "joserfc": {"devplatform", "identity"},
    "prometheus_client": {"management"},
    "markupsafe": {"agent", "devplatform", "edge", "management"},
    "python_multipart": {"agent", "devplatform"},
    "starlette": {"agent", "asgi", "devplatform", "management"},
    "wsproto": {"edge.websocket", "transport.websocket"},
}

FILE_LINES = 400
FUNCTION_LINES = 50

SOURCES = sorted((ROOT / PACKAGE).rglob("*.py"))
TESTS = sorted(path for folder in ("tests", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py"))


def module_of(path: Path) -> str:
    """The dotted name below the package: "mux.frames"; a package's `__init__` has the package's name."""
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {module_of(path): path for path in SOURCES}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def listed_in(module: str) -> str | None:
    """The line of LEVELS that speaks for a module.

    `routing.redis_scripts` shares the line of `routing.redis`; a package without a line of its own is its modules'.
    """
    parent, _, name = module.rpartition(".")
    family = f"{parent}.{name.partition('_')[0]}".lstrip(".")
    packages = [module]
    while "." in packages[-1]:
        packages.append(packages[-1].rpartition(".")[0])
    return next((line for line in (module, family, *(f"{package}.*" for package in packages)) if line in LEVELS), None)


def level_of(module: str) -> int:
    listed = listed_in(module)
    assert listed is not None, f"{PACKAGE}/{module.replace('.', '/')} has no level: add a line to LEVELS in {HERE}"
    return LEVELS[listed]


def imports_of(path: Path, *, at_import_time: bool = False) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of every import; with `at_import_time` only those that run when the module is imported."""
    pending: list[ast.AST] = [tree_of(path)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif at_import_time and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        elif at_import_time and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending.extend(node.orelse)
        else:
            pending.extend(ast.iter_child_nodes(node))


def own_imports(module: str, *, at_import_time: bool = False) -> Iterator[tuple[str, int]]:
    """Imports of the package's own modules: `from connect_trio.mux import frames` names mux.frames."""
    for name, line in imports_of(PATHS[module], at_import_time=at_import_time):
        if within(name, PACKAGE):
            target = name[len(PACKAGE) + 1 :]
            while target not in PATHS:  # a class or function of a module
                target = target.rpartition(".")[0]
            yield target, line


def foreign_imports(module: str) -> Iterator[tuple[str, int]]:
    for name, line in imports_of(PATHS[module]):
        top = name.partition(".")[0]
        if top != PACKAGE and top not in sys.stdlib_module_names:
            yield top, line


def may_import(module: str, target: str) -> bool:
    here, there = module.partition(".")[0], target.partition(".")[0]
    if target == "" or level_of(target) < level_of(module):
        return True
    if level_of(target) > level_of(module):
        return False
    return here == there or (here, there) in EXCEPTIONS or any({here, there} <= group for group in GROUPS)


every_module = pytest.mark.parametrize("module", sorted(PATHS), ids=lambda module: module or PACKAGE)


@every_module
def test_a_module_imports_only_from_below_or_from_its_own_package(module: str) -> None:
    wrong = [
        f"line {line}: {module} (level {level_of(module)}) imports {target} (level {level_of(target)})"
        for target, line in own_imports(module)
        if not may_import(module, target)
    ]
    assert not wrong, "\n".join(wrong)


@every_module
def test_the_lowest_level_knows_no_clock_no_randomness_and_no_io(module: str) -> None:
    if level_of(module) > 0:
        return
    imports = [f"line {line}: {name}" for name, line in imports_of(PATHS[module]) if name.partition(".")[0] in IMPURE]
    calls = [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree_of(PATHS[module]))
        if isinstance(node, ast.Attribute) and (ast.unparse(node.value).rpartition(".")[2], node.attr) in IMPURE_CALLS
    ]
    assert not imports + calls, f"{module} is level 0, and pure: {imports + calls}"


@every_module
def test_each_foreign_library_has_its_owner(module: str) -> None:
    for library, line in foreign_imports(module):
        assert library in OWNERS, f"line {line}: {library} has no owner: add it to OWNERS in {HERE}"
        owners = OWNERS[library]
        allowed = owners is None or any(within(module, o) or module.startswith(f"{o}_") for o in owners)
        assert allowed, f"line {line}: {library} belongs to {', '.join(sorted(owners or ()))}, not to {module}"


@every_module
def test_asyncio_stays_behind_the_bridge(module: str) -> None:
    inside = module.startswith("ssh.bridge") or module in ("ssh.loop", "ssh.transport")
    lines = [line for name, line in imports_of(PATHS[module]) if name.partition(".")[0] == "asyncio"]
    assert inside or not lines, f"lines {lines}: asyncio belongs to ssh.bridge, ssh.loop and ssh.transport"


@every_module
def test_mux_stands_alone(module: str) -> None:
    if not within(module, "mux"):
        return
    foreign = {library for library, _ in foreign_imports(module)} - {"trio", "attrs"}
    own = {target for target, _ in own_imports(module) if target and not within(target, "mux")}
    assert not foreign | own, f"{module} imports {foreign | own}; mux is to be embedded anywhere with trio and attrs"


def test_importing_mux_does_not_import_trio() -> None:
    code = "import sys, connect_trio.mux; sys.exit('trio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_only_wiring_sees_the_configuration() -> None:
    readers = {module for module in PATHS if any(within(target, "config") for target, _ in own_imports(module))}
    others = {reader for reader in readers if reader.partition(".")[0] not in ("roles", "cli", "config")}
    assert not others, f"these take plain arguments instead: {others}"


def test_no_import_cycles() -> None:
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, "import cycle: " + " -> ".join([*path[path.index(module) :], module])
        if module not in finished:
            for target, _ in own_imports(module, at_import_time=True):
                visit(target, (*path, module))
            finished.add(module)

    for module in PATHS:
        visit(module, ())


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines < FILE_LINES, f"{lines} lines; split it below {FILE_LINES}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_stay_short(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            has_docstring = ast.get_docstring(node) is not None
            docstring = (node.body[0].end_lineno or 0) - node.body[0].lineno + 1 if has_docstring else 0
            lines = (node.end_lineno or 0) - node.lineno + 1 - docstring
            assert lines < FUNCTION_LINES, f"{path.name}:{node.lineno}: {node.name} has {lines} lines; split it"


def test_the_table_names_only_what_exists() -> None:
    """A line may announce a module that is to come, but not one of a package that is gone."""
    packages = {module.partition(".")[0] for module in PATHS}
    stale = [name for name in LEVELS if "." in name and name.partition(".")[0] not in packages]
    assert not stale, f"LEVELS in {HERE} names packages that are gone: {stale}"
