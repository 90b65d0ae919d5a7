"""check: what will happen to mail for an address, and why."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, TextIO

from waypost.check import bulk
from waypost.check.assessment import Assessment, assess
from waypost.check.verdict import Level, Verdict
from waypost.cli.context import settings_of
from waypost.cli.output import (
    EXIT_NO,
    EXIT_USAGE,
    EXIT_YES,
    complain,
    paint,
    printable,
    say,
)
from waypost.net.networks import Networks

# How often progress is shown.
_PROGRESS_S = 0.2

_COLOURS = {
    Verdict.MALFORMED: "red",
    Verdict.UNDELIVERABLE: "red",
    Verdict.PROBABLY_UNDELIVERABLE: "red",
    Verdict.UNKNOWN: "yellow",
    Verdict.PROBABLY_DELIVERABLE: "green",
    Verdict.DELIVERABLE: "green",
}


def add_commands(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add this module's verbs."""
    check = verbs.add_parser(
        "check", parents=[common], help="what will happen to mail for an address, and why"
    )
    check.add_argument("addresses", metavar="ADDR", nargs="*")
    check.add_argument(
        "--file", metavar="FILE", help="many: *.csv, or one address a line; - reads lines"
    )
    check.add_argument("--column", metavar="NAME", help="the column of a CSV file that holds them")
    check.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="where the rows of --file go (default: standard output); goes on where it ends",
    )
    check.add_argument(
        "--depth",
        choices=("syntax",),
        default="syntax",
        help="how far to look (default: syntax, which asks nobody)",
    )
    check.add_argument("--json", action="store_true", help="one JSON object a line")
    check.set_defaults(run=_check)


def _check(parsed: argparse.Namespace) -> int:
    if bool(parsed.addresses) == (parsed.file is not None):
        complain("name addresses, or a file of them with --file")
        return EXIT_USAGE
    if parsed.file is None and (parsed.output is not None or parsed.column is not None):
        complain("--output and --column go with --file")
        return EXIT_USAGE
    trusted = Networks(settings_of(parsed).trusted)
    if parsed.file is not None:
        return _check_file(parsed, trusted)
    worst = EXIT_YES
    for text in parsed.addresses:
        assessment = assess(text, trusted)
        if assessment.verdict.score >= Verdict.PROBABLY_UNDELIVERABLE.score:
            worst = EXIT_NO
        if parsed.json:
            sys.stdout.write(bulk.json_line(assessment))
        else:
            _show(assessment)
    return worst


def _show(assessment: Assessment) -> None:
    verdict = paint(assessment.verdict.value.replace("_", " "), _COLOURS[assessment.verdict])
    say(f"{printable(assessment.input)}: {verdict}")
    say(f"  {printable(assessment.plain)}")
    for finding in assessment.findings:
        at = "" if finding.at is None else f" at character {finding.at + 1}"
        mark = {Level.ERROR: "!", Level.WARN: "*", Level.INFO: "-"}[finding.reason.level]
        because = paint(f"({finding.code}, {finding.reason.ref})", "dim")
        say(f"  {mark} {printable(finding.text)}{at}  {because}")


def _check_file(parsed: argparse.Namespace, trusted: Networks) -> int:
    is_csv = parsed.file.lower().endswith(".csv")
    if parsed.column is not None and not is_csv:
        complain("--column goes with a .csv file")
        return EXIT_USAGE
    with ExitStack() as stack:
        source: TextIO = sys.stdin
        if parsed.file != "-":
            # Spreadsheets begin CSV files with a byte order mark.
            source = stack.enter_context(
                open(parsed.file, encoding="utf-8-sig", errors="surrogateescape", newline="")
            )
        done = 0
        output: BinaryIO = sys.stdout.buffer
        if parsed.output is not None:
            done = bulk.rows_done(parsed.output, is_csv=is_csv and not parsed.json)
            output = stack.enter_context(parsed.output.open("ab"))
        if done:
            complain(f"{parsed.output} has {done} rows; going on behind them")
        progress = _Progress(source, done)
        try:
            bulk.write_all(_rows(parsed, source, trusted, done), output, progress.show)
        except KeyboardInterrupt:
            progress.end()
            if parsed.output is not None:
                complain("stopped; the same command goes on from here")
            raise
        progress.end()
        if parsed.output is not None:
            output.close()
            rows = bulk.rows_done(parsed.output, is_csv=is_csv and not parsed.json)
            complain(f"{rows} rows in {parsed.output}")
    return EXIT_YES


def _rows(
    parsed: argparse.Namespace, source: TextIO, trusted: Networks, done: int
) -> Iterator[str]:
    def check(text: str) -> Assessment:
        return assess(text, trusted)

    if parsed.file.lower().endswith(".csv"):
        return bulk.check_csv(source, check, column=parsed.column, skip=done, as_json=parsed.json)
    return bulk.check_lines(source, check, skip=done)


class _Progress:
    """How far it is, on a terminal; nothing elsewhere."""

    def __init__(self, source: TextIO, done: int) -> None:
        self._source = source
        self._size = bulk.size_of(source)
        self._done = done
        self._is_wanted = sys.stderr.isatty()
        self._shown_at = 0.0

    def show(self, count: int) -> None:
        """`count` rows are written."""
        now = time.monotonic()
        if self._is_wanted and now - self._shown_at >= _PROGRESS_S:
            self._shown_at = now
            part = ""
            if self._size is not None:
                part = f", {100 * self._source.buffer.tell() // self._size} %"
            sys.stderr.write(f"\r{self._done + count} addresses{part} ")
            sys.stderr.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._shown_at:
            sys.stderr.write("\r\x1b[K")
