"""When to try again, warn and give up: RFC 5321 §4.5.4.1."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from waypost.queue.retry import (
    JITTER,
    RetrySettings,
    is_warning_due,
    next_attempt_at,
    wait_before_retry,
)

DEFAULT = RetrySettings()
chances = st.floats(0, 1)
seconds = st.floats(0.001, 1e7)
all_settings = st.builds(RetrySettings, seconds, seconds, seconds, seconds)


def test_defaults_are_the_documented_ones() -> None:
    assert RetrySettings(60, 14_400, 14_400, 432_000) == DEFAULT


def test_each_wait_doubles_up_to_the_longest() -> None:
    waits = [wait_before_retry(attempts, DEFAULT, 0.5) for attempts in range(1, 12)]
    assert waits == [60, 120, 240, 480, 960, 1920, 3840, 7680, 14_400, 14_400, 14_400]


@given(st.integers(1, 10**6), all_settings, chances)
def test_a_wait_is_spread_around_its_middle(
    attempts: int, settings: RetrySettings, chance: float
) -> None:
    """Mail deferred together does not come back together."""
    middle = wait_before_retry(attempts, settings, 0.5)
    wait = wait_before_retry(attempts, settings, chance)
    assert 0 < middle * (1 - JITTER) * 0.999 <= wait <= middle * (1 + JITTER) * 1.001
    assert middle <= settings.max_s


@given(st.integers(1, 10**4), all_settings, chances)
def test_waits_never_shrink(attempts: int, settings: RetrySettings, chance: float) -> None:
    assert wait_before_retry(attempts + 1, settings, chance) >= wait_before_retry(
        attempts, settings, chance
    )


def test_the_spread_is_used_in_full() -> None:
    assert wait_before_retry(1, DEFAULT, 0.0) == pytest.approx(60 * (1 - JITTER))
    assert wait_before_retry(1, DEFAULT, 1.0) == pytest.approx(60 * (1 + JITTER))


@given(
    st.integers(1, 1_000),
    st.floats(0, 2e9),
    st.floats(0, 1e7),
    all_settings,
    chances,
)
def test_the_next_attempt_is_later_and_never_after_the_end(
    attempts: int, accepted_at: float, age: float, settings: RetrySettings, chance: float
) -> None:
    now = accepted_at + age
    expires_at = accepted_at + settings.give_up_after_s
    at = next_attempt_at(attempts, now, accepted_at, settings, chance)
    if now >= expires_at:
        assert at is None
    else:
        assert at is not None
        assert now <= at <= expires_at
        assert at == expires_at or at - now <= settings.max_s * (1 + JITTER) * 1.001 + 1e-3


@given(chances)
def test_a_message_is_tried_at_the_limit_and_then_given_up(chance: float) -> None:
    """RFC 5321 §4.5.4.1: giving up takes a failure at or after the limit."""
    now, attempts = 0.0, 0
    times = [now]
    while (at := next_attempt_at(attempts + 1, now, 0.0, DEFAULT, chance)) is not None:
        attempts += 1
        assert at > now
        now = at
        times.append(now)
        assert len(times) < 1_000
    assert times[-1] == DEFAULT.give_up_after_s
    assert 30 <= len(times) <= 60


def test_a_clock_set_back_gives_no_wait_beyond_the_end() -> None:
    at = next_attempt_at(5, 1_000.0, 5_000.0, DEFAULT, 0.5)
    assert at is not None
    assert 1_000 < at <= 5_000 + DEFAULT.give_up_after_s


@given(st.floats(0, 2e9), st.floats(0, 1e7), all_settings)
def test_a_warning_is_due_once_and_in_time(
    accepted_at: float, age: float, settings: RetrySettings
) -> None:
    now = accepted_at + age
    assert not is_warning_due(now, accepted_at, True, settings)
    late = now >= accepted_at + settings.warn_after_s
    assert is_warning_due(now, accepted_at, False, settings) is late


def test_a_first_wait_above_the_longest_is_cut() -> None:
    settings = RetrySettings(first_s=500, max_s=100)
    assert wait_before_retry(1, settings, 0.5) == 100


@given(all_settings)
def test_attempts_without_number_overflow_nothing(settings: RetrySettings) -> None:
    assume(settings.first_s <= settings.max_s)
    assert wait_before_retry(10**9, settings, 0.5) == pytest.approx(
        min(settings.max_s, settings.first_s * 2.0**64)
    )
