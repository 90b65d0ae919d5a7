"""Comparing two peers by the rounds they ran in together."""

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_RESAMPLES = 5000


@dataclass(frozen=True)
class Ratio:
    """The median over the rounds, and where it lies with 95 % confidence."""

    median: float
    low: float
    high: float


def ratio_of(ours: Sequence[float], theirs: Sequence[float], seed: int) -> Ratio:
    """Both hold one value for each round, in the same order.

    Dividing within a round takes out what the machine did in that round to both. The interval is
    a percentile bootstrap: the median of many draws of as many rounds, with repetition.
    """
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    draw = random.Random(seed)
    medians = sorted(
        statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(_RESAMPLES)
    )
    low, high = medians[int(_RESAMPLES * 0.025)], medians[int(_RESAMPLES * 0.975)]
    return Ratio(statistics.median(ratios), low, high)
