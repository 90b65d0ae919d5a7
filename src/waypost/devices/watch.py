"""Alarms about devices: silent for too long and back, or mail that says failure and well again.

Silence is counted on a clock that nobody sets, and from the hub's start at the earliest: neither
a jump of the time of day nor a hub that was down makes a device silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from shlex import quote
from typing import BinaryIO

from waypost.devices.device import MAX_TEXT, Device
from waypost.devices.expected import Judgement, judged, silence_is_due_at
from waypost.devices.registry import Registry, subject_of
from waypost.mail.message import QueuedMessage
from waypost.observe import Log
from waypost.reading.process import MailReader
from waypost.routing.targets import Target
from waypost.tls.kept import KeptUnavailable

LOOK_S = 1.0
# One alarm about what a device's mail says in so long; what comes meanwhile is counted.
PAUSE_S = 600.0
# Mail that waits to be read; beyond it what mail says is not looked at.
MAX_WAITING = 64

Tell = Callable[[Target | None, str, str], Awaitable[None]]


@dataclass(slots=True)
class _Report:
    """What a device's mail has said since the operator heard of it."""

    device: Device
    told_at: float | None = None  # monotonic; None: never
    failures: int = 0
    last: str = ""  # of the last mail: its subject, and why it means what it means
    is_told_failing: bool = False  # what the operator believes


@dataclass(slots=True)
class _Mail:
    """A message to be read."""

    device: Device
    queue_id: str
    content: bytes | BinaryIO
    head: bytes


