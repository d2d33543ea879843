"""A browser for tests: cookies per host, redirects followed by hand, requests to a gate or to the real Platform."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

import attrs
import httpx2

from connect_trio.edge.gate import NOBODY, Admission, Gate, Reply, VisitorRequest
from connect_trio.edge.studio_paths import StudioPath, studio_path
from connect_trio.routing.names import HostNames, OwnHost, StudioHost

HTML = {"accept": "text/html", "sec-fetch-mode": "navigate"}


@attrs.frozen
class Page:
    """What a browser ends up with. admission: set where the gate would let the request through to the tool."""

    url: str
    status: int
    headers: tuple[tuple[str, str], ...]
    text: str
    admission: Admission | None = None

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def location(self) -> str:
        value = self.header("location")
        assert value is not None, f"no redirect: {self.status} {self.text}"
        return urljoin(self.url, value)

    def set_cookies(self) -> list[str]:
        return [value for key, value in self.headers if key.lower() == "set-cookie"]


class Browser:
    """One browser profile in front of one or more proxies (gates), with a real connection to Platform.

    ancestors: whose pages may show Studios in frames. paths: whether Studios are below paths, too. always: headers that
    are sent along with each request. cookies: by host, and by host and path for those that are not for the whole host.
    """

    def __init__(self, gate: Gate, *, names: HostNames, client: str = "192.0.2.1") -> None:
        self.gate = gate
        self.names = names
        self.client = client
        self.ancestors = b"'self'"
        self.paths = False
        self.always: dict[str, str] = {}
        self.cookies: dict[str, dict[str, str]] = {}
        self.extra_cookies = ""
        self.refuses_cookies: set[str] = set()
        self.trail: list[str] = []

    async def open(self, url: str) -> Page:
        """Visit an address and follow redirects."""
        page = await self.request("GET", url)
        return await self.follow(page)

    async def follow(self, page: Page) -> Page:
        for _ in range(20):
            if page.status not in (302, 303):
                return page
            page = await self.request("GET", page.location)
        raise AssertionError("redirected in circles: " + " ".join(self.trail[-8:]))

    async def log_in(self, url: str, username: str) -> Page:
        """Visit an address, fill in Platform's login form, and follow to the end."""
        page = await self.open(url)
        assert 'name="password"' in page.text, page
        form = {"username": username, "password": username}
        return await self.follow(await self.request("POST", page.url, form=form))

    async def log_out(self, page_url: str) -> Page:
        """Press the button of the logout page."""
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(page_url))
        headers = {**HTML, "origin": origin, "sec-fetch-site": "same-origin"}
        return await self.follow(await self.request("POST", page_url, headers=headers))

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        html: bool = True,
        upgrade: bool = False,
    ) -> Page:
        """One request, with the cookies for its address; those of the answer are kept."""
        self.trail.append(f"{method} {url}")
        parts = urlsplit(url)
        assert parts.hostname is not None
        sent = {**self.always, **(headers if headers is not None else HTML)}
        place = parts.hostname + parts.path
        jars = [jar for at, jar in self.cookies.items() if at == parts.hostname or ("/" in at and place.startswith(at))]
        cookie = "; ".join([*(f"{k}={v}" for jar in jars for k, v in jar.items()), self.extra_cookies])
        if cookie.strip("; "):
            sent["cookie"] = cookie.strip("; ")
        if parts.hostname.endswith((self.names.host, self.names.studio_domain)):
            page = await self._ask_gate(method, url, sent, html=html, upgrade=upgrade)
        else:
            page = await _ask_platform(method, url, sent, form)
        self._keep(parts.hostname, page)
        return page

    async def _ask_gate(self, method: str, url: str, headers: dict[str, str], *, html: bool, upgrade: bool) -> Page:
        parts = urlsplit(url)
        target = url.split(parts.netloc, 1)[1] or "/"
        request = visitor_request(
            self.names,
            parts.netloc,
            target,
            method=method,
            headers=headers,
            html=html,
            upgrade=upgrade,
            client=self.client,
            ancestors=self.ancestors,
            paths=self.paths,
        )
        answer: Reply | Admission | None = None
        if request.label is None or target.startswith(f"{request.base}/_connect"):
            answer = await self.gate.own_page(request)
            answer = answer or Reply(status=404)
        else:
            answer = await self.gate.admit(request)
        if isinstance(answer, Admission):
            return Page(url, 200, (), "", answer)
        decoded = tuple((name.decode(), value.decode()) for name, value in answer.headers)
        return Page(url, answer.status, decoded, answer.body.decode())

    def _keep(self, host: str, page: Page) -> None:
        self.cookies.setdefault(host, {})
        for line in page.set_cookies():
            match = re.match(r"([^=;]+)=([^;]*)(.*)", line)
            assert match is not None
            name, value, attributes = match.groups()
            path = re.search(r"; Path=([^;]*)", attributes)
            jar = self.cookies.setdefault(host + path[1] if path and path[1] != "/" else host, {})
            if "max-age=0" in attributes.lower():
                jar.pop(name, None)
            elif host not in self.refuses_cookies:
                jar[name] = value


def visitor_request(
    names: HostNames,
    authority: str,
    target: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    html: bool = True,
    upgrade: bool = False,
    client: str = "192.0.2.1",
    ancestors: bytes = b"'self'",
    paths: bool = False,
) -> VisitorRequest:
    """What the edge makes of a request head. ancestors: who may show pages of a Studio in frames. paths: whether
    Studios are below paths, too."""
    kind = names.classify(authority)
    assert isinstance(kind, OwnHost | StudioHost)
    place = studio_path(target.encode()) if paths and isinstance(kind, OwnHost) else None
    label, base = (kind.label, "") if isinstance(kind, StudioHost) else (None, "")
    if isinstance(place, StudioPath):
        label, base = place.label, place.base
    pairs = [("host", authority), *(headers or {}).items()]
    return VisitorRequest(
        method=method.encode(),
        target=target.encode(),
        host=authority.rpartition(":")[0] or authority,
        label=label,
        base=base,
        shared_origin=paths and isinstance(kind, OwnHost),
        headers=tuple((name.lower().encode(), value.encode()) for name, value in pairs),
        client=client,
        upgrade=upgrade,
        wants_html=html,
        frame_ancestors=ancestors if label is not None else NOBODY,
    )


async def _ask_platform(method: str, url: str, headers: dict[str, str], form: Mapping[str, str] | None) -> Page:
    async with httpx2.AsyncClient(trust_env=False, timeout=10) as http:
        answer = await http.request(method, url, headers=headers, data=dict(form) if form is not None else None)
    return Page(url, answer.status_code, tuple(answer.headers.multi_items()), answer.text)
