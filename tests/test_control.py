"""Control messages: what is encoded is decoded again, and no bytes whatever do more than end the stream."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any, get_args

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio import control
from connect_trio.control import (
    FROM_AGENT,
    FROM_PROXY,
    MAX_MESSAGE,
    MAX_TEXT,
    Announce,
    ControlError,
    Decoder,
    Failed,
    Listen,
    Listening,
    Message,
    Pace,
    Refuse,
    Unlisten,
    Unlistened,
    Withdraw,
)
from tests.support.examples import examples

REFERENCE = "0123456789abcdef" * 2
EVERY = (*FROM_AGENT, *FROM_PROXY)

REFERENCES = st.binary(min_size=16, max_size=16).map(bytes.hex)
WORDS = st.from_regex(r"[a-z0-9][a-z0-9._@-]{0,63}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), max_size=60)
METADATA = st.dictionaries(WORDS, TEXTS, max_size=4)
AGENTS = st.one_of(
    st.builds(Announce, REFERENCES, WORDS, METADATA),
    st.builds(Withdraw, REFERENCES),
    st.builds(Listening, WORDS, TEXTS),
    st.builds(Failed, WORDS, TEXTS),
    st.builds(Unlistened, WORDS),
)
PROXIES = st.one_of(
    st.builds(Refuse, REFERENCES, TEXTS),
    st.builds(Listen, WORDS, st.sampled_from(control.NETWORKS), TEXTS),
    st.builds(Unlisten, WORDS),
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def decoded(*parts: bytes, accepts: tuple[type[Message], ...] = EVERY) -> tuple[list[Message], str]:
    """The messages in bytes that come in these parts, and what was wrong after them."""
    decoder = Decoder(accepts)
    found: list[Message] = []
    try:
        for part in parts:
            decoder.receive_data(part)
            while (message := decoder.maybe_message()) is not None:
                found.append(message)
        decoder.receive_eof()
    except ControlError as exc:
        return found, str(exc)
    return found, ""


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


# what is right


@given(st.lists(AGENTS | PROXIES, max_size=5), st.data())
def test_messages_are_read_as_they_were_written_however_they_are_cut(
    messages: list[Message], data: st.DataObject
) -> None:
    wire = b"".join(map(control.encode, messages))
    assert decoded(wire) == (messages, "")
    assert decoded(*bytewise(wire)) == (messages, "")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=5)))
    assert decoded(*(wire[i:j] for i, j in zip([0, *cuts], [*cuts, len(wire)], strict=True))) == (messages, "")


def test_a_message_looks_like_this() -> None:
    announce = Announce(REFERENCE, "tcp", {"peer": "127.0.0.1:50000"})
    assert control.encode(announce) == (
        b'{"type": "announce", "reference": "0123456789abcdef0123456789abcdef", "kind": "tcp", '
        b'"metadata": {"peer": "127.0.0.1:50000"}}\n'
    )
    assert control.encode(Listen("1", "tcp", "127.0.0.1:0")) == (
        b'{"type": "listen", "listener": "1", "network": "tcp", "address": "127.0.0.1:0"}\n'
    )


def test_either_end_says_its_own_messages_and_no_others() -> None:
    assert set(EVERY) == set(get_args(Message))
    assert not set(FROM_AGENT) & set(FROM_PROXY)
    wire = control.encode(Unlisten("1"))
    assert decoded(wire, accepts=FROM_PROXY) == ([Unlisten("1")], "")
    assert decoded(wire, accepts=FROM_AGENT) == ([], "unlisten is not for this end to say")


def test_a_reason_always_fits() -> None:
    for reason in ("line\nbreak\x00\ud800", "\N{GRINNING FACE}" * 1000, ""):
        (refuse,), wrong = decoded(control.encode(Refuse(REFERENCE, reason)))
        assert wrong == ""
        assert isinstance(refuse, Refuse)
        assert refuse.reason == control.one_line(reason)
        assert len(refuse.reason) <= MAX_TEXT
        assert refuse.reason.isprintable()


# what is wrong


@examples(300)
@given(st.binary(max_size=300), st.data())
def test_junk_is_one_clear_error_however_it_is_cut(junk: bytes, data: st.DataObject) -> None:
    wire = control.encode(Unlisten("1")) + junk + b"\n"
    found, wrong = decoded(wire)
    assert found == [Unlisten("1")]
    assert wrong
    assert wrong.isprintable()
    assert decoded(*bytewise(wire)) == (found, wrong)


@examples(300)
@given(
    st.sampled_from(sorted(control._TYPES)) | st.text(),
    st.dictionaries(st.sampled_from(["kind"]) | st.text(), ANYTHING),
)
def test_any_json_is_a_message_or_an_error(kind: str, fields: dict[str, Any]) -> None:
    found, wrong = decoded(line(**{**fields, "type": kind}))
    assert len(found) == (not wrong)


@examples(300)
@given(AGENTS | PROXIES, st.data())
def test_a_wrong_field_is_named(message: Message, data: st.DataObject) -> None:
    fields = json.loads(control.encode(message))
    name = data.draw(st.sampled_from(sorted(fields.keys() - {"type"})))
    fields[name] = data.draw(st.none() | st.integers() | st.lists(st.text()) | st.just("x\ny") | st.just("x" * 600))
    found, wrong = decoded(line(**fields))
    assert found == []
    assert wrong.startswith(f"{fields['type']}: {name} is")


@pytest.mark.parametrize(
    ("wire", "wrong"),
    [
        (b"\n", "not JSON"),
        (b"\xff\n", "not JSON"),
        (b"{\n", "not JSON"),
        (b"[]\n", "not a JSON object"),
        (b"1" * 5000 + b"\n", "not JSON"),
        (b"[" * MAX_MESSAGE + b"\n", "not JSON"),
        (b'{"a":' * 1600 + b"\n", "not JSON"),
        (b'{"type": "unlisten", "listener": "1", "listener": "2"}\n', "not JSON"),
        (line(), "unknown type"),
        (line(type="hello"), "unknown type"),
        (line(type=["unlisten"], listener="1"), "unknown type"),
        (line(type="unlisten"), "unlisten: its fields are not listener"),
        (line(type="unlisten", listener="1", more="x"), "unlisten: its fields are not listener"),
        (line(type="unlisten", listener=""), "unlisten: listener is not a word"),
        (line(type="withdraw", reference=REFERENCE.upper()), "withdraw: reference is not 32 hex digits"),
        (line(type="withdraw", reference=REFERENCE + "\n"), "withdraw: reference is not 32 hex digits"),
        (line(type="listen", listener="1", network="udp", address="x"), "listen: network is none of tcp, unix, agent"),
        (line(type="listen", listener="1", network="tcp", address="\ud800"), "listen: address is not one line"),
        (line(type="announce", reference=REFERENCE, kind="tcp", metadata={"a": 1}), "announce: metadata has"),
        (line(type="announce", reference=REFERENCE, kind="tcp", metadata={"A": ""}), "announce: metadata has"),
        (
            line(type="announce", reference=REFERENCE, kind="tcp", metadata={str(i): "" for i in range(17)}),
            "announce: metadata is not an object of at most 16 texts",
        ),
        (b'{"type": "unlisten"', "the end in the middle of a message"),
    ],
)
def test_what_may_not_come_says_why(wire: bytes, wrong: str) -> None:
    found, said = decoded(wire)
    assert found == []
    assert wrong in said
    assert decoded(*bytewise(wire)) == (found, said)


def test_a_message_without_end_is_refused_before_it_is_kept() -> None:
    decoder = Decoder(EVERY)
    decoder.receive_data(b"x" * MAX_MESSAGE)
    assert decoder.maybe_message() is None
    decoder.receive_data(b"x")
    with pytest.raises(ControlError, match="more than 8192 bytes"):
        decoder.maybe_message()


def test_the_longest_message_fits_and_a_longer_one_does_not() -> None:
    wire = control.encode(Unlisten("1"))[:-1]
    assert decoded(wire + b" " * (MAX_MESSAGE - len(wire)) + b"\n") == ([Unlisten("1")], "")
    assert decoded(wire + b" " * (MAX_MESSAGE - len(wire) + 1) + b"\n") == ([], "a message of more than 8192 bytes")


@pytest.mark.parametrize(
    "message",
    [
        Withdraw("short"),
        Unlisten("UPPER"),
        Listen("1", "udp", ""),
        Listening("1", "x\ny"),
        Announce(REFERENCE, "tcp", {"peer": "x" * 513}),
        Announce(REFERENCE, "tcp", {str(i): "\N{GRINNING FACE}" * MAX_TEXT for i in range(16)}),
    ],
)
def test_the_encoder_makes_nothing_that_the_decoder_would_refuse(message: Message) -> None:
    with pytest.raises(ValueError, match=r"is n|has a name|longer than"):
        control.encode(message)


# metadata of streams


@given(METADATA)
def test_metadata_is_read_as_dialers_write_it(metadata: dict[str, str]) -> None:
    assert control.decode_metadata_untrusted(json.dumps(metadata).encode()) == metadata


@given(st.binary(max_size=100) | ANYTHING.map(lambda value: json.dumps(value).encode()))
def test_any_metadata_is_texts_or_an_error(raw: bytes) -> None:
    with contextlib.suppress(ControlError):
        found = control.decode_metadata_untrusted(raw)
        assert all(isinstance(text, str) for pair in found.items() for text in pair)


@pytest.mark.parametrize("raw", [b"[]", b'"text"', b'{"a": 1}', b'{"a": {}}', b"{", b"\xff", b'{"A": ""}', b"null"])
def test_metadata_that_is_no_object_of_texts_says_so(raw: bytes) -> None:
    with pytest.raises(ControlError, match=r"^metadata "):
        control.decode_metadata_untrusted(raw)


def test_no_metadata_is_none() -> None:
    assert control.decode_metadata_untrusted(b"") == {}


# pace


def test_a_burst_is_followed_by_the_rate() -> None:
    pace = Pace(rate=10, burst=3, now=100.0)
    assert [pace.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert pace.delay(100.0) == pytest.approx(0.1)
    assert not pace.take(100.05)
    assert pace.take(100.11)
    assert [pace.take(1000.0) for _ in range(4)] == [True, True, True, False]


def test_every_message_is_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Unlisten("1").listener = "2"  # type: ignore[misc]


def test_the_document_has_a_row_for_every_message() -> None:
    text = (Path(__file__).parent.parent / "docs" / "control.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (agent|proxy) \| ([^|]*) \|", text, re.MULTILINE)
    said = {(name, sender): re.findall(r"`(\w+)`", fields) for name, sender, fields in rows}
    assert said == {
        (kind.__name__.lower(), sender): [field.name for field in attrs.fields(kind)]
        for sender, kinds in (("agent", FROM_AGENT), ("proxy", FROM_PROXY))
        for kind in kinds
    }
