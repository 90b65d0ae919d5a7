"""When orders are placed, and what is shown meanwhile; the server is a function here."""

from __future__ import annotations

import asyncio
import datetime
import os
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from waypost.acme import renewer as renewer_module
from waypost.acme.renewer import Renewer
from waypost.acme.settings import AcmeSettings
from waypost.errors import TemporaryError, WaypostError
from waypost.net.interfaces import OwnAddresses
from waypost.observe import Log
from waypost.tls.authority import Authority, Subjects
from waypost.tls.keeper import Keeper

SETTINGS = AcmeSettings("https://ca.example/dir", identifiers=("10.0.0.1",))
DAY = 86_400.0


class World:
    """A renewer, its clock, its server and its log."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory / "tls"
        self.start = datetime.datetime.now(datetime.UTC)
        self.now = self.start.timestamp()
        self.orders: list[Subjects] = []
        self.days = 30
        self.failure: Exception | None = None
        self.gate: asyncio.Event | None = None  # None: the server is quick
        self.lines = directory / "log"
        self._descriptor = os.open(self.lines, os.O_WRONLY | os.O_CREAT)
        self.log = Log(self._descriptor)
        self.own = OwnAddresses(follow_interfaces=False, extra=[ip_address("8.8.4.4")])
        self.directory.mkdir()  # as the account key does
        self.keeper = Keeper(self.directory)
        self._authority = directory / "ca"
        monkeypatch.setattr(renewer_module, "_load_obtain", lambda: self.obtain)
        self.renewer = self.make()

    def make(self) -> Renewer:
        return Renewer(
            self.directory,
            keeper=self.keeper,
            own=self.own,
            clients=lambda _: pytest.fail("nobody is asked"),
            log=self.log,
            clock=lambda: self.now,
        )

    async def obtain(self, _: AcmeSettings, wanted: Subjects, *__: Any) -> bytes:
        self.orders.append(wanted)
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        moment = datetime.datetime.fromtimestamp(self.now, datetime.UTC)
        authority = Authority.create(self._authority, wanted, now=moment)
        leaf = authority.issue(wanted, is_rsa=False, now=moment, days=self.days)
        return leaf.key + leaf.certificate

    def close(self) -> None:
        self.log.close()
        os.close(self._descriptor)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    found = World(tmp_path, monkeypatch)
    yield found
    found.close()


def running(world: World, story: Callable[[], Awaitable[None]]) -> None:
    """Play a story while the renewer runs."""

    async def play() -> None:
        task = asyncio.get_running_loop().create_task(world.renewer.run())
        try:
            async with asyncio.timeout(20):
                await story()
        finally:
            if task.done():
                await task
            task.cancel()

    asyncio.run(play())


async def settle(world: World, orders: int) -> None:
    """Until that many orders were placed and are over."""
    async with asyncio.timeout(10):
        while len(world.orders) < orders or world.renewer._is_ordering:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert len(world.orders) == orders, world.renewer._tries


def test_ordered_at_once_and_again_when_due(world: World) -> None:
    async def story() -> None:
        await world.renewer.configure(SETTINGS, None)
        await settle(world, 1)
        for days, orders in ((10, 1), (21, 2), (22, 2)):
            world.now = world.start.timestamp() + days * DAY
            world.renewer.look_again()
            await settle(world, orders)

    running(world, story)


def test_what_comes_to_be_ours_is_certified_and_what_goes_needs_no_order(world: World) -> None:
    async def story() -> None:
        both = AcmeSettings(SETTINGS.directory)
        await world.renewer.configure(both, None)
        await settle(world, 1)
        world.own.reconfigure(
            follow_interfaces=False, extra=map(ip_address, ("8.8.4.4", "2a00::1", "10.0.0.1"))
        )
        world.renewer.look_again()
        await settle(world, 2)
        assert world.orders[-1].ips == {ip_address("8.8.4.4"), ip_address("2a00::1")}
        world.own.reconfigure(follow_interfaces=False, extra=[ip_address("2a00::1")])
        world.renewer.look_again()
        await settle(world, 2)

    running(world, story)


def test_another_server_is_asked_at_once(world: World) -> None:
    async def story() -> None:
        await world.renewer.configure(SETTINGS, None)
        await settle(world, 1)
        await world.renewer.configure(
            AcmeSettings("https://other.example/dir", identifiers=("10.0.0.1",)), None
        )
        await settle(world, 2)

    running(world, story)


def test_failures_wait_also_over_a_restart_and_a_mended_configuration_does_not(
    world: World,
) -> None:
    async def story() -> None:
        world.failure = TemporaryError("no")
        await world.renewer.configure(SETTINGS, None)
        await settle(world, 1)
        world.renewer.look_again()
        await settle(world, 1)
        assert world.renewer.standing()["problem"] == "no"
        world.now += 601
        world.renewer.look_again()
        await settle(world, 2)

    running(world, story)
    world.renewer = world.make()

    async def next_story() -> None:
        world.failure = None
        await world.renewer.configure(SETTINGS, None)
        await settle(world, 2)
        assert world.renewer.standing()["problem"] == "no"
        mended = AcmeSettings(SETTINGS.directory, identifiers=("10.0.0.1",), profile="x")
        await world.renewer.configure(mended, None)
        await settle(world, 3)
        assert world.renewer.standing()["problem"] is None

    running(world, next_story)


def test_asked_for_while_an_order_is_under_way_it_is_the_same(world: World) -> None:
    async def story() -> None:
        world.gate = asyncio.Event()
        await world.renewer.configure(SETTINGS, None)
        while not world.orders:
            await asyncio.sleep(0.01)
        assert await world.renewer.renew_now(0.05) is False
        asking = asyncio.create_task(world.renewer.renew_now(10))
        await asyncio.sleep(0.05)
        world.gate.set()
        assert await asking is True
        assert len(world.orders) == 1
        assert await world.renewer.renew_now(10) is True
        assert len(world.orders) == 2

    running(world, story)


def test_settings_that_go_while_an_order_is_under_way(world: World) -> None:
    """What comes of it is not shown."""

    async def story() -> None:
        world.gate = asyncio.Event()
        await world.renewer.configure(SETTINGS, None)
        while not world.orders:
            await asyncio.sleep(0.01)
        await world.renewer.configure(None, None)
        world.gate.set()
        await settle(world, 1)
        assert world.keeper._public is None
        with pytest.raises(WaypostError, match=r"no \[acme\]"):
            world.renewer.standing()

    running(world, story)


def test_a_clock_that_is_wrong_does_not_order_without_end(world: World) -> None:
    async def story() -> None:
        await world.renewer.configure(SETTINGS, None)
        await settle(world, 1)
        real, world.now = world.now, world.now + 300 * DAY
        obtain = world.obtain

        async def behind(*arguments: Any) -> bytes:
            ahead, world.now = world.now, real
            try:
                return await obtain(*arguments)
            finally:
                world.now = ahead

        world.obtain = behind  # type: ignore[method-assign]
        world.renewer.look_again()
        await settle(world, 2)
        assert "clock" in world.renewer.standing()["problem"]
        assert world.keeper._public is None  # what there is has run out, by this clock

    running(world, story)


def test_settings_that_are_mended_while_an_order_fails(world: World) -> None:
    """Its failure is not held against them."""

    async def story() -> None:
        world.gate, world.failure = asyncio.Event(), TemporaryError("no")
        await world.renewer.configure(SETTINGS, None)
        while not world.orders:
            await asyncio.sleep(0.01)
        mended = AcmeSettings(SETTINGS.directory, identifiers=("10.0.0.2",))
        await world.renewer.configure(mended, None)
        world.gate.set()
        await settle(world, 2)

    running(world, story)
    assert world.orders[1].ips == {ip_address("10.0.0.2")}


def test_a_failure_of_a_time_to_come_is_forgotten(world: World) -> None:
    async def story() -> None:
        world.failure = TemporaryError("no")
        await world.renewer.configure(SETTINGS, None)
        await settle(world, 1)
        world.now -= 400 * DAY
        world.renewer.look_again()
        await settle(world, 2)

    running(world, story)


def test_nothing_to_certify_is_said_once(world: World) -> None:
    async def story() -> None:
        world.own.reconfigure(follow_interfaces=False, extra=[])
        await world.renewer.configure(AcmeSettings(SETTINGS.directory), "hub.lan")
        for _ in range(3):
            world.renewer.look_again()
            await asyncio.sleep(0.05)
        assert await world.renewer.renew_now(5) is True
        assert not world.orders

    running(world, story)
    world.log.close()
    assert world.lines.read_text().count("no public address") == 1
