"""Many addresses: order, columns, and going on after a break at any octet."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from waypost.check import bulk
from waypost.check.assessment import Assessment, assess
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


def checked(text: str, **options: object) -> list[str]:
    source = io.StringIO(text, newline="")
    return list(bulk.check_csv(source, check, **{"column": None, **options}))  # type: ignore[arg-type]


def test_columns_are_added_and_rows_kept() -> None:
    rows = list(csv.reader("".join(checked(TEXT)).splitlines(keepends=True)))
    assert rows[0] == [*HEADER.split(","), *bulk.ADDED_COLUMNS]
    assert [row[:3] for row in rows[1:]] == list(csv.reader(TEXT.splitlines(keepends=True)))[1:]
    assert [row[3] for row in rows[1:]] == ["unknown", "malformed", "undeliverable", "malformed"]
    assert rows[2][7] == '"a..b"@x.dev'


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
    assert line.rstrip().endswith(f",u@{'ab'[place]}.dev")


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
    lines = bulk.check_lines(io.StringIO(" ann@x.dev \n\nb\n"), check)
    found = [json.loads(line) for line in lines]
    assert [one["input"] for one in found] == ["ann@x.dev", "b"]
    assert [
        json.loads(x)["input"] for x in bulk.check_lines(io.StringIO("a\nb\n"), check, skip=1)
    ] == ["b"]


def test_octets_that_are_no_utf8_pass(tmp_path: Path) -> None:
    text = b"mail\n\xffann@x.dev\n".decode(errors="surrogateescape")
    output = io.BytesIO()
    bulk.write_all(checked(text), output, lambda count: None)
    assert b"\n\xffann@x.dev,malformed," in output.getvalue()
    [line] = bulk.check_lines(io.StringIO("\udcffx@y.dev"), check)
    assert json.loads(line)["input"] == "\udcffx@y.dev"
    line.encode()
