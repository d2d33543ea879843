"""A visitor's login, as a browser does it, for the cookie that the load is to carry. Stdlib only."""

from __future__ import annotations

import http.client
import time
from urllib.parse import urlencode, urljoin, urlsplit

PATIENCE = 30.0
RETRY = 0.1
MOST_REDIRECTS = 20

Cookies = dict[str, dict[str, str]]  # by host and name


class LoginFailed(Exception):
    """The way to the Studio did not end there; the text says where it did."""


def log_in(studio: str, username: str, password: str) -> str:
    """The Cookie header for a Studio's URL. Waits for an agent that is still connecting. Raises LoginFailed."""
    cookies: Cookies = {}
    deadline = time.monotonic() + PATIENCE
    while True:
        url, status, page = _follow(cookies, "GET", studio)
        if 'name="password"' in page:
            form = urlencode({"username": username, "password": password})
            url, status, page = _follow(cookies, "POST", url, form)
        if status == http.client.OK and urlsplit(url).netloc == urlsplit(studio).netloc:
            return _header(cookies, studio)
        if time.monotonic() > deadline:
            raise LoginFailed(f"{studio} led to {url}, which answered {status}: {page[:300]!r}")
        time.sleep(RETRY)


def _follow(cookies: Cookies, method: str, url: str, form: str | None = None) -> tuple[str, int, str]:
    """Ask, and go where the answers send us: the last URL, its status and its page."""
    for _ in range(MOST_REDIRECTS):
        status, location, page = _ask(cookies, method, url, form)
        if not location:
            return url, status, page
        url, method, form = urljoin(url, location), "GET", None
    raise LoginFailed(f"redirected in circles, at last to {url}")


def _ask(cookies: Cookies, method: str, url: str, form: str | None) -> tuple[int, str, str]:
    parts = urlsplit(url)
    # Names under localhost are this machine, whatever the resolver says.
    connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=PATIENCE)
    headers = {"Host": parts.netloc, "Accept": "text/html", "Sec-Fetch-Mode": "navigate"}
    if cookie := _header(cookies, url):
        headers["Cookie"] = cookie
    if form is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        headers["Origin"] = f"{parts.scheme}://{parts.netloc}"
    try:
        connection.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), form, headers)
        answer = connection.getresponse()
        jar = cookies.setdefault(parts.hostname or "", {})
        for line in answer.headers.get_all("Set-Cookie", []):
            pair = line.partition(";")[0]
            name, _, value = pair.partition("=")
            jar[name] = value
        return answer.status, answer.headers.get("Location", ""), answer.read().decode(errors="replace")
    finally:
        connection.close()


def _header(cookies: Cookies, url: str) -> str:
    jar = cookies.get(urlsplit(url).hostname or "", {})
    return "; ".join(f"{name}={value}" for name, value in jar.items() if value)
