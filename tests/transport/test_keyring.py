"""Keys: the weak ones are refused, none is shown, and one that was replaced counts for a while."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.transport.complaints import BURST, PER_SECOND, Complaints
from connect_trio.transport.keyring import MAX_KEYS, MAX_LENGTH, MIN_LENGTH, RETIRED, Key, Keyring, check_text

GOOD = "0123456789abcdef0123456789abcdef"
A, B, C, D, E = (Key.of_secret(bytes([number]) * 32) for number in range(5))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "0 characters is too short"),
        (GOOD[:-1], f"31 characters is too short \\(at least {MIN_LENGTH}\\)"),
        ("a" * 32, "only 1 different characters"),
        ("1234567" * 5, "only 7 different characters"),
        ("ä" + GOOD, "printable ASCII without commas"),
        (GOOD + "\n", "printable ASCII without commas"),
        (GOOD + ",", "printable ASCII without commas"),
        (GOOD * 33, f"too long \\(at most {MAX_LENGTH}\\)"),
    ],
)
def test_a_weak_key_is_refused_in_one_line_that_does_not_repeat_it(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        Key.of_text(text)
    assert "\n" not in str(caught.value)
    assert "openssl rand -hex 32" in str(caught.value)
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize("text", [GOOD, "a key that has some words, less the comma".replace(",", ""), GOOD * 32])
def test_a_long_key_is_taken(text: str) -> None:
    check_text(text)


def test_a_key_is_made_of_its_text_alone_and_never_shown() -> None:
    key = Key.of_text(GOOD)
    assert key == Key.of_text(GOOD)
    assert key != Key.of_text(GOOD + "0")
    assert (len(key.id), len(key.secret)) == (8, 32)
    assert key.secret.hex() not in repr(key)
    assert repr(key.secret) not in repr(key)


def test_a_key_that_was_replaced_is_accepted_for_a_while() -> None:
    ring = Keyring([A])
    assert ring.adopt(B, now=100)
    assert ring.keys(100) == (B, A)
    assert ring.keys(99 + RETIRED) == (B, A)
    assert ring.keys(100 + RETIRED) == (B,)
    assert not ring.adopt(B, now=200), "it is the first already"


def test_a_key_that_comes_back_stays() -> None:
    ring = Keyring([A])
    ring.adopt(B, now=0)
    assert ring.adopt(A, now=1)
    assert ring.keys(RETIRED / 2) == (A, B)
    assert ring.keys(2 * RETIRED) == (A,)


@given(st.lists(st.tuples(st.sampled_from([A, B, C, D, E]), st.floats(0, RETIRED)), max_size=20))
def test_there_is_always_the_last_one_first_and_never_too_many(steps: list[tuple[Key, float]]) -> None:
    ring, now, last = Keyring([A]), 0.0, A
    for key, pause in steps:
        now += pause
        ring.adopt(key, now)
        last = key
        keys = ring.keys(now)
        assert keys[0] is last
        assert len(keys) == len({each.id for each in keys}) <= MAX_KEYS
    assert ring.keys(now + RETIRED) == (last,)


@pytest.mark.parametrize("count", [0, MAX_KEYS + 1])
def test_a_keyring_has_some_keys_and_not_too_many(count: int) -> None:
    with pytest.raises(ValueError, match=f"not {count}"):
        Keyring([A, B, C, D, E][:count])


@given(st.lists(st.floats(0, 3), min_size=1, max_size=300))
def test_lines_are_bounded_and_those_left_out_are_counted(pauses: list[float]) -> None:
    complaints, now, logged, left_out = Complaints(), 0.0, 0, 0
    for pause in pauses:
        now += pause
        admitted = complaints.admit(now)
        if admitted is not None:
            logged += 1
            left_out += admitted
        assert logged <= BURST + now * PER_SECOND
    assert logged >= min(len(pauses), BURST)
    again = complaints.admit(now + 1 / PER_SECOND)
    assert again is not None
    assert logged + left_out + again == len(pauses)
