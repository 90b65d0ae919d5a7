"""Every row of rows.toml has its profile or its test, and no profile names another row."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.devices.profiles import ROWS, read_catalogue

TESTS = Path(__file__).parents[1]
TABLE = tomllib.loads(ROWS.read_text("utf-8"))["row"]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row["quirk"])
def test_every_row_is_a_test(row: dict[str, object]) -> None:
    assert set(row) <= {"key", "quirk", "trusted", "stranger", "tests"}
    assert row["trusted"]
    assert row["stranger"]
    key, tests = row.get("key"), row.get("tests", [])
    assert isinstance(tests, list)
    profiles = [profile.name for profile in read_catalogue() if key in profile.quirks]
    assert profiles or tests
    assert profiles or key is None
    for test in tests:
        file, _, name = test.partition("::")
        assert re.search(rf"(?m)^def {name}\b", (TESTS / file).read_text())


def test_every_profile_names_rows() -> None:
    keys = {row["key"] for row in TABLE if "key" in row}
    for profile in read_catalogue():
        assert profile.quirks, profile.name
        assert set(profile.quirks) <= keys, profile.name
