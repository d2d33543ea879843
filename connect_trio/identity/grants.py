"""What the authorisation function says yes with: whoever opens a stream to a session has to show one of these. Pure."""

from __future__ import annotations

from typing import Final, final

import attrs

HTTP: Final = "http"
"""A visitor's requests and WebSockets: what a browser may ask for, it may ask for by either."""
TUNNEL: Final = "tunnel"
"""An agent's tunnel; its subject is the session that its token names."""
SSH: Final = "ssh"

METHODS: Final = frozenset((HTTP, TUNNEL, SSH))


@final
class _Seal:
    __slots__ = ()


_SEAL: Final = _Seal()


@final
@attrs.frozen(kw_only=True)
class Grant:
    """Somebody may use a session by a method, as of when it was asked; it is asked again while streams live.

    Only `identity.control_plane.Authorizer` makes these, by `issue`; tests/test_authorisation.py looks after that.
    subject: who, as Platform names them. session: 8 hex digits. method: HTTP, TUNNEL or SSH.
    """

    subject: str
    session: str
    method: str
    _seal: _Seal = attrs.field(repr=False, eq=False, validator=attrs.validators.in_((_SEAL,)))


def issue(*, subject: str, session: str, method: str) -> Grant:
    """For the authorisation function, when it has said yes. Raises ValueError for a method that there is not."""
    if method not in METHODS:
        raise ValueError(f"nobody is let in by {method!r}")
    return Grant(subject=subject, session=session, method=method, seal=_SEAL)
