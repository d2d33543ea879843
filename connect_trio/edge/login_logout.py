"""Logging out: asked by a page, done by a form of that page, and at Platform too (RP-Initiated Logout 1.0)."""

from __future__ import annotations

import logging

from connect_trio.edge.gate import Headers, Reply, VisitorRequest
from connect_trio.edge.login_pages import Link, Notice, redirect
from connect_trio.edge.login_requests import is_from_own_page
from connect_trio.edge.login_visits import Visits
from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.oidc import OidcClient
from connect_trio.routing.names import HostNames

logger = logging.getLogger(__name__)


class Logout:
    """The same for Connect's own host and for a Studio's."""

    def __init__(self, *, names: HostNames, visits: Visits, oidc: OidcClient) -> None:
        self._names = names
        self._visits = visits
        self._oidc = oidc

    def ask(self, request: VisitorRequest, username: str, *, ticket: str | None = None) -> Reply:
        notice = Notice(
            status=200,
            code="logout",
            title="Log out?",
            paragraphs=(f"You are logged in as {username}.", "This ends your login in all Studios and at Platform."),
            logout="Log out",
            logout_ticket=ticket,
            framed=False,
        )
        return notice.reply(request)

    def refusal(self, request: VisitorRequest) -> Reply | None:
        """The answer to a form that another page sent; None if it was ours."""
        if is_from_own_page(request, scheme=self._names.scheme):
            return None
        return self.refused(request)

    def refused(self, request: VisitorRequest) -> Reply:
        notice = Notice(
            status=403,
            code="foreign_form",
            title="Not logged out",
            paragraphs=("Another page asked Connect to log you out. If it was you, ask again here.",),
            links=(Link("Log out", "/_connect/logout"),),
            framed=False,
        )
        return notice.reply(request)

    async def perform(self, request: VisitorRequest, *, login: str, studio: str | None, clear: Headers) -> Reply:
        """End everything. login, studio: digests of the cookies. Raises RegistryUnavailable."""
        ended = await self._visits.end(login=login, studio=studio)
        logger.info("a visitor has logged out", extra={"client": request.client})
        try:
            url = await self._oidc.logout_url(ended.id_token if ended is not None else None)
        except PlatformUnavailable:
            return self.done(request, clear=clear, platform=False)
        return redirect(url or self._names.own_origin + "/", status=303, headers=clear)

    def done(self, request: VisitorRequest, *, clear: Headers, platform: bool = True) -> Reply:
        """For who is not logged in (any more)."""
        more = () if platform else ("Platform does not answer: you may still be logged in there.",)
        notice = Notice(
            status=200,
            code="logged_out",
            title="Logged out",
            paragraphs=("You are logged out of Connect.", *more),
            links=(Link("Connect's front page", self._names.own_origin + "/"),),
            framed=False,
            headers=clear,
        )
        return notice.reply(request)
