"""Connect as an OAuth client of Platform: registered once (RFC 7591), known to all proxies.

Proxies share the registration through the Store; a file in the storage root keeps it over a restart of everything. Two
proxies that start at once may both register. That is harmless, since each registration is also kept under its own id
and a login remembers which of them it began with.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import attrs
import trio

from connect_trio.identity.client import PlatformClient, PlatformUnavailable
from connect_trio.identity.files import read_private, write_private
from connect_trio.identity.provider import Provider, ProviderMetadata
from connect_trio.routing.registry import RegistryUnavailable, Store

logger = logging.getLogger(__name__)

_CALL_TIMEOUT = 5.0
_LIFE = 30 * 86400.0
_PAUSE = 2.0  # between two attempts to register
_COMPLAINT = 60.0  # between two lines in the log about a client that Platform refuses
_MAX_FILE = 16384
_EDITION = 2  # of what is registered: clients of before know neither refresh tokens nor logouts


@attrs.frozen(kw_only=True)
class ClientCredentials:
    """What Connect authenticates with at Platform. refreshes: whether it may use refresh tokens."""

    client_id: str
    client_secret: str = attrs.field(repr=False)
    refreshes: bool = True


class Registration:
    """The registered client. storage_root: a folder for the file, or None for no file.

    fixed: the client that Platform was told of by hand. Then nothing is registered, and Platform's no is final.
    """

    def __init__(
        self,
        *,
        client: PlatformClient,
        provider: Provider,
        store: Store,
        storage_root: Path | None,
        client_name: str,
        grant_type: str,
        registration_token: str | None,
        redirect_uri: str,
        post_logout_uri: str,
        backchannel_logout_uri: str,
        clock: Callable[[], float],
        fixed: ClientCredentials | None = None,
    ) -> None:
        self.redirect_uri = redirect_uri
        self.post_logout_uri = post_logout_uri
        self._backchannel_logout_uri = backchannel_logout_uri
        self._client = client
        self._provider = provider
        self._store = store
        self._file = storage_root / "oidc-client.json" if storage_root is not None else None
        self._client_name = client_name
        self._grant_type = grant_type
        self._token = registration_token
        self._clock = clock
        self._lock = trio.Lock()
        self._fixed = fixed
        self._current = fixed
        self._next_attempt = float("-inf")
        # A registration is of use only for the same Platform, callback and name, and if it says what is said today.
        purpose = json.dumps([provider.issuer, redirect_uri, client_name, grant_type, _EDITION])
        self._purpose = hashlib.sha256(purpose.encode()).hexdigest()[:32]

    async def credentials(self) -> ClientCredentials:
        """The client, registered now if it has to be. Raises PlatformUnavailable."""
        if self._current is not None:
            return self._current
        async with self._lock:
            return await self._obtain()

    async def credentials_for_login(self) -> ClientCredentials:
        """The client for a login that begins now, and known to all proxies, of which any may have to finish it.

        They are told each time: the Store may have lost its memory. Raises PlatformUnavailable, RegistryUnavailable.
        """
        credentials = await self.credentials()
        if self._fixed is not None:
            return credentials
        await self._store.put(self._key(credentials.client_id), _serialised(credentials), ttl=_LIFE)
        return credentials

    async def credentials_of(self, client_id: str) -> ClientCredentials | None:
        """The client with this id, registered by whichever proxy; None if it is forgotten."""
        if self._current is not None and self._current.client_id == client_id:
            return self._current
        return await self._shared(self._key(client_id))

    async def replace(self, refused: ClientCredentials) -> ClientCredentials:
        """Another client instead of one that Platform no longer knows. Raises PlatformUnavailable."""
        if self._fixed is not None:
            reason = (
                "Platform refuses Connect's client; are CONNECT_OIDC_CLIENT_ID and CONNECT_OIDC_CLIENT_SECRET right?"
            )
            if self._clock() >= self._next_attempt:
                self._next_attempt = self._clock() + _COMPLAINT
                logger.warning("%s", reason)
            raise PlatformUnavailable(reason)
        async with self._lock:
            if self._current is not None and self._current != refused:
                return self._current
            shared = await self._shared(self._key())
            if shared is None or shared == refused:
                shared = await self._register()
            return await self._keep(shared)

    async def _obtain(self) -> ClientCredentials:
        if self._current is not None:
            return self._current
        found = await self._shared(self._key()) or await self._from_file()
        return await self._keep(found or await self._register())

    async def _register(self) -> ClientCredentials:
        if self._clock() < self._next_attempt:
            raise PlatformUnavailable("Platform did not accept Connect as a client a moment ago")
        self._next_attempt = self._clock() + _PAUSE
        metadata = await self._provider.metadata()
        if metadata.registration_endpoint is None:
            raise PlatformUnavailable("Platform offers no client registration")
        document = self._document(metadata)
        answer = await self._client.call(
            "POST", metadata.registration_endpoint, timeout=_CALL_TIMEOUT, bearer=self._token, document=document
        )
        credentials = _credentials_untrusted(answer.document) if answer.status in (200, 201) else None
        if credentials is None:
            hint = "; is CONNECT_OIDC_CLIENT_REGISTRATION_TOKEN right?" if answer.status in (401, 403) else ""
            reason = f"Platform refused to register Connect as a client (status {answer.status}){hint}"
            logger.warning("%s", reason)
            raise PlatformUnavailable(reason)
        logger.info("registered with Platform as client %s", credentials.client_id)
        return attrs.evolve(credentials, refreshes="refresh_token" in _granted(answer.document, document))

    def _document(self, metadata: ProviderMetadata) -> dict[str, object]:
        """What Connect says of itself (RFC 7591 section 2), as far as Platform has a use for it."""
        logouts = {
            "backchannel_logout_uri": self._backchannel_logout_uri,
            "backchannel_logout_session_required": metadata.names_sessions,
        }
        return {
            "client_name": self._client_name,
            "application_type": "web",
            "redirect_uris": [self.redirect_uri],
            "post_logout_redirect_uris": [self.post_logout_uri],
            "grant_types": [self._grant_type, *(["refresh_token"] if metadata.refreshes else [])],
            "response_types": ["code"],
            "token_endpoint_auth_method": "client_secret_basic",
            **(logouts if metadata.tells_logouts else {}),
        }

    async def _keep(self, credentials: ClientCredentials) -> ClientCredentials:
        self._current = credentials
        value = _serialised(credentials)
        try:
            await self._store.put(self._key(credentials.client_id), value, ttl=_LIFE)
            await self._store.put(self._key(), value, ttl=_LIFE)
        except RegistryUnavailable as exc:
            logger.warning("the client registration is not shared with other proxies: %s", exc)
        if self._file is not None:
            try:
                await trio.to_thread.run_sync(write_private, self._file, self._file_content(credentials))
            except OSError as exc:
                logger.warning("the client registration is not kept in %s: %s", self._file, exc.strerror or exc)
        return credentials

    async def _shared(self, key: str) -> ClientCredentials | None:
        try:
            value = await self._store.get(key)
        except RegistryUnavailable as exc:
            logger.warning("the client registration cannot be looked up: %s", exc)
            return None
        return _deserialised(value) if value is not None else None

    async def _from_file(self) -> ClientCredentials | None:
        if self._file is None:
            return None
        try:
            content = await trio.to_thread.run_sync(partial(read_private, self._file, limit=_MAX_FILE))
        except OSError as exc:
            logger.warning("%s cannot be read: %s", self._file, exc.strerror or exc)
            return None
        if content is None:
            return None
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            logger.warning("%s is not JSON and is ignored", self._file)
            return None
        if not isinstance(document, dict) or document.get("purpose") != self._purpose:
            return None
        return _credentials_untrusted(document)

    def _key(self, client_id: str | None = None) -> str:
        if client_id is None:
            return f"oidc-client:{self._purpose}"
        return f"oidc-client:{self._purpose}:{hashlib.sha256(client_id.encode()).hexdigest()[:32]}"

    def _file_content(self, credentials: ClientCredentials) -> bytes:
        return json.dumps({"purpose": self._purpose, **attrs.asdict(credentials)}).encode()


def _granted(answer: object, asked: Mapping[str, object]) -> list[object]:
    """The grants of a new client: Platform may have given others than it was asked for (RFC 7591 section 3.2.1)."""
    granted = answer.get("grant_types") if isinstance(answer, Mapping) else None
    granted = asked["grant_types"] if granted is None else granted
    return granted if isinstance(granted, list) else []


def _credentials_untrusted(document: object) -> ClientCredentials | None:
    if not isinstance(document, Mapping):
        return None
    match document.get("client_id"), document.get("client_secret"):
        case str() as client_id, str() as secret if 0 < len(client_id) <= 255 and 0 < len(secret) <= 1024:
            refreshes = document.get("refreshes") is True
            return ClientCredentials(client_id=client_id, client_secret=secret, refreshes=refreshes)
    return None


def _serialised(credentials: ClientCredentials) -> bytes:
    return json.dumps(attrs.asdict(credentials)).encode()


def _deserialised(value: bytes) -> ClientCredentials | None:
    try:
        return _credentials_untrusted(json.loads(value))
    except (ValueError, RecursionError):
        return None
