"""Waiting for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

LIMIT_S = 20.0

Found = TypeVar("Found")


def wait_until(look: Callable[[], Found], complaint: Callable[[], str] = lambda: "") -> Found:
    """What `look` gives as soon as that is true; AssertionError with `complaint` if never."""
    deadline = time.monotonic() + LIMIT_S
    while not (found := look()):
        assert time.monotonic() < deadline, complaint() or "waited in vain"
        time.sleep(0.02)
    return found
