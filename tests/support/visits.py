"""Visitors without a browser: plain HTTP with cookies, as curl or a program would come, and WebSockets."""

from __future__ import annotations

import http.client
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlencode, urljoin, urlsplit

import attrs
import trio
import trio_websocket

HERE = "127.0.0.1"
"""Names under localhost are this machine (RFC 6761 section 6.3); many resolvers do not know."""

PATIENCE = 60.0
MAX_MESSAGE = 2 << 20


@attrs.frozen
class Answer:
    """headers: names in lower case; of those that occur twice the last one counts."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Visitor:
    """Somebody with cookies. via: the port to connect to, instead of the one in the address."""

    def __init__(self, *, via: int | None = None) -> None:
        self.via = via
        self._cookies: dict[str, dict[str, str]] = {}

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        form: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request over a connection of its own; cookies that it brings are kept."""
        parts = urlsplit(url)
        sent = {"Host": parts.netloc, "Connection": "close", **(headers or {})}
        if cookies := self.cookie_header(url):
            sent["Cookie"] = cookies
        if form is not None:
            body = urlencode(form).encode()
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection(HERE, self.port_for(url), timeout=PATIENCE)
        try:
            connection.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), body, sent)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        for line in answer.headers.get_all("set-cookie", []):
            self._keep(parts.hostname or "", line)
        return Answer(url, answer.status, {name.lower(): value for name, value in answer.getheaders()}, content)

    def open(self, url: str) -> Answer:
        """Visit an address as a browser does, and follow redirects."""
        return self._follow(self.request("GET", url, headers={"Accept": "text/html"}))

    def log_in(self, url: str, username: str) -> Answer:
        """Visit an address of Connect, fill in Platform's form, and end up where the visit was to go."""
        page = self.open(url)
        assert 'name="password"' in page.text, page
        form = {"username": username, "password": username}
        return self._follow(self.request("POST", page.url, headers={"Accept": "text/html"}, form=form))

    def cookie_header(self, url: str) -> str:
        """The value of the header Cookie for an address."""
        cookies = self._cookies.get(urlsplit(url).hostname or "", {})
        return "; ".join(f"{name}={value}" for name, value in cookies.items())

    def port_for(self, url: str) -> int:
        """Only Connect's hosts are behind `via`."""
        parts = urlsplit(url)
        if self.via is not None and (parts.hostname or "").endswith("connect.localhost"):
            return self.via
        return parts.port or 80

    def _follow(self, answer: Answer) -> Answer:
        trail = [answer.url]
        while answer.status in (302, 303):
            trail.append(urljoin(answer.url, answer.headers["location"]))
            assert len(trail) < 20, f"redirected in circles: {trail}"
            answer = self.request("GET", trail[-1], headers={"Accept": "text/html"})
        return answer

    def _keep(self, host: str, line: str) -> None:
        match = re.match(r"([^=;]+)=([^;]*)(.*)", line)
        assert match is not None
        name, value, attributes = match.groups()
        jar = self._cookies.setdefault(host, {})
        if "max-age=0" in attributes.lower():
            jar.pop(name, None)
        else:
            jar[name] = value


@asynccontextmanager
async def web_socket(visitor: Visitor, url: str) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    """A WebSocket of a visitor to an address that begins with "http:". Raises trio_websocket.HandshakeError."""
    parts = urlsplit(url)
    stream = await trio.open_tcp_stream(HERE, visitor.port_for(url))
    async with stream, trio.open_nursery() as nursery:
        headers = [("Cookie", visitor.cookie_header(url)), ("Origin", f"{parts.scheme}://{parts.netloc}")]
        with trio.fail_after(PATIENCE):
            connection = await trio_websocket.wrap_client_stream(
                nursery,
                stream,
                parts.netloc,
                parts.path or "/",
                extra_headers=[(name.encode(), value.encode()) for name, value in headers],
                max_message_size=MAX_MESSAGE,
            )
        async with connection:
            yield connection
