"""Whose keys are whose, as Platform knows it."""

from __future__ import annotations

import base64

from connect_trio.identity.control_plane import ControlPlane
from connect_trio.routing.names import label_of
from connect_trio.ssh.client import Key
from connect_trio.ssh.keys import Allowed, Refused


class PlatformKeys:
    """A `keys.KeyChecker` that asks Platform. Whether the user may come in is the authorizer's to say."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._control_plane = control_plane

    async def check(self, user: str, key: Key, session: str) -> Allowed | Refused:
        """Raises PlatformUnavailable."""
        encoded = base64.b64encode(key.blob).decode()
        found = await self._control_plane.check_ssh_key(
            session=session, username=user, key=encoded, fingerprint=key.fingerprint
        )
        if found is None:
            return Refused(f"there is no Studio {label_of(session)}", hopeless=True)
        if found.subject is None:
            return Refused(found.access.reason or f"Platform has no key {key.fingerprint} for a user {user}.")
        return Allowed(found.subject)
