"""Options and profiles that hold for every test."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# Time limits of hypothesis are off: a busy machine is no bug. In CI the examples are the same on
# each run, so that a failure there is always one of the change at hand.
settings.register_profile(
    "quick", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", parent=settings.get_profile("quick"), derandomize=True)
settings.register_profile("sweep", parent=settings.get_profile("quick"), max_examples=2_000)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--sweep",
        action="store_true",
        help="run sweeps in full: every string, thousands of rounds (minutes to hours)",
    )


def pytest_configure(config: pytest.Config) -> None:
    # A shell ignores SIGINT for what it runs in the background, and so would all children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--sweep"):
        settings.load_profile("sweep")
    else:
        settings.load_profile("ci" if os.environ.get("CI") else "quick")


# Where the longest files are: begun first, they run beside all the others.
_LONGEST_FIRST = ("fault", "attacks", "integration")


def _place(item: pytest.Item) -> int:
    folder = item.path.parent.name
    return _LONGEST_FIRST.index(folder) if folder in _LONGEST_FIRST else len(_LONGEST_FIRST)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave sweeps out unless they were asked for: their short forms always run."""
    items.sort(key=_place)
    if config.getoption("--sweep"):
        return
    slow = [item for item in items if item.get_closest_marker("slow") is not None]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.fixture
def is_sweep(pytestconfig: pytest.Config) -> bool:
    """True when sweeps are to run in full."""
    return bool(pytestconfig.getoption("--sweep"))
