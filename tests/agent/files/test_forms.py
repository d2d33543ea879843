from __future__ import annotations

import os

import pytest

from connect_trio.agent.files.exchange import BLOCK_SIZE
from tests.agent.files.conftest import Server


async def test_a_form_stores_several_large_files(server: Server) -> None:
    contents = {f"{number}.bin": os.urandom(2 * BLOCK_SIZE + number) for number in range(3)}
    answer = await server.client.post("/?upload", files=[("file", item) for item in contents.items()])
    assert answer.status_code == 303
    assert answer.headers["location"] == "./"
    assert {path.name: path.read_bytes() for path in server.root.iterdir()} == contents


async def test_a_form_replaces_only_when_told_so(server: Server) -> None:
    (server.root / "f").write_text("old")
    refused = await server.client.post("/?upload", files={"file": ("f", b"new")}, headers={"accept": "text/html"})
    assert refused.status_code == 409
    assert "exists" in refused.text
    assert (server.root / "f").read_text() == "old"
    allowed = await server.client.post("/?upload", data={"overwrite": "1"}, files={"file": ("f", b"new")})
    assert allowed.status_code == 303
    assert (server.root / "f").read_text() == "new"


@pytest.mark.parametrize("name", ["../f", "a/b", "..", "."])
async def test_file_names_with_paths_in_them_are_refused(server: Server, name: str) -> None:
    answer = await server.client.post("/?upload", files={"file": (name, b"x")})
    assert answer.status_code == 400
    assert list(server.root.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data; boundary=b", b"garbage"),
        ("multipart/form-data; boundary=" + "b" * 1000, b"x"),
        ("multipart/form-data", b"x"),
        ("text/plain", b"x"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; filename="f"\r\n\r\nhalf'),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; filename=""\r\n\r\n\r\n--b--\r\n'),
    ],
)
async def test_broken_forms_store_nothing(server: Server, kind: str, body: bytes) -> None:
    answer = await server.client.post("/?upload", content=body, headers={"content-type": kind})
    assert answer.status_code == 400
    assert list(server.root.iterdir()) == []
