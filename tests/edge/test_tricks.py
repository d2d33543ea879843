"""Hosts, addresses to return to and cookies, spelled so that two readers could differ: all agree, or none is let in."""

from __future__ import annotations

from hypothesis import assume, example, given
from hypothesis import strategies as st
from trio.testing import MockClock

from connect_trio.edge.errors import Refusal
from connect_trio.edge.headers import harmless_set_cookie, request_lines
from connect_trio.edge.login_cookies import NONCE, OWN_NAMES, SESSION, Cookies
from connect_trio.edge.login_requests import return_path
from connect_trio.edge.requests import Judge, Judged
from connect_trio.edge.targets import Reach, reach
from connect_trio.httpio import HttpError, StrictInbox, read_request
from connect_trio.routing.names import HostNames
from tests.support.edge import OWN, STUDIO, open_world
from tests.support.examples import examples
from tests.support.login import NAMES, SHARED_HOST
from tests.support.platform import SHARED
from tests.support.tricks import as_bytes, cookies_for_browsers, host_for_browsers, spellings

OURS = {OWN.partition(":")[0]: None, STUDIO.partition(":")[0]: STUDIO[:9]}
"""Our hosts, and the label of each."""

HOSTS = spellings(OWN, STUDIO)
TARGETS = st.one_of(
    HOSTS,
    HOSTS.map(lambda text: "/" + text),
    st.tuples(
        st.sampled_from(["http://", "HTTP://", "https://", "//", "ftp://"]), HOSTS, st.sampled_from(["", "/", "/a?b"])
    ).map("".join),
)
SECRET, OTHER = "s" * 43, "t" * 43
NAMES_OF_COOKIES = (
    "connect_session",
    "__Host-connect_session",
    "connect_nonce",
    "Connect_Session",
    "__host-connect_login",
)
PAIRS = spellings(*NAMES_OF_COOKIES, SECRET, OTHER, f"connect_session={SECRET}", f"__Host-connect_session={OTHER}")


def head_of(target: str, hosts: list[str]) -> bytes:
    lines = b"".join(
        b"%b: %b\r\n" % (name, as_bytes(host)) for name, host in zip((b"Host", b"host"), hosts, strict=False)
    )
    return b"GET %b HTTP/1.1\r\n%b\r\n" % (as_bytes(target), lines)


