"""Writing that survives a power cut: whole writes, and directory entries made durable."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
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


@contextlib.contextmanager
def locked_directory(directory: Path) -> Iterator[None]:
    """Wait until nobody else who asks for it works on files there. Raises OSError; blocks."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_secret(path: Path, octets: bytes) -> None:
    """Replace a file that only its owner may read, durably. Raises OSError."""
    _write(path, octets, 0o600)


def write_public(path: Path, octets: bytes) -> None:
    """Replace a file everybody may read, durably. Raises OSError."""
    _write(path, octets, 0o644)


def _write(path: Path, octets: bytes, mode: int) -> None:
    new = path.with_name(f".{path.name}.new")
    # What lies there was left by a power cut, or by somebody who would like to read along.
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        os.fchmod(descriptor, mode)
        owner = os.stat(path.parent)
        if os.geteuid() == 0 and owner.st_uid != 0:
            # By hand as root: it is for the hub, whose directory it is.
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        write_all(descriptor, octets)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(new, path)
    sync_directory(path.parent)
