"""Platform says that somebody's login there has ended: who is out, at all proxies, and who cannot say so."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any
from urllib.parse import urlencode

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.edge.gate import Reply
from connect_trio.edge.login_backchannel import MAX_BODY, PATH, logout_token_untrusted
from connect_trio.edge.login_ends import Lives, Logins
from connect_trio.edge.login_records import LoginRecords
from connect_trio.edge.login_visits import StudioVisit
from connect_trio.identity.tokens import MAX_TOKEN, TokenInvalid
from connect_trio.identity.tokens_logout import EVENT, LogoutToken
from connect_trio.routing.memory import MemoryStore
from connect_trio.routing.registry import RegistryUnavailable, Store
from tests.support.login import (
    NAMES,
    OWN_HOST,
    SHARED_HOST,
    BreakableStore,
    Clock,
    Proxy,
    inside,
    is_in,
    open_proxy,
    platform,
    proxy,
)
from tests.support.platform import RunningPlatform
from tests.support.replicas import Replicas, redis_server, replicas
from tests.support.visitor import visitor_request

__all__ = ["platform", "proxy", "redis_server", "replicas"]

FORM = "application/x-www-form-urlencoded"

NOW = 1_800_000_000.0


async def logout_token(platform: RunningPlatform, proxy: Proxy, **changes: Any) -> str:
    """Right but for `changes` (...: left out), and for whom: that is to be among them."""
    client = await proxy.identity.oidc._registration.credentials()
    right = {
        "iss": platform.issuer,
        "aud": client.client_id,
        "iat": int(time.time()),
        "exp": int(time.time()) + 120,
        "jti": secrets.token_hex(8),
        "events": {EVENT: {}},
    }
    claims = {name: value for name, value in {**right, **changes}.items() if value is not ...}
    return platform.keys.sign(claims, kind="logout+jwt")


async def post(proxy: Proxy, body: str | bytes, *, kind: str = FORM, client: str = "198.51.100.7") -> Reply:
    request = visitor_request(
        NAMES, f"{OWN_HOST}:8080", PATH, method="POST", headers={"content-type": kind}, html=False, client=client
    )
    assert proxy.gate.body_limit(request) == MAX_BODY
    reply = await proxy.gate.own_page(attrs.evolve(request, body=body.encode() if isinstance(body, str) else body))
    assert reply is not None
    assert (b"Cache-Control", b"no-store") in reply.headers
    return reply


async def tell(platform: RunningPlatform, proxy: Proxy, **changes: Any) -> Reply:
    return await post(proxy, urlencode({"logout_token": await logout_token(platform, proxy, **changes)}))


def sid_of(studio: StudioVisit) -> str:
    sid = studio.visit.login.sid
    assert sid is not None
    return sid


@pytest.mark.parametrize("with_subject", [True, False])
async def test_a_logout_of_one_session_ends_that_login_at_all_proxies(replicas: Replicas, with_subject: bool) -> None:
    one, other = replicas.one, replicas.other
    first, visit = await inside(one)
    second, _ = await inside(other)
    subject = visit.session.subject if with_subject else ...
    assert (await tell(replicas.platform, other, sid=sid_of(visit), sub=subject)).status == 200
    for replica in (one, other):
        assert not await is_in(replica, first)
        assert await is_in(replica, second), "it is of another session, of the same person"
    assert await replicas.tokens(visit) is None, "nobody keeps what is of no use any more"


async def test_a_logout_of_a_person_ends_all_their_logins_and_nobody_elses(replicas: Replicas) -> None:
    one, other = replicas.one, replicas.other
    browsers = [(await inside(proxy))[0] for proxy in (one, other)]
    _, visit = await inside(one)
    bob, _ = await inside(one, "bob")
    assert (await tell(replicas.platform, one, sub=visit.session.subject)).status == 200
    for replica in (one, other):
        for browser in browsers:
            assert not await is_in(replica, browser)
        assert await is_in(replica, bob)


async def test_who_logs_in_after_a_logout_is_in(replicas: Replicas) -> None:
    _, visit = await inside(replicas.one)
    subject, before = visit.session.subject, int(visit.visit.login.issued) - 1
    assert (await tell(replicas.platform, replicas.one, sub=subject, iat=before)).status == 200
    browser, _ = await inside(replicas.one)
    for replica in (replicas.other, replicas.one):
        assert await is_in(replica, browser)
    assert (await tell(replicas.platform, replicas.other, sub=subject)).status == 200
    assert (await tell(replicas.platform, replicas.other, sub=subject, iat=before)).status == 200
    assert not await is_in(replicas.one, browser), "what is told late does not bring anybody back"


async def test_a_token_works_once_at_all_proxies(replicas: Replicas) -> None:
    _, visit = await inside(replicas.one)
    body = urlencode({"logout_token": await logout_token(replicas.platform, replicas.one, sid=sid_of(visit))})
    assert (await post(replicas.one, body)).status == 200
    for replica in (replicas.one, replicas.other):
        reply = await post(replica, body)
        assert reply.status == 400
        assert "jti" in json.loads(reply.body)["error_description"]


TOLD = LogoutToken(subject="user-1", sid=None, audience=("client",), token_id="1", issued=NOW, usable_until=NOW + 330)


def logins_in(store: Store) -> Logins:
    return Logins(store, LoginRecords(store), Lives(), wall_clock=lambda: NOW)


async def test_a_token_is_remembered_for_as_long_as_it_would_be_good() -> None:
    clock = Clock()
    logins = logins_in(MemoryStore(clock=clock))
    assert await logins.told(TOLD)
    clock.offset += 329
    assert not await logins.told(TOLD)


async def test_a_logout_that_could_not_be_carried_out_may_be_told_again_soon() -> None:
    clock = Clock()
    store = BreakableStore(clock=clock)
    logins = logins_in(store)
    store.broken = True
    with pytest.raises(RegistryUnavailable):
        await logins.told(TOLD)
    store.broken = False
    clock.offset += 11
    assert await logins.told(TOLD)


@pytest.mark.parametrize(
    "changes", [{"aud": "another client"}, {"iss": "http://evil.example/api"}, {"iat": 1}], ids=str
)
async def test_a_token_that_is_not_meant_for_connect_ends_nothing(
    proxy: Proxy, platform: RunningPlatform, changes: dict[str, Any]
) -> None:
    browser, visit = await inside(proxy)
    reply = await tell(platform, proxy, sid=sid_of(visit), sub=visit.session.subject, **changes)
    assert reply.status == 400
    assert json.loads(reply.body)["error"] == "invalid_request"
    assert await is_in(proxy, browser)


async def test_a_session_of_somebody_else_is_not_ended(proxy: Proxy, platform: RunningPlatform) -> None:
    browser, visit = await inside(proxy)
    assert (await tell(platform, proxy, sid=sid_of(visit), sub="somebody-else")).status == 200
    assert await is_in(proxy, browser)


async def test_an_id_token_logs_nobody_out(proxy: Proxy, platform: RunningPlatform) -> None:
    browser, visit = await inside(proxy)
    client = await proxy.identity.oidc._registration.credentials()
    claims = {"iss": platform.issuer, "aud": client.client_id, "sub": visit.session.subject, "sid": sid_of(visit)}
    now = int(time.time())
    for kind in ("JWT", "logout+jwt"):
        token = platform.keys.sign({**claims, "iat": now, "exp": now + 60, "jti": "1"}, kind=kind)
        assert (await post(proxy, urlencode({"logout_token": token}))).status == 400
    assert await is_in(proxy, browser)


async def test_a_login_without_a_session_ends_with_any_session_of_its_person(
    proxy: Proxy, platform: RunningPlatform
) -> None:
    """Better once too often: Platform did not say of which session the login is."""
    browser, visit = await inside(proxy)
    login = attrs.evolve(visit.visit.login, sid=None)
    records = proxy.gate._visits._records
    await records.put(visit.visit.key, login, ttl=1000)
    assert await is_in(proxy, browser)
    assert (await tell(platform, proxy, sid="unheard of", sub=login.subject)).status == 200
    assert not await is_in(proxy, browser)


async def test_what_cannot_be_kept_may_be_told_again(platform: RunningPlatform) -> None:
    store = FailingStore()
    async with open_proxy(platform.url, store=store) as proxy:
        browser, visit = await inside(proxy)
        body = urlencode({"logout_token": await logout_token(platform, proxy, sid=sid_of(visit))})
        store.failing = True
        assert (await post(proxy, body)).status == 503
        store.failing = False
        store.now += 11  # the claim was for a moment only
        assert (await post(proxy, body)).status == 200
        assert not await is_in(proxy, browser)


class FailingStore(BreakableStore):
    failing = False

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(clock=lambda: self.now)

    async def put(self, key: str, value: bytes, *, ttl: float) -> None:
        if self.failing:
            raise RegistryUnavailable("switched off")
        await super().put(key, value, ttl=ttl)


async def test_platforms_keys_are_needed_to_believe_anybody(proxy: Proxy, platform: RunningPlatform) -> None:
    _, visit = await inside(proxy)
    token = await logout_token(platform, proxy, sid=sid_of(visit))
    await platform.stop()
    async with open_proxy(platform.url, store=proxy.store) as fresh:
        assert (await post(fresh, urlencode({"logout_token": token}))).status == 503


async def test_who_tries_without_end_is_told_to_wait(proxy: Proxy) -> None:
    statuses = set()
    for _ in range(10_000):  # some come back while it tries
        statuses.add((await post(proxy, "logout_token=x")).status)
        if 429 in statuses:
            break
    assert statuses == {400, 429}
    assert (await post(proxy, "logout_token=x", client="203.0.113.9")).status == 400


async def test_only_connects_own_host_is_told_and_only_by_post(proxy: Proxy) -> None:
    for host, method in ((SHARED_HOST, "POST"), (OWN_HOST, "GET"), (OWN_HOST, "PUT")):
        request = visitor_request(NAMES, f"{host}:8080", PATH, method=method)
        assert proxy.gate.body_limit(request) == 0
        reply = await proxy.gate.own_page(request)
        assert reply is None if host == SHARED_HOST else reply is not None and reply.status == 405


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        *((body, FORM) for body in ("", "logout_token", "a=b", "logout_token=a&logout_token=a", "\xff=1", "&" * 50)),
        *(("logout_token=a", kind) for kind in ("", "application/json", "text/plain", "multipart/form-data")),
    ],
)
async def test_what_is_no_form_with_one_token_is_refused(proxy: Proxy, body: str, kind: str) -> None:
    assert (await post(proxy, body, kind=kind)).status == 400


@given(st.binary(max_size=200) | st.text(alphabet="logut_ken=&%;+ab", max_size=100).map(str.encode))
def test_any_body_has_one_token_or_is_refused(body: bytes) -> None:
    request = visitor_request(NAMES, f"{OWN_HOST}:8080", PATH, method="POST", headers={"content-type": FORM})
    try:
        token = logout_token_untrusted(attrs.evolve(request, body=body))
    except TokenInvalid:
        return
    assert b"logout" in body or b"%" in body
    assert len(token) <= len(body)


@given(st.text(min_size=1, max_size=MAX_TOKEN))
def test_a_token_comes_out_as_it_went_in(token: str) -> None:
    for kind in (FORM, f"{FORM}; charset=utf-8", FORM.upper()):
        request = visitor_request(NAMES, f"{OWN_HOST}:8080", PATH, method="POST", headers={"content-type": kind})
        body = urlencode({"other": "field", "logout_token": token}).encode()
        assert logout_token_untrusted(attrs.evolve(request, body=body)) == token
