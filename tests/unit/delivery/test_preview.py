"""Every kind of target can be told of before anything is sent to it."""

from __future__ import annotations

from waypost.delivery.preview import SHOWS
from waypost.routing.targets import KINDS


def test_every_kind_of_target_is_told_of() -> None:
    assert set(SHOWS) == set(KINDS)
