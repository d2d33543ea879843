"""Who is connected, and how that ends."""

from __future__ import annotations

from connect_trio.ssh.scopes import SshScopes


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def connected(self, subject: str, session: str) -> None:
        self.lines.append(f"+{subject} {session}")

    def disconnected(self, subject: str, session: str) -> None:
        self.lines.append(f"-{subject} {session}")


def test_connections_are_known_by_subject_and_session() -> None:
    log, ended = Log(), list[str]()
    scopes = SshScopes(log)
    with scopes.enter("a", "1", lambda why: ended.append(f"a1 {why}")):
        with scopes.enter("a", "2", lambda why: ended.append(f"a2 {why}")), scopes.enter("b", "2", ended.append):
            assert scopes.live() == {"1": 1, "2": 2}
            assert scopes.subjects() == {("a", "1"): 1, ("a", "2"): 1, ("b", "2"): 1}
            assert scopes.end_subject("a", "2", "revoked") == 1
            assert scopes.end("1", "stopped") == 1
            assert scopes.end_all("restart") == 3
        assert scopes.live() == {"1": 1}
    assert ended == ["a2 revoked", "a1 stopped", "a1 restart", "a2 restart", "restart"]
    assert log.lines == ["+a 1", "+a 2", "+b 2", "-b 2", "-a 2", "-a 1"]
    assert len(scopes) == 0
