"""Attachments into a folder: under names that strangers chose, and never over what is there."""

from __future__ import annotations

import errno
import os
from pathlib import Path, PurePath

from waypost.durable import write_all

# So many attachments of one name; a camera's are all "snapshot.jpg".
_MAX_SAME = 10_000


def save_new(directory: Path, name: str, octets: bytes) -> Path:
    """Write a new file, only for its owner, and give its path; blocks.

    `name` is an `Attachment.name`; a number is added while it is taken. Raises OSError.
    """
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in range(1, _MAX_SAME):
            free = name if number == 1 else _numbered(name, number)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            try:
                descriptor = os.open(free, flags, 0o600, dir_fd=folder)
            except FileExistsError:
                continue
            try:
                write_all(descriptor, octets)
            except OSError:
                os.unlink(free, dir_fd=folder)  # half a file would look like a whole one
                raise
            finally:
                os.close(descriptor)
            return directory / free
        raise FileExistsError(errno.EEXIST, "too many files of this name", str(directory / name))
    finally:
        os.close(folder)


def _numbered(name: str, number: int) -> str:
    path = PurePath(name)
    return f"{path.stem} ({number}){path.suffix}"
