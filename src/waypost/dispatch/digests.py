"""One mail for many that were held back: gathered as they come from the store, settled at once.

The digest enters the queue in the transaction that finishes what it stands for, so a crash loses
neither; from then on it is mail like any other, tried again until it has arrived.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from waypost.devices.registry import subject_of
from waypost.dispatch.storms import Storms, Why, held_again, suppressed, why_held
from waypost.errors import TemporaryError
from waypost.mail.address import Address
from waypost.mail.digest import digest_content
from waypost.mail.envelope import STORM, Body, Envelope, Notify, QueuedRecipient, QueueId, Recipient
from waypost.mail.message import Content, QueuedMessage, date_field_value
from waypost.mail.standing import MAX_NAMED, Suppressed, more_fields
from waypost.observe import Log
from waypost.queue.spool import InlineContent
from waypost.queue.store import QueueStore, Settlement
from waypost.routing.storms import StormSettings, Then

# Mail that is held back together comes from the store in several pieces, none later than this
# after the one before it.
GATHER_S = 1.0
# A digest stands for so many mails at most, and so many are gathered at once, with so many octets;
# beyond that they go as they are.
MAX_IN_ONE = 1_000
MAX_GATHERED = 5_000
MAX_OCTETS = 33_554_432
# After trouble with the store, and after a fault of our own.
AGAIN_S = 1.0
AFTER_A_BUG_S = 60.0

# The subject is nearly always in here.
_HEAD_BYTES = 2_048
# What takes one event of a mail, whoever its recipients are.
_FOR_ALL = "mqtt"


_T = TypeVar("_T")
_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60))


class _Key(NamedTuple):
    """What one digest is for."""

    why: Why
    source: str
    route: str
    target: str
    address: str  # empty: whoever they are


class _Kept(NamedTuple):
    """A mail held back, with no more of its content than its subject is in."""

    message: QueuedMessage
    recipients: list[QueuedRecipient]


@dataclass(slots=True)
class _Gathering:
    """The mails of one digest to be."""

    key: _Key
    last: QueuedMessage  # whole
    mails: dict[QueueId, _Kept] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None  # None: not gathering any more


class Digests:
    """Gathers, and writes digests."""

    def __init__(
        self,
        store: QueueStore,
        storms: Storms,
        *,
        share: Callable[[Content, QueueId], Awaitable[Content]],
        release: Callable[[QueuedMessage, list[QueuedRecipient]], None],
        start: Callable[[Coroutine[Any, Any, None]], None],
        postmaster: Callable[[QueuedMessage], Address],
        log: Log,
    ) -> None:
        """`share` keeps content for a second message; `release` lets a mail go as it is; `start`
        runs work that the hub's end waits for; `postmaster` is whom digests are from.
        """
        self._store = store
        self._storms = storms
        self._share = share
        self._release = release
        self._start = start
        self._postmaster = postmaster
        self._log = log
        self._gatherings: dict[_Key, _Gathering] = {}
        self._count = 0
        self._octets = 0

    def add(self, message: QueuedMessage, recipient: QueuedRecipient) -> None:
        """A recipient that was held back is due."""
        why = why_held(recipient)
        assert why is not None  # or it would not be here
        is_for_all = recipient.target.partition(":")[0] == _FOR_ALL
        key = _Key(
            *(why, self._storms.source_of(message.arrival), recipient.rule, recipient.target),
            "" if is_for_all else str(recipient.recipient.forward_path),
        )
        gathering = self._gatherings.get(key)
        if gathering is None:
            gathering = self._gatherings[key] = _Gathering(key, message)
            self._octets += _octets(message)
        elif message.accepted_at >= gathering.last.accepted_at:
            self._octets += _octets(message) - _octets(gathering.last)
            gathering.last = message
        kept = gathering.mails.get(message.queue_id)
        if kept is None:
            kept = _Kept(_lightened(message, len(gathering.mails)), [])
            gathering.mails[message.queue_id] = kept
            self._count += 1
        kept.recipients.append(recipient)
        if len(gathering.mails) >= MAX_IN_ONE:
            self._finish(gathering)
            return
        if gathering.timer is not None:
            gathering.timer.cancel()
        loop = asyncio.get_running_loop()
        gathering.timer = loop.call_later(GATHER_S, self._finish, gathering)
        if self._count > MAX_GATHERED or self._octets > MAX_OCTETS:
            for one in list(self._gatherings.values()):
                self._finish(one)

    def stop(self) -> None:
        """The hub ends: what is gathered is leased in the store, and due at the next start."""
        for gathering in self._gatherings.values():
            if gathering.timer is not None:
                gathering.timer.cancel()
        self._gatherings.clear()

    def _finish(self, gathering: _Gathering) -> None:
        if gathering.timer is not None:
            gathering.timer.cancel()
        del self._gatherings[gathering.key]
        self._count -= len(gathering.mails)
        self._octets -= _octets(gathering.last)
        if len(gathering.mails) == 1:
            (kept,) = gathering.mails.values()
            self._release(gathering.last, kept.recipients)
        else:
            self._start(self._send_or_wait(gathering))

    async def _send_or_wait(self, gathering: _Gathering) -> None:
        """What stops a digest that nobody foresaw must not keep its mail from being seen again."""
        try:
            await self._send(gathering)
        except Exception as error:
            self._log.event("bug", id=gathering.last.queue_id, task="digest", why=repr(error))
            now = time.time()
            settlements = [
                Settlement(
                    kept.message,
                    [held_again(one, now + AFTER_A_BUG_S) for one in kept.recipients],
                    now,
                )
                for kept in gathering.mails.values()
            ]
            await self._persist(lambda: self._store.settle_together(settlements))

    async def _send(self, gathering: _Gathering) -> None:
        """Until the digest is in the queue, and what it stands for is finished."""
        key, mails = gathering.key, list(gathering.mails.values())
        settings = self._storms.settings_of(key.route)
        is_merged = key.why is Why.STORM and settings is not None and settings.then is Then.MERGE
        named = await asyncio.to_thread(_named, mails)
        if is_merged:
            digest = await self._persist(lambda: self._merged(gathering, named))
        else:
            digest = self._digest(gathering, settings, named)
        text = f"Suppressed: {digest.queue_id} stands for it"
        now = time.time()
        settlements = [
            Settlement(
                kept.message, [suppressed(recipient, text) for recipient in kept.recipients], now
            )
            for kept in mails
        ]
        settlements[-1].reports = [digest]
        # Offered again after trouble, it may have been kept the first time: the same digest.
        await self._persist(lambda: self._store.settle_together(settlements))
        self._log.event(
            "digest",
            id=digest.queue_id,
            device=self._storms.device_of(gathering.last.arrival).slug,
            route=key.route,
            target=key.target,
            mails=len(mails),
        )

    async def _persist(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """What it comes to, once the store is well."""
        while True:
            try:
                return await work()
            except TemporaryError as error:
                self._log.event("digest-waits", why=error)
                await asyncio.sleep(AGAIN_S)

    def _digest(
        self,
        gathering: _Gathering,
        settings: StormSettings | None,
        named: Sequence[Suppressed],
    ) -> QueuedMessage:
        """A mail that lists them."""
        key, count = gathering.key, len(gathering.mails)
        recipient = next(iter(gathering.mails.values())).recipients[0].recipient
        last = gathering.last
        device = self._storms.device_of(last.arrival)
        queue_id, now = self._store.next_id(), time.time()
        who = device.name if device.name == device.source else f"{device.name} ({device.source})"
        if key.why is Why.HUSH:
            subject = f"{count} from {device.name} in its hush"
            text = f"{who} sent {count} mails in its hush."
        else:
            within = "" if settings is None else f" in {span_words(settings.per_s)}"
            subject = f"{count} more from {device.name}{within}"
            text = f"{who} sent {count} mails more{within} than route {key.route} lets through."
        lines = [
            f"{time.strftime('%H:%M:%S', time.localtime(one.received_at))}  {one.subject}"
            for one in named
        ]
        if count > len(named):
            lines.append(f"and {count - len(named)} more")
        content = digest_content(
            queue_id=queue_id,
            sender=self._postmaster(last),
            to=recipient.forward_path,
            date=date_field_value(now),
            subject=subject,
            text="\n".join((text, "", *lines)),
        )
        return QueuedMessage(
            queue_id=queue_id,
            envelope=Envelope(
                reverse_path=last.envelope.reverse_path,
                body=None if content.isascii() else Body.EIGHT_BIT_MIME,
                smtputf8=last.envelope.smtputf8 or not recipient.forward_path.is_ascii,
                requiretls=any(
                    kept.message.envelope.requiretls for kept in gathering.mails.values()
                ),
            ),
            arrival=last.arrival._replace(listener=STORM),
            content=InlineContent(content),
            prepend=more_fields(count, named),
            accepted_at=now,
            is_eight_bit=not content.isascii(),
            reports_allowed=False,
            recipients=_recipients(key, recipient),
        )

    async def _merged(self, gathering: _Gathering, named: Sequence[Suppressed]) -> QueuedMessage:
        """The last of them, which says that it stands for the others. Raises TemporaryError."""
        key, last = gathering.key, gathering.last
        others = [one for one in named if one.queue_id != last.queue_id]
        queue_id = self._store.next_id()
        return last._replace(
            queue_id=queue_id,
            arrival=last.arrival._replace(listener=STORM),
            content=await self._share(last.content, queue_id),
            prepend=more_fields(len(gathering.mails) - 1, others) + last.prepend,
            recipients=_recipients(key, gathering.mails[last.queue_id].recipients[0].recipient),
        )


def _recipients(key: _Key, recipient: Recipient) -> tuple[QueuedRecipient, ...]:
    wanted = Recipient(recipient.forward_path, None, Notify.NEVER)
    return (QueuedRecipient(0, wanted, key.target, f"storm control of {key.route}"),)


def _octets(message: QueuedMessage) -> int:
    """What it takes in memory, mostly."""
    return len(message.content.inline or b"")


def _lightened(message: QueuedMessage, place: int) -> QueuedMessage:
    """With no more content than is needed of the mail at this place."""
    inline = message.content.inline
    if inline is None:
        return message
    head = inline[:_HEAD_BYTES] if place < MAX_NAMED else b""
    return message._replace(content=InlineContent(head))


def _named(mails: Sequence[_Kept]) -> list[Suppressed]:
    """The first of them; blocks."""
    named: list[Suppressed] = []
    for message, _ in mails[:MAX_NAMED]:
        head = message.content.inline
        if head is None:
            try:
                with message.content.open() as source:
                    head = source.read(_HEAD_BYTES)
            except OSError:
                head = b""  # it is named without a subject
        subject = "".join(sign if sign.isprintable() else " " for sign in subject_of(head))
        named.append(Suppressed(message.queue_id, message.accepted_at, subject))
    return named


def span_words(seconds: float) -> str:
    """A span in words, in the largest unit that fits: 5 minutes, 1 hour, 90 seconds."""
    unit, size = next((one for one in _UNITS if seconds % one[1] == 0), ("second", 1))
    count = seconds / size
    return f"{count:g} {unit}" + ("" if count == 1 else "s")
