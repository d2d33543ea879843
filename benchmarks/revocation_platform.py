"""A Platform for the measurement of revocations: it answers what the one who measures says, and costs little itself."""

from __future__ import annotations

import json
import time
from collections import Counter
from functools import partial
from typing import Any

import attrs
import trio

from connect_trio.devplatform.keys import KeyRing
from connect_trio.identity.tokens import AGENT_AUDIENCE

HOST = "127.0.0.1"
_HEAD_END = b"\r\n\r\n"


@attrs.define
class Platform:
    """stopped, deleted: sessions. unshared: (subject, session). ssh_keys: fingerprints of users, whose names are their
    subjects. Everything else is allowed, and running.

    asked: how often what was asked.
    """

    url: str = ""
    keys: KeyRing = attrs.field(factory=KeyRing)
    stopped: set[str] = attrs.field(factory=set)
    deleted: set[str] = attrs.field(factory=set)
    unshared: set[tuple[str, str]] = attrs.field(factory=set)
    ssh_keys: dict[str, str] = attrs.field(factory=dict)
    asked: Counter[str] = attrs.field(factory=Counter)

    def remove_key_of(self, subject: str) -> None:
        self.ssh_keys = {key: owner for key, owner in self.ssh_keys.items() if owner != subject}

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """On a free port of loopback, until cancelled."""
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, self._handle, 0, host=HOST))
            self.url = f"http://{HOST}:{listener.socket.getsockname()[1]}"
            task_status.started()

    def token(self, session: str) -> str:
        """An agent's."""
        now = int(time.time())
        claims = {"iss": self.url + "/api", "aud": AGENT_AUDIENCE, "sub": session, "iat": now, "exp": now + 3600}
        return self.keys.sign({**claims, "jti": session})

    async def _handle(self, stream: trio.SocketStream) -> None:
        received = b""
        try:
            async with stream:
                while True:
                    while _HEAD_END not in received:
                        data = await stream.receive_some(65536)
                        if not data:
                            return
                        received += data
                    head, _, received = received.partition(_HEAD_END)
                    size = _length(head)
                    while len(received) < size:
                        received += await stream.receive_some(65536)
                    method, path, _ = head.split(b" ", 2)
                    status, answer = self._answer(f"{method.decode()} {path.decode()}", received[:size])
                    received = received[size:]
                    body = json.dumps(answer).encode()
                    await stream.send_all(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
        except trio.BrokenResourceError:
            return  # whoever asked has gone

    def _answer(self, request: str, body: bytes) -> tuple[int, object]:
        issuer = self.url + "/api"
        if request == "POST /api/connect/access":
            self.asked["access"] += 1
            wish = json.loads(body)
            status, session = self._session(wish["session"])
            if status != 200:
                return status, session
            allowed = (wish["subject"], wish["session"]) not in self.unshared
            return 200, {"allowed": allowed, "reason": None if allowed else "It is private.", "session": session}
        if request.startswith("POST /api/connect/ssh-keys/"):
            self.asked["keys"] += 1
            return self._keys(request.rpartition("/")[2], json.loads(body))
        if request == "POST /api/connect/sessions/states":
            self.asked["states"] += 1
            states = {
                session: self._session(session)[1].get("state", "unknown") for session in json.loads(body)["sessions"]
            }
            return 200, {"sessions": {session: {"state": state} for session, state in states.items()}}
        if request.startswith("GET /api/connect/sessions/"):
            self.asked["session"] += 1
            return self._session(request.rpartition("/")[2])
        if request == "POST /api/register":
            return 201, {"client_id": "id", "client_secret": "secret"}
        if request == "GET /api/jwks":
            return 200, self.keys.published()
        if request == "GET /api/.well-known/openid-configuration":
            names = ("authorize", "token", "jwks", "register")
            fields = ("authorization_endpoint", "token_endpoint", "jwks_uri", "registration_endpoint")
            ends = {field: f"{issuer}/{name}" for field, name in zip(fields, names, strict=True)}
            return 200, {"issuer": issuer, **ends}
        return 404, {}

    def _keys(self, call: str, wish: dict[str, Any]) -> tuple[int, object]:
        if call == "removed":
            return 200, {
                "removed": [key for key in wish["keys"] if self.ssh_keys.get(key["fingerprint"]) != key["subject"]]
            }
        status, session = self._session(wish["session"])
        subject = self.ssh_keys.get(wish["fingerprint"])
        known = subject == wish["username"]
        return status, {"allowed": known, "reason": None, "session": session, "subject": subject if known else None}

    def _session(self, session: str) -> tuple[int, dict[str, str]]:
        if session in self.deleted:
            return 404, {}
        state = "stopped" if session in self.stopped else "running"
        return 200, {"id": session, "name": session, "owner": "alice", "state": state, "tool": "none"}


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    return 0
