"""What every integration test may ask for: programs, hubs, peers, hosts of their own.

Everything listens on free loopback ports or inside network namespaces, and ends with its test.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.support.hub import Hub
from tests.support.netns import Namespace, joined_namespaces
from tests.support.postfix import install
from tests.support.scripted_peer import ScriptedPeer

# smtp-source comes with Postfix.
PROGRAMS = ("curl", "iproute2", "msmtp", "postfix", "swaks")

# The two hosts of most tests with namespaces.
HOST_A = ("10.9.0.1/24", "fd00:9::1/64")
HOST_B = ("10.9.0.2/24", "fd00:9::2/64")


class StartHub(Protocol):
    """Starts a hub that ends with the test; arguments as Hub's, its directory apart."""

    def __call__(self, config: str = "", **options: Any) -> Hub: ...


class StartPeer(Protocol):
    """Starts a scripted peer that ends with the test; arguments as ScriptedPeer's."""

    def __call__(self, **options: Any) -> ScriptedPeer: ...


@pytest.fixture(scope="session", autouse=True)
def programs() -> None:
    """Foreign programs, from Debian packages."""
    install(*PROGRAMS)


@pytest.fixture
def start_hub(tmp_path: Path) -> Iterator[StartHub]:
    """See StartHub."""
    with ExitStack() as stack:
        count = 0

        def start(config: str = "", **options: Any) -> Hub:
            nonlocal count
            count += 1
            return stack.enter_context(Hub(tmp_path / f"hub{count}", config, **options))

        yield start


@pytest.fixture
def hub(start_hub: StartHub) -> Hub:
    """A hub that nobody has configured, but for its port."""
    return start_hub()


@pytest.fixture
def start_peer() -> Iterator[StartPeer]:
    """See StartPeer."""
    with ExitStack() as stack:

        def start(**options: Any) -> ScriptedPeer:
            return stack.enter_context(ScriptedPeer(**options))

        yield start


@pytest.fixture
def peer(start_peer: StartPeer) -> ScriptedPeer:
    """A peer that accepts everything."""
    return start_peer()


@pytest.fixture
def hosts() -> Iterator[tuple[Namespace, Namespace]]:
    """Two hosts, 10.9.0.1 and 10.9.0.2, fd00:9::1 and fd00:9::2."""
    with joined_namespaces(HOST_A, HOST_B) as namespaces:
        yield namespaces
