"""The browser's side of OpenID Connect: authorization, the login page, logout.

RFC 6749 section 4.1, RFC 7636 (PKCE, S256 only), RFC 9207 (`iss`), RP-Initiated Logout 1.0.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from connect_trio.devplatform.browsers import Browsers
from connect_trio.devplatform.forms import read_form, single_values
from connect_trio.devplatform.keys import KeyRing
from connect_trio.devplatform.notifications import Notifier, logout_token
from connect_trio.devplatform.state import (
    AuthorizationRequest,
    Client,
    Code,
    Login,
    ParkedLogin,
    PlatformState,
)

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_SECONDS = re.compile(r"[0-9]{1,9}")
_PROMPTS = frozenset(("none", "login", "consent", "select_account"))
_MAX_PARAMETER = 1024
_MAX_FAILURES = 10


class _Refused(Exception):
    """An error that the client may hear of: the address to send it to is known to be the client's."""

    def __init__(self, error: str, text: str) -> None:
        super().__init__(text)
        self.error = error


class Authorization:
    """Endpoints that browsers visit. issuer: as in the tokens."""

    def __init__(
        self, state: PlatformState, keys: KeyRing, browsers: Browsers, notifier: Notifier, *, issuer: str
    ) -> None:
        self._state = state
        self._notifier = notifier
        self._keys = keys
        self._browsers = browsers
        self._issuer = issuer

    async def authorize(self, request: Request) -> Response:
        values = await _values(request)
        client = self._state.clients.get(values.get("client_id", ""))
        redirect_uri = values.get("redirect_uri", "")
        if client is None:
            return self._browsers.message(
                "Unknown client", "The application that sent you here is not registered with this Platform.", status=400
            )
        if redirect_uri not in client.redirect_uris:
            return self._browsers.message(
                "Wrong address", "The application wants you sent to an address that it did not register.", status=400
            )
        try:
            wanted = _wanted_untrusted(values, client, redirect_uri)
            prompt = _prompt_untrusted(values)
            login = self._login_for(request, values, prompt)
            if login is not None:
                return self._with_code(wanted, login)
            if "none" in prompt:
                raise _Refused("login_required", "Nobody is logged in, or not whom it is asked for.")
        except _Refused as exc:
            return self._back(redirect_uri, values.get("state"), error=exc.error, error_description=str(exc))
        return self._browsers.park(request, ParkedLogin(browser="", request=wanted))

    def _login_for(self, request: Request, values: Mapping[str, str], prompt: frozenset[str]) -> Login | None:
        """The login that is good enough for this request. Raises _Refused."""
        login = self._browsers.login(request)
        if login is None or prompt & {"login", "select_account"}:
            return None
        longest = values.get("max_age")
        if longest is not None:
            if not _SECONDS.fullmatch(longest):
                raise _Refused("invalid_request", "max_age is a number of seconds.")
            if self._state.clock() - login.since > int(longest):
                return None
        hint = values.get("id_token_hint")
        if hint is not None and (self._keys.claims(hint) or {}).get("sub") != login.user.subject:
            return None
        return login

    async def login_page(self, request: Request) -> Response:
        name = request.query_params.get("request")
        if name is None:
            return self._browsers.park(request, ParkedLogin(browser="", request=None))
        parked = self._browsers.parked(request, name)
        if parked is None:
            return self._expired()
        return self._login_form(parked)

    async def log_in(self, request: Request) -> Response:
        """The login form: `username` and `password`; what it is for is parked under the `request` of its address.

        A form from elsewhere has no use here: parked requests belong to one browser, which its cookie proves.
        """
        name = request.query_params.get("request", "")
        form = await read_form(request)
        parked = self._browsers.parked(request, name)
        if parked is None or self._browsers.comes_from_elsewhere(request):
            return self._expired()
        user = self._state.users.get(form.get("username", "").strip())
        if user is None or not user.has_password(form.get("password", "")):
            parked.failures += 1
            if parked.failures >= _MAX_FAILURES:
                self._state.parked.pop(name)
            return self._login_form(parked, error="Wrong user name or password.", status=401)
        self._state.parked.pop(name)
        login = Login(user=user, form_token=secrets.token_urlsafe(32), since=self._state.clock())
        if parked.request is not None:
            response = self._with_code(parked.request, login, status=303)
        else:
            response = self._browsers.redirect("/", status=303)
        self._browsers.log_in(request, response, login)
        return response

    async def end_session(self, request: Request) -> Response:
        """Log out at once where the client proves by its id token that it knows whom; ask otherwise."""
        values = await _values(request)
        login = self._browsers.login(request)
        hint = self._keys.claims(values.get("id_token_hint", ""))
        target = self._logout_target(values, hint)
        if login is None or (hint is not None and hint.get("sub") == login.user.subject):
            return self._logged_out(request, target, values.get("state"))
        return self._browsers.page(
            "logout.html", login=login, target=target or "", state=values.get("state", "") if target else ""
        )

    async def log_out(self, request: Request) -> Response:
        """Platform's own logout form; `target` is where a client wants the browser afterwards."""
        form = await read_form(request)
        self._browsers.require_own_form(request, form)
        target = form.get("target")
        known = any(target in client.post_logout_redirect_uris for client in self._state.clients.values())
        return self._logged_out(request, target if known else None, form.get("state"))

    def _logout_target(self, values: Mapping[str, str], hint: Mapping[str, object] | None) -> str | None:
        client_id = values.get("client_id") or (hint or {}).get("aud")
        client = self._state.clients.get(client_id) if isinstance(client_id, str) else None
        target = values.get("post_logout_redirect_uri")
        return target if client is not None and target in client.post_logout_redirect_uris else None

    def _logged_out(self, request: Request, target: str | None, state: str | None) -> Response:
        if target is not None:
            url = _with_query(target, {"state": state}) if state else target
            response = self._browsers.redirect(url, status=303)
        else:
            response = self._browsers.message("Logged out", "You are logged out of Platform.")
        login = self._browsers.log_out(request, response)
        if login is not None:
            self._state.ended_sids.put(login.sid, "")
            self._tell_clients(login)
        return response

    def _tell_clients(self, login: Login) -> None:
        for client_id in sorted(login.clients):
            client = self._state.clients.get(client_id)
            if client is not None and client.backchannel_logout_uri is not None:
                token = logout_token(self._keys, client, login, issuer=self._issuer, now=self._state.clock())
                self._notifier.tell(client.backchannel_logout_uri, token)

    def _with_code(self, wanted: AuthorizationRequest, login: Login, *, status: int = 302) -> Response:
        code = secrets.token_urlsafe(32)
        login.clients.add(wanted.client_id)
        self._state.codes.put(code, Code(request=wanted, user=login.user, sid=login.sid, since=self._state.clock()))
        return self._back(wanted.redirect_uri, wanted.state, status=status, code=code)

    def _back(self, redirect_uri: str, state: str | None, *, status: int = 302, **values: str) -> Response:
        if state is not None:
            values["state"] = state
        return self._browsers.redirect(_with_query(redirect_uri, {**values, "iss": self._issuer}), status=status)

    def _login_form(self, parked: ParkedLogin, *, error: str = "", status: int = 200) -> Response:
        client = self._state.clients.get(parked.request.client_id) if parked.request is not None else None
        return self._browsers.page(
            "login.html",
            status=status,
            client=client.name if client is not None else None,
            users=list(self._state.users.values()),
            error=error,
        )

    def _expired(self) -> Response:
        return self._browsers.message(
            "This login is over",
            "It took more than ten minutes, or it was begun in another browser. Open your Studio again.",
            status=400,
        )


