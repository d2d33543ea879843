"""Calls to Platform: bounded, and with one error for everything that is not an answer."""

from __future__ import annotations

import base64
import contextlib
import gzip
import ssl
import tracemalloc
from functools import partial
from pathlib import Path

import pytest
import trio

from connect_trio.devplatform.clients import _basic_untrusted
from connect_trio.identity.client import PlatformUnavailable, open_platform_client
from tests.support.certificates import Authority
from tests.support.scripted import scripted_platform


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_an_answer_has_a_status_and_a_document() -> None:
    async with scripted_platform() as platform, open_platform_client(platform_url=platform.url) as client:
        platform.answers["GET /x"] = (404, {"error": "no"})
        answer = await client.call("GET", platform.url + "/x", timeout=5)
        assert (answer.status, answer.document) == (404, {"error": "no"})


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 100_000, b"\xff\xfe"])
async def test_a_body_that_is_not_json_is_no_document(body: bytes) -> None:
    async with scripted_platform() as platform, open_platform_client(platform_url=platform.url) as client:
        platform.answers["GET /x"] = (200, body)
        assert (await client.call("GET", platform.url + "/x", timeout=5)).document is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [((500, {}), "status 500"), ((503, {}), "status 503"), ((429, {}), "status 429"), ((200, b"x" * 300_000), "more")],
)
async def test_what_is_no_answer_is_an_unavailable_platform(answer: tuple[int, object], reason: str) -> None:
    async with scripted_platform() as platform, open_platform_client(platform_url=platform.url) as client:
        platform.answers["GET /x"] = answer
        with pytest.raises(PlatformUnavailable, match=reason):
            await client.call("GET", platform.url + "/x", timeout=5)


async def test_a_silent_platform_costs_the_time_out_once_and_then_nothing_for_a_moment() -> None:
    clock = Clock()
    async with scripted_platform() as platform, open_platform_client(platform_url=platform.url, clock=clock) as client:
        platform.answers["GET /x"] = None
        with pytest.raises(PlatformUnavailable, match="no answer within"):
            await client.call("GET", platform.url + "/x", timeout=0.05)
        with pytest.raises(PlatformUnavailable, match="a moment ago"):
            await client.call("GET", platform.url + "/x", timeout=60)
        clock.now += 0.3
        platform.answers["GET /x"] = (200, {})
        assert (await client.call("GET", platform.url + "/x", timeout=5)).status == 200


async def test_pauses_grow_to_two_seconds() -> None:
    clock = Clock()
    async with scripted_platform() as platform, open_platform_client(platform_url=platform.url, clock=clock) as client:
        platform.answers["GET /x"] = (500, {})
        for pause in (0.25, 0.5, 1, 2, 2):
            with pytest.raises(PlatformUnavailable, match="status 500"):
                await client.call("GET", platform.url + "/x", timeout=5)
            clock.now += pause - 0.01
            with pytest.raises(PlatformUnavailable, match="a moment ago"):
                await client.call("GET", platform.url + "/x", timeout=5)
            clock.now += 0.02


async def test_names_under_localhost_are_this_machine_whatever_resolvers_say() -> None:
    async with scripted_platform() as platform:
        platform.answers["GET /x"] = (200, {})
        url = f"http://platform.example.localhost:{platform.url.rpartition(':')[2]}"
        async with open_platform_client(platform_url=url) as client:
            assert (await client.call("GET", f"{url}/x", timeout=5)).status == 200


async def test_a_client_shows_its_id_and_secret_as_the_specification_encodes_them() -> None:
    """RFC 6749 section 2.3.1: whoever decodes them gets what was registered."""
    async with scripted_platform() as platform, open_platform_client(platform_url=platform.url) as client:
        platform.answers["GET /x"] = (200, {})
        await client.call("GET", platform.url + "/x", timeout=5, basic=("a:b c", "50%41+\u00e9-._~"))
        (line,) = (line for line in platform.heads[0].split(b"\r\n") if line.lower().startswith(b"authorization:"))
        shown = base64.b64decode(line.split()[2])
        assert shown == b"a%3Ab+c:50%2541%2B%C3%A9-._~"
        assert _basic_untrusted(f"Basic {base64.b64encode(shown).decode()}") == ("a:b c", "50%41+\u00e9-._~")


async def test_a_compressed_answer_is_asked_for_by_nobody_and_not_unpacked() -> None:
    """64 KiB of it could be 64 MiB."""
    async with scripted_platform() as platform, open_platform_client(platform_url=platform.url) as client:
        platform.answers["GET /x"] = (200, gzip.compress(b" " * 60_000_000 + b"{}"))
        platform.headers["GET /x"] = "Content-Encoding: gzip"
        tracemalloc.start()
        try:
            with pytest.raises(PlatformUnavailable, match="Content-Encoding"):
                await client.call("GET", platform.url + "/x", timeout=5)
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()
        assert b"accept-encoding: identity" in platform.heads[0].lower()


async def test_redirects_are_not_followed() -> None:
    async with scripted_platform() as platform, open_platform_client(platform_url=platform.url) as client:
        platform.answers["GET /x"] = (302, {})
        assert (await client.call("GET", platform.url + "/x", timeout=5)).status == 302
        assert platform.asked == ["GET /x"]


