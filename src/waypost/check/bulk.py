"""Many addresses from a file: one row in, one row out, in order, and on again after a break."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TextIO

from waypost.check.assessment import Assessment
from waypost.errors import WaypostError

# What a check adds to the columns of a CSV file.
ADDED_COLUMNS = ("verdict", "outcome", "primary", "advice", "suggestion", "normalized")
# Rows that are written together: what a break can cost.
_ROWS_AT_ONCE = 200

_LIKELY_COLUMN = re.compile(r"e-?mail|address|recipient", re.IGNORECASE)

Check = Callable[[str], Assessment]


class BulkError(WaypostError):
    """A file that cannot be read or gone on with."""


def check_lines(source: TextIO, check: Check, *, skip: int = 0) -> Iterator[str]:
    """One line of JSON for each line that is not empty."""
    texts = (line.strip() for line in source)
    for number, text in enumerate(text for text in texts if text):
        if number >= skip:
            yield json_line(check(text))


def json_line(assessment: Assessment) -> str:
    """An assessment as a line of NDJSON."""
    text = json.dumps(assessment.as_json(), ensure_ascii=False)
    # Octets that were no UTF-8 came in as lone surrogates, and leave as JSON's escapes.
    return text.encode(errors="backslashreplace").decode() + "\n"


def check_csv(
    source: TextIO, check: Check, *, column: str | None, skip: int = 0, as_json: bool = False
) -> Iterator[str]:
    """The rows of a CSV file with ADDED_COLUMNS, its header first unless rows are skipped.

    `column` names the one with the addresses; None: the first whose name looks like it, else the
    first. Raises BulkError.
    """
    rows = csv.reader(source)
    header = next(_whole_rows(rows), None)
    if header is None:
        return
    place = _place_of(header, column)
    if not skip and not as_json:
        yield _csv_line([*header, *ADDED_COLUMNS])
    for number, row in enumerate(_whole_rows(rows)):
        if number < skip:
            continue
        if len(row) <= place:
            raise BulkError(f"line {rows.line_num} has {len(row)} columns, not {len(header)}")
        assessment = check(row[place].strip())
        yield json_line(assessment) if as_json else _csv_line([*row, *_added(assessment)])


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
    return [
        assessment.verdict.value,
        assessment.outcome.value,
        assessment.primary.code,
        assessment.advice.value,
        assessment.suggestion or "",
        "" if address is None else str(address),
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


def write_all(lines: Iterable[str], output: BinaryIO, on_progress: Callable[[int], None]) -> None:
    """Write lines some at a time, each time whole ones."""
    waiting: list[str] = []
    count = 0
    for line in lines:
        waiting.append(line)
        count += 1
        if len(waiting) >= _ROWS_AT_ONCE:
            _write(waiting, output)
            on_progress(count)
    _write(waiting, output)
    on_progress(count)


def _write(waiting: list[str], output: BinaryIO) -> None:
    output.write("".join(waiting).encode(errors="surrogateescape"))
    output.flush()
    waiting.clear()


def size_of(source: TextIO) -> int | None:
    """Octets of a file; None: not known, as for a pipe."""
    try:
        return os.fstat(source.fileno()).st_size or None
    except OSError:
        return None
