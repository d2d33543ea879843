"""Peers of a server's ports that hold the key of this process, or another one, or only play a part."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import trio

from connect_trio.roles.trust import process_keyring
from connect_trio.transport.keyring import SECRET_SIZE, Key
from connect_trio.transport.proofs import (
    CLIENT_HELLO_SIZE,
    NONCE_SIZE,
    PROOF_SIZE,
    SERVER_ANSWER_SIZE,
    ClientHandshake,
    Purpose,
    ServerHandshake,
)

INSTANCE = b"P" * 16


def random_key() -> Key:
    return Key.of_secret(secrets.token_bytes(SECRET_SIZE))


def own_keys() -> tuple[Key, ...]:
    """Of roles that run in the test's own process."""
    return process_keyring().keys(trio.current_time())


def client(keys: Sequence[Key], purpose: Purpose = Purpose.LINK, nonce: bytes | None = None) -> ClientHandshake:
    return ClientHandshake(keys, purpose, instance=INSTANCE, nonce=nonce or secrets.token_bytes(NONCE_SIZE))


def server(keys: Sequence[Key], purpose: Purpose = Purpose.LINK, nonce: bytes | None = None) -> ServerHandshake:
    return ServerHandshake(keys, purpose, instance=b"S" * 16, nonce=nonce or secrets.token_bytes(NONCE_SIZE))


async def read_exactly(stream: trio.abc.Stream, count: int) -> bytes:
    found = b""
    while len(found) < count:
        data = await stream.receive_some(count - len(found))
        if not data:
            raise trio.BrokenResourceError(f"it ended after {len(found)} of {count} bytes")
        found += data
    return found


async def prove(stream: trio.abc.Stream, keys: Sequence[Key], purpose: Purpose) -> None:
    """The client's side, over a stream. Raises Untrusted, trio.BrokenResourceError."""
    handshake = client(keys, purpose)
    await stream.send_all(handshake.start())
    await stream.send_all(handshake.receive(await read_exactly(stream, SERVER_ANSWER_SIZE)))


async def let_prove(stream: trio.abc.Stream, keys: Sequence[Key], purpose: Purpose) -> None:
    """The server's side, over a stream. Raises Untrusted, trio.BrokenResourceError."""
    handshake = server(keys, purpose)
    await stream.send_all(handshake.receive(await read_exactly(stream, CLIENT_HELLO_SIZE)))
    handshake.receive(await read_exactly(stream, PROOF_SIZE))


async def open_trusted(port: int, purpose: Purpose) -> trio.SocketStream:
    """A connection to a port of a server of this process, which takes us for a proxy."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await prove(stream, own_keys(), purpose)
    return stream
