from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from tests.agent.files.conftest import Server

CONTENT = bytes(range(256)) * 40


async def test_a_file_comes_back_whole_with_everything_that_clients_ask_for(server: Server) -> None:
    (server.root / "data.bin").write_bytes(CONTENT)
    answer = await server.client.get("/data.bin")
    assert answer.status_code == 200
    assert answer.content == CONTENT
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"].startswith('"')
    assert "last-modified" in answer.headers
    assert answer.headers["content-disposition"].startswith("inline")
    assert answer.headers["content-security-policy"] == "sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"
    saved = await server.client.get("/data.bin?download")
    assert saved.headers["content-disposition"] == "attachment; filename=\"data.bin\"; filename*=UTF-8''data.bin"


async def test_many_blocks_arrive_in_order(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connect_trio.agent.files.downloads.BLOCK_SIZE", 1000)
    (server.root / "data.bin").write_bytes(CONTENT)
    assert (await server.client.get("/data.bin")).content == CONTENT


async def test_head_says_what_get_would_without_the_body(server: Server) -> None:
    (server.root / "data.bin").write_bytes(CONTENT)
    answer = await server.client.head("/data.bin", headers={"range": "bytes=0-1"})
    assert answer.status_code == 200
    assert answer.headers["content-length"] == str(len(CONTENT))
    assert answer.content == b""


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=100-", slice(100, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=5-9,10-20", slice(5, 21)),
        ("bytes=10200-99999", slice(10200, None)),
    ],
)
async def test_a_range_gives_a_part(server: Server, header: str, part: slice) -> None:
    (server.root / "data.bin").write_bytes(CONTENT)
    answer = await server.client.get("/data.bin", headers={"range": header})
    assert answer.status_code == 206
    assert answer.content == CONTENT[part]
    start, stop, _ = part.indices(len(CONTENT))
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(CONTENT)}"


async def test_ranges_that_do_not_join_give_the_whole_and_those_beyond_the_end_nothing(server: Server) -> None:
    (server.root / "data.bin").write_bytes(CONTENT)
    assert (await server.client.get("/data.bin", headers={"range": "bytes=0-1,5-6"})).content == CONTENT
    beyond = await server.client.get("/data.bin", headers={"range": "bytes=99999-"})
    assert beyond.status_code == 416
    assert beyond.headers["content-range"] == f"bytes */{len(CONTENT)}"


async def test_a_range_of_another_version_gives_the_whole(server: Server) -> None:
    (server.root / "data.bin").write_bytes(CONTENT)
    etag = (await server.client.head("/data.bin")).headers["etag"]
    asked = {"range": "bytes=0-1", "if-range": etag}
    assert (await server.client.get("/data.bin", headers=asked)).status_code == 206
    os.utime(server.root / "data.bin", ns=(1, 1))
    assert (await server.client.get("/data.bin", headers=asked)).status_code == 200


async def test_what_the_client_has_is_not_sent_again(server: Server) -> None:
    (server.root / "data.bin").write_bytes(CONTENT)
    first = await server.client.get("/data.bin")
    again = await server.client.get("/data.bin", headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    dated = await server.client.get("/data.bin", headers={"if-modified-since": first.headers["last-modified"]})
    assert dated.status_code == 304


async def test_empty_files_are_files(server: Server) -> None:
    (server.root / "empty").touch()
    answer = await server.client.get("/empty", headers={"range": "bytes=0-"})
    assert answer.status_code == 200
    assert answer.content == b""


@pytest.mark.parametrize(("name", "sandboxed"), [("p.html", True), ("p.svg", True), ("p.xml", True), ("p.pdf", False)])
async def test_stored_pages_cannot_act_in_the_origin_of_the_studio(server: Server, name: str, sandboxed: bool) -> None:
    (server.root / name).write_text("<script>alert(1)</script>")
    headers = (await server.client.get(f"/{name}")).headers
    assert (headers.get("content-security-policy") == "sandbox") is sandboxed
    assert headers["x-content-type-options"] == "nosniff"


async def test_special_files_are_refused_without_hanging(server: Server) -> None:
    os.mkfifo(server.root / "pipe")
    (server.root / "null").symlink_to("/dev/null")
    with trio.fail_after(60):
        assert (await server.client.get("/pipe")).status_code == 403
        assert (await server.client.get("/null")).status_code == 403


async def test_a_file_that_shrinks_meanwhile_does_not_look_complete(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (server.root / "data.bin").write_bytes(CONTENT)
    read = os.pread

    def shrink_then_read(descriptor: int, count: int, position: int) -> bytes:
        os.truncate(server.root / "data.bin", 100)
        return read(descriptor, count, position)

    monkeypatch.setattr(os, "pread", shrink_then_read)
    with pytest.raises(trio.BrokenResourceError):
        await server.raw(b"GET /data.bin HTTP/1.1\r\nhost: x\r\n\r\n")


async def test_nothing_is_read_for_a_client_that_left(
    server: Server, eventually: Callable[[Callable[[], bool]], Awaitable[None]]
) -> None:
    huge = server.root / "huge"
    with open(huge, "wb") as file:
        file.truncate(1 << 40)

    def is_open() -> bool:
        return any(os.path.realpath(entry) == str(huge) for entry in Path("/proc/self/fd").iterdir())

    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        await stream.send_all(b"GET /huge HTTP/1.1\r\nhost: x\r\n\r\n")
        await stream.receive_some(100)
        assert is_open()
    await eventually(lambda: not is_open())


async def test_a_request_body_that_nobody_wants_is_read_away(server: Server) -> None:
    (server.root / "data.bin").write_bytes(CONTENT)
    answer = await server.client.request("GET", "/data.bin", content=b"x" * (3 << 20))
    assert answer.content == CONTENT
