"""What a call costs, so that its growth can be compared: never a limit in seconds."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable


def least_cost(call: Callable[[], object], *, runs: int = 5) -> float:
    """The least processor time of some runs, in seconds; never less than a clock can tell.

    Without the cyclic collector: it walks over every object of the process, those of all other
    tests too, the more often the more objects a call makes, which is no work of the call's.
    """
    best = float("inf")
    gc.disable()
    try:
        for _ in range(runs):
            begin = time.process_time()
            call()
            best = min(best, time.process_time() - begin)
    finally:
        gc.enable()
    return max(best, 1e-5)
