"""Reading requests: bounded bodies, parameters that occur once, and the errors of OAuth (RFC 6749 section 5.2)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

_MAX_BODY = 16 * 1024
_MAX_FIELDS = 50
NOT_STORED = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class Refusal(Exception):
    """An answer that ends a request: `error` is a code of the specification, `text` says more."""

    def __init__(self, status: int, error: str, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.error = error
        self.text = text
        self.headers = dict(headers or {})


async def refusal_as_json(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, Refusal)
    body = {"error": exc.error, "error_description": exc.text}
    return JSONResponse(body, status_code=exc.status, headers={**NOT_STORED, **exc.headers})


async def read_body(request: Request, *, limit: int = _MAX_BODY) -> bytes:
    """Raises Refusal: 413 for more than `limit` bytes, 400 (which nobody reads) if the client leaves meanwhile."""
    body = bytearray()
    try:
        async with aclosing(request.stream()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > limit:
                    raise Refusal(413, "invalid_request", f"The body is longer than {limit} bytes.")
    except ClientDisconnect:
        raise Refusal(400, "invalid_request", "The body is not whole.") from None
    return bytes(body)


async def read_form(request: Request) -> dict[str, str]:
    """Fields of a form, each of which may occur once (RFC 6749 section 3.2). Raises Refusal."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refusal(400, "invalid_request", "The body must be application/x-www-form-urlencoded.")
    return single_values((await read_body(request)).decode("utf-8", "replace"))


def single_values(encoded: str) -> dict[str, str]:
    """Fields of a query or a form; a field without a value counts as absent. Raises Refusal."""
    try:
        pairs = parse_qsl(encoded, keep_blank_values=False, max_num_fields=_MAX_FIELDS)
    except ValueError as exc:
        raise Refusal(400, "invalid_request", f"There are more than {_MAX_FIELDS} fields.") from exc
    values = dict(pairs)
    if len(values) != len(pairs):
        raise Refusal(400, "invalid_request", "A field occurs more than once.")
    return values


async def read_json(request: Request, *, limit: int = _MAX_BODY) -> dict[str, Any]:
    """A JSON object of at most `limit` bytes. Raises Refusal."""
    try:
        document = json.loads(await read_body(request, limit=limit))
    except (ValueError, RecursionError) as exc:
        raise Refusal(400, "invalid_request", "The body is not JSON.") from exc
    if not isinstance(document, dict):
        raise Refusal(400, "invalid_request", "The body is not a JSON object.")
    return document


def require_bearer(request: Request, expected: str, *, error: str = "invalid_token") -> None:
    """Raises Refusal (401) unless the request carries this bearer token."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secrets.compare_digest(given.strip().encode(), expected.encode()):
        raise Refusal(401, error, "The bearer token is missing or wrong.", {"WWW-Authenticate": "Bearer"})
