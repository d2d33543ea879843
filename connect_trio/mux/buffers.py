"""Pooled receive buffers that are shared by counting, so that payload bytes are not copied in user space.

A fresh buffer per read costs a quarter of the throughput (page faults and zeroing). Whoever keeps a view of a buffer
holds one reference and drops it when done; at zero the buffer returns to the top of its pool, still in the cache.
"""

from __future__ import annotations


class Buffer:
    """A fixed-size buffer with a reference count; made with one reference by `Pool.take`."""

    __slots__ = ("data", "pool", "refs", "view")

    def __init__(self, size: int, pool: Pool) -> None:
        self.data = bytearray(size)
        self.view = memoryview(self.data)
        self.refs = 1
        self.pool = pool

    def keep(self) -> Buffer:
        """Count one more holder."""
        self.refs += 1
        return self

    def drop(self) -> None:
        """Count one holder less; the last one returns the buffer to the pool."""
        self.refs -= 1
        if not self.refs:
            free = self.pool.free
            if len(free) < self.pool.spare:
                free.append(self)


class Pool:
    """Buffers of one size, last in first out. At most `spare` idle ones are kept; the rest is given back."""

    __slots__ = ("free", "size", "spare")

    def __init__(self, size: int, *, spare: int = 32) -> None:
        self.size = size
        self.spare = spare
        self.free: list[Buffer] = []

    def take(self) -> Buffer:
        """A buffer with one reference and arbitrary contents."""
        if not self.free:
            return Buffer(self.size, self)
        buffer = self.free.pop()
        buffer.refs = 1
        return buffer
