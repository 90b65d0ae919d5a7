"""What the hub asks of the process that writes queue.db, and how it travels there.

Plain values only: rows as they go into the tables (queue/rows makes them), no message objects.
A frame is a length and a pickle. Both ends run the same code, and nobody else holds the socket
between them, so nothing that was pickled elsewhere is ever read.
"""

from __future__ import annotations

import pickle
import struct
from typing import Any, NamedTuple

from waypost.errors import TemporaryError

# The values of one statement, or of one row that was read (queue/schema).
Row = tuple[Any, ...]


class Accept(NamedTuple):
    """Keep a message."""

    message: Row  # of INSERT_MESSAGE
    octets: bytes | None  # None: the content is in the spool
    recipients: list[Row]  # of INSERT_RECIPIENT


class Settle(NamedTuple):
    """Record what became of leased recipients, and keep the reports about it."""

    finished: list[Row]  # of FINISH_RECIPIENT
    waiting: list[Row]  # of RETRY_RECIPIENT
    attempts: list[Row]  # of INSERT_ATTEMPT
    reports: list[Accept]
    in_files: list[int]  # those of the messages whose content lies in the spool


class Lease(NamedTuple):
    """Lend what is due."""

    limit: int
    now: float


class Act(NamedTuple):
    """Do what an operator asks: recipients of one of the `eligible` statuses get `status`."""

    word: str  # how the trace names it
    status: int
    eligible: tuple[int, ...]
    numbers: list[int] | None  # None: all messages
    unlent: list[tuple[int, int]]  # were waiting in memory, are free again
    now: float


class Note(NamedTuple):
    """Refusals, pruning and settings: small things that ride along."""

    statements: list[tuple[str, Row]]


class Live(NamedTuple):
    """Which of these messages are unfinished and have their content in the file of that name."""

    files: list[tuple[int, str]]


Request = Accept | Settle | Lease | Act | Note | Live


class Leased(NamedTuple):
    """The answer to Lease."""

    messages: list[tuple[Row, list[Row]]]  # SELECT_MESSAGE and octets; SELECT_RECIPIENT
    next_due_at: float | None  # None: nothing waits


class Opened(NamedTuple):
    """What the writer says first, once it has the database."""

    held: str | None  # the setting of that name; None: it was never set


class Order(NamedTuple):
    """One batch, to the writer."""

    requests: list[Request]
    is_tight: bool  # there is little room on the disk


class Report(NamedTuple):
    """One batch done, from the writer."""

    results: list[Any]  # or TemporaryError, one for each request in order
    is_well: bool  # False: after an I/O error, until writing has been proved again
    spare_bytes: int  # while the disk is tight: room inside the database


# After an I/O error the writer tries the database afresh this often, and the hub asks it to.
REVIVE_S = 1.0

HEADER = struct.Struct("!I")


def frame(value: Order | Report | Opened | TemporaryError) -> bytes:
    """The octets of a value on the socket."""
    body = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return HEADER.pack(len(body)) + body
