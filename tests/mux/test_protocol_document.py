"""docs/protocol.md says what the code does: its tables are made from the code's.

`python -m tests.mux.test_protocol_document` writes them anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

import pytest

from connect_trio import ways
from connect_trio.mux import acceptor, budget, endpoint, frames, halves, opener, outbox, switch, tombstones, windows
from connect_trio.mux.codes import DetachCode, GoawayCode, Peer, RejectCode, ResetCode
from connect_trio.mux.frames import HOP_TYPES, LENGTHS, FrameType
from connect_trio.mux.states import RECEIVE, SEND, State
from connect_trio.mux.wire import Limits, Liveness
from tests.support.vectors import VECTORS

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"

MEANINGS: dict[type[IntEnum], dict[str, str]] = {
    Peer: {
        "OPENER": "a proxy",
        "ACCEPTOR": "an agent",
        "SWITCH": "a server",
    },
    GoawayCode: {
        "DRAIN": "the process is about to stop; go elsewhere",
        "PROTOCOL": "the receiver broke the rules of this document",
        "VERSION": "no version in common",
        "DISPLACED": "a newer tunnel of the same agent took its place",
        "SHUTDOWN": "the process stops now",
        "OVERLOADED": "the receiver asked for too much",
        "VIA": "from a proxy: it is about to stop, and the tunnels that pass through it are to go by another way",
    },
    ResetCode: {
        "APP": "the application dropped the stream",
        "PROTOCOL": "the receiver sent what the stream does not allow",
        "DETACHED_TIMEOUT": "the way to the other end was lost for too long, or no answer to OPEN came",
        "BUDGET": "the stream was detached while the memory was needed for others",
        "UNKNOWN": "the acceptor knows no such token: it was started anew, or had refused the stream",
        "REVOKED": "reserved: the visitor may not any more",
        "SHUTDOWN": "the process at the other end stops",
    },
    RejectCode: {
        "REFUSED": "not served here",
        "UNREACHABLE": "what the stream is for does not answer",
        "UNSUPPORTED": "the kind is unknown",
        "BUDGET": "the memory for streams is used up",
        "OVERLOADED": "too many streams",
    },
    DetachCode: {
        "LOST": "the wire beyond the switch was lost, or who is there did not answer",
        "NO_ROUTE": "the switch has no tunnel of the session",
        "STALE": "a newer attempt of the same stream came first",
        "MOVED": "the opener goes on elsewhere, asks elsewhere, or has forgotten the stream",
        "LINK_LOST": "the opener's link has ended",
        "CONGESTED": "the circuit was cut: somebody broke its rules",
        "DRAINING": "the server is about to stop and takes nothing new",
    },
}


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _types() -> str:
    rows = []
    for kind in FrameType:
        low, high = LENGTHS[kind]
        length = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        rows.append([f"`{kind.value}`", kind.name, length, "hop" if kind in HOP_TYPES else "stream"])
    return _table(["type", "name", "length of the payload", "concerns"], rows)


def _codes(kind: type[IntEnum]) -> Callable[[], str]:
    head = "what" if kind is Peer else f"{kind.__name__.removesuffix('Code').upper()} code"
    return lambda: _table(
        [head, "name", "meaning"], [[f"`{each.value}`", each.name, MEANINGS[kind][each.name]] for each in kind]
    )


def _states(table: dict[tuple[State, int], State]) -> Callable[[], str]:
    states = [state for state in State if any(each is state for each, _ in table)]
    kinds = sorted({kind for _, kind in table})
    rows = [
        [FrameType(kind).name, *(table[state, kind].value if (state, kind) in table else "-" for state in states)]
        for kind in kinds
    ]
    return lambda: _table(["", *(state.value for state in states)], rows)


def _attempt() -> str:
    return (
        f"{opener.ATTEMPT:g} s or 4 round trips, doubled each time the stream asks again, to {endpoint.ATTEMPT_MAX:g} s"
    )


def _waits() -> str:
    """The formula of `acceptor.waits`, which the numbers in it must give."""
    stub, dead, attempt = endpoint.STUB, 2 * endpoint.DEAD, endpoint.ATTEMPT_MAX
    for patience in (0.0, opener.PATIENCE):
        assert acceptor.waits(patience) == pytest.approx((patience + stub + dead + attempt) * 1.05)
    return f"1.05 x (the opener's time-out + STUB {stub:g} + 2 DEAD {dead:g} + longest ATTEMPT {attempt:g}) s"


def _rests() -> str:
    return f"{ways.FIRST_REST:g} s, growing to {ways.LONGEST_REST:g} s; to {ways.LONGEST_WAIT:g} s before ACCEPT"


def _numbers() -> str:
    live, limits = Liveness(), Limits()
    rows = [
        ["INITIAL", f"{frames.INITIAL:,} bytes", "constant of the version"],
        ["most payload bytes in a DATA frame", f"{frames.MAX_DATA:,}", "constant of the version"],
        ["longest frame", f"{frames.MAX_FRAME:,} bytes", "constant of the version"],
        ["window of a receiver", f"{endpoint.WINDOW:,} bytes", "own choice, at least INITIAL"],
        ["kept by a sender for one stream, at most", f"{endpoint.ALLOWANCE:,} bytes", "own choice"],
        ["SWITCH_WINDOW", f"{switch.SWITCH_WINDOW:,} bytes", "own choice, at least INITIAL"],
        ["acknowledged within", f"{endpoint.ACKNOWLEDGE:g} s", "must"],
        ["HELLO within", f"{live.hello:g} s", "own choice"],
        ["PING after", f"{live.ping:g} s; without streams {live.idle_ping:g} s", "must"],
        ["DEAD after", f"{live.dead:g} s; without streams {live.idle_dead:g} s", "must"],
        ["answer to OPEN within", f"{opener.ANSWER:g} s", "own choice of the opener"],
        ["ATTEMPT: answer to RESUME within", _attempt(), "own choice of the opener"],
        ["opener keeps a detached stream", f"{opener.PATIENCE:g} s", "own choice of the opener, told in OPEN"],
        ["acceptor keeps a detached stream", _waits(), "must, if it grants the opener's time-out"],
        [
            "longest time-out of the opener that an acceptor grants",
            f"{acceptor.MAX_PATIENCE:,.0f} s",
            "own choice of the acceptor",
        ],
        [
            "ORPHAN: acceptor keeps a stream after DETACH LINK_LOST",
            f"{acceptor.ORPHAN:g} s while it has a wire, else as any other",
            "own choice of the acceptor",
        ],
        ["STUB: answer to RESET within", f"{endpoint.STUB:g} s, then forgotten", "own choice"],
        ["ENDING: second last frame of a circuit within", f"{switch.ENDING:g} s", "own choice of the switch"],
        ["a closed stream waits for the other side's end", f"{endpoint.LINGER:g} s, then RESET APP", "own choice"],
        ["LINGER of a tombstone", f"{acceptor.waits(acceptor.MAX_PATIENCE):,.0f} s", "must: see below"],
        ["SHORT_LINGER of one that the opener confirmed", f"{tombstones.SHORT_LINGER:g} s", "must"],
        ["tombstones", f"{tombstones.MAX_TOMBSTONES:,}, the oldest go first", "own choice of the acceptor"],
        ["bytes that all streams of a process keep", f"{budget.BUDGET:,}", "own choice"],
        ["the share of a stream in these, when it is first halved", f"half of {budget.FULL:,} bytes", "own choice"],
        ["its floor, in each direction", f"{budget.FLOOR:,} bytes", "own choice"],
        ["how often shares may promise the budget", f"{budget.OVERCOMMIT} times", "own choice"],
        ["streams of a process", f"{budget.STREAMS:,}", "own choice"],
        ["bytes that a switch promises all circuits", f"{switch.PROMISED:,}", "own choice"],
        ["who comes back this soon had waited for an acknowledgement", f"{windows.SOON:g} s", "own choice"],
        ["pieces that a stream keeps unacknowledged", f"{halves.MAX_KEPT:,}", "own choice"],
        ["rest between two rounds in vain", _rests(), "own choice of the opener"],
        ["healthy streams that are moved from a wire", f"{ways.MOVES:g} a second", "own choice of the opener"],
        ["streams at once on a wire", f"{limits.streams:,}", "own choice, told in HELLO"],
        ["streams that wait for the application's answer", f"{acceptor.MAX_ASKED:,}", "own choice of the acceptor"],
        [
            "frames OPEN, RESUME, RESET, DETACH, DONE",
            f"{limits.rate:,.0f} a second, bursts of {limits.burst:,.0f}",
            "own choice",
        ],
        ["control bytes that wait for a peer", f"{outbox.MAX_CONTROL:,}", "own choice"],
    ]
    return _table(["what", "value", "who decides"], rows)


def _vectors() -> str:
    return _table(["frame", "bytes"], [[name, f"`{vector}`"] for name, _, vector in VECTORS])


TABLES: dict[str, Callable[[], str]] = {
    "types": _types,
    **{kind.__name__: _codes(kind) for kind in (Peer, GoawayCode, ResetCode, RejectCode, DetachCode)},
    "RECEIVE": _states(RECEIVE),
    "SEND": _states(SEND),
    "numbers": _numbers,
    "vectors": _vectors,
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_document_is_that_of_the_code(name: str) -> None:
    assert f"<!-- {name} -->\n{TABLES[name]()}\n" in DOCUMENT.read_text()


def test_the_document_has_no_other_marks() -> None:
    assert set(re.findall(r"<!-- (\w+) -->", DOCUMENT.read_text())) == set(TABLES)


def test_the_document_names_every_state() -> None:
    text = DOCUMENT.read_text()
    assert all(f"| {state.value} |" in text for state in State)


@pytest.mark.parametrize(
    ("heading", "struct"),
    [
        ("HELLO", frames.HELLO),
        ("GOAWAY", frames.GOAWAY),
        ("OPEN and RESUME", frames.ASK),
        ("ACCEPT and RESUMED", frames.ANSWER),
        ("CREDIT", frames.CREDIT),
        ("DETACH", frames.CODE),
    ],
)
def test_the_fields_of_a_layout_lie_where_the_code_puts_them(heading: str, struct: object) -> None:
    """Offsets and sizes of a table must join, and end where the code's fixed part ends."""
    section = DOCUMENT.read_text().split(f"\n### {heading}\n")[1].split("\n#")[0]
    rows = re.findall(r"^\| (\d+) \| (\d+) \|", section, re.MULTILINE)
    at = 0
    for offset, size in rows:
        assert int(offset) == at
        at += int(size)
    assert at == getattr(struct, "size", None)


def test_the_tests_that_the_document_names_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", DOCUMENT.read_text()))
    folder = Path(__file__).parent
    assert named
    assert named <= set(re.findall(r"^def (test_\w+)", "".join(map(Path.read_text, folder.glob("*.py"))), re.MULTILINE))


def test_the_rules_that_the_document_refers_to_exist() -> None:
    text = DOCUMENT.read_text()
    rules = re.findall(r"^- \*\*([A-Z]\d+)\.", text, re.MULTILINE)
    assert len(rules) == len(set(rules))
    assert set(re.findall(r"\b([OABEMSL]\d+)\b", text)) - {"S1", "S2"} <= set(rules)


def write_tables() -> None:
    text = DOCUMENT.read_text()
    for mark, make in TABLES.items():
        before, after = text.split(f"<!-- {mark} -->\n")
        rest = after.split("\n")
        while rest[0].startswith("|"):
            del rest[0]
        text = f"{before}<!-- {mark} -->\n{make()}\n" + "\n".join(rest)
    DOCUMENT.write_text(text)


if __name__ == "__main__":
    write_tables()
