"""The ways of a login, walked by an attacker: other origins, other hosts, other people's answers, other protocols."""

from __future__ import annotations

import base64
import hmac
import json
from functools import cache

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from connect_trio.edge.gate import Reply
from connect_trio.identity.tokens import TokenInvalid, import_keys, verify_agent_token
from tests.support.edge import OWN as EDGE_OWN
from tests.support.edge import STUDIO, eventually, get, open_world, upgrade
from tests.support.login import (
    NAMES,
    OWN,
    OWN_HOST,
    PRIVATE_URL,
    SHARED_HOST,
    SHARED_URL,
    Proxy,
    error_code,
    logged_in,
    platform,
    proxy,
)
from tests.support.platform import SHARED, RunningPlatform, parameters
from tests.support.visitor import HTML, visitor_request

__all__ = ["platform", "proxy"]


@pytest.mark.parametrize(
    "headers",
    [
        ("Origin: http://evil.example",),
        ("Origin: http://a00000001.connect.localhost:8080",),
        (f"Origin: http://{EDGE_OWN}",),
        (f"Origin: http://{STUDIO}.evil.example",),
        (f"Origin: http://evil.example#{STUDIO}",),
        ("Origin: null",),
        (f"Origin: http://{STUDIO}", f"Origin: http://{STUDIO}"),
        ("Sec-Fetch-Site: same-site",),
    ],
    ids=["another site", "a sibling", "Connect", "a prefix", "a fragment", "null", "two", "none, from a browser"],
)
async def test_cross_site_websocket_hijack(headers: tuple[str, ...]) -> None:
    async with open_world() as world:
        assert (await world.ask(upgrade("/ws", *headers))).startswith(b"HTTP/1.1 403 ")
        assert not world.dialer.targets


async def test_cross_site_requests_from_a_sibling(proxy: Proxy) -> None:
    browser = proxy.browser()
    await browser.log_in(f"{SHARED_URL}/", "alice")
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        page = await browser.request(method, f"{SHARED_URL}/", headers={"sec-fetch-site": "same-site"}, html=False)
        assert (page.status, error_code(page)) == (403, "foreign_page")


@pytest.mark.parametrize("origin", [PRIVATE_URL, OWN, "null", f"{SHARED_URL}.evil.example", "https" + SHARED_URL[4:]])
async def test_cross_site_requests_from_a_sibling_without_fetch_metadata(proxy: Proxy, origin: str) -> None:
    """Over plain http, browsers say nothing but the origin."""
    browser = proxy.browser()
    await browser.log_in(f"{SHARED_URL}/", "alice")
    page = await browser.request("POST", f"{SHARED_URL}/", headers={"origin": origin}, html=False)
    assert (page.status, error_code(page)) == (403, "foreign_page")
    for own in ({"origin": SHARED_URL}, {"origin": SHARED_URL.upper()}, {}):
        page = await browser.request("POST", f"{SHARED_URL}/", headers=own, html=False)
        assert page.admission is not None
    assert (await browser.request("GET", f"{SHARED_URL}/", headers={"origin": origin}, html=False)).admission


@pytest.mark.parametrize("target", ["/_connect/callback?code=c&state=s", "/_connect/login", "/_connect/tunnel"])
async def test_oauth_callback_on_a_tenant_origin(proxy: Proxy, target: str) -> None:
    """A service worker of a Studio sees what is sent to its host: no code of Platform's ever is."""
    assert await proxy.gate.own_page(visitor_request(NAMES, f"{SHARED_HOST}:8080", target)) is None
    page = await proxy.browser().request("GET", f"{OWN}/_connect/login?to=a{SHARED}")
    assert parameters(page.location)["redirect_uri"] == f"{OWN}/_connect/callback"


async def test_oauth_callback_on_a_tenant_origin_would_need_a_service_worker_there() -> None:
    """Scripts below our reserved path are never a tool's, so none can claim that path."""
    async with open_world() as world:
        found = await world.ask(get("/_connect/sw.js", "Service-Worker: script"))
        assert found.startswith(b"HTTP/1.1 404 ")
        assert not world.dialer.targets