async def test_a_cancelled_call_leaves_the_client_usable() -> None:
    async with scripted_platform() as platform, open_platform_client(platform_url=platform.url) as client:
        platform.answers["GET /x"] = None
        platform.answers["GET /y"] = (200, {})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: client.call("GET", platform.url + "/x", timeout=60))
            while not platform.asked:
                await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        assert (await client.call("GET", platform.url + "/y", timeout=5)).status == 200


@pytest.mark.parametrize("url", ["", "platform.example", "ftp://platform.example", "http://", "http://p.example/?x"])
async def test_an_address_that_is_none_is_named(url: str) -> None:
    with pytest.raises(ValueError, match="PLATFORM_URL must be"):
        async with open_platform_client(platform_url=url):
            pass


async def test_a_private_authority_is_believed_and_no_other(tmp_path: Path) -> None:
    """What Platform shows must be for its name, and signed by the authority given."""
    folders = tmp_path / "one", tmp_path / "other"
    for folder in folders:
        folder.mkdir()
    authority, other = map(Authority, folders)
    contexts = {"right": authority.client(), "wrong": other.client(), "none": None}
    found = dict[tuple[str, str], str]()
    async with trio.open_nursery() as nursery:
        for host in ("localhost", "elsewhere.example"):
            serve = partial(serve_document, tls=authority.server(host))
            port = await nursery.start(serve)
            for name, tls in contexts.items():
                url = f"https://localhost:{port}"
                async with open_platform_client(platform_url=url, tls=tls) as client:
                    try:
                        found[host, name] = str((await client.call("GET", url + "/x", timeout=5)).document)
                    except PlatformUnavailable as exc:
                        found[host, name] = "refused" if "certificate is not trusted" in str(exc) else str(exc)
        nursery.cancel_scope.cancel()
    assert found.pop(("localhost", "right")) == "{'a': 1}"
    assert list(found.values()) == ["refused"] * 5


async def serve_document(*, tls: ssl.SSLContext, task_status: trio.TaskStatus[int]) -> None:
    """One document over TLS, on a port of loopback that is what it starts with."""

    async def handle(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with contextlib.suppress(trio.BrokenResourceError):  # who does not believe us leaves
            await stream.receive_some(65536)
            await stream.send_all(b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\n{"a": 1}')
            await stream.aclose()

    (listener,) = await trio.open_ssl_over_tcp_listeners(0, tls, host="127.0.0.1")
    assert isinstance(listener.transport_listener, trio.SocketListener)
    task_status.started(listener.transport_listener.socket.getsockname()[1])
    await trio.serve_listeners(handle, [listener])


async def test_one_slow_answer_among_others_is_not_taken_for_an_outage() -> None:
    async with scripted_platform() as platform, open_platform_client(platform_url=platform.url) as client:
        platform.answers |= {"GET /slow": None, "GET /x": (200, {})}

        async def fail() -> None:
            with pytest.raises(PlatformUnavailable, match="no answer within"):
                await client.call("GET", platform.url + "/slow", timeout=0.5)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            while "GET /slow" not in platform.asked:
                await trio.sleep(0.01)
            await client.call("GET", platform.url + "/x", timeout=5)
        assert (await client.call("GET", platform.url + "/x", timeout=5)).status == 200, "at once"


async def test_what_fails_together_lengthens_the_pause_once() -> None:
    clock = Clock()
    async with scripted_platform() as platform, open_platform_client(platform_url=platform.url, clock=clock) as client:
        platform.answers["GET /x"] = None

        async def fail() -> None:
            with pytest.raises(PlatformUnavailable, match="no answer within"):
                await client.call("GET", platform.url + "/x", timeout=0.2)

        clock.now = 1.0
        async with trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(fail)
            while len(platform.asked) < 16:
                await trio.sleep(0.01)
            clock.now += 0.2
        clock.now += 0.26
        platform.answers["GET /x"] = (200, {})
        assert (await client.call("GET", platform.url + "/x", timeout=5)).status == 200


async def test_an_answer_ends_the_pause_for_all_unless_platform_said_itself_that_it_is_busy() -> None:
    clock = Clock()
    async with scripted_platform() as platform, open_platform_client(platform_url=platform.url, clock=clock) as client:
        platform.answers |= {"GET /late": None, "GET /busy": (429, {}), "GET /broken": (500, {}), "GET /x": (200, {})}
        for path, paused in (("/broken", False), ("/busy", True)):
            release = trio.Event()
            platform.late = release
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(client.call, "GET", platform.url + "/late", timeout=5))
                while platform.asked[-1:] != ["GET /late"]:
                    await trio.sleep(0.01)
                clock.now += 0.01
                with pytest.raises(PlatformUnavailable, match="status"):
                    await client.call("GET", platform.url + path, timeout=5)
                clock.now += 0.01
                release.set()
            if paused:
                with pytest.raises(PlatformUnavailable, match="a moment ago"):
                    await client.call("GET", platform.url + "/x", timeout=5)
            else:
                await client.call("GET", platform.url + "/x", timeout=5)
            clock.now += 3
            await client.call("GET", platform.url + "/x", timeout=5)
