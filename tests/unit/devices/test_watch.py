"""Alarms about devices: one for each change, and none for what is no change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.devices.test_registry import CAMERA, message, take
from waypost.devices import watch as watching
from waypost.devices.registry import Registry
from waypost.devices.watch import Watch, span_text
from waypost.observe import Log
from waypost.reading.process import MailReader
from waypost.routing.targets import Target


class Scene:
    """A registry, a watch, a clock that only the test moves, and the alarms raised."""

    def __init__(self, path: Path, log: Log) -> None:
        self.path = path
        self.log = log
        self.now = 1_000.0
        self.told: list[tuple[Target | None, str, str]] = []
        self.start()

    def start(self) -> None:
        """As a hub does, again after a stop."""
        self.registry = Registry(self.path, self.log)
        self.registry.load()
        self.reader = MailReader()
        self.watch = Watch(
            *(self.registry, self.tell, self.reader, self.log),
            clock=lambda: self.now,
            pause_s=600.0,
        )
        for device in self.registry.all():
            device.waited_from = self.now

    async def tell(self, target: Target | None, subject: str, text: str) -> None:
        self.told.append((target, subject, text))

    def subjects(self) -> list[str]:
        """Those raised since it was asked last."""
        told, self.told = self.told, []
        return [subject for _, subject, _ in told]

    def set(self, **wanted: Any) -> None:
        device = self.registry.change("192.0.2.7", wanted)
        if "expect_s" in wanted:
            device.waited_from = self.now

    def mail(self, content: bytes = b"Subject: x\r\n\r\nfine\r\n") -> None:
        take(self.registry, message(content=content))
        self.registry.find("192.0.2.7").waited_from = self.now

    async def after(self, seconds: float) -> list[str]:
        """What was raised once so much time has gone."""
        self.now += seconds
        await self.watch.look()
        return self.subjects()

    async def judged(self) -> list[str]:
        """What was raised about mail that has come."""
        while self.watch._mails.qsize():
            await self.watch._judge(self.watch._mails.get_nowait())
        return self.subjects()


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Callable[[Scene], Awaitable[None]]], str]:
    def run(part: Callable[[Scene], Awaitable[None]]) -> str:
        log_file = tmp_path / "log"

        async def main() -> None:
            with log_file.open("ab") as out:
                log = Log(out.fileno())
                scene = Scene(tmp_path / "devices.db", log)
                try:
                    await part(scene)
                finally:
                    await scene.watch.close(10.0)
                    await scene.reader.close()
                    log.close()

        asyncio.run(main())
        return log_file.read_text()

    return run


Play = Callable[[Callable[[Scene], Awaitable[None]]], str]


def test_one_alarm_for_silence_and_one_when_it_is_back(play: Play) -> None:
    async def part(scene: Scene) -> None:
        scene.registry.meet(CAMERA)
        scene.set(name="front-door", expect_s=60, alarm="mailbox:ops")
        assert await scene.after(59) == []
        assert await scene.after(1) == ["front-door has never sent mail"]
        assert await scene.after(1_000) == []
        scene.mail()
        assert await scene.after(1) == ["front-door is back"]
        assert await scene.after(58) == []
        assert (await scene.after(1))[0].startswith("front-door has been silent since 1970-01-01")
        scene.registry.meet(CAMERA)  # a session alone is no mail
        assert await scene.after(1_000) == []
        scene.set(expect_s=None)
        scene.mail()
        assert await scene.after(1_000) == []

    play(part)


def test_the_alarm_goes_where_it_was_to_go(play: Play) -> None:
    async def part(scene: Scene) -> None:
        scene.registry.meet(CAMERA)
        scene.set(expect_s=60, alarm="mailbox:ops", kind="camera")
        scene.now += 60
        await scene.watch.look()
        scene.set(expect_s=61, alarm=None)
        scene.now += 61
        await scene.watch.look()
        assert [target for target, _, _ in scene.told] == [Target("mailbox", "ops"), None]
        assert "192.0.2.7 (camera)" in scene.told[0][2]
        assert "every 1m" in scene.told[0][2]

    play(part)


def test_a_restart_tells_nothing_again_and_begins_to_count_anew(play: Play) -> None:
    async def part(scene: Scene) -> None:
        scene.registry.meet(CAMERA)
        scene.set(expect_s=60)
        scene.registry.change("192.0.2.8", {"name": "other", "expect_s": 60}).waited_from = 1_050.0
        assert await scene.after(60) == ["192.0.2.7 has never sent mail"]
        await scene.watch.close(1.0)
        await scene.reader.close()
        await scene.registry.close()
        scene.now += 100_000  # the hub was down for long
        scene.start()
        assert await scene.after(59) == []
        assert await scene.after(1) == ["other has never sent mail"]
        scene.mail()
        assert await scene.after(1) == ["192.0.2.7 is back"]

    play(part)


def test_quiet_hours_hold_it_back(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        watching, "silence_is_due_at", lambda since, expect_s, quiet: since + expect_s + 500
    )

    async def part(scene: Scene) -> None:
        scene.registry.meet(CAMERA)
        scene.set(expect_s=60, quiet="22:00-06:00")
        assert await scene.after(300) == []
        assert await scene.after(260) == ["192.0.2.7 has never sent mail"]

    play(part)


def mail(subject: str, text: str = "") -> bytes:
    return f"Subject: {subject}\r\n\r\n{text}\r\n".encode()


def test_words_of_failure(play: Play) -> None:
    async def part(scene: Scene) -> None:
        scene.registry.meet(CAMERA)
        scene.set(name="nas", failure=["failed"], success=["done"])
        scene.mail(mail("all done"))
        assert await scene.judged() == []
        scene.mail(mail("Backup", "1 done, 2 failed"))
        assert await scene.judged() == ["nas says failure"]
        # More of it is not told at once, and not lost.
        scene.mail(mail("Backup", "failed"))
        scene.mail(mail("who knows"))
        assert await scene.judged() == []
        assert await scene.after(599) == []
        assert await scene.after(1) == ["nas says failure, 2 times"]
        assert scene.registry.find("nas").is_failing
        assert await scene.after(600) == []
        scene.mail(mail("done"))
        assert await scene.judged() == ["nas is well again"]
        assert not scene.registry.find("nas").is_failing
        scene.mail(mail("done"))
        assert await scene.judged() == []
        assert await scene.after(10_000) == []
        assert scene.watch._reports == {}

    log = play(part)
    assert log.count("says=failure") == 3
    assert "none of the words that mean success" in log


def test_a_failing_device_is_known_after_a_restart(play: Play) -> None:
    async def part(scene: Scene) -> None:
        scene.registry.meet(CAMERA)
        scene.set(name="nas", failure=["failed"])
        scene.mail(mail("failed"))
        assert await scene.judged() == ["nas says failure"]
        await scene.watch.close(1.0)
        await scene.reader.close()
        await scene.registry.close()
        scene.start()
        scene.mail(mail("fine"))
        assert await scene.judged() == ["nas is well again"]

    play(part)


def test_what_waits_is_judged_at_the_end(play: Play) -> None:
    async def part(scene: Scene) -> None:
        scene.registry.meet(CAMERA)
        scene.set(name="nas", failure=["failed"])
        scene.mail(mail("failed"))
        scene.mail(mail("=?utf-8?q?f=61iled?= again", "\x01"))
        await scene.watch.close(30.0)
        await scene.reader.close()
        assert scene.subjects() == ["nas says failure", "nas says failure"]
        scene.start()

    play(part)


def test_a_flood_is_not_kept_in_memory(play: Play) -> None:
    async def part(scene: Scene) -> None:
        scene.registry.meet(CAMERA)
        scene.set(failure=["failed"])
        for _ in range(watching.MAX_WAITING + 5):
            scene.mail()
        assert scene.watch._mails.qsize() == watching.MAX_WAITING
        while scene.watch._mails.qsize():
            scene.watch._mails.get_nowait()

    assert play(part).count("device-unread") == 5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(90, "90s"), (1.5, "1.5s"), (900, "15m"), (86_400, "24h"), (604_800, "7d"), (5_400, "90m")],
)
def test_spans_are_said_as_they_are_written(seconds: float, text: str) -> None:
    assert span_text(seconds) == text
