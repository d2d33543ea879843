"""The PROXY protocol: headers of both versions, however they are cut, and what is none."""

from __future__ import annotations

import socket
import struct

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.ssh.behind import BehindProxy
from connect_trio.ssh.proxy_header import Found, HeaderError, HeaderParser

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
SSH = b"SSH-2.0-OpenSSH_9.2p1\r\n"
V1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 50022 2222\r\n"
V1_IPV6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 50022 2222\r\n"


def v2(command: int = 0x21, family: int = 0x11, body: bytes = b"") -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


def v2_ipv4(extension: bytes = b"") -> bytes:
    return v2(
        body=socket.inet_aton("192.0.2.7") + socket.inet_aton("10.0.0.1") + struct.pack("!HH", 50022, 2222) + extension
    )


def v2_ipv6() -> bytes:
    addresses = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + socket.inet_pton(socket.AF_INET6, "::1")
    return v2(family=0x21, body=addresses + struct.pack("!HH", 50022, 2222))


GOOD = [
    (V1, ("192.0.2.7", 50022)),
    (V1_IPV6, ("2001:db8::7", 50022)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    (v2_ipv4(), ("192.0.2.7", 50022)),
    (v2_ipv4(b"\x04\0\x03abc"), ("192.0.2.7", 50022)),
    (v2_ipv6(), ("2001:db8::7", 50022)),
    (v2(command=0x20, family=0), None),  # the balancer's own health check
    (v2(family=0x31, body=bytes(216)), None),
    (b"", None),
]


@pytest.mark.parametrize(("header", "source"), GOOD)
@given(data=st.data())
def test_a_header_is_found_however_it_is_cut(
    header: bytes, source: tuple[str, int] | None, data: st.DataObject
) -> None:
    whole = header + SSH
    parser, found, fed = HeaderParser(), None, 0
    while found is None:
        step = data.draw(st.integers(1, len(whole) - fed))
        found = parser.feed(whole[fed : fed + step])
        fed += step
    assert found == Found(source, whole[len(header) : fed])


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 192.0.2.7 10.0.0.1 50022\r\n",
        b"PROXY TCP4 2001:db8::7 10.0.0.1 50022 2222\r\n",
        b"PROXY TCP6 192.0.2.7 10.0.0.1 50022 2222\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 99999 2222\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 -1 2222\r\n",
        b"PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n",
        b"PROXY " + b"x" * 200,
        b"PROXY \xff\xff\r\n",
        v2(command=0x11),
        v2(command=0x2F),
        v2(body=bytes(4)),
        SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 60_000),
    ],
)
def test_a_wrong_header_is_an_error(header: bytes) -> None:
    with pytest.raises(HeaderError, match="header of version"):
        HeaderParser().feed(header + SSH)


@given(st.binary(max_size=300))
def test_whatever_comes_is_a_header_or_an_error_or_kept_whole(data: bytes) -> None:
    parser = HeaderParser()
    try:
        found = parser.feed(data)
    except HeaderError:
        return
    rest = (found or parser.end()).rest
    assert data.endswith(rest)
    if not data.startswith((b"PROXY ", SIGNATURE)):
        assert rest == data


async def test_a_stream_behind_a_balancer_begins_after_the_header() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    sources: list[tuple[str, int]] = []
    stream = BehindProxy(ours, sources.append)
    await theirs.send_all(V1[:10])
    await theirs.send_all(V1[10:] + SSH)
    await theirs.send_eof()
    assert await stream.receive_some() == SSH
    assert await stream.receive_some() == b""
    assert sources == [("192.0.2.7", 50022)]


async def test_a_wrong_header_breaks_the_stream() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"PROXY nonsense\r\n")
    with pytest.raises(trio.BrokenResourceError, match="header of version 1"):
        await BehindProxy(ours, lambda _: None).receive_some()


@pytest.mark.parametrize("begun", [b"", b"PRO"])
async def test_a_probe_that_leaves_is_an_end(begun: bytes) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    if begun:
        await theirs.send_all(begun)
    await theirs.send_eof()
    assert await BehindProxy(ours, lambda _: None).receive_some() == begun
