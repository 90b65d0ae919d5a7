"""On which line each key of a TOML text stands."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from waypost.config.lines import line_numbers

names = st.sampled_from(["a", "b", "c-d", "e_1", "9", '"q"', "'r s'"])
values = st.sampled_from(
    [
        "1",
        '"x"',
        "true",
        "[]",
        "[1, 2]",
        "[\n  1,\n  # b = 2\n  2,\n]",
        '"""\na = 1\n"""',
        "{ z = 1 }",
    ]
)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[tuple[str | int, ...], int]]:
    """A TOML text of tables, arrays of tables and keys; and the line of each key."""
    lines: list[str] = []
    expected: dict[tuple[str | int, ...], int] = {}
    count = 0
    for header in draw(
        st.lists(st.sampled_from(["t", "u", "[v]", "[v]"]), max_size=5, unique=False)
    ):
        path: tuple[str | int, ...]
        if header == "[v]":
            path = ("v", count)
            count += 1
        else:
            path = (header,)
            if path in expected:
                continue
        lines += draw(st.sampled_from([[], [""], ["# [x]", "# y = 1"]]))
        lines.append(f"[{header}]{draw(st.sampled_from(['', '  # c', ' #=']))}")
        expected[path] = len(lines)
        for name in draw(st.lists(names, max_size=4, unique_by=lambda text: text.strip("\"'"))):
            lines += draw(st.sampled_from([[], [""], ["# a = 1"]]))
            expected[(*path, name.strip("\"'"))] = len(lines) + 1
            equals = draw(st.sampled_from(["=", " = ", "\t=\t"]))
            lines += f"{name}{equals}{draw(values)}".split("\n")
    return "\n".join(lines), expected


@given(documents())
def test_every_key_has_its_line(document: tuple[str, dict[tuple[str | int, ...], int]]) -> None:
    text, expected = document
    tree: dict[str, Any] = tomllib.loads(text)
    found = line_numbers(text)
    assert found == expected
    for path in expected:
        node: Any = tree
        for part in path:
            node = node[part]


def test_dotted_keys_are_paths() -> None:
    assert line_numbers("a.b = 1\na . c . d = 2\n[t.u]\nv.w = 3\n") == {
        ("a",): 1,
        ("a", "b"): 1,
        ("a", "c"): 2,
        ("a", "c", "d"): 2,
        ("t", "u"): 3,
        ("t", "u", "v"): 4,
        ("t", "u", "v", "w"): 4,
    }


def test_a_table_below_an_array_belongs_to_its_last_member() -> None:
    assert line_numbers("[[a]]\n[a.b]\nc = 1\n[[a]]\n[[a.d]]\ne = 2\n[[a.d]]\n[a.d.f]\ng = 3") == {
        ("a", 0): 1,
        ("a", 0, "b"): 2,
        ("a", 0, "b", "c"): 3,
        ("a", 1): 4,
        ("a", 1, "d", 0): 5,
        ("a", 1, "d", 0, "e"): 6,
        ("a", 1, "d", 1): 7,
        ("a", 1, "d", 1, "f"): 8,
        ("a", 1, "d", 1, "f", "g"): 9,
    }
