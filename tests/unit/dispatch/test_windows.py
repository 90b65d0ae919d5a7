"""Counting mail in windows: no clock, no hub."""

from __future__ import annotations

import pytest

from waypost.dispatch.digests import span_words
from waypost.dispatch.windows import WindowKey, Windows
from waypost.routing.storms import StormSettings

CAMERA = WindowKey("192.0.2.7", "cameras")
DOOR = WindowKey("192.0.2.8", "cameras")
THREE = StormSettings(3, 60.0)


def passed(windows: Windows, key: WindowKey, at: float, count: int = 1) -> list[bool]:
    return [windows.take(key, THREE, at) is None for _ in range(count)]


def test_so_many_go_and_the_rest_is_held_until_the_window_ends() -> None:
    windows = Windows()
    assert passed(windows, CAMERA, 1_000.0) == [True]
    assert passed(windows, CAMERA, 1_030.0, 3) == [True, True, False]
    window = windows.take(CAMERA, THREE, 1_059.9)
    assert window is not None
    assert (window.until, window.held) == (1_060.0, 2)
    # A new one begins with the next mail, not where the last has ended.
    assert passed(windows, CAMERA, 1_060.0, 4) == [True, True, True, False]
    held = windows.take(CAMERA, THREE, 1_061.0)
    assert held is not None
    assert (held.until, held.held) == (1_120.0, 2)
    assert window.held == 2


def test_devices_and_routes_do_not_disturb_each_other() -> None:
    windows = Windows()
    assert passed(windows, CAMERA, 0.0, 4)[-1] is False
    assert passed(windows, DOOR, 0.0, 3) == [True] * 3
    assert passed(windows, WindowKey(CAMERA.source, "other"), 0.0) == [True]


def test_failures_have_a_cap_of_their_own() -> None:
    windows = Windows()
    for _ in range(3):
        assert windows.take(CAMERA, THREE, 0.0) is None
    assert windows.is_full(CAMERA, THREE, 0.0)
    assert not windows.is_full(DOOR, THREE, 0.0)
    for _ in range(3):
        assert windows.has_room_for_failure(CAMERA, THREE)
        assert windows.take(CAMERA, THREE, 1.0, is_failure=True) is None
    assert not windows.has_room_for_failure(CAMERA, THREE)
    assert windows.take(CAMERA, THREE, 2.0, is_failure=True) is not None
    assert not windows.is_full(CAMERA, THREE, 60.0)


def test_failures_do_not_use_up_what_others_have_left() -> None:
    windows = Windows()
    for _ in range(3):
        assert windows.take(CAMERA, THREE, 0.0, is_failure=True) is None
    assert windows.has_room_for_failure(CAMERA, THREE)


def test_another_cap_holds_in_a_window_that_has_begun() -> None:
    windows = Windows()
    assert passed(windows, CAMERA, 0.0, 4)[-1] is False
    assert windows.take(CAMERA, StormSettings(5, 60.0), 1.0) is None
    assert windows.take(CAMERA, StormSettings(1, 60.0), 2.0) is not None


def test_a_clock_set_back_does_not_hold_mail_for_long() -> None:
    windows = Windows()
    assert passed(windows, CAMERA, 10_000.0, 4)[-1] is False
    assert passed(windows, CAMERA, 5_000.0, 3) == [True] * 3
    window = windows.take(CAMERA, THREE, 5_000.0)
    assert window is not None
    assert window.until == 5_060.0


def test_a_window_of_an_earlier_run_goes_on() -> None:
    windows = Windows()
    assert windows.resume(CAMERA, THREE, 1_060.0, 17).held == 17
    window = windows.take(CAMERA, THREE, 1_030.0)
    assert window is not None
    assert (window.until, window.held) == (1_060.0, 18)
    assert passed(windows, CAMERA, 1_060.0) == [True]


def test_memory_is_bounded() -> None:
    windows = Windows(max_windows=100)
    for number in range(1_000):
        windows.take(WindowKey(str(number), "route"), THREE, 0.0)
    assert len(windows) == 100
    windows.take(WindowKey("999", "route"), THREE, 0.0)
    assert len(windows) == 100


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (300.0, "5 minutes"),
        (60.0, "1 minute"),
        (90.0, "90 seconds"),
        (3_600.0, "1 hour"),
        (86_400.0, "1 day"),
        (0.5, "0.5 seconds"),
    ],
)
def test_spans_in_words(seconds: float, words: str) -> None:
    assert span_words(seconds) == words
