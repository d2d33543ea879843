from __future__ import annotations

import html
import os
import re
from functools import partial
from pathlib import Path
from urllib.parse import urljoin

import httpx2
import pytest
import trio

from connect_trio.agent.files import pages, serve_files
from tests.agent.files.conftest import Server

PAGE = {"accept": "text/html"}
ODD_NAMES = [
    b"plain.txt",
    b"with space",
    b"100%",
    b"%41",
    b"a?b#c&d",
    b"colon:name",
    b"http:",
    b"semi;colon",
    b"back\\slash",
    b"..dots..",
    b"-dash",
    b"~tilde",
    b"+plus",
    b"new\nline",
    b"tab\tname",
    b"quote\"'<b>&amp;",
    b"<script>alert(1)</script>".replace(b"/", b"_"),
    "größe–日本.txt".encode(),
    b"latin\xe9",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"{{ 7*7 }}",
]


def links(page: str, kind: str) -> list[str]:
    """The hrefs of a page's links of one class, as a browser sees them."""
    found = re.findall(rf'<a class="{kind}[^"]*" href="([^"]*)"', page)
    return [html.unescape(href) for href in found]


async def test_every_name_can_be_reached_through_the_links_of_the_listing(server: Server) -> None:
    (server.root / "sub: ü").mkdir()
    for number, name in enumerate(ODD_NAMES):
        (server.root / "sub: ü" / os.fsdecode(name)).write_text(str(number))
    top = await server.client.get("/")
    (entry,) = links(top.text, "entry folder")
    folder = urljoin(str(top.url), entry)
    page = (await server.client.get(folder)).text
    downloads = links(page, "download")
    contents = {(await server.client.get(urljoin(folder, href))).text for href in downloads}
    assert contents == {str(number) for number in range(len(ODD_NAMES))}
    for href in links(page, "entry file"):
        preview = await server.client.get(urljoin(folder, href))
        assert preview.status_code == 200
        assert preview.headers["content-type"] == "text/html; charset=utf-8"


async def test_every_name_can_be_uploaded_and_deleted_by_its_address(server: Server) -> None:
    for name in ODD_NAMES:
        target = "/" + "".join(f"%{byte:02x}" for byte in name)
        assert (await server.client.put(target, content=name)).status_code == 201
        assert (server.root / os.fsdecode(name)).read_bytes() == name
        assert (await server.client.delete(target)).status_code == 204
    assert list(server.root.iterdir()) == []


async def test_names_and_texts_are_escaped(server: Server) -> None:
    evil = "<img src=x onerror=alert(1)>"
    (server.root / evil).write_text("</pre><script>alert(2)</script>")
    for target in ("/", f"/{evil}?view", f"/{evil}?delete"):
        page = (await server.client.get(target)).text
        assert "<img src=x" not in page
        assert "<script>alert" not in page


async def test_pages_allow_no_scripts_but_their_own(server: Server) -> None:
    headers = (await server.client.get("/")).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert headers["cache-control"] == "no-store"


async def test_a_folder_gets_its_slash_and_a_file_loses_it(server: Server) -> None:
    (server.root / "a b").mkdir()
    (server.root / "file").touch()
    folder = await server.client.get("/a%20b")
    assert folder.status_code == 307
    assert urljoin(str(folder.url), folder.headers["location"]).endswith("/a%20b/")
    file = await server.client.get("/file/")
    assert urljoin(str(file.url), file.headers["location"]).endswith(f":{server.port}/file")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/..", 400),
        (b"/../outside/secret", 400),
        (b"/%2e%2e/outside/secret", 400),
        (b"/..%2foutside%2fsecret", 400),
        (b"/%c0%ae%c0%ae/outside/secret", 404),
        (b"/..%5coutside%5csecret", 404),
        (b"/%00", 400),
        (b"//etc/passwd", 400),
        (b"/away/secret", 403),
        (b"/away-file", 403),
        (b"/nothing", 404),
        (b"/file/below", 404),
        (b"/%zz", 400),
        (b"http://x/file", 404),
        (b"/away-file?view", 403),
        (b"/nothing?delete", 404),
        (b"/loop", 404),
    ],
)
async def test_no_address_leads_out(server: Server, target: bytes, status: int) -> None:
    (server.root / "away").symlink_to(server.outside)
    (server.root / "away-file").symlink_to(server.outside / "secret")
    (server.root / "loop").symlink_to("loop")
    (server.root / "file").touch()
    assert await server.status(target) == status


