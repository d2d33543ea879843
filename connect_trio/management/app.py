"""The management port: liveness and readiness for everybody, metrics and drain for who has the key. Nothing else."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import attrs
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from connect_trio.management.exposition import CONTENT_TYPE, Exposition
from connect_trio.management.health import Health

MAX_BODY = 1024  # bytes; no request here has anything to say

Endpoint = Callable[[Request], Awaitable[Response]]

logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Management:
    """What the port shows and does.

    drain: starts a drain, at once. key: None for none. local: whether the port is bound to loopback: then metrics are
    shown without a key if there is none.
    """

    health: Health
    exposition: Exposition
    drain: Callable[[], None]
    key: str | None = attrs.field(repr=False)
    local: bool


def create_app(management: Management) -> Starlette:
    health = management.health

    async def livez(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        report = await health.look()
        return JSONResponse(report.document(), status_code=200 if report.ready else 503)

    async def metrics(request: Request) -> Response:
        _authorise(management, request, open_without_key=management.local)
        return Response(management.exposition.text(), headers={"Content-Type": CONTENT_TYPE})

    async def drain(request: Request) -> Response:
        # Never without a key, not even on loopback: any page that a browser there shows can send a POST.
        _authorise(management, request, open_without_key=False)
        logger.info("the management port was asked to drain")
        management.drain()
        return JSONResponse({"draining": True}, status_code=202)

    routes = [
        Route("/livez", _bounded(livez), methods=["GET"]),
        Route("/readyz", _bounded(readyz), methods=["GET"]),
        Route("/metrics", _bounded(metrics), methods=["GET"]),
        Route("/drain", _bounded(drain), methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refuse})
    app.router.redirect_slashes = False
    return app


def _authorise(management: Management, request: Request, *, open_without_key: bool) -> None:
    """Raises HTTPException."""
    if management.key is None:
        if open_without_key:
            return
        raise HTTPException(403, "this needs a key, and none is set: see CONNECT_MANAGEMENT_AUTH_KEY")
    given = request.headers.getlist("authorization")
    # Starlette has decoded the bytes as Latin-1.
    shown = given[0].encode("latin-1") if len(given) == 1 else b""
    scheme, _, token = shown.partition(b" ")
    same = hmac.compare_digest(token.strip(b" "), management.key.encode())
    if not (same and scheme.lower() == b"bearer"):
        raise HTTPException(401, "the key is missing or wrong", headers={"WWW-Authenticate": "Bearer"})


def _bounded(endpoint: Endpoint) -> Endpoint:
    """Refuse bodies: none of these requests needs one."""

    async def bounded(request: Request) -> Response:
        size = 0
        async with aclosing(request.stream()) as parts:
            async for part in parts:
                size += len(part)
                if size > MAX_BODY:
                    raise HTTPException(413, f"no body of more than {MAX_BODY} bytes is read here")
        response = await endpoint(request)
        response.headers["Cache-Control"] = "no-store"
        return response

    return bounded


async def _refuse(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    headers = {"Cache-Control": "no-store", **(exc.headers or {})}
    return JSONResponse({"error": exc.detail}, status_code=exc.status_code, headers=headers)
