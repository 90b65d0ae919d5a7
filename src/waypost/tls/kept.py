"""Files in which is kept what other hosts have shown or said: small SQLite databases."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from waypost.errors import TemporaryError

# Another process may write for a moment.
_LOCKED_S = 10.0


class KeptUnavailable(TemporaryError):
    """The file cannot be read or written now."""


@contextlib.contextmanager
def kept(path: Path, schema: str) -> Iterator[sqlite3.Connection]:
    """One transaction, on disk when it ends; the file is made where there is none.

    Blocks. Raises KeptUnavailable.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600))
        database = sqlite3.connect(path, timeout=_LOCKED_S, isolation_level=None)
        with contextlib.closing(database):
            database.execute("PRAGMA synchronous = FULL")
            database.execute("BEGIN IMMEDIATE")
            database.execute(schema)
            yield database
            database.execute("COMMIT")
    except (OSError, sqlite3.Error) as error:
        raise KeptUnavailable(f"{path}: {error}") from error
