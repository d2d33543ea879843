"""Errors as lines for whoever started a role."""

from __future__ import annotations

import pytest

from connect_trio.config import ConfigError
from connect_trio.roles.dev_plan import CannotRun
from connect_trio.roles.listeners import CannotListen
from connect_trio.roles.problems import explain


def test_groups_are_taken_apart_and_repetitions_left_out() -> None:
    inner = ExceptionGroup("", [CannotListen("port 1 is in use"), CannotRun("no Redis")])
    assert explain(ExceptionGroup("", [inner, CannotRun("no Redis")])) == (1, ["port 1 is in use", "no Redis"])


def test_every_error_of_the_configuration_has_its_line() -> None:
    assert explain(ConfigError(["A is not set", "B is wrong"])) == (2, ["A is not set", "B is wrong"])


def test_errors_of_the_system_name_their_file() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        open("/no/such/file")  # noqa: SIM115
    assert explain(caught.value) == (1, ["/no/such/file: No such file or directory"])
    assert explain(OSError("all of them failed")) == (1, ["all of them failed"])


def test_what_nobody_expected_is_raised_again_whole() -> None:
    group = ExceptionGroup("", [CannotRun("no Redis"), ValueError("a bug")])
    with pytest.raises(ExceptionGroup) as caught:
        explain(group)
    assert caught.value is group
