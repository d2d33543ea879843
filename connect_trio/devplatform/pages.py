"""Platform's own page: the sessions, who may open them, who is there, and their switches."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connect_trio.devplatform.browsers import Browsers
from connect_trio.devplatform.forms import Refusal, read_form
from connect_trio.devplatform.state import Login, PlatformState
from connect_trio.devplatform.studios import LIFE, NotStarted, Permission, Studio
from connect_trio.routing.names import HostNames

_PATH = "/_studio"


class Pages:
    """names: the hosts of Connect, and so of the sessions."""

    def __init__(self, state: PlatformState, browsers: Browsers, *, names: HostNames) -> None:
        self._state = state
        self._browsers = browsers
        self._names = names

    def routes(self) -> list[Route]:
        return [
            Route("/", self.home),
            Route("/sessions/{id}", self.frame),
            Route("/sessions/{id}/stop", self.stop, methods=["POST"]),
            Route("/sessions/{id}/start", self.start, methods=["POST"]),
            Route("/sessions/{id}/extend", self.extend, methods=["POST"]),
            Route("/sessions/{id}/share", self.share, methods=["POST"]),
        ]

    async def home(self, request: Request) -> Response:
        login = self._browsers.login(request)
        if login is None:
            return self._browsers.redirect("/login")
        rows = [
            {
                "studio": studio,
                "url": self._url(studio),
                **self._sharing(studio),
                **self._presence(studio),
                **self._rights(studio, login.user.username),
            }
            for studio in self._state.all_studios()
        ]
        users = sorted(self._state.users)
        return self._browsers.page("home.html", login=login, rows=rows, users=users)

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
        return self._browsers.page("frame.html", shows=origins, studio=studio, url=self._url(studio))

    async def stop(self, request: Request) -> Response:
        _, studio = await self._with(request, Permission.MANAGE)
        studio.stop()
        return self._browsers.redirect("/", status=303)

    async def start(self, request: Request) -> Response:
        _, studio = await self._with(request, Permission.MANAGE)
        try:
            studio.start(self._state.clock(), self._state.policy)
        except NotStarted as exc:
            raise Refusal(409, "not_started", str(exc)) from exc
        return self._browsers.redirect("/", status=303)

    async def extend(self, request: Request) -> Response:
        _, studio = await self._with(request, Permission.EXTEND, Permission.MANAGE)
        if studio.running:
            studio.extend(self._state.clock(), LIFE)
        return self._browsers.redirect("/", status=303)

    async def share(self, request: Request) -> Response:
        """`private`: "yes" or "no". `guest`: the user who may open it all the same; none if left out."""
        form, studio = await self._with(request, Permission.SHARE)
        guest = form.get("guest")
        if form.get("private") not in ("yes", "no") or not (guest is None or guest in self._state.users):
            raise Refusal(400, "invalid_request", "Say whether it is private, and name a user of this Platform.")
        studio.private = form["private"] == "yes"
        studio.guests = frozenset({guest} if guest is not None else ())
        return self._browsers.redirect("/", status=303)

    async def _with(self, request: Request, *any_of: Permission) -> tuple[dict[str, str], Studio]:
        """The form, and the session that it is about. Raises Refusal unless its sender has one of the permissions."""
        form = await read_form(request)
        login: Login = self._browsers.require_own_form(request, form)
        studio = self._state.studio(request.path_params["id"])
        if studio is None or not set(any_of) & set(self._state.rules.permissions(login.user.username, studio)):
            raise Refusal(403, "forbidden", "You may not do that to this Studio; ask its owner.")
        return form, studio

    def _url(self, studio: Studio) -> str:
        if self._state.policy.path_routing:
            return f"{self._names.own_origin}{_PATH}/{studio.label}/"
        return self._names.studio_url(studio.label)

    def _sharing(self, studio: Studio) -> dict[str, Any]:
        workspace = self._state.rules.workspaces.get(studio.workspace)
        people = [name for name in self._state.users if self._state.rules.refusal(name, studio) is None]
        return {"workspace": workspace.name if workspace is not None else "unknown", "people": sorted(people)}

    def _presence(self, studio: Studio) -> dict[str, Any]:
        now = self._state.clock()
        present = [
            (user.username if (user := self._state.user_by_subject(subject)) is not None else subject, _ago(now - last))
            for subject, last in self._state.visits.present(studio.id).items()
        ]
        ends = None if studio.ends_at is None else _span(studio.ends_at - now)
        return {"present": sorted(present), "ends": ends}

    def _rights(self, studio: Studio, username: str) -> dict[str, Any]:
        held = self._state.rules.permissions(username, studio)
        return {
            "may_open": Permission.OPEN in held,
            "why_not": self._state.rules.refusal(username, studio) or "",
            "may_manage": Permission.MANAGE in held,
            "may_extend": Permission.EXTEND in held or Permission.MANAGE in held,
            "may_share": Permission.SHARE in held,
        }


def _span(seconds: float) -> str:
    """ "7 h 59 min" """
    minutes = max(int(seconds // 60), 0)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _ago(seconds: float) -> str:
    return "just now" if seconds < 60 else f"{_span(seconds)} ago"
