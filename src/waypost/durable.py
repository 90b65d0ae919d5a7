"""Writing that survives a power cut: whole writes, and directory entries made durable."""

from __future__ import annotations

import os
from pathlib import Path


def write_all(descriptor: int, octets: bytes) -> None:
    """Write every octet, however often the kernel takes only a part. Raises OSError; blocks."""
    view = memoryview(octets)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_directory(directory: Path) -> None:
    """Make names added to or removed from `directory` durable. Raises OSError; blocks."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, octets: bytes) -> None:
    """Put a new file in place of the one at `path`, whole or not at all, mode 0600.

    Raises OSError; blocks.
    """
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)  # left by a power cut
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        write_all(descriptor, octets)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(new, path)
    sync_directory(path.parent)
