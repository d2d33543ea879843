"""The handshake: who holds the key gets through, and nothing else does, whatever is changed, played back or cut."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from connect_trio.transport.keyring import MAX_KEYS, Key
from connect_trio.transport.proofs import (
    CLIENT_HELLO_SIZE,
    MAGIC,
    PROOF_SIZE,
    SERVER_ANSWER_SIZE,
    VERSION,
    ClientHandshake,
    Handshake,
    Purpose,
    ServerHandshake,
    Untrusted,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "links.md"
KEY, OTHER, THIRD = (Key.of_secret(bytes([number]) * 32) for number in (1, 2, 3))
CLIENT, SERVER = b"C" * 16, b"S" * 16
WRONG, NO_KEY = r"^its proof is wrong$", r"^it has another key"

nonces = st.binary(min_size=32, max_size=32)
purposes = st.sampled_from(Purpose)


def client(*keys: Key, purpose: Purpose = Purpose.LINK, nonce: bytes = b"c" * 32) -> ClientHandshake:
    return ClientHandshake(keys or (KEY,), purpose, instance=CLIENT, nonce=nonce)


def server(*keys: Key, purpose: Purpose = Purpose.LINK, nonce: bytes = b"s" * 32) -> ServerHandshake:
    return ServerHandshake(keys or (KEY,), purpose, instance=SERVER, nonce=nonce)


def fed(side: Handshake, data: bytes, cuts: tuple[int, ...] = ()) -> bytes:
    """What a side says to data that comes in pieces."""
    said = b""
    edges = [0, *sorted(cut for cut in set(cuts) if 0 < cut < len(data)), len(data)]
    for begin, end in itertools.pairwise(edges):
        said += side.receive(data[begin:end])
    return said


def names(*sides: Handshake) -> tuple[bytes | None, ...]:
    """Whom each side has found at the other end."""
    return tuple(side.peer for side in sides)


def transcript(left: ClientHandshake, right: ServerHandshake) -> tuple[bytes, bytes, bytes]:
    """The three messages of two sides that trust each other."""
    hello = left.start()
    answer = right.receive(hello)
    proof = left.receive(answer)
    assert right.receive(proof) == b""
    return hello, answer, proof


# two that hold the same key


@given(purposes, nonces, nonces, st.tuples(*[st.integers(1, 97)] * 3))
def test_two_with_the_same_key_trust_each_other_however_the_bytes_are_cut(
    purpose: Purpose, one: bytes, two: bytes, cuts: tuple[int, ...]
) -> None:
    left, right = client(purpose=purpose, nonce=one), server(purpose=purpose, nonce=two)
    assert right.start() == b""
    answer = fed(right, left.start(), cuts)
    proof = fed(left, answer, cuts)
    assert names(left, right) == (SERVER, None), "not before its proof"
    assert fed(right, proof, cuts) == b""
    assert names(left, right) == (SERVER, CLIENT)
    assert not left.wanted + right.wanted


def test_messages_have_fixed_sizes_whatever_the_number_of_keys() -> None:
    for keys in ((KEY,), (KEY, OTHER), (OTHER, THIRD, Key.of_secret(bytes(32)), KEY)):
        messages = transcript(client(*keys), server(KEY, THIRD))
        assert [len(message) for message in messages] == [CLIENT_HELLO_SIZE, SERVER_ANSWER_SIZE, PROOF_SIZE]


@pytest.mark.parametrize(
    ("theirs", "ours", "used"),
    [
        ((KEY, OTHER), (OTHER, KEY), KEY),
        ((OTHER, KEY), (KEY,), KEY),
        ((KEY,), (OTHER, THIRD, KEY), KEY),
        ((THIRD, OTHER), (KEY, OTHER), OTHER),
    ],
)
def test_the_first_key_of_the_client_that_the_server_has_is_used(
    theirs: tuple[Key, ...], ours: tuple[Key, ...], used: Key
) -> None:
    _, answer, _ = transcript(client(*theirs), server(*ours))
    assert answer[-PROOF_SIZE - 8 : -PROOF_SIZE] == used.id


def test_a_side_takes_no_more_than_it_waits_for() -> None:
    side = server()
    for data in (b"", bytes(CLIENT_HELLO_SIZE + 1)):
        with pytest.raises(ValueError, match="are awaited"):
            side.receive(data)


@pytest.mark.parametrize(
    ("keys", "instance", "nonce"),
    [((), CLIENT, bytes(32)), ((KEY,) * 5, CLIENT, bytes(32)), ((KEY,), b"C", bytes(32)), ((KEY,), CLIENT, bytes(31))],
)
def test_a_side_without_what_it_needs_is_not_made(keys: tuple[Key, ...], instance: bytes, nonce: bytes) -> None:
    with pytest.raises(ValueError, match="an instance has 16 bytes"):
        ClientHandshake(keys, Purpose.LINK, instance=instance, nonce=nonce)


# those that do not


def test_a_client_with_another_key_hears_nothing() -> None:
    with pytest.raises(Untrusted, match=NO_KEY):
        server(KEY, OTHER).receive(client(THIRD).start())


def test_ids_that_are_not_there_are_no_key() -> None:
    nobody = Key(bytes(8), bytes(32))
    with pytest.raises(Untrusted, match=NO_KEY):
        ServerHandshake([nobody], Purpose.LINK, instance=SERVER, nonce=bytes(32)).receive(client(KEY).start())


def test_who_knows_only_the_id_of_a_key_is_refused_on_both_sides() -> None:
    forged = Key(KEY.id, OTHER.secret)
    answer = server(forged).receive(client().start())
    with pytest.raises(Untrusted, match=WRONG):
        client().receive(answer)
    side = server()
    side.receive(client(forged).start())
    with pytest.raises(Untrusted, match=WRONG):
        side.receive(bytes(PROOF_SIZE))
    assert side.peer is None


def test_a_server_with_a_key_that_was_not_offered_is_refused() -> None:
    left = client(KEY)
    answer = server(OTHER).receive(client(OTHER).start())
    with pytest.raises(Untrusted, match="a key that was not offered"):
        left.receive(answer)


@given(st.integers(0, CLIENT_HELLO_SIZE + SERVER_ANSWER_SIZE + PROOF_SIZE - 1), st.integers(1, 255))
def test_every_changed_byte_is_noticed(where: int, change: int) -> None:
    """But in the ids of keys that are not used, which decide nothing, it is noticed by the proof as well."""
    left, right = client(KEY), server(KEY)
    seen = bytearray()

    def through(data: bytes) -> bytes:
        begin = len(seen)
        seen.extend(data)
        if begin <= where < len(seen):
            seen[where] ^= change
        return bytes(seen[begin:])

    with pytest.raises(Untrusted):
        right.receive(through(left.receive(through(right.receive(through(left.start()))))))
    assert left.peer is None or right.peer is None


@given(nonces, nonces)
def test_a_recorded_handshake_is_worth_nothing(before: bytes, now: bytes) -> None:
    assume(before != now)
    hello, answer, proof = transcript(client(nonce=before), server(nonce=before))
    later = server(nonce=now)
    later.receive(hello)
    with pytest.raises(Untrusted, match=WRONG):
        later.receive(proof)
    with pytest.raises(Untrusted, match=WRONG):
        client(nonce=now).receive(answer)


def test_a_proof_that_is_played_back_to_who_made_it_is_refused() -> None:
    right = server()
    answer = right.receive(client().start())
    with pytest.raises(Untrusted, match=WRONG):
        right.receive(answer[-PROOF_SIZE:])


def test_a_hello_that_is_played_back_to_who_said_it_is_refused() -> None:
    left = client()
    echo = left.start()
    with pytest.raises(Untrusted):
        left.receive(echo + bytes(SERVER_ANSWER_SIZE - len(echo)))


def test_a_proof_of_another_connection_to_the_same_server_is_refused() -> None:
    """Somebody has a client prove to him what a server asks of himself."""
    right = server()
    answer = right.receive(client(nonce=b"m" * 32).start())
    with pytest.raises(Untrusted, match=WRONG):
        client(nonce=b"v" * 32).receive(answer)


@pytest.mark.parametrize("purpose", Purpose)
def test_the_wrong_port_is_named_on_both_sides(purpose: Purpose) -> None:
    other = next(each for each in Purpose if each is not purpose)
    expected = f"this one is for a {purpose.name.lower()}, not a {other.name.lower()}"
    with pytest.raises(Untrusted, match=expected):
        server(purpose=purpose).receive(client(purpose=other).start())
    answer = server(purpose=other).receive(client(purpose=other).start())
    with pytest.raises(Untrusted, match=expected):
        client(purpose=purpose).receive(answer)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "it speaks HTTP instead of the handshake"),
        (b"PRI * HTTP/2.0\r\n\r\n", "it speaks HTTP instead of the handshake"),
        (b"HTTP/1.1 400 Bad Request\r\n", "it speaks HTTP instead of the handshake"),
        (b"\x16\x03\x01\x02\x00", "it speaks TLS, which is not configured here"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "it answers as TLS does, which is not configured here"),
        (b"SSH-2.0-x\r\n", "it speaks SSH instead of the handshake"),
        (b"\0", "it does not speak the handshake"),
        (MAGIC[:-1] + b"X", "it does not speak the handshake"),
        (MAGIC + b"\x07", f"it speaks version 7 of the handshake, and we speak {VERSION}"),
        (MAGIC + bytes([VERSION, 9]) + bytes(90), "this one is for a link, not a purpose 9"),
    ],
)
@pytest.mark.parametrize("make", [client, server])
def test_what_is_no_hello_is_named_as_early_as_can_be(make: type[Handshake], said: bytes, reason: str) -> None:
    side = make()  # type: ignore[call-arg]
    padded = said.ljust(side.wanted, b"\0") if b"\x09" in said[9:10] else said
    with pytest.raises(Untrusted) as caught:
        side.receive(padded[: side.wanted])
    assert reason in str(caught.value)


@given(st.binary(max_size=300), st.sampled_from([b"", MAGIC, MAGIC + b"\x01", MAGIC + b"\x01\x01"]))
def test_garbage_never_gets_through_and_never_breaks_a_side(garbage: bytes, beginning: bytes) -> None:
    reasons: list[str] = []
    for side in (client(), server()):
        data = beginning + garbage
        while data and side.wanted:
            data, piece = data[side.wanted :], data[: side.wanted]
            try:
                side.receive(piece)
            except Untrusted as exc:
                reasons.append(str(exc))
                break
        assert side.peer is None
    assert all(reason.isprintable() and len(reason) < 120 for reason in reasons)


# the document


def test_the_document_has_the_vectors_of_the_code() -> None:
    vectors = DOCUMENT.read_text(encoding="utf-8").partition("### Test vectors")[2].partition("```\n")[2]
    found = dict(re.findall(r"^(\S[^\n]*)\n((?:  [0-9a-f]+\n)+)", vectors, re.M))
    values = {name: bytes.fromhex("".join(text.split())) for name, text in found.items()}
    key = Key.of_text("0123456789abcdef0123456789abcdef")
    left = ClientHandshake([key], Purpose.TUNNEL, instance=b"\xc1" * 16, nonce=b"\xc2" * 32)
    right = ServerHandshake([key], Purpose.TUNNEL, instance=b"\x51" * 16, nonce=b"\x52" * 32)
    hello, answer, proof = transcript(left, right)
    assert values == {
        "key": key.secret,
        "id": key.id,
        "client's hello": hello,
        "server's answer": answer,
        "client's proof": proof,
    }


def test_the_document_names_the_sizes_of_the_code() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, size in (
        ("client's hello", CLIENT_HELLO_SIZE),
        ("server's answer", SERVER_ANSWER_SIZE),
        ("client's proof", PROOF_SIZE),
    ):
        assert f"| {name} | {size} |" in text
    assert f"magic: `{MAGIC.hex(' ')}`. version: {VERSION}." in text
    assert MAX_KEYS == 4
