"""HTTP calls to Platform: bounded in time and size, with one error for "not there". The only user of httpx2.

A Platform that does not answer is left alone for a moment (0.25 s, doubling to 2 s): until then calls fail at once, so
that visitors wait neither for time-outs nor for each other, and a Platform that starts is not run over. One call that
fails while others are answered says nothing of Platform: only whoever asked has no answer. What failed together counts
once, however many calls it were; and any answer ends the pause.
"""

from __future__ import annotations

import json
import logging
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import quote_plus, urlsplit

import attrs
import httpx2
import trio

from connect_trio.routing.names import address_of

logger = logging.getLogger(__name__)

_MAX_ANSWER = 256 * 1024  # bytes; a discovery document has about 2 KiB
_PLAIN = "identity"
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 2.0
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class PlatformUnavailable(Exception):
    """Platform cannot be reached, does not answer in time, or answers what the contract does not allow.

    sent: whether the request may have reached it, and may have had its effect. retry_after: seconds that Platform wants
    to be left alone, if it said so.
    """

    def __init__(self, reason: str, *, sent: bool = False, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.sent = sent
        self.retry_after = retry_after


@attrs.frozen(kw_only=True)
class Answer:
    """status: HTTP status below 500. document: the JSON value of the body, None if it has none."""

    status: int
    document: object
    retry_after: float | None = None


class PlatformClient:
    """Calls to one Platform. Made by `open_platform_client`."""

    def __init__(self, http: httpx2.AsyncClient, *, platform_url: str, clock: Callable[[], float]) -> None:
        self.platform_url = platform_url
        self._http = http
        self._clock = clock
        self._pause = 0.0
        self._busy = False  # by its own words (429), however many it answers
        self._resume_at = self._answered_at = self._failed_at = float("-inf")

    async def call(
        self,
        method: str,
        url: str,
        *,
        timeout: float,
        document: Mapping[str, Any] | None = None,
        form: Mapping[str, str] | None = None,
        basic: tuple[str, str] | None = None,
        bearer: str | None = None,
    ) -> Answer:
        """One request and its JSON answer; redirects are not followed. `timeout` in seconds is for all of it.

        basic: id and secret of the OAuth client, encoded as forms are on their way (RFC 6749 section 2.3.1).
        Raises PlatformUnavailable, also for answers from status 500 on and for 429.
        """
        if self._clock() < self._resume_at:
            raise PlatformUnavailable("Platform did not answer a moment ago")
        began = self._clock()
        try:
            request = self._request(method, url, document=document, form=form, bearer=bearer)
            with trio.fail_after(timeout):
                answer = await self._answer(request, httpx2.BasicAuth(*map(quote_plus, basic)) if basic else None)
        except (httpx2.HTTPError, httpx2.InvalidURL, trio.TooSlowError, OSError) as exc:
            sent = not isinstance(exc, httpx2.ConnectError | httpx2.InvalidURL)
            raise self._failed(f"Platform cannot be reached ({_cause(exc, timeout)})", began, sent=sent) from exc
        except _Oversized as exc:
            raise self._failed(f"Platform answered more than {_MAX_ANSWER} bytes", began) from exc
        except _Encoded as exc:
            raise self._failed("Platform answered in a coding that nobody asked for (Content-Encoding)", began) from exc
        if answer.status >= 500 or answer.status == 429:
            failure = self._failed(f"Platform answered with status {answer.status}", began, busy=answer.status == 429)
            failure.retry_after = answer.retry_after
            raise failure
        self._answered_at = self._clock()
        if not self._busy or began >= self._resume_at:
            self._pause, self._resume_at, self._busy = 0.0, float("-inf"), False
        return answer

    def _request(
        self,
        method: str,
        url: str,
        *,
        document: Mapping[str, Any] | None,
        form: Mapping[str, str] | None,
        bearer: str | None,
    ) -> httpx2.Request:
        headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
        request = self._http.build_request(method, url, json=document, data=form, headers=headers)
        place = address_of(request.url.host)
        if place != request.url.host:  # the Host header is there already, with the name
            request.extensions["sni_hostname"] = request.url.host
            request.url = request.url.copy_with(host=place)
        return request

    def aside(self) -> PlatformClient:
        """For calls in the background: the same connections, but their failures are no reason to leave Platform alone,
        which visitors would feel."""
        return PlatformClient(self._http, platform_url=self.platform_url, clock=self._clock)

    async def _answer(self, request: httpx2.Request, auth: httpx2.BasicAuth | None) -> Answer:
        response = await self._http.send(request, auth=auth, stream=True)
        try:
            if response.headers.get("content-encoding", _PLAIN).strip().lower() != _PLAIN:
                raise _Encoded
            body = bytearray()
            with trio.CancelScope() as reading:
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > _MAX_ANSWER:
                        # From within: the generators that httpx2 stacks do not close each other.
                        reading.cancel()
        finally:
            await response.aclose()
        if len(body) > _MAX_ANSWER:
            raise _Oversized
        return Answer(
            status=response.status_code,
            document=_json_untrusted(bytes(body)),
            retry_after=_retry_after_untrusted(response.headers.get("retry-after", "")),
        )

    def _failed(self, reason: str, began: float, *, busy: bool = False, sent: bool = True) -> PlatformUnavailable:
        now = self._clock()
        if self._answered_at > began and not busy:
            logger.info("%s: %s, but it answers others", self.platform_url, reason)
        elif self._failed_at <= began or not self._pause:
            if not self._pause:
                logger.warning("%s: %s", self.platform_url, reason)
            self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
            self._failed_at, self._resume_at, self._busy = now, now + self._pause, busy
        return PlatformUnavailable(reason, sent=sent)


@asynccontextmanager
async def open_platform_client(
    *, platform_url: str, tls: ssl.SSLContext | None = None, clock: Callable[[], float] = trio.current_time
) -> AsyncIterator[PlatformClient]:
    """A client for the Platform at `platform_url`; nothing is sent yet, so Platform may be away.

    tls: how Platform's certificate is judged, None for the system's authorities. Raises ValueError for an address that
    is no http(s) URL.
    """
    parts = urlsplit(platform_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(
            f"PLATFORM_URL must be an http or https address like https://platform.example, not {platform_url!r}"
        )
    # A proxy or a CA bundle from the environment serves a Platform elsewhere, never one on this machine.
    local = parts.hostname in _LOOPBACK or parts.hostname.endswith(".localhost")
    limits = httpx2.Limits(max_connections=32, max_keepalive_connections=8, keepalive_expiry=2.0)
    async with httpx2.AsyncClient(
        headers={"accept": "application/json", "accept-encoding": _PLAIN, "user-agent": "connect-trio"},
        timeout=None,
        limits=limits,
        follow_redirects=False,
        cookies=CookieJar(
            DefaultCookiePolicy(allowed_domains=[])
        ),  # one visitor's cookie must not go along with another
        trust_env=not local,
        verify=tls if tls is not None else True,
    ) as http:
        yield PlatformClient(http, platform_url=platform_url.rstrip("/"), clock=clock)


class _Oversized(Exception):
    """An answer that is longer than we read."""


class _Encoded(Exception):
    """An answer that is compressed, so that nobody knows how long it is before it is too late."""


def _json_untrusted(body: bytes) -> object:
    try:
        document = json.loads(body) if body else None
        if _SURROGATE.search(body):  # JSON can escape halves of characters, which are no text that could be sent on
            document = json.loads(json.dumps(document, ensure_ascii=False).encode("utf-8", "replace"))
        return document
    except (ValueError, RecursionError):
        return None


def _retry_after_untrusted(text: str) -> float | None:
    """Seconds of a Retry-After (RFC 9110 section 10.2.3); a date counts from now."""
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def _cause(error: Exception, timeout: float) -> str:
    if isinstance(error, trio.TooSlowError):
        return f"no answer within {timeout:g} s"
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, ssl.SSLCertVerificationError):
            hint = "an authority that is not of this system belongs into CONNECT_PLATFORM_CA_FILE"
            return f"its certificate is not trusted: {inner.verify_message.rstrip('.')}; {hint}"
        inner = inner.__cause__ or inner.__context__
    return str(error) or type(error).__name__
