"""Logins that relays refuse."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.static_resolver import StaticResolver
from waypost.delivery.credentials import Credentials, LostLogin
from waypost.errors import TemporaryError
from waypost.http.client import HttpClient
from waypost.mail.address import Domain
from waypost.net.gate import Gate, Origin
from waypost.net.interfaces import OwnAddresses
from waypost.net.networks import NOWHERE
from waypost.observe import Log
from waypost.routing.hops import Relay
from waypost.smtp.auth import Secret

OLD = Relay("held", (Domain("mx.test"),), 587, username="hub", password=Secret("wrong"))
NEW = replace(OLD, password=Secret("right"))
WHY = "The login was refused: 535 5.7.8 no"


@pytest.fixture
def told() -> list[LostLogin | None]:
    return []


@pytest.fixture
def credentials(tmp_path: Path, told: list[LostLogin | None]) -> Iterator[Credentials]:
    own = OwnAddresses(follow_interfaces=False, extra=())
    gate = Gate(trusted=NOWHERE, own=own, listening=frozenset)
    http = HttpClient(gate, StaticResolver(), Origin.OPERATOR)
    quiet = os.open(os.devnull, os.O_WRONLY)
    log = Log(quiet)

    async def tell(relay: Relay, lost: LostLogin | None) -> None:
        told.append(lost)

    yield Credentials(tmp_path, http, [OLD], log=log, on_login=tell)
    log.close()
    os.close(quiet)


def test_a_refused_login_leaves_the_relay_alone(
    credentials: Credentials, told: list[LostLogin | None]
) -> None:
    async def run() -> None:
        assert await credentials.login(OLD) is not None
        await credentials.refused(OLD, WHY)
        with pytest.raises(TemporaryError, match=r"535 5\.7\.8"):
            await credentials.login(OLD)
        await credentials.refused(OLD, WHY)  # of another session that had begun before
        assert len(told) == 1
        credentials.configure([NEW])
        assert await credentials.login(NEW) is not None
        await credentials.taken(NEW)
        assert told[1:] == [None]

    asyncio.run(run())


def test_a_refusal_that_comes_after_the_password_was_mended_is_of_no_account(
    credentials: Credentials, told: list[LostLogin | None]
) -> None:
    """Its session had begun with the old one."""

    async def run() -> None:
        credentials.configure([NEW])
        await credentials.refused(OLD, WHY)
        assert await credentials.login(NEW) is not None
        credentials.configure([])
        await credentials.refused(NEW, WHY)
        assert not told

    asyncio.run(run())
