"""What the edge asks before it lets anybody in, and the vocabulary of both sides.

The edge (`edge/http.py`) parses and validates a request head and then asks a `Gate`. The gate answers with an
admission or with a finished reply (a redirect to the login, a page that refuses). The edge does no login of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Protocol

import attrs

from connect_trio.identity.grants import Grant

Headers = tuple[tuple[bytes, bytes], ...]

Switch = Callable[[], bool]
"""Says whether something is switched on at the moment."""


def never() -> bool:
    """A switch that is always off."""
    return False


NOBODY = b"'none'"
"""The sources of `frame-ancestors` of a page that is in no frame."""


@attrs.frozen(kw_only=True)
class VisitorRequest:
    """The head of a visitor's request, already judged by h11.

    host: the Host header without port, lower case, validated by `routing.names`.
    label: the label of a Studio ("a23ce7967") or None for Connect itself.
    base: what the paths of that Studio begin with: "/_studio/a23ce7967" on Connect's own host, "" on the Studio's.
    shared_origin: whether it is on Connect's own host while Studios are there too, so that their scripts may be behind
    it, whatever a browser says of its origin.
    headers: names in lower case, in the order received.
    client: address of the visitor (after trusted proxies were considered).
    upgrade: whether the request asks for a protocol upgrade (WebSocket).
    wants_html: whether a page is the right answer (otherwise JSON is).
    body: of a request to Connect's own pages, if the gate has a use for it (`Gate.body_limit`).
    frame_ancestors: who may show that page in a frame: sources of the CSP directive of this name.
    """

    method: bytes
    target: bytes
    host: str
    label: str | None
    headers: Headers
    client: str
    base: str = ""
    shared_origin: bool = False
    upgrade: bool = False
    wants_html: bool = False
    body: bytes = attrs.field(default=b"", repr=False)
    frame_ancestors: bytes = NOBODY


@attrs.frozen(kw_only=True)
class Reply:
    """A complete answer that the edge writes as it is (Content-Length, Date and Connection are the edge's)."""

    status: int
    headers: Headers = ()
    body: bytes = b""


@attrs.frozen(kw_only=True)
class Admission:
    """A visitor may use a session.

    grant: what the authorisation function said yes with. username: for people to read.
    strip_cookies: names of Connect's own cookies, which never reach the tool.
    key: identity for pooling streams to the tool; never shared between visitors or sessions.
    login: by what the gate knows the visitor's login; what is open of one that has ended is to end. None: nobody's.
    """

    grant: Grant
    username: str
    key: str
    strip_cookies: frozenset[bytes] = frozenset()
    login: Hashable | None = attrs.field(default=None, repr=False)

    @property
    def subject(self) -> str:
        """The visitor's `sub` at Platform; becomes X-Connect-Sub."""
        return self.grant.subject

    @property
    def session(self) -> str:
        """Id of the session, 8 hex digits."""
        return self.grant.session


@attrs.frozen(kw_only=True)
class TunnelGrant:
    """An agent may open a tunnel for a session.

    grant: what the authorisation function said yes with. instance: id of the agent's process, 32 hex digits. issued:
    when its token was, Unix time by Platform's clock; of two agents of one session the one with the newer token stays.
    """

    grant: Grant
    instance: str
    issued: int

    @property
    def session(self) -> str:
        return self.grant.session


class Gate(Protocol):
    async def admit(self, request: VisitorRequest) -> Admission | Reply:
        """May this visitor use the Studio `request.label`? Must not wait for anything when the answer is cached."""
        ...

    def body_limit(self, request: VisitorRequest) -> int:
        """Bytes of the body that `own_page` wants to see; longer ones are refused. 0: it reads none."""
        ...

    async def own_page(self, request: VisitorRequest) -> Reply | None:
        """Paths of Connect itself: everything on its own host but Studios, and `/_connect/...` of a Studio, be it on
        a host of its own or below a path.

        None where there is no such page.
        """
        ...

    async def admit_tunnel(self, request: VisitorRequest) -> TunnelGrant | Reply:
        """May whoever sent this request open a tunnel for the session that its token names?"""
        ...
