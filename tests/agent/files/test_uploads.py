from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio

from connect_trio.agent.files import exchange as exchange_module
from connect_trio.agent.files.exchange import BLOCK_SIZE
from connect_trio.agent.files.paths import Folder
from connect_trio.agent.files.uploads import open_upload
from tests.agent.files.conftest import Server

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]


async def pieces(count: int, size: int = 65536) -> AsyncIterator[bytes]:
    for number in range(count):
        yield bytes([number % 256]) * size


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


async def test_an_upload_comes_back_the_same(server: Server) -> None:
    content = os.urandom(3 * BLOCK_SIZE + 17)
    assert (await server.client.put("/data.bin", content=content)).status_code == 201
    assert (await server.client.get("/data.bin")).content == content
    assert names(server.root) == ["data.bin"]


async def test_a_chunked_upload_of_unknown_length_is_stored(server: Server) -> None:
    assert (await server.client.put("/data.bin", content=pieces(40))).status_code == 201
    assert (server.root / "data.bin").read_bytes() == b"".join([piece async for piece in pieces(40)])


async def test_an_empty_file_can_be_uploaded(server: Server) -> None:
    assert (await server.client.put("/empty", content=b"")).status_code == 201
    assert (server.root / "empty").stat().st_size == 0


async def test_an_existing_file_is_replaced_only_on_demand(server: Server) -> None:
    (server.root / "run.sh").write_text("old")
    (server.root / "run.sh").chmod(0o750)
    refused = await server.client.put("/run.sh", content=b"new")
    assert refused.status_code == 409
    assert "exists" in refused.json()["error"]
    assert (server.root / "run.sh").read_text() == "old"
    assert (await server.client.put("/run.sh?overwrite=1", content=b"new")).status_code == 204
    assert (server.root / "run.sh").read_text() == "new"
    assert (server.root / "run.sh").stat().st_mode & 0o777 == 0o750
    assert names(server.root) == ["run.sh"]


async def test_of_two_uploads_of_one_name_the_first_to_finish_wins(root: Path) -> None:
    with Folder(root) as folder:
        async with open_upload(folder, [b"f"], overwrite=False) as slow:
            slow.write(b"slow")
            async with open_upload(folder, [b"f"], overwrite=False) as fast:
                fast.write(b"fast")
                fast.commit()
            with pytest.raises(FileExistsError):
                slow.commit()
    assert (root / "f").read_text() == "fast"
    assert names(root) == ["f"]


async def test_a_refused_upload_is_answered_however_large_it_is(server: Server) -> None:
    (server.root / "taken").touch()
    for _ in range(2):  # The second shows that the connection is still good.
        assert (await server.client.put("/taken", content=pieces(300))).status_code == 409


async def test_a_refused_upload_that_never_ends_is_cut_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "LINGER_TIMEOUT", 0)
    (server.root / "taken").touch()
    with pytest.raises(trio.BrokenResourceError), trio.fail_after(60):
        await server.raw(b"PUT /taken HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000000\r\n\r\n")


async def test_an_upload_that_stands_still_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "BODY_IDLE_TIMEOUT", 0.01)
    monkeypatch.setattr(exchange_module, "LINGER_TIMEOUT", 20)
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        await stream.send_all(b"PUT /data HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n12345")
        with trio.fail_after(60):
            assert (await stream.receive_some(100)).startswith(b"HTTP/1.1 408")
    assert names(server.root) == []


async def test_a_client_that_leaves_leaves_nothing_behind(server: Server, eventually: Eventually) -> None:
    (server.root / "kept").write_text("old")
    for target in (b"/new", b"/kept?overwrite=1"):
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        await stream.send_all(b"PUT " + target + b" HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000\r\n\r\n")
        await stream.send_all(b"x" * 5_000_000)
        await eventually(lambda: any(name.startswith(".upload-") for name in names(server.root)))
        await stream.aclose()
        await eventually(lambda: names(server.root) == ["kept"])
    assert (server.root / "kept").read_text() == "old"


async def test_a_cancelled_upload_leaves_nothing_behind(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Folder(root) as folder, trio.CancelScope() as scope:
        async with open_upload(folder, [b"f"], overwrite=False) as partial_file:
            partial_file.write(b"x" * 100)
            assert len(names(root)) == 1
            scope.cancel()
            await trio.sleep_forever()
    assert names(root) == []
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_disk_without_the_space_is_said_to_be_full_before_the_body_is_read(server: Server) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        await stream.send_all(b"PUT /data HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999999999999\r\n\r\n")
        with trio.fail_after(60):
            assert (await stream.receive_some(100)).startswith(b"HTTP/1.1 507")


async def test_a_disk_that_fills_up_on_the_way_is_said_to_be_full(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("connect_trio.agent.files.uploads.os.write", full)
    answer = await server.client.put("/data", content=pieces(40))
    monkeypatch.undo()
    assert answer.status_code == 507
    assert "full" in answer.json()["error"]
    assert names(server.root) == []


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/", 400),
        (b"/folder", 409),
        (b"/folder/", 400),
        (b"/no/such", 404),
        (b"/file/below", 404),
        (b"/away/new", 403),
        (b"/%2e%2e/new", 400),
        (b"/../new", 400),
        (b"/a%2fb", 400),
        (b"/" + b"x" * 300, 400),
    ],
)
async def test_odd_targets_are_refused(server: Server, target: bytes, status: int) -> None:
    (server.root / "folder").mkdir()
    (server.root / "file").touch()
    (server.root / "away").symlink_to(server.outside)
    assert await server.status(target, b"PUT") == status
    assert names(server.outside) == ["secret"]
    assert names(server.root) == ["away", "file", "folder"]


async def test_an_upload_over_a_link_replaces_the_link_not_what_it_points_to(server: Server) -> None:
    (server.root / "link").symlink_to(server.outside / "secret")
    assert (await server.client.put("/link", content=b"new")).status_code == 409
    assert (await server.client.put("/link?overwrite=1", content=b"new")).status_code == 204
    assert (server.outside / "secret").read_text() == "SECRET"
    assert not (server.root / "link").is_symlink()
    assert (server.root / "link").read_text() == "new"


async def test_a_part_is_not_taken_for_the_whole(server: Server) -> None:
    answer = await server.client.put("/data", content=b"x", headers={"content-range": "bytes 0-0/2"})
    assert answer.status_code == 400
