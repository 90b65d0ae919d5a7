"""Waiting for a hub to have done something: conditions with a limit, never mere time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from tests.support.hub import Hub
from waypost.queue.history import History

# No healthy hub comes near it; without it a failure would be a hang.
LIMIT_S = 15.0

# What fails is soon tried again.
QUICK_RETRY = "[retry]\nfirst_s = 0.2\nmax_s = 0.2\nwarn_after_s = 600\ngive_up_after_s = 600\n"


def wait_until(
    is_so: Callable[[], bool], complaint: Callable[[], str], *, pause_s: float = 0.02
) -> None:
    """Until `is_so`; the complaint is for the failure when that never comes."""
    deadline = time.monotonic() + LIMIT_S
    while not is_so():
        assert time.monotonic() < deadline, complaint()
        time.sleep(pause_s)


def is_drained(hub: Hub) -> bool:
    """True when nothing is in the queue any more, files of content included."""
    files = any(path.is_file() for path in (hub.data / "content").rglob("*"))
    return not files and not History(hub.data).counts()


def wait_until_drained(hub: Hub) -> None:
    """Until the queue is empty."""
    wait_until(lambda: is_drained(hub), lambda: hub.log_text()[-4000:])


def check_log(hub: Hub) -> None:
    """Nothing happened that the hub itself calls a bug; the log starts afresh."""
    text = hub.log_text()
    for sign in (" bug ", "Traceback", "never retrieved"):
        assert sign not in text, text[-4000:]
    os.truncate(hub.log_file, 0)
