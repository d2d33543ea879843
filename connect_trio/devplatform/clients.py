"""OAuth clients: registration (RFC 7591) and authentication (RFC 6749 section 2.3.1)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus, urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from connect_trio.devplatform.forms import NOT_STORED, Refusal, read_json, require_bearer
from connect_trio.devplatform.state import Client, PlatformState
from connect_trio.devplatform.storage import Storage

AUTH_METHODS = ("client_secret_basic", "client_secret_post")
_MAX_URIS = 10
_MAX_URI = 2000


class ClientRegistration:
    """The registration endpoint. initial_token: the initial access token that it asks for, None for none."""

    def __init__(self, state: PlatformState, storage: Storage, *, initial_token: str | None) -> None:
        self._state = state
        self._storage = storage
        self._initial_token = initial_token

    async def register(self, request: Request) -> Response:
        if self._initial_token is not None:
            require_bearer(request, self._initial_token)
        metadata = await read_json(request)
        secret = secrets.token_urlsafe(32)
        client = _client_untrusted(metadata, secret)
        self._state.add_client(client)
        await self._storage.save_clients(self._state.clients.values())
        answer = {
            "client_id": client.client_id,
            "client_secret": secret,
            "client_id_issued_at": int(self._state.clock()),
            "client_secret_expires_at": 0,
            "client_name": client.name,
            "redirect_uris": client.redirect_uris,
            "post_logout_redirect_uris": client.post_logout_redirect_uris,
            "grant_types": ["authorization_code", *(["refresh_token"] if client.refreshes else [])],
            "response_types": ["code"],
            "token_endpoint_auth_method": client.auth_method,
            "backchannel_logout_uri": client.backchannel_logout_uri,
            "backchannel_logout_session_required": True,
        }
        return JSONResponse(answer, status_code=201, headers=NOT_STORED)


def _client_untrusted(metadata: Mapping[str, Any], secret: str) -> Client:
    name = metadata.get("client_name", "a client without a name")
    method = metadata.get("token_endpoint_auth_method", AUTH_METHODS[0])
    grants = metadata.get("grant_types", ["authorization_code", "refresh_token"])
    responses = metadata.get("response_types", ["code"])
    logouts = metadata.get("backchannel_logout_uri")
    if not isinstance(name, str) or len(name) > 200:
        raise Refusal(400, "invalid_client_metadata", "client_name must be a string of at most 200 characters.")
    if method not in AUTH_METHODS:
        raise Refusal(400, "invalid_client_metadata", f"token_endpoint_auth_method must be one of {AUTH_METHODS}.")
    if not isinstance(grants, list) or "authorization_code" not in grants:
        raise Refusal(400, "invalid_client_metadata", "grant_types must have authorization_code.")
    if responses != ["code"]:
        raise Refusal(400, "invalid_client_metadata", "response_types must be [code].")
    return Client(
        client_id=secrets.token_hex(16),
        secret_sha256=hashlib.sha256(secret.encode()).hexdigest(),
        name=name,
        redirect_uris=_uris_untrusted(metadata.get("redirect_uris"), required=True),
        post_logout_redirect_uris=_uris_untrusted(metadata.get("post_logout_redirect_uris", []), required=False),
        auth_method=method,
        backchannel_logout_uri=_uri_untrusted(logouts) if logouts is not None else None,
        refreshes="refresh_token" in grants,
    )


def _uris_untrusted(value: object, *, required: bool) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MAX_URIS or (required and not value):
        raise Refusal(400, "invalid_redirect_uri", f"Give a list of 1 to {_MAX_URIS} redirect addresses.")
    return tuple(_uri_untrusted(uri) for uri in value)


def _uri_untrusted(uri: object) -> str:
    if isinstance(uri, str) and len(uri) <= _MAX_URI and uri.isascii() and uri.isprintable() and "\\" not in uri:
        try:
            parts = urlsplit(uri)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc and "#" not in uri:
            return uri
    raise Refusal(400, "invalid_redirect_uri", "A redirect address must be http(s) without user name or fragment.")


def authenticate(request: Request, state: PlatformState, form: Mapping[str, str] | None = None) -> Client:
    """The client that sent a request, by Basic or, where there is a form, by its fields. Raises Refusal (401, 400)."""
    header = request.headers.get("authorization")
    by_form = form is not None and "client_secret" in form
    if header is not None and by_form:
        raise Refusal(400, "invalid_request", "Authenticate in one way, not in two.")
    if by_form and form is not None:
        client_id, secret, method = form.get("client_id", ""), form["client_secret"], "client_secret_post"
    else:
        client_id, secret = _basic_untrusted(header or "")
        method = "client_secret_basic"
    client = state.clients.get(client_id)
    # The contract's calls have no form: there, Basic is right for every client.
    if client is None or not client.has_secret(secret) or (form is not None and client.auth_method != method):
        raise Refusal(401, "invalid_client", "Unknown client or wrong secret.", {"WWW-Authenticate": "Basic"})
    return client


def _basic_untrusted(header: str) -> tuple[str, str]:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        client_id, _, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return "", ""
    return unquote_plus(client_id), unquote_plus(secret)
