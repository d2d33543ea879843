"""Which host a request is for, and what its path may not change about that."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connect_trio.routing.names import HostNames, InvalidHost, UnknownHost
from tests.support.edge import OWN, STUDIO, get, open_world, upgrade

NAMES = HostNames("https://connect.example")
HOST = STUDIO.partition(":")[0]

NEARLY_OURS = {
    "our name as a prefix": f"{HOST}.evil.example",
    "our name as a suffix": f"evil{HOST}",
    "our domain as a suffix": HOST.replace(".", ".evil", 1),
    "a grandchild of our domain": HOST.replace(".", ".evil.", 1),
    "a parent": "localhost",
    "a child": f"x.{HOST}",
    "a trailing dot": f"{HOST}.",
    "user information": f"{HOST}@evil.example",
    "user information before us": f"evil.example@{HOST}",
    "an encoded dot": HOST.replace(".", "%2e", 1),
    "a full-width dot": HOST.replace(".", "\N{FULLWIDTH FULL STOP}", 1).encode().decode("latin-1"),
    "the Kelvin sign": "a23ce7967.connect.localhost".replace("c", "\N{KELVIN SIGN}", 1).encode().decode("latin-1"),
    "a backslash": f"{HOST}\\evil.example",
    "a tab inside": f"{HOST}\tevil.example",
    "a list": f"{HOST}, evil.example",
    "an empty port": f"{HOST}:",
    "a port that is none": f"{HOST}:8080.evil.example",
    "another label": "b23ce7967.connect.localhost",
    "a label that begins like one": "a23ce79670.connect.localhost",
}


@pytest.mark.parametrize("host", NEARLY_OURS.values(), ids=NEARLY_OURS.keys())
async def test_host_confusion(host: str) -> None:
    async with open_world() as world:
        found = await world.ask(get("/", host=host))
        assert found.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))
        assert not world.gate.requests
        assert not world.dialer.targets


@pytest.mark.parametrize(
    "request_",
    [
        get("/", f"Host: {STUDIO}", host=OWN),
        get("/", f"host: {OWN}"),
        get(f"http://{OWN}/"),
        get("http://evil.example/"),
        get(f"http://{STUDIO}@evil.example/"),
        get(f"http://{STUDIO}.evil.example/"),
        get(f"//{OWN}/", host="evil.example"),
    ],
    ids=[
        "two hosts",
        "two that differ in case",
        "ours in the URL",
        "another",
        "user information",
        "prefix",
        "no scheme",
    ],
)
async def test_host_confusion_between_two_readers(request_: bytes) -> None:
    async with open_world() as world:
        assert (await world.ask(request_)).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))
        assert not world.gate.requests


DOMAIN = "studios.localhost"
APART = HostNames("https://connect.example", "studios.example")


@pytest.mark.parametrize(
    "request_",
    [
        get("/", host=STUDIO),
        get("/", host=DOMAIN),
        get("/", host=f"x.a23ce7967.{DOMAIN}"),
        get("/", host=f"a23ce7967.evil{DOMAIN}"),
        get("/", host=f"a23ce7967.{DOMAIN}."),
        get("/", host=f"a23ce7967.{OWN}@{DOMAIN}"),
        get("/", f"Host: {OWN}", host=f"a23ce7967.{DOMAIN}"),
        get(f"http://{STUDIO}/", host=f"a23ce7967.{DOMAIN}"),
        get(f"http://a23ce7967.{DOMAIN}/", host=STUDIO),
        get(f"//a23ce7967.{DOMAIN}/", host=STUDIO),
    ],
    ids=[
        "under our own host",
        "the domain itself",
        "a child",
        "the domain as a suffix",
        "a trailing dot",
        "user information",
        "two hosts",
        "another in the URL",
        "only in the URL",
        "no scheme",
    ],
)
async def test_host_confusion_around_a_domain_of_the_studios(request_: bytes) -> None:
    async with open_world(domain=DOMAIN) as world:
        assert (await world.ask(request_)).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))
        assert not world.gate.requests
        _, tool = await world.request(get("/", host=f"A23CE7967.{DOMAIN}:8080"))
        await tool.head()
        assert [request.label for request in world.gate.requests] == ["a23ce7967"]


async def test_host_confusion_of_origins_around_a_domain_of_the_studios() -> None:
    async with open_world(domain=DOMAIN) as world:
        for origin in (STUDIO, OWN, f"{DOMAIN}:8080", f"a00000001.{DOMAIN}:8080", f"a23ce7967.{DOMAIN}.evil.example"):
            found = await world.ask(upgrade("/ws", f"Origin: http://{origin}", host=f"a23ce7967.{DOMAIN}:8080"))
            assert found.startswith(b"HTTP/1.1 403 "), origin
        host = f"a23ce7967.{DOMAIN}:8080"
        _, tool = await world.request(upgrade("/ws", f"Origin: http://{host}", host=host))
        await tool.head()


MORE = st.sampled_from(
    [
        "studios",
        "connect",
        "example",
        ".",
        "a23ce7967",
        ":",
        "443",
        "@",
        "/",
        "//",
        "\\",
        "\t",
        "%2e",
        "A",
        "xn--a",
        "ä",
    ]
)


@given(st.lists(MORE).map("".join))
@example("A23CE7967.Studios.example:443")
@example("a23ce7967.connect.example")
@example("a23ce7967.studios.example.")
@example("studios.example")
def test_host_confusion_with_any_parts_around_a_domain_of_the_studios(header: str) -> None:
    try:
        APART.classify(header)
    except (InvalidHost, UnknownHost):
        return
    host, _, port = header.lower().partition(":")
    assert host in ("connect.example", "a23ce7967.studios.example")
    assert port == "443" * (len(port) // 3)


PARTS = st.sampled_from(["connect", "example", ".", "a23ce7967", ":", "443", "@", "/", "\\", "\t", "%2e", "A", ","])


@given(st.lists(PARTS).map("".join))
@example("CONNECT.example:443")
@example("connect.example.")
def test_host_confusion_with_any_parts(header: str) -> None:
    try:
        NAMES.classify(header)
    except (InvalidHost, UnknownHost):
        return
    host, _, port = header.lower().partition(":")
    assert host in ("connect.example", "a23ce7967.connect.example")
    assert port == "443" * (len(port) // 3)


@pytest.mark.parametrize(
    "path", ["/a/%2e%2e/b", "/a//b/../c", "/%2F%5c", "/a;x=%00", "/\\evil.example", "/a?b=../_connect"]
)
async def test_path_normalisation_differences(path: str) -> None:
    async with open_world() as world:
        _, tool = await world.request(get(path))
        assert (await tool.head()).startswith(f"GET {path} HTTP/1.1\r\n".encode()), "byte for byte as it came"
        assert world.gate.requests[0].target == path.encode()


@pytest.mark.parametrize(
    "path",
    [
        *("/x/../_connect/logout", "/%5fconnect/logout", "//_connect/transfer", "/_Connect/x"),
        *("/_connect;x/logout", "/x/..;/_connect/logout", "/%255fconnect/logout", "/%5f%63onnect%3b/x"),
    ],
)
async def test_path_normalisation_differences_around_our_own_paths(path: str) -> None:
    async with open_world() as world:
        assert (await world.ask(get(path))).startswith(b"HTTP/1.1 404 ")
        assert not world.dialer.targets
