"""The tool at the end of the way: a small HTTP server that does next to nothing, as fast as Python can.

Run as a script, `tool.py PORT` (0: any free one, which is printed); stdlib only, one thread, non-blocking.
`GET /` is answered by 36 bytes, `GET /down/N` by N bytes, and a body of known length (`PUT /up`) is thrown away.
"""

from __future__ import annotations

import re
import select
import socket
import sys

ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 36\r\n\r\n"
    + b"abcdefghijklmnopqrstuvwxyz0123456789"
)
DOWN = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"
BLOCK = memoryview(bytes(range(256)) * 4096)
HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_DOWN = re.compile(rb"GET /down/(\d+) ")

scratch = memoryview(bytearray(1 << 20))


class Connection:
    """One connection: bytes of a head that is not whole, and what is left of a body in either direction."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.head = b""
        self.uploading = 0
        self.downloading = 0

    def readable(self) -> bool:
        """Read once; whether the connection goes on."""
        try:
            count = self.sock.recv_into(scratch)
        except BlockingIOError:
            return True
        if self.uploading:
            self.uploading -= count
            return bool(count) and (self.uploading > 0 or self.answer())
        self.head += scratch[:count]
        return bool(count) and self.serve()

    def serve(self) -> bool:
        """Answer the requests whose heads are whole; whether the connection goes on."""
        while not (self.uploading or self.downloading):
            end = self.head.find(HEAD_END)
            if end < 0:
                return True
            head, self.head = self.head[:end], self.head[end + len(HEAD_END) :]
            down = _DOWN.match(head)
            length = _LENGTH.search(head)
            if down is not None:
                self.downloading = int(down[1])
                self.sock.send(DOWN % self.downloading)
                return self.writable()
            if length is not None and int(length[1]) > len(self.head):
                self.uploading = int(length[1]) - len(self.head)
                self.head = b""
            else:
                self.answer()
        return True

    def answer(self) -> bool:
        self.uploading = 0
        self.sock.send(ANSWER)
        return True

    def writable(self) -> bool:
        """Send until the kernel takes no more."""
        while self.downloading:
            try:
                self.downloading -= self.sock.send(BLOCK[: self.downloading])
            except BlockingIOError:
                break
        return True


def serve(listener: socket.socket) -> None:
    """Serve until the process is ended."""
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN)
    connections: dict[int, Connection] = {}
    while True:
        for fd, _ in poller.poll():
            if fd == listener.fileno():
                connection = Connection(listener.accept()[0])
                connections[connection.sock.fileno()] = connection
                poller.register(connection.sock, select.EPOLLIN)
                continue
            connection = connections[fd]
            was_busy = connection.downloading
            try:
                goes_on = connection.writable() if was_busy else connection.readable()
            except OSError:
                goes_on = False
            if not goes_on:
                del connections[fd]
                poller.unregister(fd)
                connection.sock.close()
            elif bool(was_busy) != bool(connection.downloading):
                poller.modify(fd, select.EPOLLOUT if connection.downloading else select.EPOLLIN)


if __name__ == "__main__":
    wanted = int(sys.argv[1])
    with socket.create_server(("127.0.0.1", wanted), backlog=1024) as listening:
        if not wanted:
            print(listening.getsockname()[1], flush=True)
        serve(listening)
