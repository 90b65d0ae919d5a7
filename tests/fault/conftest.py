"""Options, programs and the summary of the fault tests."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fault.sink import Sink, absent
from tests.support.hub import Hub
from tests.support.postfix import install

FACTS = pytest.StashKey[list[str]]()

DEFAULT_ROUNDS = 50


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fault tests")
    group.addoption(
        "--kill-rounds",
        type=int,
        help=f"how often the hub is killed under load (default {DEFAULT_ROUNDS})",
    )
    group.addoption("--kill-seed", type=int, help="repeat the choices of an earlier run")


def pytest_configure(config: pytest.Config) -> None:
    config.stash.setdefault(FACTS, [])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    facts = config.stash.get(FACTS, [])
    if facts:
        terminalreporter.section("fault tests")
        for fact in facts:
            terminalreporter.write_line(fact)


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Adds a line to the summary at the end of the run."""
    facts = request.config.stash.setdefault(FACTS, [])
    return lambda fact: facts.append(f"{request.node.name}: {fact}")


@pytest.fixture
def kill_rounds(request: pytest.FixtureRequest) -> int:
    """How many rounds were asked for."""
    # Not registered when pytest was started above this directory; then the default holds.
    return request.config.getoption("kill_rounds", default=None) or DEFAULT_ROUNDS


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run; every test that uses it says it."""
    given = request.config.getoption("kill_seed", default=None)
    return random.randrange(1 << 32) if given is None else given


@pytest.fixture(scope="session", autouse=True)
def programs() -> None:
    """strace, from its Debian package."""
    install("strace")


@pytest.fixture
def absent_sink() -> Iterator[Sink]:
    """A sink that does not listen yet: mail for it waits in the queue."""
    with absent() as sink:
        yield sink


@pytest.fixture
def start_hub(tmp_path: Path) -> Iterator[Callable[..., Hub]]:
    """Starts a hub that ends with the test; arguments as Hub's, its directory apart."""
    with ExitStack() as stack:

        def start(config: str = "", **options: Any) -> Hub:
            return stack.enter_context(Hub(tmp_path / "hub", config, **options))

        yield start
