"""How many logins may begin, or be ended by Platform: each costs something before anybody has shown who they are."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable

import attrs

_BURST = 300.0
_PER_SECOND = 5.0
_ADDRESSES = 4096


@attrs.define
class _Bucket:
    tokens: float
    filled: float


class LoginLimit:
    """A token bucket per address (IPv6: per /64, which is what one subscriber has). clock: seconds, monotonic."""

    def __init__(self, *, clock: Callable[[], float], burst: float = _BURST, per_second: float = _PER_SECOND) -> None:
        self._clock = clock
        self._burst = burst
        self._per_second = per_second
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def admits(self, client: str) -> bool:
        """Whether one more login may begin from here now."""
        now = self._clock()
        key = _subscriber(client)
        bucket = self._buckets.pop(key, None) or _Bucket(self._burst, now)
        self._buckets[key] = bucket
        while len(self._buckets) > _ADDRESSES:
            self._buckets.popitem(last=False)
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.filled) * self._per_second)
        bucket.filled = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


def _subscriber(client: str) -> str:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False).network_address)
    return client
