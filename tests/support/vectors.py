"""One frame of each type in hex, as docs/protocol.md shows them: written by hand, not by the encoder under test."""

from __future__ import annotations

import attrs

from connect_trio.mux import frames
from connect_trio.mux.frames import Answer, Ask, FrameType, Goaway, Hello

ASK = Ask(
    token=bytes(range(16)),
    attempt=1,
    limit=1_048_576,
    patience=600_000,
    session="23ce7967",
    kind="http",
    metadata=b"{}",
)
ASK_HEX = (
    "00000001 0000000000000000 0000000000100000 000927c0"
    " 000102030405060708090a0b0c0d0e0f 08 04 0002 3233636537393637 68747470 7b7d"
)
AGAIN = attrs.evolve(ASK, attempt=2, received=3, limit=1_048_579)
AGAIN_HEX = (
    "00000002 0000000000000003 0000000000100003 000927c0"
    " 000102030405060708090a0b0c0d0e0f 08 04 0002 3233636537393637 68747470 7b7d"
)
HELLO = Hello(peer=2, instance=b"\xab" * 16, slot=1, generation=7, name="a")

# (name, the frame as our encoder makes it, hex)
VECTORS: list[tuple[str, bytes, str]] = [
    (
        "HELLO, an acceptor, slot 1, generation 7, 65,536 streams, name `a`",
        frames.encode_hello(HELLO),
        "01000028 00000000 0001 0001 00000000 02 01 00010000 0000000000000007 abababababababababababababababab 01 61",
    ),
    ("PING", frames.encode(FrameType.PING, 0, b"01234567"), "02000008 00000000 3031323334353637"),
    ("PONG, its answer", frames.encode(FrameType.PONG, 0, b"01234567"), "03000008 00000000 3031323334353637"),
    (
        "GOAWAY DRAIN, 30 s of grace",
        frames.encode_goaway(Goaway(code=1, grace=30_000, text="bye")),
        "04000009 00000000 0001 00007530 627965",
    ),
    (
        "OPEN of stream 1: attempt 1, limit 1 MiB, 10 minutes, session `23ce7967`, kind `http`, metadata `{}`",
        frames.encode_ask(FrameType.OPEN, 1, ASK),
        f"1000003a 00000001 {ASK_HEX}",
    ),
    (
        "ACCEPT: 5 bytes received, limit 1,048,581",
        frames.encode_answer(FrameType.ACCEPT, 1, Answer(attempt=1, received=5, limit=1_048_581, patience=600_000)),
        "11000018 00000001 00000001 0000000000000005 0000000000100005 000927c0",
    ),
    (
        "REJECT UNREACHABLE",
        frames.encode_say(FrameType.REJECT, 1, 2, "no tool"),
        "12000009 00000001 0002 6e6f20746f6f6c",
    ),
    (
        "RESUME of the same stream as stream 3: attempt 2, 3 bytes received, limit 1,048,579",
        frames.encode_ask(FrameType.RESUME, 3, AGAIN),
        f"1300003a 00000003 {AGAIN_HEX}",
    ),
    (
        "RESUMED: 5 bytes received, limit 65,536",
        frames.encode_answer(FrameType.RESUMED, 3, Answer(attempt=2, received=5, limit=65_536, patience=0)),
        "14000018 00000003 00000002 0000000000000005 0000000000010000 00000000",
    ),
    ("DATA at offset 0", frames.encode_data(1, 0, b"hello"), "1500000d 00000001 0000000000000000 68656c6c6f"),
    (
        "CREDIT: 5 received, limit 1,048,581",
        frames.encode_credit(1, 5, 1_048_581),
        "16000010 00000001 0000000000000005 0000000000100005",
    ),
    ("FIN after 5 bytes", frames.encode_fin(1, 5), "17000008 00000001 0000000000000005"),
    (
        "CREDIT that acknowledges this FIN",
        frames.encode_credit(1, 6, 1_048_581),
        "16000010 00000001 0000000000000006 0000000000100005",
    ),
    ("RESET APP", frames.encode_say(FrameType.RESET, 1, 1, "gone"), "18000006 00000001 0001 676f6e65"),
    ("RESET UNKNOWN, the answer to a RESUME", frames.encode_say(FrameType.RESET, 3, 5), "18000002 00000003 0005"),
    ("DETACH NO_ROUTE", frames.encode_detach(1, 2), "19000002 00000001 0002"),
    ("DETACH STALE", frames.encode_detach(3, 3), "19000002 00000003 0003"),
    ("DONE", frames.encode(FrameType.DONE, 1), "1a000000 00000001"),
]
