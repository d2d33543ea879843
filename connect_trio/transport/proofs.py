"""How a server and a proxy prove to each other that they hold the same key: docs/links.md, without I/O.

Three messages of fixed size. The client says hello and names its keys; the server, which says nothing before it has
seen one that it has too, answers with its own hello and its proof; the client answers with its proof. A proof is an
HMAC over the role of who proves and both hellos: so it is worth nothing in another connection (both nonces), on the
other port (the purpose), for somebody else (the instance), or played back to who made it (the role).
"""

from __future__ import annotations

import hmac
from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import IntEnum
from struct import Struct

from connect_trio.transport.keyring import ID_SIZE, MAX_KEYS, Key

VERSION = 1
MAGIC = b"\x89CONNECT"
"""Begins both hellos. No HTTP, TLS, SSH or frame of the mux begins with this byte."""

NONCE_SIZE = 32
INSTANCE_SIZE = 16
PROOF_SIZE = 32

_CLIENT_HELLO = Struct(f"!8sBB{INSTANCE_SIZE}s{NONCE_SIZE}s{MAX_KEYS * ID_SIZE}s")
_SERVER_HELLO = Struct(f"!8sBB{INSTANCE_SIZE}s{NONCE_SIZE}s{ID_SIZE}s")
CLIENT_HELLO_SIZE = _CLIENT_HELLO.size
SERVER_ANSWER_SIZE = _SERVER_HELLO.size + PROOF_SIZE

# The same length, and none begins like the other: what is hashed has one reading only.
_SERVER_LABEL = b"connect-trio proof 1 server\0"
_CLIENT_LABEL = b"connect-trio proof 1 client\0"

_NO_KEY = bytes(ID_SIZE)
_HTTP = (b"GET ", b"POST", b"HEAD", b"PUT ", b"DELE", b"OPTI", b"CONN", b"PATC", b"TRAC", b"PRI ", b"HTTP")


class Purpose(IntEnum):
    """What a connection is for."""

    LINK = 1
    TUNNEL = 2


class Untrusted(Exception):
    """The peer has not proven who it is; the text says why, in words of ours."""


class Handshake(ABC):
    """One side of one connection. Send what `start` gives, then feed it `wanted` bytes, or fewer, until that is 0.

    peer: the instance of the other side, once it is proven. silence: what it may mean that nothing came at all.
    """

    silence = "it closed the connection before it said anything"

    def __init__(self, keys: Sequence[Key], purpose: Purpose, *, instance: bytes, nonce: bytes) -> None:
        """keys: 1 to MAX_KEYS. instance: 16 bytes that name this process. nonce: 32 random bytes, never used before."""
        if len(instance) != INSTANCE_SIZE or len(nonce) != NONCE_SIZE or not 1 <= len(keys) <= MAX_KEYS:
            raise ValueError("an instance has 16 bytes and a nonce 32, and there are 1 to 4 keys")
        self._keys = {key.id: key for key in keys}
        self._purpose = purpose
        self._instance = instance
        self._nonce = nonce
        self._buffer = b""
        self._claimed = b""
        self._size = 0
        self.peer: bytes | None = None

    def start(self) -> bytes:
        """What to send before anything was received."""
        return b""

    @property
    def wanted(self) -> int:
        """Bytes that are still to come of the message that is awaited; 0 when all is proven."""
        return self._size - len(self._buffer)

    def receive(self, data: bytes) -> bytes:
        """Take at most `wanted` bytes; what to send. Raises Untrusted, as early as what is there allows."""
        if not 0 < len(data) <= self.wanted:
            raise ValueError(f"{len(data)} bytes, where 1 to {self.wanted} are awaited")
        self._buffer += data
        if self._size > PROOF_SIZE:  # a hello, and not a mere proof
            _check_beginning(self._buffer)
        if self.wanted:
            return b""
        message, self._buffer, self._size = self._buffer, b"", 0
        return self._message(message)

    @abstractmethod
    def _message(self, message: bytes) -> bytes:
        """A whole message of the peer; what to send. Raises Untrusted."""

    def _check_purpose(self, purpose: int) -> None:
        if purpose != self._purpose:
            theirs = Purpose(purpose).name.lower() if purpose in list(Purpose) else f"purpose {purpose}"
            raise Untrusted(f"it is on the wrong port: this one is for a {self._purpose.name.lower()}, not a {theirs}")


