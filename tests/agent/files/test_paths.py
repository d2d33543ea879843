"""No request ever leads out of the folder."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.agent.files.paths import MAX_DEPTH, MAX_LINKS, Folder, parse_path, quote_name
from connect_trio.agent.files.problems import Problem

NAMES = [b"file", b"folder", b"deep", b"in", b"out", b"up", b"loop", b"abs-in", b"abs-out", b"chain", b"x", b"secret"]


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    """A folder with links in every direction, beside one with a secret."""
    with tempfile.TemporaryDirectory() as made:
        base = Path(made)
        (base / "outside").mkdir()
        (base / "outside" / "secret").write_text("SECRET")
        root = base / "served"
        (root / "folder" / "deep").mkdir(parents=True)
        (root / "file").write_text("inside")
        (root / "folder" / "file").write_text("inside")
        (root / "folder" / "deep" / "file").write_text("inside")
        links = {
            "in": "folder/deep",
            "out": "../outside",
            "up": "..",
            "loop": "loop",
            "abs-in": str(root / "folder"),
            "abs-out": str(base / "outside" / "secret"),
            "chain": "folder/chain",
            "folder/chain": "../in/../up",
            "folder/up": "..",
            "folder/out": "../../outside/secret",
            "folder/deep/in": "../../abs-in/deep/../file",
            "folder/deep/x": str(root) + "/../outside/secret",
            "x": str(base / "served-not"),
        }
        for name, target in links.items():
            (root / name).symlink_to(target)
        yield root


@given(parts=st.lists(st.sampled_from(NAMES), max_size=8), follow=st.booleans())
def test_a_place_is_where_the_kernel_sees_it_or_refused_if_outside(
    tree: Path, parts: list[bytes], follow: bool
) -> None:
    real_root = os.path.realpath(tree).encode()
    expected = os.path.join(os.fsencode(tree), *parts)
    with Folder(tree) as folder:
        try:
            with folder.locate(parts, follow=follow) as place:
                where = os.readlink(f"/proc/self/fd/{place.directory}").encode()
                status = place.status
        except Problem:
            # A way that leads out, even if only to come in again.
            return
        except OSError:
            with pytest.raises(OSError):  # noqa: PT011 - which one depends on the path
                os.stat(expected)
            return
    assert (where + b"/").startswith(real_root + b"/")
    if status is None:
        assert not os.path.exists(expected)
    else:
        assert os.path.samestat(status, os.stat(expected) if follow else os.lstat(expected))


@given(pieces=st.lists(st.sampled_from([*NAMES, b"..", b".", b"", b"%2e%2e", b"%2E.", b"..%2f", b"%c0%af", b"%00"])))
def test_no_request_path_reads_the_secret(tree: Path, pieces: list[bytes]) -> None:
    with Folder(tree) as folder:
        try:
            path = parse_path(b"/" + b"/".join(pieces))
            assert path is not None
            with folder.locate(path.parts) as place:
                descriptor, _ = place.open_file()
        except (Problem, OSError):
            return
        with open(descriptor) as file:
            assert file.read() == "inside"


@given(st.binary())
def test_any_bytes_parse_to_safe_names_or_are_refused(raw: bytes) -> None:
    try:
        path = parse_path(b"/" + raw)
    except Problem:
        return
    assert path is not None
    for part in path.parts:
        assert part not in (b"", b".", b"..")
        assert not set(part) & set(b"/\0")


@given(st.lists(st.binary(min_size=1).filter(lambda n: n not in (b".", b"..") and not set(n) & set(b"/\0"))))
def test_quoted_names_parse_back(names: list[bytes]) -> None:
    path = parse_path("".join("/" + quote_name(name) for name in names).encode() + b"/")
    assert path is not None
    assert path.parts == tuple(names)
    assert path.is_folder


@pytest.mark.parametrize(
    "raw", [b"/../x", b"/a/../../x", b"/%2e%2e/x", b"/.%2E/x", b"/a%2fb", b"/a%00", b"//a", b"/%", b"/%g0", b"/./a"]
)
def test_odd_paths_are_bad_requests(raw: bytes) -> None:
    with pytest.raises(Problem) as caught:
        parse_path(raw)
    assert caught.value.status == 400


def test_a_backslash_and_overlong_bytes_are_ordinary_characters() -> None:
    path = parse_path(b"/..%5c..%5cx/%c0%ae%c0%ae")
    assert path is not None
    assert path.parts == (b"..\\..\\x", b"\xc0\xae\xc0\xae")


def test_only_paths_below_the_prefix_are_taken() -> None:
    assert parse_path(b"/_studio/a1", prefix=b"/_studio/a1") is None
    assert parse_path(b"/_studio/a12/x", prefix=b"/_studio/a1") is None
    path = parse_path(b"/_studio/a1/x", prefix=b"/_studio/a1")
    assert path is not None
    assert path.parts == (b"x",)


def test_links_inside_are_followed(tree: Path) -> None:
    with Folder(tree) as folder:
        for parts in ([b"in", b"file"], [b"abs-in", b"deep", b"in"], [b"folder", b"up", b"file"]):
            with folder.locate(parts) as place:
                descriptor, _ = place.open_file()
            os.close(descriptor)


@pytest.mark.parametrize("name", ["out", "up", "abs-out", "x"])
def test_links_outside_are_refused(tree: Path, name: str) -> None:
    with Folder(tree) as folder, pytest.raises(Problem) as caught, folder.locate([name.encode()]):
        pass
    assert caught.value.status == 403


def test_a_served_folder_may_itself_be_a_link(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(tree)
    (tree / "via-alias").symlink_to(tmp_path / "alias" / "file")
    with Folder(tmp_path / "alias") as folder, folder.locate([b"via-alias"]) as place:
        os.close(place.open_file()[0])
    (tree / "via-alias").unlink()


def test_a_folder_swapped_for_a_link_after_the_look_is_not_followed(
    root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "folder").mkdir()
    (root / "folder" / "secret").write_text("inside")
    look = os.stat

    def look_then_swap(name: bytes, *, dir_fd: int, follow_symlinks: bool) -> os.stat_result:
        status = look(name, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
        if name == b"folder":
            (root / "folder").rename(root / "moved")
            (root / "folder").symlink_to(outside)
        return status

    with Folder(root) as folder, monkeypatch.context() as patch:
        patch.setattr(os, "stat", look_then_swap)
        with pytest.raises(OSError, match=r"directory|links"), folder.locate([b"folder", b"secret"]):
            pass


def test_a_file_swapped_for_a_link_after_the_look_is_not_opened(root: Path, outside: Path) -> None:
    (root / "file").write_text("inside")
    with Folder(root) as folder, folder.locate([b"file"]) as place:
        (root / "file").unlink()
        (root / "file").symlink_to(outside / "secret")
        with pytest.raises(OSError, match="links"):
            place.open_file()


def test_a_file_swapped_for_a_pipe_after_the_look_neither_hangs_nor_opens(root: Path) -> None:
    (root / "file").write_text("inside")
    with Folder(root) as folder, folder.locate([b"file"]) as place:
        (root / "file").unlink()
        os.mkfifo(root / "file")
        with pytest.raises(Problem):
            place.open_file()


def test_the_folder_stays_the_same_when_it_is_renamed(root: Path) -> None:
    (root / "file").write_text("inside")
    with Folder(root) as folder:
        root.rename(root.with_name("renamed"))
        root.mkdir()
        with folder.locate([b"file"]) as place:
            assert place.status is not None


def test_special_files_are_not_opened(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
        (root / "null").symlink_to("/dev/null")
        with Folder(root) as folder:
            for name in (b"pipe", b"socket"):
                with folder.locate([name]) as place, pytest.raises(Problem) as caught:
                    place.open_file()
                assert caught.value.status == 403


def test_walks_are_bounded_and_close_what_they_opened(root: Path) -> None:
    (root / "link0").mkdir()
    for number in range(MAX_LINKS + 1):
        (root / f"link{number + 1}").symlink_to(f"link{number}")
    deep = root
    for _ in range(MAX_DEPTH + 1):
        deep /= "d"
        deep.mkdir()
    before = len(os.listdir("/proc/self/fd"))
    with Folder(root) as folder:
        with folder.locate([f"link{MAX_LINKS}".encode()]) as place:
            assert place.status is not None
            assert stat.S_ISDIR(place.status.st_mode)
        with pytest.raises(OSError, match="links"), folder.locate([f"link{MAX_LINKS + 1}".encode()]):
            pass
        with pytest.raises(OSError, match="too long"), folder.locate([b"d"] * (MAX_DEPTH + 1)):
            pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_names_survive_quoting() -> None:
    assert quote_name(b"a b%\xff/") == quote_from_bytes(b"a b%\xff/", safe="")
