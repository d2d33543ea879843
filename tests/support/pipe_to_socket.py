"""Standard input and output joined with a unix socket: `pipe_to_socket.py PATH`, for clients that start a program."""

from __future__ import annotations

import os
import socket
import sys
import threading


def main(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)

        def upward() -> None:
            while data := os.read(0, 65536):
                sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        threading.Thread(target=upward, daemon=True).start()
        while data := sock.recv(65536):
            os.write(1, data)


if __name__ == "__main__":
    main(sys.argv[1])
