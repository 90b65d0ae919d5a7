"""Texts with places to fill in."""

from __future__ import annotations

import pytest

from waypost.mail.template import MAX_VALUE, Template

NAMES, TREES = ("subject", "payload"), ("json",)


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("plain", "plain"),
        ("$subject!", "Hi!"),
        ("$subject.more", "Hi.more"),
        ("${subject}x $$5", "Hix $5"),
        ("${json.a.b}", "1"),
        ("${json.list.1}", "two"),
        ("${json.list}", "one, two"),
        ("${json.a}", '{"b": 1}'),
        ("${json.no.such}${json.list.7}${json.list.x}${json.a.b.c}", ""),
        ("${json.flag} ${json.none} ${json.x-y}", "true  dash"),
        ("$payload", "$subject ${json.a}"),
    ],
)
def test_what_is_filled_in(text: str, filled: str) -> None:
    values = {
        "subject": "Hi",
        "payload": "$subject ${json.a}",
        "json": {"a": {"b": 1}, "list": ["one", "two"], "flag": True, "none": None, "x-y": "dash"},
    }
    assert Template.parse(text, NAMES, TREES).fill(values) == filled


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("$", r"written \$\$"),
        ("5 $ a", r"written \$\$"),
        ("${subject", r"written \$\$"),
        ("${json.}", r"written \$\$"),
        ("${json.__class__!r}", r"written \$\$"),
        ("$other", r"unknown: \$other; known: \$subject, \$payload, \$\{json.KEY\}"),
        ("${subject.upper}", r"nothing below \$subject"),
    ],
)
def test_what_is_no_template(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Template.parse(text, NAMES, TREES)


def test_attributes_are_out_of_reach() -> None:
    template = Template.parse("${json.__class__}|${json.__class__.__mro__}", NAMES, TREES)
    assert template.fill({"json": {}}) == "|"
    assert template.fill({"json": "text"}) == "|"


def test_a_value_has_an_end() -> None:
    template = Template.parse("${json.a}$payload", NAMES, TREES)
    filled = template.fill({"json": {"a": ["x" * 2 * MAX_VALUE]}, "payload": "y" * 2 * MAX_VALUE})
    assert len(filled) == 2 * MAX_VALUE
