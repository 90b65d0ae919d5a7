"""Many addresses from a file: one row in, one row out, in order, and on again after a break."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TextIO

from waypost.check.assessment import Assessment, iso_time
from waypost.errors import WaypostError

# What a check adds to the columns of a CSV file.
ADDED_COLUMNS = (
    *("verdict", "outcome", "primary", "advice", "retry_at", "suggestion", "normalized", "plain"),
)
# Rows that are written together, and how long the first of them waits: what a break can cost.
_ROWS_AT_ONCE = 200
_WAITS_S = 1.0
# Rows that are looked at side by side, where others are asked.
_AT_ONCE = 500

_ENCODER = json.JSONEncoder()
_LIKELY_COLUMN = re.compile(r"e-?mail|address|recipient", re.IGNORECASE)


class BulkError(WaypostError):
    """A file that cannot be read or gone on with."""


@dataclass(frozen=True, slots=True)
class Row:
    """One address of a file."""

    number: int  # from 1
    text: str
    cells: Sequence[str] | None = None  # the row of a CSV file; None: comes out as JSON

    def line(self, assessment: Assessment) -> str:
        """What comes out for it."""
        if self.cells is None:
            return json_line(assessment, f"row-{self.number}")
        return _csv_line([*self.cells, *_added(assessment)])


def read_lines(source: TextIO, *, skip: int = 0) -> Iterator[Row]:
    """The lines that are not empty, without the first `skip`."""
    texts = (line.strip() for line in source)
    for number, text in enumerate((text for text in texts if text), 1):
        if number > skip:
            yield Row(number, text)


class CsvRows:
    """The rows of a CSV file."""

    def __init__(self, source: TextIO, column: str | None, *, as_json: bool) -> None:
        """`column` names the one with the addresses; None: the first whose name looks like it,
        else the first. Raises BulkError.
        """
        self._reader = csv.reader(source)
        self._header = next(_whole_rows(self._reader), None)
        self._place = 0 if self._header is None else _place_of(self._header, column)
        self._as_json = as_json

    @property
    def header(self) -> str:
        """The first line of what comes out; empty: there is none."""
        if self._header is None or self._as_json:
            return ""
        return _csv_line([*self._header, *ADDED_COLUMNS])

    def read(self, *, skip: int = 0) -> Iterator[Row]:
        """All below the header, without the first `skip`. Raises BulkError."""
        for number, cells in enumerate(_whole_rows(self._reader), 1):
            if number <= skip:
                continue
            if len(cells) <= self._place:
                at, wanted = self._reader.line_num, len(self._header or ())
                raise BulkError(f"line {at} has {len(cells)} columns, not {wanted}")
            yield Row(number, cells[self._place].strip(), None if self._as_json else cells)


def json_line(assessment: Assessment, row: str | None = None) -> str:
    """An assessment as a line of NDJSON."""
    # In ASCII: what strangers wrote can neither steer a terminal nor be no UTF-8.
    return _ENCODER.encode(assessment.as_json(row)) + "\n"


async def in_order(
    rows: Iterable[Row], check: Callable[[str], Awaitable[Assessment]]
) -> AsyncIterator[tuple[Row, Assessment]]:
    """Many checks side by side, their results in the order of the rows."""
    under_way: deque[tuple[Row, asyncio.Future[Assessment]]] = deque()
    source = iter(rows)
    try:
        while True:
            for row in islice(source, _AT_ONCE - len(under_way)):
                under_way.append((row, asyncio.ensure_future(check(row.text))))
            if not under_way:
                return
            row, checking = under_way[0]
            assessment = await checking
            under_way.popleft()
            yield row, assessment
    finally:
        for _, checking in under_way:
            checking.cancel()


def _whole_rows(rows: Iterable[list[str]]) -> Iterator[list[str]]:
    try:
        yield from (row for row in rows if row)
    except csv.Error as error:
        raise BulkError(f"not a CSV file: {error}") from error


def _place_of(header: Sequence[str], column: str | None) -> int:
    if column is not None:
        if column not in header:
            raise BulkError(f"there is no column {column!r}; there are: {', '.join(header)}")
        return list(header).index(column)
    likely = [at for at, name in enumerate(header) if _LIKELY_COLUMN.search(name) is not None]
    return likely[0] if likely else 0


def _added(assessment: Assessment) -> list[str]:
    mailbox = assessment.mailbox
    address = None if mailbox is None else mailbox.address
    retry_at = assessment.evidence.retry_at
    return [
        assessment.verdict.value,
        assessment.outcome.value,
        assessment.primary.code,
        assessment.advice.value,
        "" if retry_at is None else iso_time(retry_at),
        assessment.suggestion or "",
        "" if address is None else str(address),
        assessment.plain,
    ]


def _csv_line(row: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(row)
    return line.getvalue()


def rows_done(output: Path, *, is_csv: bool) -> int:
    """How many rows an earlier run has finished; what it left half-written is cut off."""
    try:
        file = output.open("r+b")
    except FileNotFoundError:
        return 0
    with file:
        done, end = _done_csv(file) if is_csv else _done_lines(file)
        file.truncate(end)
    return done


def _done_lines(file: BinaryIO) -> tuple[int, int]:
    done = end = 0
    for line in file:
        if line.endswith(b"\n"):
            done += 1
            end += len(line)
    return done, end


def _done_csv(file: BinaryIO) -> tuple[int, int]:
    """Rows below the header, and the offset behind the last that is whole."""
    done, end, columns = -1, 0, 0
    read = 0

    def lines() -> Iterator[str]:
        nonlocal read
        for line in file:
            if line.endswith(b"\n"):
                read += len(line)
                yield line.decode(errors="surrogateescape")

    for row in csv.reader(lines()):
        columns = columns or len(row)
        if len(row) != columns:
            break  # a field with a line break in it was cut
        done += 1
        end = read
    return (done, end) if done > 0 else (0, 0)  # a header alone comes again


class Output:
    """Writes lines some at a time, each time whole ones."""

    def __init__(self, file: BinaryIO, on_progress: Callable[[int], None]) -> None:
        """`on_progress` is told how many lines have been written."""
        self._file = file
        self._on_progress = on_progress
        self._waiting: list[str] = []
        self._count = 0
        self._written_at = time.monotonic()

    def write_header(self, line: str) -> None:
        """Write what counts as no row."""
        self._file.write(line.encode(errors="surrogateescape"))

    def add(self, line: str) -> None:
        """Write a line, soon."""
        self._waiting.append(line)
        is_late = time.monotonic() - self._written_at >= _WAITS_S
        if is_late or len(self._waiting) >= _ROWS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        self._file.write("".join(self._waiting).encode(errors="surrogateescape"))
        self._file.flush()
        self._count += len(self._waiting)
        self._waiting.clear()
        self._written_at = time.monotonic()
        self._on_progress(self._count)


def size_of(source: TextIO) -> int | None:
    """Octets of a file; None: not known, as for a pipe."""
    try:
        return os.fstat(source.fileno()).st_size or None
    except OSError:
        return None