class Watch:
    """See the module text."""

    def __init__(
        self,
        registry: Registry,
        tell: Tell,
        reader: MailReader,
        log: Log,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause_s: float = PAUSE_S,
        on_silence: Callable[[], None] = lambda: None,
    ) -> None:
        """`tell` puts an alarm into the queue; `reader` is closed by whoever made it; `on_silence`
        is called when others are silent than before.
        """
        self._on_silence = on_silence
        self._registry = registry
        self._tell = tell
        self._log = log
        self._clock = clock
        self._pause_s = pause_s
        self._reader = reader
        self._mails: asyncio.Queue[_Mail] = asyncio.Queue()
        self._back: list[Device] = []
        self._reports: dict[Device, _Report] = {}
        self._judging: asyncio.Future[None] | None = None  # None: nothing was judged yet
        registry.on_mail = self.heard

    def heard(self, device: Device, message: QueuedMessage, head: bytes) -> None:
        """Mail of a device that was silent, or whose words mean something, is ours."""
        if device.is_silent:
            device.is_silent = False
            self._back.append(device)
            self._on_silence()
        if not device.settings.judges_mail:
            return
        if self._mails.qsize() >= MAX_WAITING:
            self._log.event("device-unread", id=message.queue_id, client=device.ip)
            return
        content: bytes | BinaryIO | None = message.content.inline
        if content is None:
            # One open of a file that was just made: once the mail is delivered it may be gone.
            try:
                content = message.content.open()
            except OSError as error:
                self._log.event(
                    "device-unread", id=message.queue_id, client=device.ip, why=error.strerror
                )
                return
        self._mails.put_nowait(_Mail(device, message.queue_id, content, head))

    async def keep_time(self) -> None:
        """Until cancelled: see who is silent, or back, and tell what had to wait."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Raise the alarms that are due."""
        while self._back:
            await self._say_back(self._back.pop(0))
        now = self._clock()
        for device in [entry for entry in self._registry.all() if self._is_too_silent(entry, now)]:
            device.is_silent = True
            self._on_silence()
            await self._say_silent(device)
        for report in list(self._reports.values()):
            await self._say_report(report)

    async def read_mail(self) -> None:
        """Until cancelled: judge mail by its words, in the order it came."""
        while True:
            mail = await self._mails.get()
            # The hub's end is no end of what is being judged.
            self._judging = asyncio.ensure_future(self._judge(mail))
            await asyncio.shield(self._judging)

    async def close(self, limit_s: float) -> None:
        """Judge what waits, as far as time allows, and end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                if self._judging is not None and not self._judging.done():
                    await self._judging
                while not self._mails.empty():
                    await self._judge(self._mails.get_nowait())
                for report in list(self._reports.values()):
                    await self._say_report(report, waits=False)
                while self._back:
                    await self._say_back(self._back.pop(0))

    # Silence.

    def _is_too_silent(self, device: Device, now: float) -> bool:
        expect_s = device.settings.expect_s
        silent_s = now - device.waited_from
        if expect_s is None or device.is_silent or silent_s < expect_s:
            return False
        # Only the hours of quiet need the time of day.
        wall = time.time()
        return silence_is_due_at(wall - silent_s, expect_s, device.settings.quiet) <= wall

    async def _say_silent(self, device: Device) -> None:
        settings = device.settings
        assert settings.expect_s is not None  # else nobody waits for it
        if device.mail_at is None:
            subject = f"{device.label} has never sent mail"
        else:
            subject = f"{device.label} has been silent since {_time_text(device.mail_at)}"
        await self._raise(
            device,
            subject,
            f"{_described(device)} is expected to send mail every {span_text(settings.expect_s)}"
            " and has not.\n\nThis is said once; there will be word when it is back. What it did"
            f" last: waypost device show {quote(device.label)} --dialogue",
        )

    async def _say_back(self, device: Device) -> None:
        await self._raise(
            device, f"{device.label} is back", f"{_described(device)} has sent mail again."
        )

    # Words.

    async def _judge(self, mail: _Mail) -> None:
        device, content = mail.device, mail.content
        try:
            read = await self._reader.read(content)
        finally:
            if not isinstance(content, bytes):
                content.close()
        # A mail that nobody can read has a subject all the same.
        subject = read.subject or await asyncio.to_thread(subject_of, mail.head)
        if not device.settings.judges_mail:
            return  # the operator has changed his mind
        judgement = judged(device.settings, subject, read.text)
        fault = read.fault or ("only its beginning was read" if read.text_truncated else None)
        self._log.event(
            "device-mail",
            id=mail.queue_id,
            client=device.ip,
            says="failure" if judgement.is_failure else "success",
            why=judgement.why if fault is None else f"{judgement.why}; {fault}",
        )
        await self._note(device, subject, judgement, fault)

    async def _note(
        self, device: Device, subject: str, judgement: Judgement, fault: str | None
    ) -> None:
        report = self._reports.get(device)
        if report is None:
            if not judgement.is_failure and not device.is_failing:
                return
            report = self._reports[device] = _Report(device, is_told_failing=device.is_failing)
        device.is_failing = judgement.is_failure
        self._registry.note(device)
        report.failures += judgement.is_failure
        shown = "".join(sign if sign.isprintable() else " " for sign in subject[:MAX_TEXT])
        report.last = f"Subject: {shown or '(none)'}\nWhy: {judgement.why}"
        if fault is not None:
            report.last += f"\nNot all of it could be read: {fault}"
        await self._say_report(report)

    async def _say_report(self, report: _Report, *, waits: bool = True) -> None:
        """Tell what is new, unless the operator has just been told something."""
        device, failures = report.device, report.failures
        is_news = failures or report.is_told_failing != device.is_failing
        is_early = report.told_at is not None and self._clock() - report.told_at < self._pause_s
        if not is_news:
            if not is_early and not device.is_failing:
                self._reports.pop(device, None)
            return
        if waits and is_early:
            return
        report.told_at, report.failures = self._clock(), 0
        report.is_told_failing = device.is_failing
        if not failures:
            subject = f"{device.label} is well again"
            text = "has sent mail that says so."
        elif failures == 1:
            subject, text = f"{device.label} says failure", "has sent mail that says failure."
        else:
            subject = f"{device.label} says failure, {failures} times"
            text = f"has sent {failures} mails that say failure."
        if failures and not device.is_failing:
            text += " The last one says that all is well again."
        await self._raise(device, subject, f"{_described(device)} {text}\n\n{report.last}")

    async def _raise(self, device: Device, subject: str, text: str) -> None:
        self._registry.note(device)
        await self._tell(device.settings.alarm, subject, text)
        # A restart must not tell it again.
        with contextlib.suppress(KeptUnavailable):  # registry.keep() tries again, and says so
            await self._registry.write()


def _described(device: Device) -> str:
    words = [f"The device {device.label}"]
    if device.name is not None:
        words.append(f"at {device.ip}")
    if device.kind is not None:
        words.append(f"({device.kind})")
    return " ".join(words)


def _time_text(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def span_text(seconds: float) -> str:
    """A span as the operator writes it: 90s, 15m, 24h, 7d."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        # A day is more often meant as 24h.
        if seconds % size == 0 and seconds >= size * (2 if unit == "d" else 1):
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"
