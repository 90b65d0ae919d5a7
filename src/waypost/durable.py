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
