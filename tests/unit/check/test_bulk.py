"""Many addresses: order, columns, and going on after a break at any octet."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
import time
from pathlib import Path

import pytest

from waypost.check import bulk
from waypost.check.assessment import Assessment
from waypost.check.checker import assess
from waypost.net.networks import Networks

HEADER = "name,E-Mail,note"
ROWS = [
    '"N, One",ann@x.dev,plain',
    'Two,a..b@x.dev,"two\nlines ""quoted"""',
    "Three,ann@[10.0.0.5],é",
    "Four,,empty",
]
TEXT = "\n".join([HEADER, *ROWS]) + "\n"


def check(text: str) -> Assessment:
    return assess(text, Networks([]))


def checked(text: str, *, column: str | None = None, skip: int = 0) -> list[str]:
    rows = bulk.CsvRows(io.StringIO(text, newline=""), column, as_json=False)
    header = [] if skip or not rows.header else [rows.header]
    return header + [row.line(check(row.text)) for row in rows.read(skip=skip)]


def lines_of(text: str, *, skip: int = 0) -> list[str]:
    return [row.line(check(row.text)) for row in bulk.read_lines(io.StringIO(text), skip=skip)]


def test_columns_are_added_and_rows_kept() -> None:
    rows = list(csv.reader("".join(checked(TEXT)).splitlines(keepends=True)))
    assert rows[0] == [*HEADER.split(","), *bulk.ADDED_COLUMNS]
    assert [row[:3] for row in rows[1:]] == list(csv.reader(TEXT.splitlines(keepends=True)))[1:]
    assert [row[3] for row in rows[1:]] == ["unknown", "malformed", "undeliverable", "malformed"]
    assert rows[2][8] == '"a..b"@x.dev'
    assert rows[2][10].endswith('Perhaps "a..b"@x.dev was meant.')


@pytest.mark.parametrize(
    ("header", "column", "place"),
    [
        ("a,mail,b", None, 0),
        ("a,b", None, 0),
        ("a,E-mail", None, 1),
        ("x,to address", None, 1),
        ("a,b", "b", 1),
    ],
)
def test_the_column_is_found(header: str, column: str | None, place: int) -> None:
    values = ["u@a.dev", "u@b.dev"] + ["u@c.dev"] * (header.count(",") - 1)
    [_, line] = checked(f"{header}\n{','.join(values)}\n", column=column)
    assert f",u@{'ab'[place]}.dev,The address is well formed" in line


def test_faults_of_the_file_are_told() -> None:
    with pytest.raises(bulk.BulkError, match="there are: name, E-Mail, note"):
        checked(TEXT, column="x")
    with pytest.raises(bulk.BulkError, match="line 3 has 1 columns, not 3"):
        checked(f"{HEADER}\na,b,c\nd\n")
    with pytest.raises(bulk.BulkError, match="not a CSV file"):
        checked(f"{HEADER}\n{'x' * 200_000},b,c\n")
    assert checked("") == []


@pytest.mark.parametrize("as_json", [False, True])
def test_a_break_at_any_octet_is_gone_on_from(tmp_path: Path, as_json: bool) -> None:
    whole = "".join(checked(TEXT)).encode()
    output = tmp_path / "out"
    if as_json:
        whole = "".join(f'{{"n":{number}}}\n' for number in range(4)).encode()
    for cut in range(len(whole) + 1):
        output.write_bytes(whole[:cut])
        done = bulk.rows_done(output, is_csv=not as_json)
        kept = output.read_bytes()
        assert whole.startswith(kept)
        if as_json:
            assert kept.count(b"\n") == done
            continue
        rest = "".join(checked(TEXT, skip=done))
        assert kept + rest.encode() == whole


def test_no_file_is_no_row(tmp_path: Path) -> None:
    assert bulk.rows_done(tmp_path / "none", is_csv=True) == 0


def test_lines_come_out_as_json() -> None:
    found = [json.loads(line) for line in lines_of(" ann@x.dev \n\nb\n")]
    assert [one["input"] for one in found] == ["ann@x.dev", "b"]
    assert [one["id"] for one in found] == ["row-1", "row-2"]
    [rest] = lines_of("a\nb\n", skip=1)
    assert json.loads(rest)["input"] == "b"
    assert json.loads(rest)["id"] == "row-2"


def test_octets_that_are_no_utf8_pass() -> None:
    text = b"mail\n\xffann@x.dev\n".decode(errors="surrogateescape")
    file = io.BytesIO()
    output = bulk.Output(file, lambda count: None)
    for line in checked(text):
        output.add(line)
    output.flush()
    assert b"\n\xffann@x.dev,malformed," in file.getvalue()
    [line] = lines_of("\udcffx@y.dev")
    assert json.loads(line)["input"] == "\udcffx@y.dev"
    line.encode()


def test_what_waits_is_written_in_time() -> None:
    counts: list[int] = []
    file = io.BytesIO()
    output = bulk.Output(file, counts.append)
    output.add("a\n")
    assert file.getvalue() == b""
    time.sleep(1.05)
    output.add("b\n")
    assert (file.getvalue(), counts) == (b"a\nb\n", [2])


def test_results_come_in_the_order_of_the_rows() -> None:
    under_way = most = 0

    async def slow(text: str) -> Assessment:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(random.random() / 100)
        under_way -= 1
        return check(text)

    async def run() -> list[int]:
        rows = (bulk.Row(number, f"u{number}@x.dev") for number in range(2_000))
        return [
            row.number
            async for row, assessment in bulk.in_order(rows, slow)
            if assessment.input == row.text
        ]

    assert asyncio.run(run()) == list(range(2_000))
    assert 1 < most <= 500
