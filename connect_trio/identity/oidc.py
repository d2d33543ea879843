"""Logging visitors in by OpenID Connect: authorization code with PKCE, state and nonce (RFC 9700 section 2.1)."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Mapping
from functools import partial
from urllib.parse import urlencode

import attrs

from connect_trio.identity.client import PlatformClient, PlatformUnavailable
from connect_trio.identity.provider import Provider
from connect_trio.identity.refresh import Refresher, Tokens, first_tokens
from connect_trio.identity.registration import ClientCredentials, Registration
from connect_trio.identity.tokens import (
    AgentToken,
    IdToken,
    TokenInvalid,
    readable_name,
    verify_agent_token,
    verify_id_token,
)
from connect_trio.identity.tokens_logout import LogoutToken, verify_logout_token

_CALL_TIMEOUT = 5.0
_ACCESS_TOKEN = re.compile(r"[\x21-\x7e]{1,8192}")


class LoginRefused(Exception):
    """This login leads nowhere; another one may. The text is for the visitor."""


@attrs.frozen(kw_only=True)
class LoginRequest:
    """A login that begins. `url` is where the browser goes; the rest is kept until it comes back with `state`.

    offline: whether refresh tokens are asked for by their scope.
    """

    url: str
    state: str
    nonce: str
    verifier: str = attrs.field(repr=False)
    client_id: str
    offline: bool


@attrs.frozen(kw_only=True)
class LoginResult:
    """Who came back, and what Platform gave for the login."""

    identity: IdToken
    tokens: Tokens


class OidcClient:
    """Connect's side of the logins. wall_clock: Unix time. refresher: keeps them in step with Platform."""

    def __init__(
        self,
        *,
        client: PlatformClient,
        provider: Provider,
        registration: Registration,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._provider = provider
        self._registration = registration
        self._now = wall_clock
        self.refresher = Refresher(client=client, provider=provider, registration=registration, wall_clock=wall_clock)

    async def begin(self, *, silent: bool = False, offline: bool = True) -> LoginRequest:
        """A new login. silent: without showing anything: who is not known at Platform comes back with an error.

        offline: whether to ask for refresh tokens by their scope, where that is of use. Platform may refuse it to this
        client, which a browser tells us: so that counts for the one login that it was said of, and is forgotten.

        Raises PlatformUnavailable, RegistryUnavailable.
        """
        metadata = await self._provider.metadata()
        credentials = await self._registration.credentials_for_login()
        offline = offline and metadata.offline_access and metadata.refreshes and credentials.refreshes
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        query = {
            "response_type": "code",
            "client_id": credentials.client_id,
            "redirect_uri": self._registration.redirect_uri,
            "scope": "openid profile offline_access" if offline else "openid profile",
            "state": state,
            "nonce": nonce,
            "code_challenge": code_challenge(verifier),
            "code_challenge_method": "S256",
        }
        if silent:
            query["prompt"] = "none"  # OpenID Connect Core 3.1.2.1
        return LoginRequest(
            url=_with_query(metadata.authorization_endpoint, query),
            state=state,
            nonce=nonce,
            verifier=verifier,
            client_id=credentials.client_id,
            offline=offline,
        )

    async def finish(self, *, code: str, issuer: str | None, client_id: str, nonce: str, verifier: str) -> LoginResult:
        """Exchange the code that a login came back with. issuer: the `iss` that came along (RFC 9207).

        Raises LoginRefused and PlatformUnavailable.
        """
        metadata = await self._provider.metadata()
        if issuer != metadata.issuer and (issuer is not None or metadata.names_issuer):
            raise LoginRefused("The answer to this login came from another provider than Platform.")
        credentials = await self._registration.credentials_of(client_id)
        if credentials is None:
            raise LoginRefused("Connect registered anew with Platform while this login was under way.")
        id_token, answer = await self._exchange(metadata.token_endpoint, credentials, code, verifier)
        verify = partial(
            verify_id_token,
            id_token,
            issuer=metadata.issuer,
            client_id=client_id,
            nonce=nonce,
            now=self._now(),
        )
        try:
            identity = await self._provider.verified(lambda keys: verify(keys=keys))
        except TokenInvalid as exc:
            raise LoginRefused(f"Platform's answer to this login cannot be trusted: {exc.reason}.") from exc
        if identity.username == identity.subject and metadata.userinfo_endpoint is not None:
            name = await self._name_of(identity, metadata.userinfo_endpoint, answer.get("access_token"))
            identity = attrs.evolve(identity, username=name)
        tokens = first_tokens(
            answer, id_token=id_token, identity=identity, client_id=client_id, nonce=nonce, now=self._now()
        )
        return LoginResult(identity=identity, tokens=tokens)

    async def _name_of(self, identity: IdToken, endpoint: str, access_token: object) -> str:
        """A visitor's name as the userinfo endpoint tells it: the token need not have it (OpenID Connect Core 5.4).

        It is for people to read only, so that a login does not fail for want of it.
        """
        if not isinstance(access_token, str) or not _ACCESS_TOKEN.fullmatch(access_token):
            return identity.username
        try:
            answer = await self._client.call("GET", endpoint, timeout=_CALL_TIMEOUT, bearer=access_token)
        except PlatformUnavailable:
            return identity.username
        document = answer.document
        if answer.status != 200 or not isinstance(document, Mapping) or document.get("sub") != identity.subject:
            return identity.username
        return readable_name(document.get("preferred_username"), otherwise=identity.username)

    async def _exchange(
        self, endpoint: str, credentials: ClientCredentials, code: str, verifier: str
    ) -> tuple[str, Mapping[object, object]]:
        """The id token, and all of the answer as it came."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._registration.redirect_uri,
            "code_verifier": verifier,
        }
        basic = (credentials.client_id, credentials.client_secret)
        answer = await self._client.call("POST", endpoint, timeout=_CALL_TIMEOUT, form=form, basic=basic)
        document = answer.document if isinstance(answer.document, Mapping) else {}
        id_token = document.get("id_token")
        if answer.status == 401:
            await self._registration.replace(credentials)
            raise LoginRefused("Platform no longer knew Connect as a client. Connect has registered again.")
        if answer.status != 200 or not isinstance(id_token, str):
            raise LoginRefused("Platform did not accept this login; it may have taken too long.")
        return id_token, document

    async def agent(self, token: str) -> AgentToken:
        """What an agent's token grants. Raises TokenInvalid and PlatformUnavailable."""
        verify = partial(verify_agent_token, token, issuer=self._provider.issuer, now=self._now())
        return await self._provider.verified(lambda keys: verify(keys=keys))

    async def logout_told(self, token: str) -> LogoutToken:
        """What a logout token says (Back-Channel Logout 1.0). Raises TokenInvalid and PlatformUnavailable."""
        verify = partial(verify_logout_token, token, issuer=self._provider.issuer, now=self._now())
        told = await self._provider.verified(lambda keys: verify(keys=keys))
        for client_id in told.audience:
            if await self._registration.credentials_of(client_id) is not None:
                return told
        raise TokenInvalid("the token is for another client (aud)")

    async def logout_url(self, id_token: str | None) -> str | None:
        """Where Platform ends the visitor's login too (RP-Initiated Logout 1.0). Raises PlatformUnavailable."""
        endpoint = (await self._provider.metadata()).end_session_endpoint
        if endpoint is None:
            return None
        query = {"post_logout_redirect_uri": self._registration.post_logout_uri}
        if id_token is not None:
            query["id_token_hint"] = id_token
        else:
            query["client_id"] = (await self._registration.credentials()).client_id
        return _with_query(endpoint, query)


def code_challenge(verifier: str) -> str:
    """RFC 7636 section 4.2, method S256."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _with_query(endpoint: str, query: Mapping[str, str]) -> str:
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"
