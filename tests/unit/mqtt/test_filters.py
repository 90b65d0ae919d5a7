"""Topic filters, as MQTT 5 §4.7 has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.mqtt.filters import matches, overlap, read_filter

LEVELS = st.lists(st.sampled_from(["a", "b", ""]), min_size=1, max_size=4)
FILTERS = st.builds(
    lambda levels, end: "/".join([*levels, *end]),
    st.lists(st.sampled_from(["a", "b", "", "+"]), min_size=1, max_size=4),
    st.sampled_from([[], ["#"]]),
)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        # The examples of MQTT 5 §4.7.1 and §4.7.2.
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/x", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/x", True),
        ("a", "A", False),
        ("plant/alarm", "plant/alarm/", False),
        ("plant/+/#", "plant", False),
    ],
)
def test_what_a_filter_matches(topic_filter: str, topic: str, expected: bool) -> None:
    assert matches(read_filter(topic_filter), topic) is expected


@pytest.mark.parametrize(
    "text", ["", "a\0b", "a/#/b", "a#", "a/b#", "##", "a+", "a/+b/c", "x" * 70_000]
)
def test_what_is_no_filter(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|stands"):
        read_filter(text)


@given(FILTERS, FILTERS, LEVELS)
def test_a_topic_that_two_match_makes_them_overlap(
    first: str, second: str, topic: list[str]
) -> None:
    name = "/".join(topic)
    if matches(first, name) and matches(second, name):
        assert overlap(first, second)
        assert overlap(second, first)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("a/+/c", "a/b/+", True),
        ("a/+", "b/#", False),
        ("#", "a/b", True),
        ("a/#", "a", True),
        ("a/+/#", "a", False),
        ("a/+", "a/b/c", False),
        ("+/+/alarm", "waypost/#", True),
        ("+", "waypost/#", True),
    ],
)
def test_whether_two_overlap(first: str, second: str, expected: bool) -> None:
    assert overlap(first, second) is expected
    assert overlap(second, first) is expected
