"""Free ports, which nobody else has a moment later."""

from __future__ import annotations

import socket

import pytest

from connect_trio import ports
from connect_trio.ports import LOOPBACK, NoFreePort, free_ports


def test_free_ports_differ_and_avoid_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "PORTS", range(30_000, 30_400))
    found = free_ports(50, besides=range(30_000, 30_200))
    assert len(set(found)) == 50
    assert all(30_200 <= port < 30_400 for port in found)


def test_what_somebody_listens_on_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    with socket.create_server((LOOPBACK, port)):
        monkeypatch.setattr(ports, "PORTS", range(port, port + 1))
        with pytest.raises(NoFreePort, match=f"no 1 free ports between {port} and {port}; end some"):
            free_ports(1)
