"""No stream to a session without the authorisation function: whoever opens one shows a grant, which only it makes.

A new kind of stream needs a line in STREAMS, and what that line promises is looked for in its module.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import attrs
import pytest

from connect_trio.dial import Target
from connect_trio.edge.gate import Admission, TunnelGrant
from connect_trio.identity import grants
from connect_trio.identity.grants import METHODS, Grant, issue
from tests.test_layering import PATHS, tree_of

ISSUER = "identity.control_plane"
"""The only module that may say yes."""

STREAMS = {
    "edge.exchange": "edge.http",
    "edge.tunnels": "edge.tunnels",
    "reverse": "its caller, which has a grant",
    "ssh.surroundings": "ssh.visitor",
}
"""Module that opens streams to sessions -> the one that enters them into what is live, so that they can be ended."""


def calls(module: str) -> Iterator[tuple[str, str, int]]:
    """(what, name, line): "self._dialer", "dial" for `self._dialer.dial(...)`; "", "Grant" for `Grant(...)`."""
    for node in ast.walk(tree_of(PATHS[module])):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                yield ast.unparse(node.func.value), node.func.attr, node.lineno
            elif isinstance(node.func, ast.Name):
                yield "", node.func.id, node.lineno


def opens_streams(module: str) -> bool:
    """By a `Target`, which is all that a dialer takes, or by a connection to a server for a tunnel."""
    return any(name == "Target" or (name == "connect" and what.endswith("context")) for what, name, _ in calls(module))


def test_only_the_authorisation_function_says_yes() -> None:
    for module in PATHS:
        makers = {name for what, name, _ in calls(module) if name in ("Grant", "issue") and what in ("", "grants")}
        expected = {"identity.grants": {"Grant"}, ISSUER: {"issue"}}.get(module, set())
        assert makers == expected, f"{module} makes grants; only {ISSUER} may"
        private = "_SEAL" in PATHS[module].read_text(encoding="utf-8")
        assert not private or module == "identity.grants", f"{module} is not to know the seal"


def test_every_kind_of_stream_is_known_here() -> None:
    found = {module for module in PATHS if opens_streams(module)}
    assert found == set(STREAMS), "a new kind of stream: show a grant, enter it into SessionScopes, and add it here"


@pytest.mark.parametrize("module", [keeper for keeper in STREAMS.values() if keeper in PATHS])
def test_what_is_opened_is_entered_into_what_can_be_ended(module: str) -> None:
    entered = [line for what, name, line in calls(module) if name == "enter" and what.endswith("scopes")]
    assert entered, f"{module} is to enter its streams by SessionScopes.enter"


def test_streams_are_made_in_one_place_from_what_shows_a_grant() -> None:
    makers = {module for module in PATHS for _, name, _ in calls(module) if name == "prepare"}
    assert makers - {"mux.opener"} == {"links"}, "a stream to an agent is made from a `Target` only"
    (dial,) = (
        node
        for node in ast.walk(tree_of(PATHS["dial"]))
        if isinstance(node, ast.AsyncFunctionDef) and node.name == "dial"
    )
    assert [ast.unparse(each.annotation) for each in dial.args.args if each.annotation] == ["Target"]


@pytest.mark.parametrize("kind", [Target, Admission, TunnelGrant])
def test_nothing_that_lets_in_can_be_had_without_a_grant(kind: type) -> None:
    needed = {field.name for field in attrs.fields(kind) if field.default is attrs.NOTHING}
    assert "grant" in needed
    values = dict.fromkeys(needed - {"grant"}, "x")
    with pytest.raises(TypeError, match="grant"):
        kind(**values)


def test_a_grant_cannot_be_made_by_hand() -> None:
    with pytest.raises(TypeError, match="seal"):
        Grant(subject="a", session="23ce7967", method="http")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="seal"):
        Grant(subject="a", session="23ce7967", method="http", seal=grants._Seal())
    with pytest.raises(ValueError, match="telnet"):
        issue(subject="a", session="23ce7967", method="telnet")
    assert {issue(subject="a", session="23ce7967", method=method).method for method in METHODS} == METHODS
