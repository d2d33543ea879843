"""HAProxy in front of proxies, as an operator would set it up: it asks each for `/readyz` and goes by the answer."""

from __future__ import annotations

import csv
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.support.connections import listened_to
from tests.support.e2e import ARTIFACTS, wait_until
from tests.support.parts import require
from tests.support.visits import HERE

SERVED_BY = "X-Served-By"
"""In answers of a balancer that alternates: "proxy0", "proxy1", ..."""

CONFIGURATION = """\
global
    maxconn 4000
    stats socket {socket} mode 600 level operator

defaults
    mode http
    option http-keep-alive
    option redispatch 1
    option forwardfor
    retries 3
    timeout connect 10s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
    timeout check 10s

frontend visitors
    bind {here}:{port}
    default_backend proxies

backend proxies
    balance roundrobin
    option httpchk GET /readyz
    http-check expect status 200
    default-server check inter 200ms fall 1 rise 1
"""


ALTERNATING = f"""\
    option httpclose
    http-reuse never
    http-response set-header {SERVED_BY} %s
"""


@attrs.frozen
class Balancer:
    """port: where visitors come in."""

    port: int
    _socket: Path

    def states(self) -> list[str]:
        """What it thinks of each proxy: "UP", "DOWN", ..."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self._socket))
            sock.sendall(b"show stat\n")
            with sock.makefile() as lines:
                rows = list(csv.DictReader(lines))
        return [row["status"] for row in rows if row["svname"].startswith("proxy")]


@contextmanager
def balancer(
    port: int, proxies: Sequence[tuple[int, int]], work: Path, *, alternating: bool = False
) -> Iterator[Balancer]:
    """proxies: of each the port and the management port. work: a folder for its files. alternating: it gives each
    request to the next one, without any memory of who came, and says which that was (`SERVED_BY`)."""
    control = work / "haproxy.sock"
    servers = (
        f"    server proxy{number} {HERE}:{one} port {management}\n" for number, (one, management) in enumerate(proxies)
    )
    configuration = work / "haproxy.cfg"
    text = CONFIGURATION.format(socket=control, here=HERE, port=port)
    text += (ALTERNATING if alternating else "") + "".join(servers)
    configuration.write_text(text)
    with (ARTIFACTS / "haproxy.log").open("wb") as log:
        process = subprocess.Popen(
            [require("haproxy"), "-db", "-f", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def listens() -> bool:
        assert process.poll() is None, (ARTIFACTS / "haproxy.log").read_text()
        return port in listened_to() and control.exists()

    try:
        wait_until(listens, "HAProxy")
        yield Balancer(port, control)
    finally:
        process.kill()
        process.wait()
