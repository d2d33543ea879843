from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from connect_trio.edge.pool import StreamPool, Upstream
from tests.support.edge import SocketToolStream


class IdleStream(SocketToolStream):
    """A stream that is only looked at."""

    def __init__(self) -> None:
        self.usable = True
        self.was_reset = False

    @property
    def healthy(self) -> bool:
        return self.usable

    def reset(self, text: str = "") -> None:
        self.was_reset = True


def upstream(key: str = "alice") -> tuple[Upstream, IdleStream]:
    stream = IdleStream()
    return Upstream(stream, key, head_size=100), stream


def make_pool(*, per_key: int = 3, total: int = 5) -> StreamPool:
    return StreamPool(per_key=per_key, total=total, idle=20)


async def test_a_stream_is_given_only_to_its_key_and_only_once() -> None:
    pool = make_pool()
    mine, _ = upstream()
    pool.put(mine)
    assert pool.take("bob") is None
    assert pool.take("alice") is mine
    assert (mine.reused, mine.silent) == (True, True)
    assert pool.take("alice") is None
    assert len(pool) == 0


async def test_a_stream_is_expendable_while_nobody_uses_it() -> None:
    pool = make_pool()
    mine, stream = upstream()
    pool.put(mine)
    assert stream.expendable
    assert pool.take("alice") is mine
    assert not stream.expendable


async def test_the_most_recently_used_stream_comes_first_and_unhealthy_ones_are_given_up() -> None:
    pool = make_pool()
    (first, _), (_second, second_stream) = pair = upstream(), upstream()
    for each, _ in pair:
        pool.put(each)
    second_stream.usable = False
    assert pool.take("alice") is first
    assert second_stream.was_reset


async def test_the_oldest_streams_are_given_up_beyond_the_limits() -> None:
    pool = make_pool(per_key=2, total=3)
    made = [upstream(key) for key in ("a", "a", "a", "b", "c")]
    for each, _ in made:
        pool.put(each)
        assert len(pool) <= 3
    assert [stream.was_reset for _, stream in made] == [True, True, False, False, False]


async def test_streams_that_nobody_uses_are_given_up(autojump_clock: MockClock) -> None:
    pool = make_pool()
    (old, old_stream), (new, new_stream) = upstream(), upstream("bob")
    pool.put(old)
    await trio.sleep(15)
    pool.put(new)
    await trio.sleep(6)
    pool.age()
    assert (old_stream.was_reset, new_stream.was_reset) == (True, False)
    assert pool.take("alice") is None


@pytest.mark.parametrize("count", [0, 3])
async def test_closing_gives_up_everything(count: int) -> None:
    pool = make_pool()
    made = [upstream() for _ in range(count)]
    for each, _ in made:
        pool.put(each)
    pool.close()
    assert all(stream.was_reset for _, stream in made)
    assert len(pool) == 0
