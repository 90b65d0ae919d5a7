"""Microseconds to read one address, beside email-validator, in the same process and rounds.

Every address is a new one, so that no cache answers; the domains of the plain ones repeat, as
they do in mail. Both sides check syntax only.
"""

import gc
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from email_validator import validate_email

from waypost import Address

# Addresses of one measurement; more than any cache of ours holds.
_COUNT = 10_000


@dataclass(frozen=True)
class Reading:
    """One kind of address: medians over the rounds."""

    kind: str
    waypost_us: float
    email_validator_us: float
    ratio: float  # of theirs to ours in the same round


def _their_plain(text: str) -> object:
    return validate_email(text, check_deliverability=False)


def _their_literal(text: str) -> object:
    return validate_email(text, check_deliverability=False, allow_domain_literal=True)


_KINDS: dict[str, tuple[Callable[[int], str], Callable[[str], object]]] = {
    "plain": (lambda n: f"user{n}.name{n % 97}@example{n % 50}.com", _their_plain),
    "IPv4 literal": (lambda n: f"cam{n}@[192.168.{n % 250}.{n % 199}]", _their_literal),
    "IPv6 literal": (lambda n: f"cam{n}@[IPv6:fd00::{n % 65521:x}:{n % 99:x}]", _their_literal),
}


def measure_addresses(rounds: int, seed: int, say: Callable[[str], None]) -> tuple[Reading, ...]:
    """Each kind in `rounds` rounds, the two sides in random order."""
    order = random.Random(seed)
    return tuple(_reading(kind, rounds, order, say) for kind in _KINDS)


def _reading(kind: str, rounds: int, order: random.Random, say: Callable[[str], None]) -> Reading:
    make, theirs = _KINDS[kind]
    ours_us: list[float] = []
    theirs_us: list[float] = []
    for number in range(rounds):
        texts = [make(number * _COUNT + index) for index in range(_COUNT)]
        sides = [(Address.parse, ours_us), (theirs, theirs_us)]
        order.shuffle(sides)
        for read, times in sides:
            times.append(_us_each(read, texts))
    say(f"  addresses, {kind}: {ours_us[-1]:.2f} and {theirs_us[-1]:.2f} us")
    ratios = [other / own for own, other in zip(ours_us, theirs_us, strict=True)]
    return Reading(
        kind, statistics.median(ours_us), statistics.median(theirs_us), statistics.median(ratios)
    )


def _us_each(read: Callable[[str], object], texts: Sequence[str]) -> float:
    gc.collect()
    before = time.process_time_ns()
    for text in texts:
        read(text)
    return (time.process_time_ns() - before) / len(texts) / 1000
