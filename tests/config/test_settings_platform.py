"""The development Platform's policy: which workspaces have Studios, and by which addresses."""

from __future__ import annotations

import pytest

from connect_trio.config import ConfigError, load_platform

KEY = {"CONNECT_DEVPLATFORM_KEY": "key"}
WORKSPACES = "TOWER_DATA_STUDIO_ALLOWED_WORKSPACES"
PATHS = "TOWER_DATA_STUDIO_ENABLE_PATH_ROUTING"


@pytest.mark.parametrize(
    ("environ", "allowed"),
    [
        ({}, None),
        ({WORKSPACES: ""}, ()),
        ({WORKSPACES: " "}, ()),
        ({WORKSPACES: "7"}, (7,)),
        ({WORKSPACES: "1, 2"}, (1, 2)),
    ],
    ids=["not set: all", "empty: none", "blank: none", "one", "a list"],
)
def test_workspaces_are_all_of_them_a_list_or_none(environ: dict[str, str], allowed: tuple[int, ...] | None) -> None:
    assert load_platform(KEY | environ).allowed_workspaces == allowed


@pytest.mark.parametrize("text", ["main", "1,", ",", "1;2", "-1", "1.5", "1" * 13])
def test_what_is_no_list_of_workspaces_stops_the_start(text: str) -> None:
    with pytest.raises(ConfigError, match=f"{WORKSPACES} is .*write their ids"):
        load_platform(KEY | {WORKSPACES: text})


@pytest.mark.parametrize(("text", "paths"), [(None, False), ("", False), ("false", False), ("true", True)])
def test_studios_have_paths_only_where_it_is_said(text: str | None, paths: bool) -> None:
    assert load_platform(KEY | ({PATHS: text} if text is not None else {})).path_routing is paths
