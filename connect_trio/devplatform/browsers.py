"""Browsers: pages, cookies, and who is logged in with which of them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from importlib.resources import files
from urllib.parse import urlsplit

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from connect_trio.devplatform.forms import Refusal
from connect_trio.devplatform.state import Login, ParkedLogin, PlatformState

LOGIN_COOKIE = "devplatform_session"
BROWSER_COOKIE = "devplatform_browser"

# Without form-action: browsers apply it to the redirects after a form too, and a login ends on other origins.
_POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'"
_PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


class Browsers:
    """Pages for browsers. url: the address of this Platform."""

    def __init__(self, state: PlatformState, *, url: str) -> None:
        self._state = state
        parts = urlsplit(url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._secure = parts.scheme == "https"
        loader = jinja2.PackageLoader("connect_trio.devplatform", "")
        self._templates = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
        self._style = files("connect_trio.devplatform").joinpath("platform.css").read_bytes()

    def page(self, template: str, *, status: int = 200, shows: str | None = None, **values: object) -> Response:
        """shows: where the page's frames may go, as the CSP directive frame-src has it; None for a page without any."""
        content = self._templates.get_template(template).render(values)
        policy = _POLICY if shows is None else f"{_POLICY}; frame-src {shows}"
        headers = {**_PAGE_HEADERS, "Content-Security-Policy": policy}
        return HTMLResponse(content, status_code=status, headers=headers)

    def message(self, title: str, text: str, *, status: int = 200) -> Response:
        return self.page("message.html", status=status, title=title, text=text)

    async def style(self, _: Request) -> Response:
        return Response(self._style, media_type="text/css", headers={"Cache-Control": "max-age=3600"})

    async def refusal_as_page(self, _: Request, exc: Exception) -> Response:
        assert isinstance(exc, Refusal)
        return self.message("That did not work", exc.text, status=exc.status)

    def login(self, request: Request) -> Login | None:
        """Who is logged in with this browser."""
        return self._state.logins.get(request.cookies.get(LOGIN_COOKIE))

    def log_in(self, request: Request, response: Response, login: Login) -> None:
        """The browser gets a new cookie: one known from before the login is of no use afterwards."""
        self._state.logins.pop(request.cookies.get(LOGIN_COOKIE))
        name = secrets.token_urlsafe(32)
        self._state.logins.put(name, login)
        self._set_cookie(response, LOGIN_COOKIE, name)

    def log_out(self, request: Request, response: Response) -> Login | None:
        """Who was logged in."""
        response.delete_cookie(LOGIN_COOKIE)
        return self._state.logins.pop(request.cookies.get(LOGIN_COOKIE))

    def park(self, request: Request, parked: ParkedLogin) -> Response:
        """Keep what a login is for, and send this browser (and no other) to the login page for it."""
        browser = request.cookies.get(BROWSER_COOKIE, "")
        if len(browser) != 43:  # as long as `token_urlsafe(32)`; kept where it is there, for the sake of other tabs
            browser = secrets.token_urlsafe(32)
        parked.browser = browser
        name = secrets.token_urlsafe(32)
        self._state.parked.put(name, parked)
        response = self.redirect(f"/login?request={name}")
        self._set_cookie(response, BROWSER_COOKIE, browser)
        return response

    def parked(self, request: Request, name: str) -> ParkedLogin | None:
        """What was parked under `name`, if it was for this browser."""
        parked = self._state.parked.get(name)
        cookie = request.cookies.get(BROWSER_COOKIE, "")
        if parked is None or not secrets.compare_digest(parked.browser.encode(), cookie.encode()):
            return None
        return parked

    def require_own_form(self, request: Request, form: Mapping[str, str]) -> Login:
        """Who sent a form of ours. Raises Refusal if nobody is logged in or another site sent it."""
        login = self.login(request)
        token = form.get("form_token", "")
        if login is None or not secrets.compare_digest(token.encode(), login.form_token.encode()):
            raise Refusal(403, "forbidden", "This form is out of date. Go back, reload the page and try again.")
        return login

    def comes_from_elsewhere(self, request: Request) -> bool:
        """Whether the browser says that another site sent this form."""
        site = request.headers.get("sec-fetch-site")
        if site is not None:
            return site not in ("same-origin", "none")
        return request.headers.get("origin", self._origin) != self._origin

    def redirect(self, url: str, *, status: int = 302, headers: Mapping[str, str] | None = None) -> Response:
        return RedirectResponse(url, status_code=status, headers={"Cache-Control": "no-store", **(headers or {})})

    def _set_cookie(self, response: Response, name: str, value: str) -> None:
        response.set_cookie(name, value, path="/", httponly=True, samesite="lax", secure=self._secure)
