"""The contract with operators: names, defaults and readers of variables, as Connect's installation page has them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from connect_trio.config import NOT_READ, ROLES, Variable, names, variables

PACKAGE = Path(__file__).resolve().parents[2] / "connect_trio"
REQUIRED = "required"

# name, default (None: there is none), readers
CONTRACT: list[tuple[str, str | None, str]] = [
    ("CONNECT_REDIS_ADDRESS", "redis:6379", "server"),
    ("CONNECT_REDIS_ADDRESS", REQUIRED, "proxy"),
    ("CONNECT_REDIS_USER", None, "server proxy"),
    ("CONNECT_REDIS_PASSWORD", None, "server proxy"),
    ("CONNECT_REDIS_DB", "0", "server proxy"),
    ("CONNECT_REDIS_PREFIX", "connect:session", "server proxy"),
    ("CONNECT_REDIS_TLS_ENABLE", "false", "server proxy"),
    ("CONNECT_REDIS_TLS_SKIP_VERIFY", "false", "server proxy"),
    ("CONNECT_REDIS_TLS_KEY_FILE", None, "server proxy"),
    ("CONNECT_REDIS_TLS_CERT_FILE", None, "server proxy"),
    ("CONNECT_LISTENER_PORT", "7777", "server"),
    ("CONNECT_TUNNEL_PORT", "7070", "server"),
    ("CONNECT_MANAGEMENT_PORT", None, "server proxy"),
    ("CONNECT_MANAGEMENT_AUTH_KEY", None, "server"),
    ("CONNECT_HOST_DOMAIN", None, "server"),
    ("CONNECT_HTTP_PORT", "80", "proxy"),
    ("CONNECT_PROXY_URL", REQUIRED, "proxy"),
    ("CONNECT_TUNNEL_URL", REQUIRED, "proxy"),
    ("PLATFORM_URL", REQUIRED, "proxy"),
    ("CONNECT_STORAGE_ROOT", "/data", "proxy"),
    ("CONNECT_LOG_LEVEL", "INFO", "server proxy"),
    ("CONNECT_CLIENT_NAME", "tower-connect-proxy-client", "proxy"),
    ("CONNECT_GRANT_TYPE", "authorization_code", "proxy"),
    ("CONNECT_OIDC_CLIENT_REGISTRATION_TOKEN", None, "proxy"),
    ("LOCAL_CACHE_TTL", "2m", "proxy"),
    ("CONNECT_TRUSTED_PROXY_CIDRS", "127.0.0.1/32", "proxy"),
    ("CONNECT_SSH_ENABLED", "false", "proxy"),
    ("CONNECT_SSH_ADDR", ":2222", "proxy"),
    ("CONNECT_SSH_KEY_PATH", None, "proxy"),
    ("CONNECT_SSH_KEY_VALUE_BASE64", None, "proxy"),
    ("CONNECT_SSH_MAX_CONNECTIONS", "2000", "proxy"),
    ("CONNECT_SSH_MAX_CONN_CHANNELS", "30", "proxy"),
    ("CONNECT_SSH_HANDSHAKE_TIMEOUT", "1m", "proxy"),
    ("CONNECT_TOOL_PORT", None, "agent"),
    ("CONNECT_TOOL_PATH_PREFIX", None, "agent"),
    ("CONNECT_CLIENT_LOG_LEVEL", "INFO", "agent"),
    ("TOWER_DATA_STUDIO_ALLOWED_WORKSPACES", None, "platform"),
    ("TOWER_DATA_STUDIO_ENABLE_PATH_ROUTING", "false", "platform"),
]

# Variables of one process for another of ours, not of operators for a role.
INTERNAL = {"CONNECT_READY_FD"}

# Settings whose part of Connect is still to come.
TO_COME = {"management_port", "management_auth_key"}


def of_role(role: str) -> dict[str, Variable]:
    return {spec.name: spec for _, spec in variables(ROLES[role])}


@pytest.mark.parametrize(
    ("name", "default", "role"), [(name, default, role) for name, default, roles in CONTRACT for role in roles.split()]
)
def test_each_variable_of_the_contract_is_read_with_its_default(name: str, default: str | None, role: str) -> None:
    if name in NOT_READ:
        return
    spec = of_role(role)[name]
    assert spec.required == (default == REQUIRED)
    assert (spec.default or None) == (None if default == REQUIRED else default)
    assert not spec.addition


def test_what_is_not_of_the_contract_is_marked_as_an_addition() -> None:
    contract = {name for name, _, _ in CONTRACT}
    for role in ROLES:
        assert {name for name, spec in of_role(role).items() if not spec.addition} <= contract


def test_every_secret_may_come_from_a_file() -> None:
    for settings in ROLES.values():
        known = set(names(settings))
        assert all(f"{spec.name}_FILE" in known for _, spec in variables(settings) if spec.secret)


def test_the_code_names_no_variable_that_is_not_declared() -> None:
    known = {name for settings in ROLES.values() for name in names(settings)} | INTERNAL | set(NOT_READ)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and is_variable(node.value):
                assert node.value in known, f"{path.name}:{node.lineno}"


def is_variable(text: str) -> bool:
    name = text.startswith(("CONNECT_", "PLATFORM_", "LOCAL_", "TOWER_")) and not text.endswith("_")
    return name and text.isupper() and text.replace("_", "").isalnum()


def test_no_setting_is_declared_that_nothing_uses() -> None:
    sources = [*PACKAGE.glob("roles/*.py"), *PACKAGE.glob("config/settings*.py"), PACKAGE / "cli.py"]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sources]
    used = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for settings in ROLES.values():
        unused = {field for field, _ in variables(settings)} - used - TO_COME
        assert not unused, f"{settings.__name__}: nothing reads {unused}"
