"""What a proxy looks at again and again while streams live: access, logins, SSH keys, sessions, their planned ends."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from connect_trio.edge.login import LoginGate
from connect_trio.edge.planned import PlannedEnds
from connect_trio.edge.scopes import Cause, Kind, SessionScopes
from connect_trio.identity.service import Identity
from connect_trio.identity.watcher import SessionWatcher
from connect_trio.identity.watcher_access import AccessWatcher
from connect_trio.identity.watcher_keys import KeyWatcher
from connect_trio.metrics import Reading, readings


class Watching:
    """scopes: what is open, and is ended when it is not to be any more. nursery: where the tasks run."""

    def __init__(self, scopes: SessionScopes, gate: LoginGate, identity: Identity, nursery: trio.Nursery) -> None:
        self._scopes = scopes
        self._access = AccessWatcher(identity.authorizer)
        self._planned = PlannedEnds(scopes)
        nursery.start_soon(SessionWatcher(identity.control_plane).run, scopes.live, scopes.end)
        nursery.start_soon(self._access.run, scopes.grants, scopes.judge)
        nursery.start_soon(gate.keeper.run, scopes.logins, scopes.end_login)
        nursery.start_soon(KeyWatcher(identity.control_plane).run, scopes.keys, scopes.end_key)
        nursery.start_soon(self._planned.run)

    def readings(self) -> Iterable[Reading]:
        counts, kinds = self._scopes.counts, self._scopes.kinds()
        yield from readings("connect_proxy_live", {kind.value: kinds[kind] for kind in Kind})
        for kind in Kind:
            for cause in Cause:
                yield Reading("connect_proxy_ended_total", counts[kind, cause], (kind.value, cause.value))
        yield Reading("connect_proxy_access_age_seconds", self._access.oldest)
        yield Reading("connect_proxy_sessions_ending", self._planned.soon)
