"""Our reading of addresses against lists that others have judged.

Where we differ on purpose, `contested.toml` says so, case by case, with the rule. Any other
difference fails, and so does a ruling nobody needs any more.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.corpora import corpora
from tests.corpora.corpora import ListRow, Row, judge
from waypost.errors import AddressError
from waypost.mail.header_address import parse_address_list

# `make test` puts source packages there.
SDIST = Path(sys.prefix) / "sdists" / "email_validator-2.4.0.tar.gz"

RULINGS = {
    text: ruling
    for ruling in tomllib.loads(
        Path(__file__).with_name("contested.toml").read_text(encoding="utf-8")
    )["ruling"]
    for text in ruling["texts"]
}


def rows() -> Iterator[Row]:
    yield from corpora.is_email("is_email-tests.xml")
    yield from corpora.is_email("is_email-tests-original.xml")
    yield from corpora.isemail()
    yield from corpora.jmail()
    yield from corpora.flanker()


def differences(found: Iterator[Row]) -> list[str]:
    return [
        f"{row.corpus}: {row.text!r}: we say {judge(row.text)}, they {sorted(row.allowed)}"
        for row in found
        if judge(row.text) not in row.allowed and row.text not in RULINGS
    ]


if corpora.BESIDE.is_dir():  # else those four are nowhere on this machine

    def test_we_agree_but_where_it_was_ruled_otherwise() -> None:
        assert len(list(rows())) > 1_100
        assert differences(rows()) == []

    def test_every_ruling_is_needed() -> None:
        judged = [*rows(), *corpora.email_validator(SDIST), *corpora.cpython()]
        needed = {
            row.text
            for row in judged
            if isinstance(row, ListRow) or judge(row.text) not in row.allowed
        }
        assert set(RULINGS) <= needed


def test_we_agree_with_email_validator_on_syntax() -> None:
    found = list(corpora.email_validator(SDIST))
    assert len(found) > 100
    assert differences(iter(found)) == []


def test_we_agree_with_cpython() -> None:
    found = [row for row in corpora.cpython() if isinstance(row, Row)]
    assert len(found) > 10
    assert differences(iter(found)) == []


def test_we_read_the_lists_cpython_reads() -> None:
    found = [row for row in corpora.cpython() if isinstance(row, ListRow)]
    assert len(found) > 10
    wrong = []
    for row in found:
        try:
            parse_address_list(row.text)
            is_refused = False
        except AddressError:
            is_refused = True
        if is_refused != row.is_faulty and row.text not in RULINGS:
            wrong.append((row.text, is_refused))
    assert wrong == []


@pytest.mark.parametrize("text", RULINGS)
def test_rulings_hold(text: str) -> None:
    assert judge(text) == RULINGS[text]["ours"]
