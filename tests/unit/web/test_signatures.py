"""Signatures of senders: by the time, by the body, and only once."""

from __future__ import annotations

import time

from waypost.delivery.webhook import signature
from waypost.smtp.auth import Secret
from waypost.web import signatures
from waypost.web.message import answer
from waypost.web.signatures import WINDOW_S, Seen, is_signed_by_github, is_signed_by_waypost

SECRET = Secret("It's a Secret to Everybody")


def signed(at: float, body: bytes = b"{}", secret: Secret = SECRET) -> dict[str, str]:
    stamp = str(int(at))
    return {"x-waypost-timestamp": stamp, "x-waypost-signature": signature(secret, stamp, body)}


def test_of_a_hub() -> None:
    now = time.time()
    assert is_signed_by_waypost(SECRET, signed(now), b"{}")
    assert is_signed_by_waypost(SECRET, signed(now - WINDOW_S + 5), b"{}")
    assert not is_signed_by_waypost(SECRET, signed(now - WINDOW_S - 5), b"{}")
    assert not is_signed_by_waypost(SECRET, signed(now + WINDOW_S + 5), b"{}")
    assert not is_signed_by_waypost(SECRET, signed(now), b"{ }")
    assert not is_signed_by_waypost(SECRET, signed(now, secret=Secret("another")), b"{}")
    # The time is signed, too.
    moved = signed(now) | {"x-waypost-timestamp": str(int(now) + 1)}
    assert not is_signed_by_waypost(SECRET, moved, b"{}")
    for broken in ("", "-1", "1e9", "١٢٣", "9" * 5_000):
        assert not is_signed_by_waypost(SECRET, signed(now) | {"x-waypost-timestamp": broken}, b"")
    assert not is_signed_by_waypost(SECRET, {}, b"{}")


def test_of_github() -> None:
    """The example of GitHub's documentation."""
    right = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    headers = {"x-hub-signature-256": right}
    assert is_signed_by_github(SECRET, headers, b"Hello, World!")
    assert not is_signed_by_github(SECRET, headers, b"Hello, World.")
    assert not is_signed_by_github(SECRET, {}, b"Hello, World!")
    # What a hub has signed is no body that GitHub has: hooks take one of both only.
    ours = signed(time.time())
    assert not is_signed_by_github(SECRET, ours, b"{}")


def test_a_copy_is_known_while_it_would_be_good() -> None:
    now = 0.0
    seen = Seen(lambda: now)
    response = answer({"id": "1"})
    seen.note("a", response)
    now = 2 * WINDOW_S - 1
    assert seen.response_to("a") is response
    assert seen.response_to("b") is None
    now = 2 * WINDOW_S + 1
    assert seen.response_to("a") is None


def test_memory_of_copies_is_bounded() -> None:
    seen = Seen(lambda: 0.0)
    for number in range(signatures.REMEMBERED + 5):
        seen.note(str(number), answer({}))
    assert seen.response_to("4") is None
    assert seen.response_to("5") is not None
