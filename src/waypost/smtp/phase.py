"""The states of a server's session (smtp/server)."""

from __future__ import annotations

from enum import IntEnum


class Phase(IntEnum):
    """Where the session stands; each value is a row of the table."""

    CONNECTED = 0  # no greeting from the client yet
    READY = 1  # greeted, no transaction
    SENDER = 2  # MAIL taken, no recipient taken yet
    RECIPIENTS = 3  # at least one recipient taken
    CHUNKS = 4  # between the BDAT chunks of one message
    FAILED = 5  # a BDAT message is lost; only RSET, EHLO or QUIT lead on (RFC 3030 §2)
    LOGIN = 6  # in an AUTH exchange: every line is an answer to a challenge
    DATA = 7  # reading content up to the end mark
    CHUNK = 8  # reading the octets of one BDAT chunk
    CLOSED = 9
