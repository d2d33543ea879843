"""Pages of others, with a frame in them: on one port of loopback, for whatever name under localhost is asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

import attrs


@attrs.frozen
class Portal:
    port: int

    def origin(self, host: str) -> str:
        return f"http://{host}:{self.port}"

    def page(self, host: str, shows: str) -> str:
        """The address of a page of this host that has another address in a frame."""
        return f"{self.origin(host)}/?{urlencode({'shows': shows})}"

    def cookie(self, host: str) -> str:
        """The address of a page that sets a cookie for frames everywhere, and says which ones came along."""
        return f"{self.origin(host)}/cookie"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        if parts.path == "/cookie":
            self.send_header("Set-Cookie", "third=party; SameSite=None; Secure")
            content = f"<!doctype html><p>Cookies: {escape(self.headers.get('Cookie', 'none'))}</p>"
        else:
            shows = escape(parse_qs(parts.query).get("shows", ["about:blank"])[0])
            content = (
                "<!doctype html><title>A page around a Studio</title><h1>A page around a Studio</h1>"
                f'<iframe src="{shows}" style="width:100%;height:70vh"></iframe>'
            )
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def portal() -> Iterator[Portal]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Portal(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
