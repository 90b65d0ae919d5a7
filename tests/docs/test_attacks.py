"""The table of attacks in docs/explanation/security.md names every test that tries one."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "security.md"
ALL = set(range(1, 79))

_ROW = re.compile(r"^\| (\d+)(?:-(\d+))? \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
_FILE = re.compile(r"([\w/]+\.py): ((?:`\w+`(?:, )?)+)")
_TEST = re.compile(r"^def (test_attacks?_(\d+(?:_(?:to|and)_\d+)*)_\w+)\(", re.MULTILINE)


def numbers_in(text: str) -> set[int]:
    """Those that a test's name begins with: 43_to_46_and_70."""
    first, *rest = text.split("_")
    found = [int(first)]
    for word, number in zip(rest[::2], rest[1::2], strict=True):
        found += range(found[-1] + 1, int(number) + 1) if word == "to" else [int(number)]
    return set(found)


def known_tests() -> dict[tuple[str, str], set[int]]:
    """File and name of each test of an attack, and its numbers."""
    return {
        (str(path.relative_to(ROOT / "tests")), name): numbers_in(numbers)
        for path in ROOT.glob("tests/**/test_*.py")
        for name, numbers in _TEST.findall(path.read_text("utf-8"))
    }


def rows() -> list[tuple[set[int], str]]:
    """The numbers of each row of the table, and what stands in its last column."""
    return [
        (set(range(int(first), int(last or first) + 1)), tests)
        for first, last, _, tests in _ROW.findall(PAGE.read_text("utf-8"))
    ]


def test_each_attack_has_one_row() -> None:
    counted = [number for numbers, _ in rows() for number in numbers]
    assert sorted(counted) == sorted(ALL)


def test_each_row_names_its_tests() -> None:
    """All there are with its numbers, and no others; or why there are none yet."""
    there = known_tests()
    for numbers, cell in rows():
        named = {
            (file, name)
            for file, names in _FILE.findall(cell)
            for name in re.findall(r"`(\w+)`", names)
        }
        assert named == {test for test, its in there.items() if its & numbers}, min(numbers)
        assert named or cell.startswith("not yet: comes with "), min(numbers)


def test_names_are_read() -> None:
    assert numbers_in("11") == {11}
    assert numbers_in("43_to_46_and_70") == {43, 44, 45, 46, 70}
    assert len(known_tests()) > 60
