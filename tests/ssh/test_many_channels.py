"""What channels keep where there are as many as there may be."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from connect_trio.config import load_proxy
from connect_trio.ssh.forward import INPUT, Forward
from connect_trio.ssh.listener import MEMORY, WINDOW_LEAST, WINDOW_MOST
from connect_trio.ssh.session import Session
from tests.config.test_settings import PROXY


@attrs.define
class Around:
    """As much of `Surroundings` as a channel needs before it dials."""

    size: int

    def window(self) -> int:
        return self.size

    def touch(self) -> None:
        """Bytes passed."""


@attrs.define
class Channel:
    """Of asyncssh: it goes on calling `data` until it is paused, as far as its window reaches."""

    paused: bool = False

    def pause_reading(self) -> None:
        self.paused = True


def test_the_least_windows_of_all_channels_fit_the_memory_for_them() -> None:
    settings = load_proxy(PROXY)
    assert settings.ssh_max_connections * settings.ssh_max_channels * WINDOW_LEAST <= MEMORY


@pytest.mark.parametrize("kind", [Forward, Session])
@pytest.mark.parametrize(
    ("window", "most"), [(WINDOW_MOST, INPUT), (WINDOW_LEAST, WINDOW_LEAST)], ids=["few channels", "many channels"]
)
def test_what_waits_for_an_agent_is_no_more_than_the_window(kind: Any, window: int, most: int) -> None:
    handler, channel = kind(Around(window)), Channel()
    handler.opened(channel)
    kept = 0
    while not channel.paused:
        handler.data(bytes(1024))
        kept += 1024
    assert kept == most
