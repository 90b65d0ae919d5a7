"""When silence is too long, and what the words of a mail mean. Pure functions."""

from __future__ import annotations

from typing import NamedTuple

from waypost.devices.device import DeviceSettings, Quiet


class Judgement(NamedTuple):
    """What a mail says of its device."""

    is_failure: bool
    why: str


def silence_is_due_at(since: float, expect_s: float, quiet: Quiet | None) -> float:
    """When silence since a moment is too long.

    Never in quiet hours: of an interval that would end in them, what lies in them comes after
    them, so that a device that mails by day has its time in the morning.
    """
    due = since + expect_s
    while quiet is not None and (lasted_s := quiet.lasted_s(due)) is not None:
        due += quiet.lasts_s - lasted_s + min(lasted_s, expect_s)
    return due


def judged(settings: DeviceSettings, subject: str, text: str) -> Judgement:
    """What a mail means by the words chosen for its device; case does not matter.

    Failure wins, as a report of failure may count successes too; and where words of success were
    chosen, a mail without any of them is a failure: what nobody foresaw is not to pass for good.
    """
    said = f"{subject}\n{text}".casefold()
    for word in settings.failure:
        if word.casefold() in said:
            return Judgement(True, f'it says "{word}"')
    for word in settings.success:
        if word.casefold() in said:
            return Judgement(False, f'it says "{word}"')
    if settings.success:
        return Judgement(True, "it has none of the words that mean success")
    return Judgement(False, "it has none of the words that mean failure")