async def test_a_request_is_for_one_host_of_ours_in_every_reading_or_for_none(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        context = world.edge._context

        def judged(data: bytes) -> Judged | None:
            inbox = StrictInbox(16384)
            inbox.feed(data)
            try:
                head = read_request(inbox)
                return Judge(context, "192.0.2.1").judge(head) if head is not None else None
            except (HttpError, Refusal):
                return None

        @given(TARGETS, st.lists(HOSTS, max_size=2))
        @example(f"http://{STUDIO}/", [STUDIO])
        @example(f"HTTP://{STUDIO.upper()}/", [STUDIO])
        @example(f"http://{OWN}/", [STUDIO])
        @example("/", [STUDIO, STUDIO])
        @example("/", [STUDIO, OWN])
        @example("/", [f"{STUDIO}."])
        @example("/", [f"evil.example@{STUDIO}"])
        @example(f"http://{STUDIO}@evil.example/", [STUDIO])
        @example(f"http://{STUDIO}\\@evil.example/", [STUDIO])
        @example("//evil.example/", [STUDIO])
        @examples(400)
        def explore(target: str, hosts: list[str]) -> None:
            data = head_of(target, hosts)
            found = judged(data)
            if found is None:
                return
            assert len(hosts) == 1, "two Hosts are none"
            (host,) = hosts
            name = host.strip(" \t").partition(":")[0].lower()
            assert found.request.label == OURS[name]
            assert found.request.host == name
            if not target.startswith("/"):
                assert host_for_browsers(target) == name, "the address in the request line is the same one"
            assert found.target.startswith(b"/")
            assert b"\r\n" + b"Host: " + as_bytes(host) + b"\r\n" in data

        explore()


@given(TARGETS)
@example("//evil.example")
@example("/\t/evil.example")
@example("/\\evil.example")
@example("/%5cevil.example")
@example("/.//evil.example")
@example("/@evil.example")
@example("http:/\\evil.example")
@examples(400)
def test_an_address_to_return_to_is_on_the_studios_host_for_browsers_too(target: str) -> None:
    path = return_path(as_bytes(target))
    url = NAMES.studio_url(f"a{SHARED}", path)
    assert host_for_browsers(url) == SHARED_HOST
    assert not path.startswith("//"), "even if only the path were sent"
    assert not any(char in path for char in "\t\r\n\\ \x00")
    assert path == "/" or path.encode() == as_bytes(target).partition(b"#")[0], "as it came, or nothing of it"
    assert reach(path.encode()) is not Reach.OWN, "a login does not return to a logout"


@given(st.lists(PAIRS, max_size=2))
@example([f"connect_session={SECRET}", f"connect_session={SECRET}"])
@example([f"connect_session={SECRET}; connect_session={OTHER}"])
@example([f"a=b;\tconnect_session\t=\t{SECRET}"])
@example([f'connect_session="{SECRET}"'])
@example([f"\x0bconnect_session={SECRET}"])
@example([f"\xa0connect_session={SECRET}"])
@example([f"connect_session={SECRET}, connect_session={OTHER}"])
@examples(400)
def test_what_counts_as_our_cookie_stands_there_once_and_never_reaches_a_tool(lines: list[str]) -> None:
    headers = tuple((b"cookie", as_bytes(line)) for line in lines)
    for secure in (False, True):
        cookies = Cookies(secure=secure)
        secret = cookies.secret(headers, SESSION)
        name = b"__Host-connect_session" if secure else b"connect_session"
        pairs = [pair.partition(b"=") for _, line in headers for pair in line.split(b";")]
        exact = [value for key, _, value in pairs if key.strip() == name]
        assert secret is None or (len(exact) == 1 and exact[0].strip() == secret.encode())
        assert cookies.nonce(headers) is None or NONCE.encode() in b"".join(line for _, line in headers)
    for sent in request_lines([(b"Cookie", *header) for header in headers], strip_cookies=OWN_NAMES):
        for pair in sent.removeprefix(b"Cookie:").removesuffix(b"\r\n").split(b";"):
            assert pair.partition(b"=")[0].strip() not in OWN_NAMES


@given(
    PAIRS,
    st.lists(
        st.one_of(PAIRS, st.sampled_from(["Domain=connect.localhost", "doMAIN =.localhost", "\tdomain\t=x", "Path=/"])),
        max_size=3,
    ),
)
@example(f"connect_session={SECRET}", [])
@example(f"\tCONNECT_session\t={SECRET}", [])
@example(f"=connect_session={SECRET}", [])
@example(f" ;connect_session={SECRET}", [])
@example("theme=dark", ["Domain=connect.localhost"])
@examples(400)
def test_a_tool_sets_no_cookie_of_ours_nor_for_other_hosts_in_a_browsers_reading(
    pair: str, attributes: list[str]
) -> None:
    kept = harmless_set_cookie(as_bytes(";".join([pair, *attributes])))
    assume(kept is not None)
    assert kept is not None
    found = cookies_for_browsers(kept.decode("latin-1"))
    if found is None:
        return
    name, _, names_of_attributes = found
    assert name
    assert name.lower() not in {own.decode().lower() for own in OWN_NAMES}
    assert "domain" not in names_of_attributes


@given(HOSTS)
@example("https://connect.localhost:8080")
@examples(200)
def test_a_host_is_ours_only_letter_by_letter(host: str) -> None:
    names = HostNames(f"http://{OWN}")
    try:
        place = names.classify(as_bytes(host).decode("latin-1"))
    except (ValueError, LookupError):
        return
    assert host.isascii()
    assert host.lower().partition(":")[0] in OURS
    assert getattr(place, "label", None) == OURS[host.lower().partition(":")[0]]
