"""Platform's own page: the sessions, who may open them, and their switches."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from connect_trio.devplatform.browsers import Browsers
from connect_trio.devplatform.forms import Refusal, read_form
from connect_trio.devplatform.state import PlatformState
from connect_trio.routing.names import HostNames


class Pages:
    """names: the hosts of Connect, and so of the sessions."""

    def __init__(self, state: PlatformState, browsers: Browsers, *, names: HostNames) -> None:
        self._state = state
        self._browsers = browsers
        self._names = names

    async def home(self, request: Request) -> Response:
        login = self._browsers.login(request)
        if login is None:
            return self._browsers.redirect("/login")
        rows = [
            {
                "studio": studio,
                "url": self._names.studio_url(studio.label),
                "people": sorted({studio.owner, *studio.guests}),
                "may_open": studio.refusal(login.user.username) is None,
                "is_owner": studio.owner == login.user.username,
            }
            for studio in self._state.studios.values()
        ]
        return self._browsers.page("home.html", login=login, rows=rows)

    async def frame(self, request: Request) -> Response:
        """A Studio inside a page of Platform's."""
        login = self._browsers.login(request)
        if login is None:
            return self._browsers.redirect("/login")
        studio = self._state.studios.get(request.path_params["id"])
        if studio is None:
            raise Refusal(404, "not_found", "There is no such Studio.")
        # A policy is for redirects in the frame too, and a login goes by way of Connect's own host and of this one.
        origins = f"{self._names.studio_origin(studio.label)} {self._names.own_origin} 'self'"
        url = self._names.studio_url(studio.label)
        return self._browsers.page("frame.html", shows=origins, studio=studio, url=url)

    async def stop(self, request: Request) -> Response:
        return await self._set_state(request, "stopped")

    async def start(self, request: Request) -> Response:
        return await self._set_state(request, "running")

    async def _set_state(self, request: Request, state: str) -> Response:
        login = self._browsers.require_own_form(request, await read_form(request))
        studio = self._state.studios.get(request.path_params["id"])
        if studio is None or studio.owner != login.user.username:
            raise Refusal(403, "forbidden", "Only its owner starts and stops a Studio.")
        studio.state = state
        return self._browsers.redirect("/", status=303)