class ClientHandshake(Handshake):
    """The side that has connected."""

    silence = "it closed the connection: is CONNECT_CLUSTER_KEY, or Redis, the same for both?"

    def __init__(self, keys: Sequence[Key], purpose: Purpose, *, instance: bytes, nonce: bytes) -> None:
        super().__init__(keys, purpose, instance=instance, nonce=nonce)
        ids = b"".join(self._keys).ljust(MAX_KEYS * ID_SIZE, b"\0")
        self._hello = _CLIENT_HELLO.pack(MAGIC, VERSION, purpose, instance, nonce, ids)
        self._size = SERVER_ANSWER_SIZE

    def start(self) -> bytes:
        return self._hello

    def _message(self, message: bytes) -> bytes:
        hello, proof = message[: _SERVER_HELLO.size], message[_SERVER_HELLO.size :]
        _, _, purpose, instance, _, key_id = _SERVER_HELLO.unpack(hello)
        self._check_purpose(purpose)
        key = self._keys.get(key_id)
        if key is None:
            raise Untrusted("it answers with a key that was not offered")
        if not hmac.compare_digest(proof, _proof(key, _SERVER_LABEL, self._hello, hello)):
            raise Untrusted("its proof is wrong")
        self.peer = instance
        return _proof(key, _CLIENT_LABEL, self._hello, hello)


class ServerHandshake(Handshake):
    """The side that was connected to."""

    def __init__(self, keys: Sequence[Key], purpose: Purpose, *, instance: bytes, nonce: bytes) -> None:
        super().__init__(keys, purpose, instance=instance, nonce=nonce)
        self._size = CLIENT_HELLO_SIZE
        self._expected: bytes | None = None

    def _message(self, message: bytes) -> bytes:
        return self._answer(message) if self._expected is None else self._judge(message, self._expected)

    def _answer(self, client: bytes) -> bytes:
        _, _, purpose, self._claimed, _, ids = _CLIENT_HELLO.unpack(client)
        self._check_purpose(purpose)
        offered = (ids[at : at + ID_SIZE] for at in range(0, len(ids), ID_SIZE))
        key = next((self._keys[each] for each in offered if each != _NO_KEY and each in self._keys), None)
        if key is None:
            raise Untrusted("it has another key: is CONNECT_CLUSTER_KEY, or Redis, the same for both?")
        hello = _SERVER_HELLO.pack(MAGIC, VERSION, self._purpose, self._instance, self._nonce, key.id)
        self._expected = _proof(key, _CLIENT_LABEL, client, hello)
        self._size = PROOF_SIZE
        return hello + _proof(key, _SERVER_LABEL, client, hello)

    def _judge(self, proof: bytes, expected: bytes) -> bytes:
        if not hmac.compare_digest(proof, expected):
            raise Untrusted("its proof is wrong")
        self.peer = self._claimed
        return b""


def _proof(key: Key, label: bytes, client_hello: bytes, server_hello: bytes) -> bytes:
    return hmac.digest(key.secret, label + client_hello + server_hello, "sha256")


def _check_beginning(data: bytes) -> None:
    """Raises Untrusted as soon as this cannot become a hello of ours."""
    beginning = data[: len(MAGIC)]
    if beginning != MAGIC[: len(beginning)]:
        raise Untrusted(_guess(data))
    if len(data) > len(MAGIC) and data[len(MAGIC)] != VERSION:
        raise Untrusted(f"it speaks version {data[len(MAGIC)]} of the handshake, and we speak {VERSION}")


def _guess(data: bytes) -> str:
    if data.startswith(_HTTP):
        return "it speaks HTTP instead of the handshake"
    if data.startswith(b"\x16\x03"):
        return "it speaks TLS, which is not configured here"
    if data.startswith(b"\x15\x03"):
        return "it answers as TLS does, which is not configured here"
    if data.startswith(b"SSH-"):
        return "it speaks SSH instead of the handshake"
    return "it does not speak the handshake"
