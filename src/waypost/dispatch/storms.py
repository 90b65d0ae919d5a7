"""What goes to programs and people at once, what waits for a digest, what they have had already.

Asked before recipients are handed to transports. What is held back waits in the store as deferred
mail does, with a reason that says so, and so outlives the hub; windows are counted in memory, and
those in which mail is held back are found again in the store at a start. Mailboxes are not asked
about: they get everything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import NamedTuple

from waypost.delivery.events import EventReader
from waypost.devices.device import Device
from waypost.devices.expected import judged
from waypost.devices.names import DeviceName, DeviceNames
from waypost.devices.registry import Registry
from waypost.dispatch.windows import Window, WindowKey, Windows
from waypost.mail.envelope import (
    STORM,
    Arrival,
    Notify,
    Outcome,
    OutcomeKind,
    QueuedRecipient,
)
from waypost.mail.message import QueuedMessage
from waypost.mail.reply import Reply
from waypost.mail.standing import is_duplicate, standing_of
from waypost.net.networks import client_key
from waypost.observe import Log
from waypost.queue.history import HeldBack
from waypost.queue.store import Result
from waypost.routing.storms import HELD_KINDS, TOLD_KINDS, StormSettings, Then
from waypost.routing.table import Rule

# Mails that are read at once for what they say; each may hold a file open.
MAX_READING = 8

_HUSHED_KIND = "notify"


class Why(StrEnum):
    """Why mail was held back: how its last reply begins (RFC 3463: the system takes no more)."""

    STORM = "451 4.3.2 Held back by storm control"
    HUSH = "451 4.3.2 Held back for the hush"


def why_held(recipient: QueuedRecipient) -> Why | None:
    """Why a recipient was held back last; None: it was not.

    What was held back has never been tried: no host's reply can be taken for ours.
    """
    reply = recipient.last_reply
    if reply is None or recipient.attempts:
        return None
    return next((why for why in Why if reply.startswith(why)), None)


class Sifted(NamedTuple):
    """The recipients of a message, by what becomes of them."""

    passed: list[QueuedRecipient]
    results: list[Result]  # of those held back, or suppressed
    due: list[QueuedRecipient]  # were held back, and their time has come


class Storms:
    """See the module text."""

    def __init__(
        self,
        rules: Iterable[Rule],
        *,
        names: Callable[[], DeviceNames],
        devices: Registry,
        events: EventReader,
        log: Log,
    ) -> None:
        """`names` gives what devices are called now."""
        self._names = names
        self._devices = devices
        self._events = events
        self._log = log
        self._windows = Windows()
        self._reading = asyncio.Semaphore(MAX_READING)
        self.configure(rules)

    def configure(self, rules: Iterable[Rule]) -> None:
        """From now on these; windows that have begun go on under the new caps."""
        self._settings = {rule.name: rule.storm for rule in rules if rule.storm is not None}

    def settings_of(self, route: str) -> StormSettings | None:
        """What a route does; None: it has no storm control (any more)."""
        return self._settings.get(route)

    def device_of(self, arrival: Arrival) -> DeviceName:
        """Who sent a mail that came in so, for people."""
        return self._names().device_of(arrival)

    def source_of(self, arrival: Arrival) -> str:
        """What a sender counts as: no stranger may use up what others have."""
        if arrival.trusted or arrival.client_ip is None:
            return self.device_of(arrival).source
        return client_key(arrival.client_ip)

    def resume(self, held: Iterable[HeldBack]) -> None:
        """Go on with what was held back when the hub ended."""
        now = time.time()
        for one in held:
            settings = self._settings.get(one.route)
            if settings is None or one.until <= now:
                continue
            key = WindowKey(self.source_of(one.arrival), one.route)
            window = self._windows.resume(key, settings, one.until, one.messages)
            self._begun(one.arrival, key, window)

    def concerns(self, message: QueuedMessage) -> bool:
        """False for most mail: it goes, and need not be sifted."""
        if message.arrival.is_report or message.arrival.listener == STORM:
            return False  # the hub's own
        if is_duplicate(message.prepend):
            return True
        device = self._known(message.arrival)
        is_hushed = device is not None and device.settings.hush is not None
        for recipient in message.recipients:
            if recipient.rule in self._settings or why_held(recipient) is not None:
                return True
            if is_hushed and _kind(recipient) == _HUSHED_KIND:
                return True
        return False

    def depends_on_words(self, message: QueuedMessage, now: float) -> bool:
        """True when what the mail says decides whether it goes: failure is not held back."""
        device = self._known(message.arrival)
        if device is None or not device.settings.judges_mail:
            return False
        if self._hush_ends_at(device, now) is not None and any(
            _is_new(recipient) and _kind(recipient) == _HUSHED_KIND
            for recipient in message.recipients
        ):
            return True
        source = self.source_of(message.arrival)
        for recipient in message.recipients:
            settings = self._settings_for(recipient)
            key = WindowKey(source, recipient.rule)
            if (
                settings is not None
                and self._windows.is_full(key, settings, now)
                and self._windows.has_room_for_failure(key, settings)
            ):
                return True
        return False

    async def says_failure(self, message: QueuedMessage) -> bool:
        """Whether a mail says failure by the words of its device; one that cannot be read might.

        Raises TemporaryError when the content cannot be opened.
        """
        async with self._reading:
            mail = await self._events.read_mail(message)
        device = self._known(message.arrival)
        if device is None or mail.fault is not None:
            return True
        return judged(device.settings, mail.subject, mail.text).is_failure

    def sift(self, message: QueuedMessage, now: float, *, is_failure: bool) -> Sifted:
        """Count the mail, and say what becomes of each recipient."""
        sifted = Sifted([], [], [])
        device = self._known(message.arrival)
        original = standing_of(message.prepend).duplicate_of
        hush_ends_at = None if device is None or is_failure else self._hush_ends_at(device, now)
        windows: dict[str, Window | None] = {}
        is_held_back = False
        for recipient in message.recipients:
            kind, why = _kind(recipient), why_held(recipient)
            if not _is_new(recipient) and why is None:
                sifted.passed.append(recipient)
            elif original is not None and kind in TOLD_KINDS:
                sifted.results.append(suppressed(recipient, f"Duplicate of {original}"))
            elif kind == _HUSHED_KIND and hush_ends_at is not None and why is not Why.HUSH:
                is_held_back = is_held_back or why is None
                text = f"Held back for the hush until {_clock_text(hush_ends_at)}"
                sifted.results.append(_held(recipient, text, hush_ends_at))
            elif why is not None:
                sifted.due.append(recipient)
            else:
                settings = self._settings_for(recipient)
                if settings is None:
                    sifted.passed.append(recipient)
                    continue
                if recipient.rule not in windows:
                    windows[recipient.rule] = self._take(
                        message.arrival, recipient.rule, settings, now, is_failure=is_failure
                    )
                window = windows[recipient.rule]
                if window is None:
                    sifted.passed.append(recipient)
                else:
                    is_held_back = True
                    sifted.results.append(_result(recipient, settings, window))
        if is_held_back and device is not None:
            device.held_back += 1
            self._devices.note(device)
        return sifted

    def _take(
        self,
        arrival: Arrival,
        route: str,
        settings: StormSettings,
        now: float,
        *,
        is_failure: bool,
    ) -> Window | None:
        key = WindowKey(self.source_of(arrival), route)
        window = self._windows.take(key, settings, now, is_failure=is_failure)
        if window is not None and window.held == 1:
            self._begun(arrival, key, window)
        return window

    def _begun(self, arrival: Arrival, key: WindowKey, window: Window) -> None:
        left_s = max(window.until - time.time(), 0.0)
        self._log.event(
            "storm-begins",
            device=self.device_of(arrival).slug,
            client=arrival.client_ip,
            route=key.route,
            seconds=round(left_s, 1),
        )
        loop = asyncio.get_running_loop()
        loop.call_later(left_s, self._ended, arrival, key, window)

    def _ended(self, arrival: Arrival, key: WindowKey, window: Window) -> None:
        self._log.event(
            "storm-ends",
            device=self.device_of(arrival).slug,
            client=arrival.client_ip,
            route=key.route,
            mails=window.held,
        )

    def _settings_for(self, recipient: QueuedRecipient) -> StormSettings | None:
        """What its route does with a new recipient; None: nothing."""
        notify = recipient.recipient.notify
        if not _is_new(recipient) or _kind(recipient) not in HELD_KINDS:
            return None
        if notify is not None and Notify.SUCCESS in notify:
            return None  # who asks to hear that it was delivered would be told of a digest
        return self._settings.get(recipient.rule)

    def _known(self, arrival: Arrival) -> Device | None:
        return None if arrival.client_ip is None else self._devices.at(arrival.client_ip)

    def _hush_ends_at(self, device: Device, now: float) -> float | None:
        hush = device.settings.hush
        lasted_s = None if hush is None else hush.lasted_s(now)
        if hush is None or lasted_s is None:
            return None
        return now + hush.lasts_s - lasted_s


def suppressed(recipient: QueuedRecipient, text: str) -> Result:
    """Finished without having been sent: another mail stands for it."""
    outcome = Outcome(OutcomeKind.SUPPRESSED, Reply(250, text, (0, 0)))
    return Result(recipient, outcome, is_attempt=False)


def held_again(recipient: QueuedRecipient, until: float) -> Result:
    """Held back for the reason that it was."""
    _, _, text = (recipient.last_reply or "").split(" ", 2)
    return _held(recipient, text, until)


def _result(recipient: QueuedRecipient, settings: StormSettings, window: Window) -> Result:
    control = f"by storm control of route {recipient.rule}"
    if settings.then is Then.DROP:
        return suppressed(recipient, f"Suppressed {control}")
    until = _clock_text(window.until)
    text = f"Held back {control} until {until}, {window.held} of them so far"
    return _held(recipient, text, window.until)


def _held(recipient: QueuedRecipient, text: str, until: float) -> Result:
    outcome = Outcome(OutcomeKind.DEFERRED, Reply(451, text, (3, 2)))
    return Result(recipient, outcome, until, is_attempt=False)


def _kind(recipient: QueuedRecipient) -> str:
    return recipient.target.partition(":")[0]


def _is_new(recipient: QueuedRecipient) -> bool:
    return recipient.last_reply is None and not recipient.attempts


def _clock_text(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
