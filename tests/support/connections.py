"""Who is connected with whom on this machine, and who listens, as Linux tells (proc(5))."""

from __future__ import annotations

from pathlib import Path

import attrs

from tests.support.e2e import open_file

ESTABLISHED, LISTENING = "01", "0A"  # include/net/tcp_states.h


@attrs.frozen
class Connection:
    """An established connection as one of its ends sees it."""

    port: int
    peer: int
    inode: str

    def lives(self) -> bool:
        return any(one.inode == self.inode for one in connections())


def connections() -> list[Connection]:
    """Those of this machine over IPv4 (proc(5))."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == ESTABLISHED:
            port, peer = (int(field.rpartition(":")[2], 16) for field in fields[1:3])
            found.append(Connection(port, peer, fields[9]))
    return found


def connections_of(pid: int) -> list[Connection]:
    """Those that a process has; none if it is gone."""
    try:
        links = [open_file(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return []
    inodes = {link.removeprefix("socket:[").removesuffix("]") for link in links}
    return [one for one in connections() if one.inode in inodes]


def listened_to() -> set[int]:
    """All ports of IPv4 on which somebody listens."""
    ports = set()
    with Path("/proc/net/tcp").open() as lines:
        next(lines)
        for line in lines:
            fields = line.split()
            if fields[3] != LISTENING:
                break  # the kernel lists those first, and there may be thousands of others
            ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def environment(pid: int) -> dict[str, str]:
    """What a process was started with; nothing if it is gone."""
    try:
        text = Path(f"/proc/{pid}/environ").read_text()
    except OSError:
        return {}
    return dict(pair.split("=", 1) for pair in text.split("\0") if "=" in pair)
