"""What leaves the process that notifies: nothing of a URL but its scheme."""

from __future__ import annotations

import pytest

from waypost.delivery.notifier_worker import without_secrets

URL = "ntfys://user%40x:p%2Fss%20w0rd@ntfy.lan:8443/t0pic/two?auth=k3y-of_it&x=1#frag"


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("no connection to ntfy.lan:8443", "no connection to ***:***"),
        ("topic t0pic refused", "topic *** refused"),
        ("key k3y-of_it is wrong", "key *** is wrong"),
        ("user user@x with p/ss w0rd", "*** *** with ***"),
        ("sent by ntfys: 7 tries", "sent by ntfys: 7 tries"),
        ("a\nb\x1b[2Jü", "a?b?[2J?"),
    ],
)
def test_nothing_of_a_url_is_left(said: str, left: str) -> None:
    assert without_secrets(said, URL) == left


def test_a_long_piece_goes_before_what_it_holds() -> None:
    assert without_secrets("abc-def-ghi abc", "x://abc/abc-def-ghi") == "*** ***"
