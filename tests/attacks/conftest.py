"""One world and one hub for all attacks: what one attack leaves behind the next one meets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from tests.attacks.world import CONFIG, HUB_PORT, LISTENER, OWN, World, the_world
from tests.support.hub import Hub
from tests.support.postfix import install

_EVENT = re.compile(r"\d{4}-\d\d-\d\dT\S+Z [a-z-]+(?: [a-z_]+=(?:[!#-~]+|\"(?:[ !#-~]|\\\")*\"))*$")

Say = Callable[[int, str], None]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Says how many cases were tried."""

    def tell(count: int, what: str) -> None:
        with capsys.disabled():
            print(f"\n{count} cases, {what}: 0 forbidden connects", end="")

    return tell


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """See World."""
    install("iproute2")
    with the_world() as running:
        yield running


@pytest.fixture(scope="session")
def hub(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub that takes mail for its mailboxes from anybody; mail to `broken` fails later."""
    hub = Hub(
        tmp_path_factory.mktemp("attacked"),
        CONFIG,
        listener=LISTENER,
        host=OWN[0],
        port=HUB_PORT,
        namespace=world.namespace.name,
    )
    with hub:
        yield hub
        log = hub.log_text()
    # Whatever was done to it: no fault of ours, and nothing in its log but lines of the log.
    assert " bug " not in log, log[-4000:]
    assert all(_EVENT.match(line) for line in log.splitlines()), log[-4000:]
