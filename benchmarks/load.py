"""What makes the load and measures it: a process of its own, so that it disturbs nothing but by its share of the CPU.

Run as a script, `load.py SPEC`, with a JSON object (`Spec`); prints one of results. Stdlib only, non-blocking sockets.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import socket
import sys
from pathlib import Path
from time import perf_counter

PATIENCE = 60.0
WARM_UP = 0.2  # seconds of requests that do not count: connections, streams and caches come to be
BODY = 36
HEAD_END = b"\r\n\r\n"
BLOCK = 1 << 20

BROWSER = (
    b"Connection: keep-alive\r\n"
    b'sec-ch-ua: "Chromium";v="141", "Not?A_Brand";v="8"\r\nsec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: "Linux"\r\n'
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0 Safari/537.36\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
    b"Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9,de;q=0.8\r\n"
)


class LoadError(Exception):
    """An answer was not the one that is measured."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """What to do: `case` is "down", "up" (one transfer of `size` bytes) or "requests" (`connections` for `seconds`).

    host, cookie: of each request. pids: processes by role, whose CPU seconds are measured meanwhile.
    """

    case: str
    port: int
    host: str = "localhost"
    cookie: str = "theme=dark"
    size: int = 0
    connections: int = 1
    seconds: float = 1.0
    pids: dict[str, list[int]] = dataclasses.field(default_factory=dict)

    def request(self, line: str, more: str = "") -> bytes:
        """A request as browsers write it."""
        head = f"{line} HTTP/1.1\r\nHost: {self.host}\r\n{more}"
        return head.encode() + BROWSER + f"Cookie: {self.cookie}\r\n\r\n".encode()


def cpu_seconds(pids: dict[str, list[int]]) -> dict[str, float]:
    """CPU time that these processes have used, by role."""
    return {role: sum(map(_cpu_of, numbers)) for role, numbers in pids.items()}


def _cpu_of(pid: int) -> float:
    tasks = Path(f"/proc/{pid}/task")
    try:  # nanoseconds, where the kernel counts them
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9
    except OSError:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    """The head of an answer and what came after it."""
    data = b""
    while HEAD_END not in data:
        part = sock.recv(65536)
        if not part:
            raise LoadError("the connection was closed within a head")
        data += part
    head, _, rest = data.partition(HEAD_END)
    check(head)
    return head, rest


def check(head: bytes) -> None:
    if not head.startswith(b"HTTP/1.1 200 "):
        raise LoadError(f"not the answer that was expected: {head[:100]!r}")


def whole(answer: bytes) -> bool:
    """Whether the small answer is here to its last byte."""
    end = answer.find(HEAD_END)
    if end < 0:
        return False
    check(answer[:end])
    missing = end + len(HEAD_END) + BODY - len(answer)
    if missing < 0:
        raise LoadError("more came than was asked for")
    return not missing


def ask(sock: socket.socket, request: bytes) -> None:
    """One small request and its answer."""
    sock.sendall(request)
    data = b""
    while not whole(data):
        part = sock.recv(65536)
        if not part:
            raise LoadError("the connection was closed within an answer")
        data += part


def transfer(spec: Spec) -> dict[str, object]:
    """One body of `size` bytes, down or up, on a connection that was used before."""
    with connect(spec.port) as sock:
        ask(sock, spec.request("GET /"))
        cpu, start = cpu_seconds(spec.pids), perf_counter()
        if spec.case == "down":
            _download(sock, spec)
        else:
            _upload(sock, spec)
        seconds = perf_counter() - start
        return {"seconds": seconds, "cpu": _spent(cpu, spec.pids)}


def _download(sock: socket.socket, spec: Spec) -> None:
    sock.sendall(spec.request(f"GET /down/{spec.size}"))
    left = spec.size - len(read_head(sock)[1])
    into = memoryview(bytearray(BLOCK))
    while left > 0:
        count = sock.recv_into(into)
        if not count:
            raise LoadError("the connection was closed within a body")
        left -= count
    if left:
        raise LoadError("more came than was asked for")


def _upload(sock: socket.socket, spec: Spec) -> None:
    sock.sendall(spec.request("PUT /up", f"Content-Length: {spec.size}\r\n"))
    block = memoryview(bytes(BLOCK))
    for begin in range(0, spec.size, BLOCK):
        sock.sendall(block[: spec.size - begin])
    read_head(sock)


def requests(spec: Spec) -> dict[str, object]:
    """Small requests over connections that are kept alive, each with one request at a time."""
    request = spec.request("GET /")
    socks = {sock.fileno(): sock for sock in [connect(spec.port) for _ in range(spec.connections)]}
    poller = select.epoll()
    for sock in socks.values():
        ask(sock, request)
        sock.setblocking(False)
        poller.register(sock, select.EPOLLIN)
    drive = _Drive(socks, poller, request)
    drive.begin()
    drive.run(WARM_UP)
    cpu = cpu_seconds(spec.pids)
    drive.latencies.clear()
    seconds = drive.run(spec.seconds)
    spent = _spent(cpu, spec.pids)
    count = len(drive.latencies)
    ordered = sorted(drive.latencies)
    drive.finish()
    return {
        "seconds": seconds,
        "requests": count,
        "p50": ordered[count // 2],
        "p99": ordered[min(count - 1, count * 99 // 100)],
        "cpu": spent,
    }


class _Drive:
    """Keeps one request on its way on each connection."""

    def __init__(self, socks: dict[int, socket.socket], poller: select.epoll, request: bytes) -> None:
        self._socks = socks
        self._poller = poller
        self._request = request
        self._sent = dict.fromkeys(socks, 0.0)
        self._partial: dict[int, bytes] = {}
        self.latencies: list[float] = []

    def begin(self) -> None:
        for fd, sock in self._socks.items():
            self._sent[fd] = perf_counter()
            sock.send(self._request)

    def run(self, seconds: float) -> float:
        """Go on for so long; the time that it took."""
        socks, sent, partial, request = self._socks, self._sent, self._partial, self._request
        start = now = perf_counter()
        while now - start < seconds:
            events = self._poller.poll(PATIENCE)
            if not events:
                raise LoadError(f"no answer within {PATIENCE:g} s")
            for fd, _ in events:
                sock = socks[fd]
                answer = sock.recv(65536)
                if not answer:
                    raise LoadError("the connection was closed between requests")
                if partial:
                    answer = partial.pop(fd, b"") + answer
                if not whole(answer):
                    partial[fd] = answer
                    continue
                now = perf_counter()
                self.latencies.append(now - sent[fd])
                sent[fd] = now
                sock.send(request)
        return now - start

    def finish(self) -> None:
        """Take the answers that are still on their way: who comes next must not find the work of this one."""
        for fd, sock in self._socks.items():
            sock.setblocking(True)
            answer = self._partial.get(fd, b"")
            while not whole(answer):
                answer += sock.recv(65536)
            sock.close()


def _spent(before: dict[str, float], pids: dict[str, list[int]]) -> dict[str, float]:
    after = cpu_seconds(pids)
    return {role: after[role] - before[role] for role in before}


def main(argument: str) -> None:
    spec = Spec(**json.loads(argument))
    print(json.dumps(requests(spec) if spec.case == "requests" else transfer(spec)))


if __name__ == "__main__":
    main(sys.argv[1])
