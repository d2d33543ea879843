"""Files that are sent somewhere and back."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

MiB = 1 << 20


def fill(path: Path, size: int) -> str:
    """Random bytes, a multiple of MiB of them; their checksum."""
    block = os.urandom(MiB)
    with path.open("wb") as file:
        for number in range(size // MiB):
            file.write(block[number % 1000 :] + block[: number % 1000])
    return checksum(path)


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
