"""A small file system that can be filled up, for tests of full disks. Needs root (mount)."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NAME = "ballast"


class Ballast:
    """Takes up room in a file system, and gives it back."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def fill(self, *, but_bytes: int = 0) -> None:
        """Take all the room there is, but for `but_bytes`."""
        path = self.directory / _NAME
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for piece in (1 << 20, 1 << 16, 1 << 12, 1):
                _fill_in_pieces(descriptor, bytes(piece))
            size = os.fstat(descriptor).st_size
            os.ftruncate(descriptor, max(0, size - but_bytes))
        finally:
            os.close(descriptor)

    def drop(self) -> None:
        """Give all of it back."""
        (self.directory / _NAME).unlink(missing_ok=True)


def _fill_in_pieces(descriptor: int, piece: bytes) -> None:
    while True:
        try:
            if os.write(descriptor, piece) < len(piece):
                return
        except OSError as error:
            if error.errno == errno.ENOSPC:
                return
            raise


@contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[Ballast]:
    """A file system of so many MiB at `directory` while inside; what was in it goes."""
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(directory)],
        check=True,
    )
    try:
        yield Ballast(directory)
    finally:
        # Lazily: a process that a failed test left in it must not keep it in the way.
        subprocess.run(["umount", "-l", str(directory)], check=True)