async def _values(request: Request) -> dict[str, str]:
    """Parameters from the query or, with POST, from the form (OpenID Connect Core 3.1.2.1)."""
    return await read_form(request) if request.method == "POST" else single_values(request.url.query)


def _prompt_untrusted(values: Mapping[str, str]) -> frozenset[str]:
    """What the client wants shown (OpenID Connect Core 3.1.2.1). Raises _Refused."""
    prompt = frozenset(values.get("prompt", "").split())
    if not prompt <= _PROMPTS or (len(prompt) > 1 and "none" in prompt):
        raise _Refused("invalid_request", "prompt is none alone, or some of login, consent and select_account.")
    return prompt


def _wanted_untrusted(values: Mapping[str, str], client: Client, redirect_uri: str) -> AuthorizationRequest:
    if any(len(values.get(name, "")) > _MAX_PARAMETER for name in ("state", "nonce", "scope")):
        raise _Refused("invalid_request", f"state, nonce and scope may have {_MAX_PARAMETER} characters.")
    if values.get("response_type") != "code":
        raise _Refused("unsupported_response_type", "The response_type must be code.")
    if "openid" not in values.get("scope", "").split():
        raise _Refused("invalid_scope", "The scope must have openid.")
    challenge = values.get("code_challenge", "")
    if values.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(challenge):
        raise _Refused("invalid_request", "PKCE is required: code_challenge with code_challenge_method S256.")
    return AuthorizationRequest(
        client_id=client.client_id,
        redirect_uri=redirect_uri,
        scope=values["scope"],
        state=values.get("state"),
        nonce=values.get("nonce"),
        challenge=challenge,
    )


def _with_query(url: str, values: Mapping[str, str]) -> str:
    return f"{url}{'&' if '?' in url else '?'}{urlencode(values)}"
