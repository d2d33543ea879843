"""npm's oidc-provider as Platform, and nginx in front: parts of a login that this project did not write."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx2

from tests.support.certificates import Authority
from tests.support.e2e import PATIENCE, wait_until
from tests.support.parts import require
from tools.system_parts import ROOT, find_node

PROGRAM = ROOT / "tests" / "oidc_provider" / "op.mjs"
TOKEN = "initial-access-token-0123456789"
SESSION = "23ce7967"

PLACE = """
server {{
    listen 127.0.0.1:{port} ssl;
    server_name {names};
    location / {{
        proxy_pass http://127.0.0.1:{upstream};
        proxy_http_version 1.1;
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Proto https;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $upgrade_or_not;
        proxy_read_timeout 1h;
    }}
}}
"""

CONFIGURATION = """
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    ssl_certificate {authority.cert_file};
    ssl_certificate_key {authority.key_file};
    map $http_upgrade $upgrade_or_not {{ default upgrade; "" ""; }}
    {places}
}}
"""


@attrs.frozen
class ForeignProvider:
    """A running provider. port: where it listens, without TLS. url: where browsers and Connect reach it."""

    port: int
    url: str

    def rotate(self) -> None:
        """Sign with a new key from now on, and publish no other."""
        self._ask("POST", "rotate")

    def forget_clients(self) -> None:
        self._ask("POST", "forget")

    def revoke(self) -> None:
        """Forget all refresh tokens."""
        self._ask("POST", "revoke")

    def agent_token(self) -> str:
        return str(self._ask("GET", "agent-token")["token"])

    def _ask(self, method: str, name: str) -> dict[str, Any]:
        answer = httpx2.request(method, f"http://127.0.0.1:{self.port}/test/{name}", trust_env=False)
        assert answer.status_code == 200
        document: dict[str, Any] = answer.json()
        return document


@contextmanager
def foreign_provider(*, port: int, url: str, connect: str, log: Path) -> Iterator[ForeignProvider]:
    """url, connect: the origins under which browsers know it and Connect."""
    package = Path(require("oidc-provider"))
    node = find_node()
    assert node is not None, "what installed the package is still there"
    command = [node, PROGRAM, package.parent.parent, port, f"{url}/api", connect, TOKEN]
    with running(list(map(str, command)), port=port, log=log):
        yield ForeignProvider(port, url)


@contextmanager
def tls_in_front(folder: Path, authority: Authority, *, port: int, places: dict[str, int]) -> Iterator[None]:
    """nginx, which ends TLS. places: host names, separated by spaces, and the port of loopback behind them."""
    authority.issue(*(name for names in places for name in names.split()))
    servers = [PLACE.format(port=port, names=names, upstream=upstream) for names, upstream in places.items()]
    configuration = folder / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, authority=authority, places="".join(servers)))
    with running([require("nginx"), "-c", str(configuration)], port=port, log=folder / "nginx.stderr"):
        yield


@contextmanager
def running(command: Sequence[str], *, port: int, log: Path) -> Iterator[None]:
    """A program that listens on this port of loopback."""

    def listens() -> bool:
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        wait_until(listens, f"{command[0]} listens")
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)
