"""What every integration test may ask for: programs, hubs, peers, hosts of their own.

Everything listens on free loopback ports or inside network namespaces, and ends with its test.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.support.hub import Hub
from tests.support.netns import Namespace, joined_namespaces
from tests.support.ports import reserved_port
from tests.support.postfix import install
from tests.support.scripted_peer import ScriptedPeer
from tests.support.toml import retry, route

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


@pytest.fixture(scope="module")
def shared_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """As `hub`, one for all tests of a module: each needs mailboxes of its own."""
    with Hub(tmp_path_factory.mktemp("shared") / "hub") as running:
        yield running


@pytest.fixture(scope="module")
def relay_port() -> Iterator[int]:
    """Where `relay` sends mail for far.example; nobody listens there unless a test does."""
    with reserved_port() as port:
        yield port


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory, relay_port: int) -> Iterator[Hub]:
    """A hub for all tests of a module with a next host that each test starts, at `relay_port`."""
    far = route(f"smtp:[127.0.0.1]:{relay_port}", match='recipient = "*@far.example"')
    with Hub(tmp_path_factory.mktemp("relay") / "hub", retry(0.3, max_s=0.3) + far) as running:
        yield running


@pytest.fixture
def next_host(start_peer: StartPeer, relay_port: int) -> ScriptedPeer:
    """The next host of `relay`, which accepts everything."""
    return start_peer(port=relay_port)


@pytest.fixture
def sender(request: pytest.FixtureRequest) -> str:
    """A sender nobody else is: reports to it lie in the mailbox `ann-…` of its local part."""
    return f"ann-{zlib.crc32(request.node.name.encode()):08x}@[127.0.0.1]"


def mailbox_of(address: str) -> str:
    """The mailbox of such a sender."""
    return address.partition("@")[0]


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
