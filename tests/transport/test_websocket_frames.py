"""Binary messages, read back by wsproto, which knows nothing of how they were made."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage

from connect_trio.transport.websocket_frames import binary_message


def read_back(frame: bytes | bytearray, *, masked: bool) -> bytes:
    """What a peer reads; it refuses frames that are masked and should not be, or the other way round."""
    peer = Connection(ConnectionType.SERVER if masked else ConnectionType.CLIENT)
    peer.receive_data(bytes(frame))
    events = list(peer.events())
    assert all(isinstance(event, BytesMessage) for event in events), events
    assert [event.message_finished for event in events if isinstance(event, BytesMessage)][-1]
    return b"".join(bytes(event.data) for event in events if isinstance(event, BytesMessage))


@given(st.lists(st.binary(max_size=400), min_size=1, max_size=5), st.booleans())
def test_a_peer_reads_the_parts_as_one_message(parts: list[bytes], masked: bool) -> None:
    views = [memoryview(part) for part in parts]
    assert read_back(binary_message(views, masked=masked), masked=masked) == b"".join(parts)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 16383, 16384, 16387, 65535, 65536, 262_144])
def test_every_way_to_write_the_length_is_understood(size: int, masked: bool) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    assert read_back(binary_message((data[:size],), masked=masked), masked=masked) == data[:size]


def test_each_message_has_a_key_of_its_own() -> None:
    frames = {bytes(binary_message((b"same",), masked=True)) for _ in range(20)}
    assert len(frames) == 20
