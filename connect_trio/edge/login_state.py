"""What both kinds of hosts, and the task beside them, share about logins."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from connect_trio.edge.login_cookies import Cookies
from connect_trio.edge.login_ends import Lives, Logins
from connect_trio.edge.login_keeper import LoginKeeper
from connect_trio.edge.login_records import LoginRecords
from connect_trio.edge.login_uses import Uses
from connect_trio.edge.login_visits import Visits
from connect_trio.identity.refresh import Refresher
from connect_trio.routing.registry import Store


@attrs.frozen
class LoginState:
    cookies: Cookies
    records: LoginRecords
    logins: Logins
    visits: Visits
    keeper: LoginKeeper


def login_state(
    store: Store,
    cookies: Cookies,
    refresher: Refresher,
    *,
    stale: float,
    lives: Lives | None = None,
    clock: Callable[[], float],
    wall_clock: Callable[[], float],
) -> LoginState:
    """stale: seconds that visitors stay in while the Store is away. clock: monotonic; wall_clock: Unix time."""
    lives = lives or Lives()
    records = LoginRecords(store)
    logins, uses = Logins(store, records, lives, wall_clock=wall_clock), Uses(clock=clock)
    visits = Visits(records, logins, uses, cookies, stale=stale, clock=clock)
    keeper = LoginKeeper(
        store=store,
        records=records,
        logins=logins,
        uses=uses,
        visits=visits,
        refresher=refresher,
        idle=lives.idle,
        clock=clock,
        wall_clock=wall_clock,
    )
    return LoginState(cookies, records, logins, visits, keeper)