async def test_a_stolen_transfer_code(proxy: Proxy) -> None:
    """What a tenant's page could see of a login, the transfer's code, is of no use without the browser's own cookie."""
    browser, thief = await logged_in(proxy), proxy.browser()
    page = await browser.request("GET", f"{SHARED_URL}/lab")
    code = (await browser.request("GET", page.location)).location
    await thief.request("GET", f"{SHARED_URL}/lab")
    page = await thief.request("GET", code)
    assert not any(line.startswith("connect_session=") for line in page.set_cookies())
    page = await browser.request("GET", code)
    assert not any(line.startswith("connect_session=") for line in page.set_cookies()), "and it worked once only"


OPEN_REDIRECTS = [
    *("//evil.example", "///evil.example", "/\\evil.example", "/\t/evil.example", "/\x0b/evil.example"),
    *("/ /evil.example", "\\\\evil.example", "/\u2044evil.example", "/x\r\nLocation:http://evil.example"),
]


@pytest.mark.parametrize("target", OPEN_REDIRECTS)
async def test_open_redirect(proxy: Proxy, target: str) -> None:
    browser = await logged_in(proxy)
    answer = await proxy.gate.admit(visitor_request(NAMES, f"{SHARED_HOST}:8080", target, headers=HTML))
    assert isinstance(answer, Reply)
    headers = dict(answer.headers)
    assert "evil" not in headers[b"Location"].decode(), "where to return to is kept here, not in the address"
    browser.cookies[SHARED_HOST] = dict([headers[b"Set-Cookie"].decode().split(";")[0].split("=", 1)])
    assert (await browser.open(headers[b"Location"].decode())).url == f"{SHARED_URL}/"


@pytest.mark.parametrize("field", ["to", "next", "return_to", "redirect_uri", "ticket", "rd", "url"])
@pytest.mark.parametrize(
    "value", ["https://evil.example", "//evil.example", "javascript:alert(1)", "a23ce7967.evil.example"]
)
async def test_open_redirect_by_a_query(proxy: Proxy, field: str, value: str) -> None:
    browser = await logged_in(proxy)
    page = await browser.request("GET", f"{OWN}/_connect/login?{field}={value}")
    assert page.location == f"{OWN}/"


async def test_forced_login(proxy: Proxy) -> None:
    """An attacker's half-finished login, given to a victim as a link, makes nobody the attacker."""
    attacker, victim = proxy.browser(), proxy.browser()
    page = await attacker.open(f"{OWN}/_connect/login")
    callback = (await attacker.request("POST", page.url, form={"username": "bob", "password": "bob"})).location
    page = await victim.request("GET", callback)
    assert page.status == 400
    assert "connect_login" not in victim.cookies[OWN_HOST]
    for _ in range(2):
        page = await (attacker := await logged_in(proxy, "bob")).request("GET", f"{SHARED_URL}/")
        transfer = (await attacker.request("GET", page.location)).location
        await victim.request("GET", f"{SHARED_URL}/")
        await victim.request("GET", transfer)
        assert "connect_session" not in victim.cookies[SHARED_HOST]


@pytest.mark.parametrize("name", ["token", "access_token", "id_token", "connect_session", "code"])
async def test_forced_login_by_credentials_in_an_address(proxy: Proxy, platform: RunningPlatform, name: str) -> None:
    browser = proxy.browser()
    await browser.log_in(f"{SHARED_URL}/", "alice")
    for secret in (browser.cookies[SHARED_HOST]["connect_session"], await platform.agent_token(SHARED)):
        page = await proxy.browser().request("GET", f"{SHARED_URL}/?{name}={secret}", html=False)
        assert page.status == 401


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize("switch", [False, True], ids=["http", "websocket"])
async def test_missing_auth_on_one_protocol(proxy: Proxy, method: str, switch: bool) -> None:
    for headers in ({}, {"authorization": "Bearer x"}, {"cookie": f"connect_session={'x' * 43}"}):
        page = await proxy.browser().request(method, f"{SHARED_URL}/", headers=headers, html=False, upgrade=switch)
        assert page.status == 401
    bob = proxy.browser()
    await bob.log_in(f"{SHARED_URL}/", "bob")
    await bob.open(f"{PRIVATE_URL}/")
    page = await bob.request(method, f"{PRIVATE_URL}/", headers={}, html=False, upgrade=switch)
    assert page.status == 403


