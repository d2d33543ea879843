"""The limit of open files: raised for us, and not for what we start."""

from __future__ import annotations

import logging
import resource
import subprocess
import sys

import pytest

from connect_trio.edge.context import Limits
from connect_trio.roles import open_files

LOW = ["sh", "-c", 'ulimit -Sn 256 && ulimit -Hn 4096 && exec "$@"', "sh", sys.executable, "-c"]


def test_the_need_of_a_proxy_follows_its_limit_of_visitors() -> None:
    assert Limits().connections == open_files.VISITORS


def test_children_keep_the_limit_that_we_were_started_with() -> None:
    code = (
        "import os, resource, trio\n"
        "from connect_trio.roles.open_files import raise_limit\n"
        "print(raise_limit(), flush=True)\n"
        "async def main():\n"
        "    from connect_trio.children import start_child\n"
        "    await start_child(['sh', '-c', 'ulimit -Sn >&2; ulimit -Hn >&2'], env=os.environ).wait()\n"
        "trio.run(main)\n"
    )
    done = subprocess.run([*LOW, code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["4096"]
    assert done.stderr.split() == ["256", "4096"]


@pytest.mark.parametrize("refusal", [OSError, ValueError])
def test_a_limit_that_may_not_be_raised_stays(
    refusal: type[Exception], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise refusal

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    with caplog.at_level(logging.WARNING):
        open_files.provide("agent")
    (record,) = caplog.records
    assert "too low for the streams and tunnels that this agent is made for" in record.getMessage()
    assert vars(record)["limit"] == 1024
    assert vars(record)["needed"] == 2100


def test_no_limit_is_enough(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    open_files.provide("proxy")
    assert caplog.records == []


def test_the_development_platform_needs_nothing_special(caplog: pytest.LogCaptureFixture) -> None:
    open_files.provide("platform")
    assert caplog.records == []