async def test_previews_show_text_and_images_and_decline_the_rest(server: Server) -> None:
    (server.root / "text").write_text("first line <b>\n" + "x" * 300_000)
    (server.root / "binary").write_bytes(b"\0\1\2")
    (server.root / "picture.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    text = (await server.client.get("/text?view")).text
    assert "first line &lt;b&gt;" in text
    assert "Only the first 256.0 KiB are shown" in text
    assert len(text) < 280_000
    assert "not text" in (await server.client.get("/binary?view")).text
    assert '<img src="./picture.svg"' in (await server.client.get("/picture.svg?view")).text


async def test_a_huge_folder_says_that_it_is_cut(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MAX_ENTRIES", 3)
    for number in range(5):
        (server.root / str(number)).touch()
    page = (await server.client.get("/")).text
    assert "only 3 of its entries" in page
    assert page.count('class="entry') == 3


async def test_folders_are_created_and_deleted_by_forms(server: Server) -> None:
    created = await server.client.post("/?new", data={"name": "näw folder"})
    assert created.status_code == 303
    assert (server.root / "näw folder").is_dir()
    assert (await server.client.post("/?new", data={"name": "näw folder"})).status_code == 409
    for name in ("", "..", "a/b"):
        assert (await server.client.post("/?new", data={"name": name})).status_code == 400
    (server.root / "näw folder" / "file").touch()
    assert "Delete this folder?" in (await server.client.get("/näw folder/?delete")).text
    assert (await server.client.post("/näw folder/?delete")).status_code == 409
    assert (await server.client.post("/näw folder/file?delete")).status_code == 303
    assert (await server.client.post("/näw folder/?delete")).headers["location"] == "../"
    assert list(server.root.iterdir()) == []


async def test_deleting_a_link_leaves_its_target(server: Server) -> None:
    (server.root / "away").symlink_to(server.outside)
    assert (await server.client.delete("/away")).status_code == 204
    assert (server.outside / "secret").exists()
    (server.root / "away").symlink_to(server.outside)
    assert (await server.client.delete("/away/secret")).status_code == 403
    assert (await server.client.delete("/")).status_code == 403


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
@pytest.mark.parametrize("headers", [{"sec-fetch-site": "same-site"}, {"origin": "https://evil.example"}])
async def test_other_sites_cannot_change_anything(server: Server, method: str, headers: dict[str, str]) -> None:
    (server.root / "file").write_text("old")
    answer = await server.client.request(method, "/file?overwrite=1&delete", content=b"new", headers=headers)
    assert answer.status_code == 403
    assert (server.root / "file").read_text() == "old"


async def test_people_get_pages_and_programs_json(server: Server) -> None:
    page = await server.client.get("/nothing", headers=PAGE)
    assert page.headers["content-type"].startswith("text/html")
    assert "no file or folder" in page.text
    assert "no file or folder" in (await server.client.get("/nothing")).json()["error"]


async def test_unknown_methods_and_forms_are_named(server: Server) -> None:
    answer = await server.client.request("PATCH", "/")
    assert answer.status_code == 405
    assert "PUT" in answer.headers["allow"]
    assert (await server.client.post("/?what")).status_code == 400
    large = await server.client.post("/?new", content=b"name=" + b"x" * 100_000)
    assert large.status_code == 413


async def test_a_websocket_is_refused(server: Server) -> None:
    handshake = b"upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    answer = await server.raw(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n" + handshake + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 403")


async def test_a_mistake_of_ours_is_an_answer_and_a_line_in_the_log(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("bug")

    monkeypatch.setattr("connect_trio.agent.files.app.listing_page", fail)
    assert (await server.client.get("/")).status_code == 500
    assert "bug" in caplog.text


async def test_everything_works_below_a_prefix(root: Path, nursery: trio.Nursery) -> None:
    prefix = "/_studio/a23ce7967"
    port = await nursery.start(partial(serve_files, root, path_prefix=prefix + "/"))
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.put(f"{prefix}/file", content=b"x")).status_code == 201
        bare = await client.get(prefix)
        assert urljoin(str(bare.url), bare.headers["location"]).endswith(f"{prefix}/")
        page = await client.get(f"{prefix}/")
        (href,) = links(page.text, "entry file")
        assert (await client.get(urljoin(str(page.url), href))).status_code == 200
        assert (await client.get("/file")).content == b"x", "on the Studio's own host, paths have no prefix"
        assert (await client.get(f"{prefix}x/file")).status_code == 404


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        await serve_files(tmp_path / "nowhere")
