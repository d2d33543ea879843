"""What a tool's answer becomes where its Studio shares an origin with others: below a path. Pure.

Browsers keep cookies apart by path, and that only as far as no script is hostile (docs/security.md): here is seen to it
that no *answer* of a tool reaches beyond its own path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

_ABSOLUTE = re.compile(rb"(?:(?P<scheme>https?):)?//(?P<host>[^/?#\\]*)(?P<path>.*)", re.IGNORECASE | re.DOTALL)
_DEFAULT_PORT = re.compile(rb":(?:80|443)$")
_OURS = (b"/_connect", b"/_studio")
_AFTER = (b"", b"/", b"?", b"#")
_MAX_PATH = 900  # of an attribute of 1024 bytes (RFC 6265bis, section 5.6): browsers ignore longer ones

# It would let a service worker of one Studio answer for the others, and for Connect's own pages.
_DROPPED = b"service-worker-allowed"


@attrs.frozen
class PathMode:
    """Of one request. base: "/_studio/a23ce7967". host: the Host header, under which the browser knows us."""

    base: bytes
    host: bytes

    def adapted(self, items: Sequence[tuple[bytes, bytes, bytes]]) -> list[tuple[bytes, bytes, bytes]]:
        """A tool's headers (name as written, in lower case, value) as they may leave the Studio."""
        kept = []
        for raw, name, value in items:
            new: bytes | None = value
            if name == b"location":
                new = self.location(value)
            elif name == b"set-cookie":
                new = self.set_cookie(value)
            elif name == _DROPPED:
                new = None
            if new is not None:
                kept.append((raw, name, new))
        return kept

    def location(self, value: bytes) -> bytes:
        """A Location that stays below the base where the tool forgot it; other hosts and relative paths stay."""
        match = _ABSOLUTE.fullmatch(value)
        if match is not None:
            if _plain(match["host"]) != _plain(self.host):
                return value
            path = match["path"]
            return value[: match.start("path")] + self._below(path if path.startswith(b"/") else b"/" + path)
        if not value.startswith(b"/") or value.startswith(b"/\\"):
            return value
        return self._below(value)

    def set_cookie(self, value: bytes) -> bytes | None:
        """A Set-Cookie for below the base only; None if it cannot be one.

        `__Host-` demands the path "/". Ours comes last, and the last one counts (RFC 6265bis, section 5.7).
        """
        pair, *attributes = value.split(b";")
        if pair.strip().lower().startswith(b"__host-"):
            return None
        kept, path = [], b""
        for attribute in attributes:
            name, _, text = attribute.partition(b"=")
            if name.strip().lower() == b"path":
                path = text.strip()
            else:
                kept.append(attribute)
        return b";".join((pair, *kept, b" Path=" + self._cookie_path(path)))

    def _cookie_path(self, path: bytes) -> bytes:
        if not path.startswith(b"/") or len(path) > _MAX_PATH:
            path = b"/"
        if self.base.startswith(path.rstrip(b"/") + b"/"):  # it would reach the siblings
            return self.base + b"/"
        return path if path == self.base or path.startswith(self.base + b"/") else self.base + path

    def _below(self, path: bytes) -> bytes:
        known = any(path.startswith(ours) and path[len(ours) : len(ours) + 1] in _AFTER for ours in _OURS)
        return path if known else self.base + path


def _plain(host: bytes) -> bytes:
    return _DEFAULT_PORT.sub(b"", host.lower())
