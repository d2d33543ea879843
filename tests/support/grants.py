"""Grants for tests that ask no authorisation function."""

from __future__ import annotations

from connect_trio.identity.grants import HTTP, TUNNEL, Grant, issue


def granted(session: str, subject: str = "sub-alice", method: str = HTTP) -> Grant:
    return issue(subject=subject, session=session, method=method)


def granted_tunnel(session: str) -> Grant:
    return granted(session, session, TUNNEL)
