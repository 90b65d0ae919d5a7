"""What each target would be sent of a mail, without sending it: for `waypost route --message`.

Every part comes from the function that the transport itself uses; nothing connects, but for the
name service where hosts are looked up.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waypost.delivery import mqtt, notify, publish, webhook
from waypost.delivery.attachments import EventSettings
from waypost.delivery.discard import DiscardTransport
from waypost.delivery.events import EventReader
from waypost.delivery.list import ListTransport
from waypost.delivery.maildir import head_of, maildir_of
from waypost.delivery.notifier import Notifier
from waypost.delivery.notify import NotifySettings
from waypost.delivery.reject import RejectTransport
from waypost.delivery.rewriting import outgoing
from waypost.delivery.smtp import SmtpTransport
from waypost.delivery.transport import DeliveryJob, reply_to
from waypost.delivery.webhook import WebhookSettings
from waypost.errors import PermanentError, TemporaryError
from waypost.http.url import Url
from waypost.mail.envelope import OutcomeKind, QueuedRecipient, QueueId
from waypost.mail.message import Content, QueuedMessage, decoded_fields
from waypost.mail.reply import Reply
from waypost.mqtt.happening import messages_of, note
from waypost.mqtt.notes import NOTES_FILE, Noted, Notes
from waypost.mqtt.settings import MqttSettings
from waypost.routing.table import RoutingTable
from waypost.routing.targets import Target, parse_target

Shown = dict[str, Any]

# Hosts that take all, and hosts that take nothing but ASCII: what is done for the first kind is
# done for every host.
_KIND_HOST = {"8BITMIME": "", "SMTPUTF8": ""}
_PLAIN_HOST: dict[str, str] = {}
_HEAD_BYTES = 65_536
_DISCARD = DiscardTransport()
_REJECT = RejectTransport()


@dataclass(frozen=True, slots=True)
class Preview:
    """What is configured, as the transports know it."""

    events: EventReader
    smtp: SmtpTransport
    table: RoutingTable
    mail_root: Path
    data_dir: Path
    webhooks: Mapping[str, WebhookSettings]
    notify: Mapping[str, NotifySettings]
    mqtt: MqttSettings | None
    mqtt_events: EventSettings
    next_id: Callable[[], QueueId]

    async def of(self, message: QueuedMessage) -> list[Shown]:
        """What the targets of a message get: an entry for each delivery."""
        shown: list[Shown] = []
        for job in self._jobs(message):
            one: Shown = {
                "target": str(job.target),
                "rule": job.recipients[0].rule,
                "recipients": [str(one.recipient.forward_path) for one in job.recipients],
                "taken": True,
            }
            try:
                one.update(await self._shown(job))
            except (TemporaryError, PermanentError) as error:
                one.update(_trouble(error))
            shown.append(one)
        return shown

    def _jobs(self, message: QueuedMessage) -> Iterable[DeliveryJob]:
        """As the dispatcher groups recipients."""
        jobs: dict[str, tuple[Target, list[QueuedRecipient]]] = {}
        for recipient in message.recipients:
            target = parse_target(recipient.target)
            key = self.smtp.destination(target, recipient)
            jobs.setdefault(key, (target, []))[1].append(recipient)
        return [DeliveryJob(message, members, target) for target, members in jobs.values()]

    async def _shown(self, job: DeliveryJob) -> Shown:
        return await SHOWS[job.target.kind](self, job)

    async def _mailbox(self, job: DeliveryJob) -> Shown:
        directory = maildir_of(self.mail_root, job.target.argument)
        head = head_of(job.message, job.recipients)
        return {
            "maildir": str(directory),
            "exists": directory.is_dir(),
            "added": head.decode("utf-8", "replace"),
            "size": len(head) + job.message.content.size,
        }

    async def _hosts(self, job: DeliveryJob) -> Shown:
        relay = None
        if job.target.kind == "relay":
            relay = self.smtp.settings.relays[job.target.argument]
        hostname = self.smtp.settings.hostname
        made = await outgoing(job, relay, _KIND_HOST, hostname)
        plain = await outgoing(job, relay, _PLAIN_HOST, hostname)
        choice = self.smtp.choice(job)
        shown: Shown = {
            "hosts": [],
            "forbidden": [],
            "tls": {"level": str(choice.level), "because": choice.because},
            "envelope_from": _path(made.message),
            "changes": list(made.changes),
            "changes_without_8bitmime": [one for one in plain.changes if one not in made.changes],
            "header": _changed(job.message, made.message),
            "size": made.message.size,
        }
        if made.refusal is not None:
            return {**shown, "taken": False, "trouble": str(made.refusal)}
        try:
            hosts, forbidden = await self.smtp.places(job)
        except (TemporaryError, PermanentError) as error:
            return {**shown, **_trouble(error)}
        return {**shown, "hosts": [str(host) for host in hosts], "forbidden": forbidden}

    async def _list(self, job: DeliveryJob) -> Shown:
        async def share(content: Content, queue_id: QueueId) -> Content:
            return content

        lists = ListTransport(table=lambda: self.table, next_id=self.next_id, share=share)
        outcomes = await lists.deliver(job)
        members = [one for spawned in job.spawned for one in await self.of(spawned)]
        return {
            "taken": outcomes[0].kind is OutcomeKind.DELIVERED,
            "reply": str(outcomes[0].reply),
            "members": members,
        }

    async def _mqtt(self, job: DeliveryJob) -> Shown:
        assert self.mqtt is not None  # a route to mqtt: is at fault without
        made = await mqtt.published(self.events, self.mqtt_events, job.message, job.target.argument)
        shown: Shown = {"broker": str(self.mqtt.url), "messages": []}
        if made is None:
            return {**shown, "because": "it came from MQTT, and is not published again"}
        happening = made.happening
        notes = Notes(self.data_dir / NOTES_FILE)
        notes.load()  # one that cannot be read begins anew, as with the hub
        device = notes.devices.get(
            happening.slug, Noted(happening.slug, happening.name, happening.source)
        )
        note(device, happening, time.time(), self.mqtt.reset_after_s)
        device.count += 1
        shown["made_smaller"] = made.is_smaller
        for message in messages_of(happening, device, self.mqtt, lambda octets: True):
            one: Shown = {"topic": message.topic, "retained": message.is_retained}
            if happening.picture is not None and message.payload is happening.picture.octets:
                one.update({"type": happening.picture.type, "size": len(message.payload)})
            elif message.payload.startswith(b"{"):
                one["json"] = json.loads(message.payload)
            else:
                one["payload"] = message.payload.decode("utf-8", "replace")
            shown["messages"].append(one)
        return shown

    async def _publish(self, job: DeliveryJob) -> Shown:
        assert self.mqtt is not None  # as above, and no address names a topic
        made = await publish.published(self.events, job.message, job.target.argument)
        shown: Shown = {"broker": str(self.mqtt.url), "messages": []}
        if isinstance(made, Reply):
            if made.is_positive:
                return {**shown, "because": made.text}
            return {**shown, "taken": False, "trouble": str(made)}
        payload = made.payload.decode("utf-8", "replace")
        shown["messages"] = [{"topic": made.topic, "retained": False, "payload": payload}]
        return shown

    async def _webhook(self, job: DeliveryJob) -> Shown:
        settings = self.webhooks[job.target.argument]
        url = Url.parse(settings.url.revealed, allows_clear=True)
        posts = await webhook.posts(self.events, settings, job.message, job.recipients)
        return {
            "url": f"{'https' if url.is_secure else 'http'}://{url.authority}",
            "is_signed": settings.secret is not None,
            "posts": [{"idempotency_key": post.key, "json": post.values} for post in posts],
        }

    async def _notify(self, job: DeliveryJob) -> Shown:
        settings = self.notify[job.target.argument]
        made = await notify.notification(self.events, settings, job.message, job.recipients)
        async with _notifier() as notifier:
            found = [await notifier.service(url) for url in settings.urls]
        return {
            "services": [one.service or f"none: {one.why}" for one in found],
            "notifications": [
                {"recipient": str(one.recipient.forward_path), **notice._asdict()}
                for one, notice in zip(job.recipients, made.notices, strict=True)
            ],
            "files": [
                {
                    "name": one.name,
                    "type": one.type,
                    "size": len(one.octets),
                    "made_smaller": one.is_smaller,
                }
                for one in made.files
            ],
            "left_out": [
                {"name": one.name, "type": one.type, "size": one.size, "left_out": why.why}
                for one, why in made.left_out
            ],
        }

    async def _discard(self, job: DeliveryJob) -> Shown:
        return {"reply": str((await _DISCARD.deliver(job))[0].reply)}

    async def _reject(self, job: DeliveryJob) -> Shown:
        return {"reply": str((await _REJECT.deliver(job))[0].reply), "taken": False}


# By the kind of target.
SHOWS: dict[str, Callable[[Preview, DeliveryJob], Awaitable[Shown]]] = {
    "mailbox": Preview._mailbox,
    "smtp": Preview._hosts,
    "lmtp": Preview._hosts,
    "relay": Preview._hosts,
    "direct": Preview._hosts,
    "list": Preview._list,
    "mqtt": Preview._mqtt,
    "publish": Preview._publish,
    "webhook": Preview._webhook,
    "notify": Preview._notify,
    "discard": Preview._discard,
    "reject": Preview._reject,
}


@contextlib.asynccontextmanager
async def _notifier() -> AsyncIterator[Notifier]:
    notifier = Notifier()
    try:
        yield notifier
    finally:
        await notifier.close()


def _trouble(error: TemporaryError | PermanentError) -> Shown:
    reply = reply_to(error)
    return {"taken": not reply.is_permanent, "trouble": str(reply)}


def _path(message: QueuedMessage) -> str:
    reverse_path = message.envelope.reverse_path
    return "<>" if reverse_path is None else str(reverse_path)


def _changed(before: QueuedMessage, after: QueuedMessage) -> list[dict[str, str]]:
    """The fields that the next host sees and that are not so in the mail."""
    old = _fields(before)
    return [
        {"name": name, "value": value} for name, value in _fields(after) if (name, value) not in old
    ]


def _fields(message: QueuedMessage) -> Sequence[tuple[str, str]]:
    with message.content.open() as source:  # in memory
        return decoded_fields(message.prepend + source.read(_HEAD_BYTES))
