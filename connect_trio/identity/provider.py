"""What Platform publishes about itself: its endpoints (OpenID Connect Discovery 1.0) and its keys (RFC 7517)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import urlsplit

import attrs
import trio
from joserfc.jwk import KeySet

from connect_trio.identity.client import PlatformClient, PlatformUnavailable
from connect_trio.identity.tokens import KeysInvalid, UnknownKey, import_keys

T = TypeVar("T")

_CALL_TIMEOUT = 5.0
_METADATA_LIFE = 3600.0
_KEYS_LIFE = 600.0
_KEYS_PAUSE = 5.0  # a token may name any key id: what it names must not make us ask Platform without end
_KEYS_RETRY = 60.0  # until old keys are tried to be read again, if that failed


@attrs.frozen(kw_only=True)
class ProviderMetadata:
    """Endpoints are absolute addresses. names_issuer: whether answers to logins carry `iss` (RFC 9207).

    refreshes: whether there are refresh tokens. offline_access: whether these can be asked for by that scope.
    tells_logouts: whether it tells clients of logouts (OpenID Connect Back-Channel Logout 1.0). names_sessions: and of
    which session.
    """

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    registration_endpoint: str | None
    end_session_endpoint: str | None
    userinfo_endpoint: str | None
    names_issuer: bool
    refreshes: bool
    offline_access: bool
    tells_logouts: bool
    names_sessions: bool


class Provider:
    """Endpoints and keys of Platform, read when first needed and again when they are old.

    What was read once stays in use while Platform is away.
    """

    def __init__(self, client: PlatformClient, *, path: str = "/api", clock: Callable[[], float]) -> None:
        """path: what the issuer's address has behind Platform's."""
        self.issuer = client.platform_url + path
        self._client = client
        self._clock = clock
        self._lock = trio.Lock()
        self._metadata: ProviderMetadata | None = None
        self._metadata_read = float("-inf")
        self._keys: KeySet | None = None
        self._keys_read = self._keys_tried = float("-inf")

    async def metadata(self) -> ProviderMetadata:
        """No checkpoint if it is fresh. Raises PlatformUnavailable."""
        if self._metadata is not None and self._clock() - self._metadata_read < _METADATA_LIFE:
            return self._metadata
        async with self._lock:
            return await self._current_metadata()

    async def verified(self, verify: Callable[[KeySet], T]) -> T:
        """`verify(keys)`; if it raises UnknownKey, once more with keys read anew, at most every 5 s.

        Whoever names a known key does not wait for keys that are being read. Raises what `verify` raises, and
        PlatformUnavailable.
        """
        keys = self._keys
        if keys is None or self._clock() - self._keys_read >= _KEYS_LIFE:
            keys = await self._fresh_keys(_KEYS_LIFE, pause=_KEYS_RETRY)
        try:
            return verify(keys)
        except UnknownKey:
            newer = await self._fresh_keys(_KEYS_PAUSE, pause=_KEYS_PAUSE)
            if newer is keys:
                raise
            return verify(newer)

    async def _current_metadata(self) -> ProviderMetadata:
        if self._metadata is not None and self._clock() - self._metadata_read < _METADATA_LIFE:
            return self._metadata
        url = self.issuer + "/.well-known/openid-configuration"
        try:
            answer = await self._client.call("GET", url, timeout=_CALL_TIMEOUT)
            if answer.status != 200:
                raise PlatformUnavailable(f"Platform has no OpenID configuration at {url} (status {answer.status})")
            self._metadata = _metadata_untrusted(answer.document, issuer=self.issuer)
        except PlatformUnavailable:
            if self._metadata is None:
                raise
        else:
            self._metadata_read = self._clock()
        return self._metadata

    async def _fresh_keys(self, age: float, *, pause: float) -> KeySet:
        """Keys of at most this age, in seconds, or older ones if reading them failed less than `pause` ago."""
        async with self._lock:
            now = self._clock()
            if self._keys is not None and (now - self._keys_read < age or now - self._keys_tried < pause):
                return self._keys
            self._keys_tried = now
            try:
                url = (await self._current_metadata()).jwks_uri
                answer = await self._client.call("GET", url, timeout=_CALL_TIMEOUT)
                self._keys = import_keys(answer.document)
                self._keys_read = now
            except KeysInvalid as exc:
                if self._keys is None:
                    raise PlatformUnavailable(f"Platform publishes no usable keys: {exc}") from exc
            except PlatformUnavailable:
                if self._keys is None:
                    raise
            return self._keys


def _metadata_untrusted(document: object, *, issuer: str) -> ProviderMetadata:
    if not isinstance(document, Mapping):
        raise PlatformUnavailable("Platform's OpenID configuration is not a JSON object")
    if document.get("issuer") != issuer:
        # Discovery 4.3: another issuer's document must not be used, or it could hand us its keys and logins.
        raise PlatformUnavailable(f"Platform's OpenID configuration is for another issuer than {issuer}")
    return ProviderMetadata(
        issuer=issuer,
        authorization_endpoint=_required(document, "authorization_endpoint", issuer),
        token_endpoint=_required(document, "token_endpoint", issuer),
        jwks_uri=_required(document, "jwks_uri", issuer),
        registration_endpoint=_endpoint_untrusted(document, "registration_endpoint", issuer),
        end_session_endpoint=_endpoint_untrusted(document, "end_session_endpoint", issuer),
        userinfo_endpoint=_endpoint_untrusted(document, "userinfo_endpoint", issuer),
        names_issuer=document.get("authorization_response_iss_parameter_supported") is True,
        refreshes=_lists(document, "grant_types_supported", "refresh_token"),
        offline_access=_lists(document, "scopes_supported", "offline_access"),
        tells_logouts=document.get("backchannel_logout_supported") is True,
        names_sessions=document.get("backchannel_logout_session_supported") is True,
    )


def _lists(document: Mapping[object, object], name: str, value: str) -> bool:
    values = document.get(name)
    return isinstance(values, list) and value in values


def _required(document: Mapping[object, object], name: str, issuer: str) -> str:
    url = _endpoint_untrusted(document, name, issuer)
    if url is None:
        raise PlatformUnavailable(f"Platform's OpenID configuration has no {name}")
    return url


def _endpoint_untrusted(document: Mapping[object, object], name: str, issuer: str) -> str | None:
    url = document.get(name)
    if url is None:
        return None
    schemes = ("https",) if issuer.startswith("https:") else ("http", "https")
    try:
        parts = urlsplit(url) if isinstance(url, str) and url.isascii() and url.isprintable() else None
        usable = parts is not None and parts.scheme in schemes and bool(parts.hostname) and not parts.fragment
    except ValueError:
        usable = False
    if not isinstance(url, str) or not usable:
        raise PlatformUnavailable(f"Platform's OpenID configuration has an unusable {name}")
    return url
