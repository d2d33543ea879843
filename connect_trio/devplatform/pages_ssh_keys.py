"""The page where users keep their SSH keys."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connect_trio.devplatform.browsers import Browsers
from connect_trio.devplatform.forms import read_form
from connect_trio.devplatform.state import PlatformState


class SshKeyPages:
    """Everybody sees and changes their own keys only."""

    def __init__(self, state: PlatformState, browsers: Browsers) -> None:
        self._state = state
        self._browsers = browsers

    def routes(self) -> list[Route]:
        return [
            Route("/ssh-keys", self.keys, methods=["GET"]),
            Route("/ssh-keys", self.add, methods=["POST"]),
            Route("/ssh-keys/remove", self.remove, methods=["POST"]),
        ]

    async def keys(self, request: Request) -> Response:
        return self._page(request)

    async def add(self, request: Request) -> Response:
        form = await read_form(request)
        login = self._browsers.require_own_form(request, form)
        try:
            self._state.ssh_keys.add(login.user.username, form.get("key", ""))
        except ValueError as exc:
            return self._page(request, error=str(exc), status=400)
        return self._browsers.redirect("/ssh-keys", status=303)

    async def remove(self, request: Request) -> Response:
        form = await read_form(request)
        login = self._browsers.require_own_form(request, form)
        self._state.ssh_keys.remove(login.user.username, form.get("fingerprint", ""))
        return self._browsers.redirect("/ssh-keys", status=303)

    def _page(self, request: Request, *, error: str = "", status: int = 200) -> Response:
        login = self._browsers.login(request)
        if login is None:
            return self._browsers.redirect("/login")
        keys = self._state.ssh_keys.of(login.user.username)
        return self._browsers.page("ssh_keys.html", status=status, login=login, keys=keys, error=error)