async def test_authorisation_only_at_handshake(proxy: Proxy, platform: RunningPlatform) -> None:
    """Each request is decided anew, after the two seconds that an answer is kept."""
    browser = proxy.browser()
    await browser.log_in(f"{SHARED_URL}/", "alice")
    await platform.set_state(SHARED, "stop")
    proxy.clock.offset += 3
    assert (await browser.request("GET", f"{SHARED_URL}/", html=False)).admission is None


async def test_authorisation_only_at_handshake_of_a_websocket() -> None:
    async with open_world() as world:
        _, tool = await world.request(upgrade())
        await tool.head()
        await tool.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        await eventually(lambda: list(world.edge.scopes.live()) == [STUDIO[1:9]])
        world.edge.scopes.end(STUDIO[1:9], "the session was stopped")
        await eventually(lambda: not list(world.edge.scopes.live()))


async def test_token_leak(proxy: Proxy) -> None:
    """No secret that outlives one use is in an address, and no page of ours tells others the address it had."""
    browser = proxy.browser()
    await browser.log_in(f"{SHARED_URL}/lab", "alice")
    secrets = [value for jar in browser.cookies.values() for value in jar.values()]
    assert secrets
    assert not any(secret in url for secret in secrets for url in browser.trail)
    for url in (
        f"{OWN}/_connect/login",
        f"{OWN}/_connect/callback?code=c&state=s",
        f"{SHARED_URL}/_connect/transfer?code=c",
    ):
        page = await proxy.browser().request("GET", url)
        assert page.header("referrer-policy") in ("no-referrer", "same-origin")
        assert page.header("cache-control") == "no-store"


async def test_stored_xss_in_our_pages(proxy: Proxy) -> None:
    browser = proxy.browser()
    page = await browser.request("GET", f"{OWN}/_connect/login?to=a{SHARED}")
    state = parameters(page.location)["state"]
    evil = "%3Cscript%3Ealert(1)%3C/script%3E"
    page = await browser.request("GET", f"{OWN}/_connect/callback?state={state}&error={evil}")
    assert "alert(1)" in page.text
    assert "<script" not in page.text
    assert "default-src 'none'" in (page.header("content-security-policy") or "")


ISSUER = "https://platform.example/api"
NOW = 1_800_000_000


@cache
def platform_key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": "k"})


def agent_token(algorithm: str, **changes: object) -> str:
    """Signed by Platform's own key, so that only what the token says can be wrong with it."""
    claims = {"iss": ISSUER, "aud": "connect-agent", "sub": SHARED, "jti": "1", "iat": NOW, "exp": NOW + 60, **changes}
    return jwt.encode({"alg": algorithm, "kid": "k"}, claims, platform_key(), algorithms=[algorithm])


def session_of_token(token: str) -> str:
    keys = import_keys({"keys": [platform_key().as_dict(private=False)]})
    return verify_agent_token(token, keys=keys, issuer=ISSUER, now=NOW).session


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256", "PS512"])
def test_jwt_library_bugs_in_algorithms_we_do_not_use(algorithm: str) -> None:
    assert session_of_token(agent_token("RS256")) == SHARED
    with pytest.raises(TokenInvalid):
        session_of_token(agent_token(algorithm))


@pytest.mark.parametrize(
    "changes",
    [
        *({"iss": "https://evil.example/api"}, {"iss": ISSUER + "/"}, {"iss": [ISSUER]}),
        *({"aud": "another"}, {"aud": ["connect-agent", "another"]}, {"sub": "23ce7967 "}, {"sub": "../23ce7967"}),
        *({"exp": NOW - 31}, {"iat": NOW + 31}, {"nbf": NOW + 31}),
    ],
    ids=str,
)
def test_jwt_for_somebody_else(changes: dict[str, object]) -> None:
    with pytest.raises(TokenInvalid):
        session_of_token(agent_token("RS256", **changes))


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256"])
def test_jwt_signed_with_what_everybody_knows(algorithm: str) -> None:
    _, body, _ = agent_token("RS256").split(".")
    header = encoded(json.dumps({"alg": algorithm, "kid": "k"}).encode())
    signed = f"{header}.{body}"
    mac = hmac.digest(platform_key().as_pem(private=False), signed.encode(), "sha256")
    for signature in ("", encoded(mac)):
        with pytest.raises(TokenInvalid):
            session_of_token(f"{signed}.{signature}")


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
