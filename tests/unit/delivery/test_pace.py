"""How fast a relay is fed, and which of its replies mean "wait"."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.delivery.pace import HOUR_S, MINUTE_S, Pace
from waypost.delivery.patience import Ask, what_is_asked
from waypost.mail.envelope import Outcome, OutcomeKind
from waypost.mail.reply import Reply
from waypost.routing.hops import PaceSettings, Relay


class Clock:
    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def pace(clock: Clock, **limits: int) -> Pace:
    relay = Relay("far", (), 25, pace=PaceSettings(**limits))
    return Pace(relay, monotonic=clock, wall=clock)


def outcome(code: int, text: str = "", status: tuple[int, int] | None = None) -> Outcome:
    return Outcome.of(Reply(code, text, status), success=OutcomeKind.RELAYED)


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("421 4.7.0 Try again later, closing connection.", Ask.PATIENCE),
        ("421 closing", Ask.PATIENCE),
        ("432 4.3.2 Concurrent connections limit exceeded.", Ask.PATIENCE),
        ("454 4.7.0 Too many login attempts", Ask.PATIENCE),
        ("451 4.7.500 Server busy", Ask.PATIENCE),
        ("450 4.2.1 Peak SMTP relay limit exceeded for customer.", Ask.PATIENCE),
        ("451 4.3.0 Mail server temporarily rejected message.", Ask.PATIENCE),
        ("550 5.4.5 Daily user sending limit exceeded.", Ask.HOURS),
        ("550 5.7.1 Daily SMTP relay limit exceeded for customer.", Ask.HOURS),
        ("550 5.1.90 Your message can't be sent", Ask.HOURS),
        ("550 5.2.252 Sender throttled", Ask.HOURS),
        ("554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException", Ask.HOURS),
        # About one message or recipient, and no business of the others.
        ("250 2.0.0 Ok", Ask.NOTHING),
        ("450 4.7.1 Greylisted", Ask.NOTHING),
        ("450 4.2.1 The user you are trying to contact is receiving mail too quickly", Ask.NOTHING),
        ("452 4.2.2 over quota", Ask.NOTHING),
        ("452 4.5.3 Too many recipients", Ask.NOTHING),
        ("550 5.7.1 Message rejected as spam", Ask.NOTHING),
        ("554 5.2.2 mailbox full; QuotaExceededException", Ask.NOTHING),
        ("550 5.1.1 No such user", Ask.NOTHING),
    ],
)
def test_what_is_asked(line: str, asked: Ask) -> None:
    assert what_is_asked(Reply.received(int(line[:3]), [line[4:]])) is asked


# Of which sums are exact.
SECONDS = st.integers(0, 40 * 64).map(lambda parts: parts / 64)


@given(
    st.integers(1, 5),
    st.lists(st.tuples(SECONDS, st.integers(1, 4)), min_size=1, max_size=30),
)
def test_no_minute_has_more_than_its_share(limit: int, arrivals: list[tuple[float, int]]) -> None:
    """Every message goes when it was told it may, and not before."""
    clock = Clock()
    fed = pace(clock, messages_per_minute=limit)
    went: list[float] = []
    for gap, count in arrivals:
        clock.now += gap
        for _ in range(count):
            clock.now += fed.delay_s()
            assert fed.delay_s() == 0
            fed.take()
            went.append(clock.now)
    for at in went:
        assert sum(at <= other < at + MINUTE_S for other in went) <= limit


@given(st.integers(1, 5), st.integers(0, 5), st.integers(0, 30))
def test_the_place_in_the_queue_is_foretold(limit: int, before: int, ahead: int) -> None:
    clock = Clock(1_000.0)
    fed = pace(clock, messages_per_minute=limit)
    for _ in range(min(before, limit)):
        fed.take()
        clock.now += 1
    told = clock.now + fed.delay_s(ahead)
    for _ in range(ahead):
        clock.now += fed.delay_s()
        fed.take()
    assert clock.now + fed.delay_s() == pytest.approx(told)


def test_new_mail_queues_behind_what_was_sent_away() -> None:
    clock = Clock()
    fed = pace(clock, messages_per_minute=2)
    fed.take()
    fed.take()
    away = fed.delay_s(is_new=True)
    fed.book(away)
    assert fed.delay_s(is_new=True) == away + MINUTE_S / 2
    assert fed.delay_s() == away


def test_a_day_is_counted_by_the_hour() -> None:
    clock = Clock(100 * HOUR_S + 10)
    fed = pace(clock, messages_per_day=3)
    fed.take()
    clock.now += HOUR_S
    fed.take()
    assert fed.delay_s() == 0
    fed.take()
    until = clock.now + fed.delay_s()
    assert until == 125 * HOUR_S  # when nothing of the first hour can lie within 24 hours
    clock.now = until
    assert fed.delay_s() == 0
    assert fed.delay_s(1) > 0


def test_what_did_not_get_there_is_not_counted() -> None:
    fed = pace(Clock(), messages_per_day=1, messages_per_minute=1)
    fed.take()
    assert fed.delay_s() > 0
    fed.give_back()
    assert fed.delay_s() == 0


def test_a_wait_grows_and_ends_with_success() -> None:
    clock = Clock()
    fed = pace(clock)
    waits = []
    for _ in range(8):
        judged, begins = fed.judged([outcome(421)], first_s=60, longest_s=14_400)
        assert begins
        assert judged[0].kind is OutcomeKind.DEFERRED
        waits.append(fed.delay_s())
        # What others hear meanwhile makes it no longer.
        assert not fed.judged([outcome(421)], first_s=60, longest_s=14_400)[1]
        assert fed.delay_s() == waits[-1]
        clock.now += fed.delay_s()
    assert waits == [60, 120, 240, 480, 960, 1_920, 3_600, 3_600]
    fed.judged([outcome(250)], first_s=60, longest_s=14_400)
    fed.judged([outcome(421)], first_s=60, longest_s=14_400)
    assert fed.delay_s() == 60


def test_a_quota_is_no_failure() -> None:
    fed = pace(Clock())
    outcomes = [outcome(250), outcome(550, "Daily limit", (4, 5)), outcome(550, "Unknown", (1, 1))]
    judged, begins = fed.judged(outcomes, first_s=60, longest_s=14_400)
    assert begins
    assert [one.kind for one in judged] == ["relayed", "deferred", "failed"]
    assert judged[1].reply.is_transient
    assert "550 5.4.5 Daily limit" in judged[1].reply.text
    assert fed.delay_s() == 3_600
    assert "Daily limit" in fed.why().text
    fed.forget()
    assert fed.delay_s() == 0
