"""check: what will happen to mail for an address, and why."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from waypost.app import make_own_addresses, make_resolver, make_standings, open_checker
from waypost.check import bulk
from waypost.check.assessment import Assessment, Depth
from waypost.check.checker import Checker, assess
from waypost.check.verdict import Advice, Level, Verdict
from waypost.cli.context import settings_of
from waypost.cli.output import (
    EXIT_LATER,
    EXIT_NO,
    EXIT_USAGE,
    EXIT_YES,
    complain,
    paint,
    printable,
    say,
    say_json,
)
from waypost.config.settings import Settings
from waypost.net.networks import Networks

_NO = Verdict.PROBABLY_UNDELIVERABLE.score

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
        choices=[depth.value for depth in Depth],
        default=Depth.SYNTAX.value,
        help="how far to look: at the address alone (the default), at what DNS says, or at what its"
        " host answers, which needs check.probe",
    )
    check.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        default=120.0,
        help="how long a session with a host may take (default: 120)",
    )
    check.add_argument(
        "--wait",
        action="store_true",
        help="come back to hosts that ask for it, up to twice, rather than say so",
    )
    check.add_argument(
        "--fresh", action="store_true", help="ask hosts again, whatever is known of them"
    )
    check.add_argument(
        "--self",
        dest="looks_at_self",
        action="store_true",
        help="how this host looks to those it would probe: its name, HELO and blocklists",
    )
    check.add_argument("--json", action="store_true", help="one JSON object a line")
    check.set_defaults(run=_check)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError("expected seconds, a number above 0")
    return value


def _check(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    if parsed.looks_at_self:
        return asyncio.run(_look_at_self(settings, as_json=parsed.json))
    if bool(parsed.addresses) == (parsed.file is not None):
        complain("name addresses, or a file of them with --file")
        return EXIT_USAGE
    if parsed.file is None and (parsed.output is not None or parsed.column is not None):
        complain("--output and --column go with --file")
        return EXIT_USAGE
    if parsed.column is not None and not parsed.file.lower().endswith(".csv"):
        complain("--column goes with a .csv file")
        return EXIT_USAGE
    depth = Depth(parsed.depth)
    if depth is Depth.SMTP and not settings.check.may_probe:
        complain(
            "probing is off: it opens sessions with other people's hosts. To allow it, set"
            " check.probe = true, and check.sender to an address somebody reads"
        )
        return EXIT_USAGE
    if depth is Depth.SYNTAX:
        trusted = Networks(settings.trusted)
        if parsed.file is not None:
            return _check_file(parsed, lambda rows: _assessed(rows, trusted))
        return _say_all(parsed, [assess(text, trusted) for text in parsed.addresses])
    return asyncio.run(_ask(parsed, settings, depth))


async def _ask(parsed: argparse.Namespace, settings: Settings, depth: Depth) -> int:
    """The depths at which others are asked."""
    with open_checker(
        settings,
        depth,
        timeout_s=parsed.timeout,
        waits=parsed.wait,
        is_fresh=parsed.fresh,
        on_wait=_Waits().show,
    ) as checker:
        if parsed.file is not None:
            status = await _check_file_asking(parsed, checker)
        else:
            assessments = await asyncio.gather(*map(checker.check, parsed.addresses))
            status = _say_all(parsed, assessments)
    if checker.is_port_blocked:
        complain(
            f"no host at all could be reached on port {settings.routing.delivery_port}: this"
            " network, its provider or firewall, blocks it; the addresses are not to blame"
        )
    return status


class _Waits:
    """Somebody who watches wants to know why nothing happens; once for each pause is enough."""

    def __init__(self) -> None:
        self._until = 0.0

    def show(self, wait_s: float) -> None:
        """All that is left to do waits for this long."""
        now = time.monotonic()
        if sys.stderr.isatty() and wait_s >= 1 and now >= self._until:
            self._until = now + wait_s
            complain(f"waiting {wait_s:.0f} s, as [check] or the host wants it")


def _say_all(parsed: argparse.Namespace, assessments: Sequence[Assessment]) -> int:
    for assessment in assessments:
        if parsed.json:
            sys.stdout.write(bulk.json_line(assessment))
        else:
            _show(assessment)
    if any(each.verdict.score >= _NO for each in assessments):
        return EXIT_NO
    if any(each.advice is Advice.RETRY_LATER for each in assessments):
        return EXIT_LATER
    return EXIT_YES


def _show(assessment: Assessment) -> None:
    verdict = paint(assessment.verdict.value.replace("_", " "), _COLOURS[assessment.verdict])
    say(f"{printable(assessment.input)}: {verdict}")
    say(f"  {printable(assessment.plain)}")
    for finding in assessment.findings:
        at = "" if finding.at is None else f" at character {finding.at + 1}"
        mark = {Level.ERROR: "!", Level.WARN: "*", Level.INFO: "-"}[finding.reason.level]
        because = paint(f"({finding.code}, {finding.reason.ref})", "dim")
        say(f"  {mark} {printable(finding.text)}{at}  {because}")
    if assessment.evidence.is_from_cache:
        say("  - the host was asked earlier; --fresh asks again")


async def _look_at_self(settings: Settings, *, as_json: bool) -> int:
    standings = make_standings(settings, make_resolver(settings))
    addresses = standings.seen_among(make_own_addresses(settings).current)
    if not addresses:
        complain(
            "this host has no address of the Internet; if others see it at one, name that in"
            " addresses.own"
        )
        return EXIT_NO
    looked = [await standings.look(ip) for ip in addresses]
    for standing in looked:
        if as_json:
            say_json(standing.as_json())
            continue
        names = ", ".join(standing.names.names) or "no name"
        state = "in order" if not standing.faults else "not in order"
        say(f"{standing.ip}: {paint(state, 'red' if standing.faults else 'green')}")
        say(f"  - {names}; says hello as {standing.helo}")
        for fault in standing.faults:
            say(f"  ! {printable(fault)}")
    return EXIT_NO if any(standing.faults for standing in looked) else EXIT_YES


def _check_file(
    parsed: argparse.Namespace,
    check: Callable[[Iterable[bulk.Row]], Iterable[tuple[bulk.Row, Assessment]]],
) -> int:
    with _files(parsed) as (rows, output):
        for row, assessment in check(rows):
            output.add(row.line(assessment))
    return EXIT_YES


async def _check_file_asking(parsed: argparse.Namespace, checker: Checker) -> int:
    with _files(parsed) as (rows, output):
        async for row, assessment in bulk.in_order(rows, checker.check):
            output.add(row.line(assessment))
    return EXIT_YES


def _assessed(rows: Iterable[bulk.Row], trusted: Networks) -> Iterator[tuple[bulk.Row, Assessment]]:
    return ((row, assess(row.text, trusted)) for row in rows)


@contextmanager
def _files(parsed: argparse.Namespace) -> Iterator[tuple[Iterator[bulk.Row], bulk.Output]]:
    """The rows that are still to do, and where their lines go."""
    is_csv = parsed.file.lower().endswith(".csv")
    comes_as_csv = is_csv and not parsed.json
    with ExitStack() as stack:
        source: TextIO = sys.stdin
        if parsed.file != "-":
            # Spreadsheets begin CSV files with a byte order mark.
            source = stack.enter_context(
                open(parsed.file, encoding="utf-8-sig", errors="surrogateescape", newline="")
            )
        done = 0
        file: BinaryIO = sys.stdout.buffer
        if parsed.output is not None:
            done = bulk.rows_done(parsed.output, is_csv=comes_as_csv)
            file = stack.enter_context(parsed.output.open("ab"))
        if done:
            complain(f"{parsed.output} has {done} rows; going on behind them")
        progress = _Progress(source, done)
        output = bulk.Output(file, progress.show)
        if is_csv:
            csv_rows = bulk.CsvRows(source, parsed.column, as_json=parsed.json)
            if not done:
                output.write_header(csv_rows.header)
            rows = csv_rows.read(skip=done)
        else:
            rows = bulk.read_lines(source, skip=done)
        try:
            yield rows, output
        except (KeyboardInterrupt, asyncio.CancelledError):
            output.flush()
            progress.end()
            if parsed.output is not None:
                complain("stopped; the same command goes on from here")
            raise
        output.flush()
        progress.end()
        if parsed.output is not None:
            file.close()
            complain(
                f"{bulk.rows_done(parsed.output, is_csv=comes_as_csv)} rows in {parsed.output}"
            )


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
