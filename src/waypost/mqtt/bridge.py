"""Devices at the broker: their events, and the states that are true of them now.

What is noted is the truth. It is published as it changes, and all of it again after every
connection, for brokers forget.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from waypost.dns.resolver import Resolver
from waypost.errors import PeerUnreachable, TemporaryError
from waypost.mqtt import topics
from waypost.mqtt.broker import Broker
from waypost.mqtt.happening import Happening, messages_of, note
from waypost.mqtt.inbound import Purpose, filters_of, purpose_of
from waypost.mqtt.message import Message, Received
from waypost.mqtt.notes import MAX_DEVICES, NOTES_FILE, Noted, Notes
from waypost.mqtt.settings import MqttSettings
from waypost.net.gate import Gate
from waypost.observe import Log

# Mail waits so long for a connection that is about to come, then in the queue.
READY_S = 3.0
# Counts and times are written down this often; that a device is ON, at once.
SAVE_S = 5.0
# A broker that is left has so long to take back what it keeps.
FAREWELL_S = 10.0
# Sleeping longer would miss that the clock was set.
_MAX_SLEEP_S = 60.0
# Topic and properties of a message beside its payload, more than enough.
_FRAME_OCTETS = 1_024

_NO_BROKER = "there is no MQTT broker: mqtt.url is not set"


class Bridge:
    """Publishes what happens, and switches off what is over."""

    def __init__(
        self,
        data_dir: Path,
        gate: Gate,
        *,
        resolver: Callable[[], Resolver],
        on_back: Callable[[], None],
        on_mail: Callable[[Received, Purpose, MqttSettings], None],
        web_url: Callable[[], str | None],
        log: Log,
    ) -> None:
        """`on_back` is called when mail had to wait and there is a session again.

        `on_mail` takes messages that become mail, and has them acknowledged. `web_url` says where
        the hub's web page is.
        """
        self._web_url = web_url
        self._log = log
        self._notes = Notes(data_dir / NOTES_FILE)
        self._is_loaded = False
        self._settings: MqttSettings | None = None  # None: no broker is configured
        self._changed = asyncio.Event()
        self._on_back = on_back
        self._on_mail = on_mail
        self._lost_logins: tuple[str, ...] = ()
        self._silent: frozenset[str] = frozenset()  # slugs
        self._has_deferred = True  # mail may wait for a session, also since an earlier run
        self._broker = Broker(
            gate,
            resolver=resolver,
            on_connected=self._connected,
            on_message=self._received,
            log=log,
        )

    @property
    def settings(self) -> MqttSettings | None:
        return self._settings

    async def configure(
        self,
        settings: MqttSettings | None,
        source_to_slug: Callable[[str], str],
        *,
        kinds: Collection[str],
        silent: Callable[[], Collection[str]],
    ) -> None:
        """Go by these settings; `source_to_slug` says what a device is called now, `kinds` what
        mail may mean now, `silent` who is overdue, see `note_silence`.

        Devices that have another name, or lie elsewhere, are taken away from where they were.
        """
        notes, old = self._notes, self._settings
        if old is not None and (settings is None or settings.url != old.url):
            await self._leave_nothing(old)
        if settings is None:
            self._settings = None
            await self._broker.configure(None, "", Message("", b"", True))
            return
        if not self._is_loaded:
            self._is_loaded = True
            if (trouble := await asyncio.to_thread(notes.load)) is not None:
                self._log.event("mqtt-notes-trouble", why=trouble)
        if notes.broker not in ("", str(settings.url)):
            self._left_behind(notes.broker, "mqtt.url was changed while the hub was not there")
        notes.broker = str(settings.url)
        self._move(settings)
        for device in list(notes.devices.values()):
            if source_to_slug(device.source) == device.slug:
                self._drop_kinds(device, kinds)
            else:
                self._remove(device)
        # Before the broker knows: so whatever it still has of us can be taken back.
        notes.filters = sorted({*notes.filters, *_filters(settings)})
        self.note_silence(silent())
        notes.touch()
        await self._save()
        self._settings = settings
        will = topics.bridge_state(settings.base, topics.OFFLINE)
        await self._broker.configure(settings, notes.client_id, will)
        if self._broker.is_connected:  # still: it is told the rest when it is connected to
            self._forget_gone()
            for device in notes.devices.values():
                if device.dropped:
                    self._announce(device, settings)
        self._changed.set()

    def note_silence(self, silent: Collection[str]) -> None:
        """From now on these devices, by slug, are overdue, and others are not."""
        self._silent = frozenset(silent)
        for device in self._notes.devices.values():
            is_silent = device.slug in self._silent
            if is_silent == device.is_silent:
                continue
            device.is_silent = is_silent
            self._notes.touch()
            self._changed.set()
            if self._settings is not None:
                base, kept = self._settings.base, self._settings.retain
                self._publish(topics.availability(base, device, is_retained=kept))

    async def run(self) -> None:
        """Keep the connection, until cancelled."""
        await self._broker.run()

    async def watch(self) -> None:
        """Switch off what is over, and write down counts, until cancelled."""
        save_at = 0.0  # monotonic; not before
        while True:
            sleep_s = _MAX_SLEEP_S
            if self._settings is not None:
                end = self._notes.next_end()
                if end is not None:
                    sleep_s = min(sleep_s, end - time.time())
                if self._notes.is_dirty:
                    sleep_s = min(sleep_s, save_at - time.monotonic())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(sleep_s, 0)):
                    await self._changed.wait()
            self._changed.clear()
            if self._settings is None:
                continue
            self._switch_off(self._settings)
            if self._notes.is_dirty and time.monotonic() >= save_at:
                save_at = time.monotonic() + SAVE_S
                await self._save()

    async def tell(self, happening: Happening) -> None:
        """Publish; back when the broker has all of it. Raises TemporaryError."""
        settings = self._settings
        if settings is None:
            raise TemporaryError(_NO_BROKER)
        try:
            await self._broker.ready(READY_S)
            device = await self._note(happening, settings)
            if settings is not self._settings or self._notes.devices.get(device.slug) is not device:
                raise TemporaryError("the configuration has changed meanwhile")
            device.count += 1
            try:
                await self._broker.publish_all(self._messages(happening, device, settings))
            except BaseException:
                device.count -= 1  # it comes again
                raise
        except PeerUnreachable:
            self._has_deferred = True
            raise

    def say(self, message: Message) -> None:
        """Publish, without waiting: what cannot be said now is not said."""
        if self.takes(len(message.payload) + len(message.correlation or b"")):
            self._publish(message)

    async def connect_again(self) -> None:
        """See Broker.connect_again."""
        await self._broker.connect_again()

    def forget(self, slug: str) -> None:
        """A device is known no more; the broker is told with the next `configure`."""
        device = self._notes.devices.get(slug)
        if device is not None:
            self._remove(device)

    def note_logins(self, lost: Collection[str]) -> None:
        """From now on these relays, by name, have lost their login."""
        self._lost_logins = tuple(sorted(lost))
        if self._settings is not None:
            self._publish(self._info(self._settings))

    async def publish(self, message: Message) -> None:
        """What a mail says, on a topic of others; back when the broker has it.

        Raises TemporaryError.
        """
        if self._settings is None:
            raise TemporaryError(_NO_BROKER)
        try:
            await self._broker.ready(READY_S)
            await self._broker.publish_all([message])
        except PeerUnreachable:
            self._has_deferred = True
            raise

    async def close(self) -> None:
        """Say farewell, and write down what has changed."""
        await self._broker.leave()
        if self._is_loaded and self._notes.is_dirty:
            await self._save()

    async def _note(self, happening: Happening, settings: MqttSettings) -> Noted:
        """What is true with this mail; on disk before it is said, where it has to end again."""
        notes = self._notes
        now = time.time()
        device = notes.devices.get(happening.slug)
        is_news = device is None
        if device is None:
            if len(notes.devices) >= MAX_DEVICES:
                self._remove(notes.oldest())
                self._forget_gone()
            device = Noted(happening.slug, happening.name, happening.source)
            device.is_silent = device.slug in self._silent
            notes.devices[device.slug] = device
            self._publish(self._info(settings))
        is_news = note(device, happening, now, settings.reset_after_s) or is_news
        notes.touch()
        self._changed.set()
        if is_news:
            await notes.save()
            self._announce(device, settings)
        return device

    def _messages(
        self, happening: Happening, device: Noted, settings: MqttSettings
    ) -> list[Message]:
        """As `messages_of`; what the broker does not take is logged."""
        picture = happening.picture
        if picture is not None and not self.takes(len(picture.octets)):
            self._log.event("mqtt-image-left-out", device=device.slug, octets=len(picture.octets))
        return messages_of(happening, device, settings, self.takes)

    def takes(self, octets: int) -> bool:
        """Will the broker take so many? One that will not ends the session (MQTT 5 §3.2.2.3.6)."""
        most = self._broker.max_packet
        return most is None or octets + _FRAME_OCTETS <= most

    def _state(self, device: Noted, settings: MqttSettings) -> Message:
        return topics.state(settings.base, device, is_retained=settings.retain)

    def _info(self, settings: MqttSettings) -> Message:
        return topics.bridge_info(settings.base, len(self._notes.devices), self._lost_logins)

    def _switch_off(self, settings: MqttSettings) -> None:
        now = time.time()
        for device in self._notes.devices.values():
            for kind in device.over(now, settings.reset_after_s):
                self._notes.touch()
                self._publish(
                    topics.kind_state(settings.base, device, kind, is_retained=settings.retain)
                )

    def _connected(self) -> None:
        """Say all that is true: the broker may know none of it."""
        settings = self._settings
        assert settings is not None  # otherwise nobody connects
        self._publish(topics.bridge_state(settings.base, topics.ONLINE))
        self._forget_gone()
        self._switch_off(settings)
        if settings.discovery:
            self._broker.subscribe(topics.status_topic(settings.discovery))
        self._subscribe(settings)
        self._say_all(settings)
        if self._has_deferred:
            self._has_deferred = False
            self._on_back()

    def _say_all(self, settings: MqttSettings) -> None:
        base, prefix, kept = settings.base, settings.discovery, settings.retain
        self._publish(self._info(settings))
        if prefix:
            self._publish(topics.bridge_discovery(base, prefix, self._web_url()))
        for device in self._notes.devices.values():
            self._announce(device, settings)
            self._publish(topics.availability(base, device, is_retained=kept))
            self._publish(self._state(device, settings))
            for kind in device.kinds:
                self._publish(topics.kind_state(base, device, kind, is_retained=kept))

    def _subscribe(self, settings: MqttSettings) -> None:
        """To what becomes mail; what was subscribed to before and is not wanted now ends."""
        notes, wanted = self._notes, _filters(settings)
        if not self._broker.is_resumed:
            notes.filters = wanted
            notes.touch()
        for topic_filter in set(notes.filters) - set(wanted):
            with contextlib.suppress(PeerUnreachable):
                self._broker.hear_no_more(topic_filter).add_done_callback(
                    partial(self._unsubscribed, topic_filter)
                )
        for topic_filter, qos in filters_of(settings).items():
            self._broker.hear_others(topic_filter, qos)

    def _unsubscribed(self, topic_filter: str, ended: asyncio.Future[None]) -> None:
        if _is_good(ended) and topic_filter in self._notes.filters:
            self._notes.filters.remove(topic_filter)
            self._notes.touch()
            self._changed.set()

    def _received(self, received: Received) -> None:
        settings = self._settings
        purpose = None if settings is None else purpose_of(settings, received.topic)
        if settings is None or purpose is None or received.was_kept:
            received.acknowledge()
        else:
            self._on_mail(received, purpose, settings)
        self._heard(received.topic, received.payload, received.was_kept)

    def _heard(self, topic: str, payload: bytes, was_kept: bool) -> None:
        """Home Assistant has come up; one that was up before has been told at connecting."""
        settings = self._settings
        if settings is None or was_kept or topic != topics.status_topic(settings.discovery):
            return
        if payload == topics.ONLINE:
            self._say_all(settings)

    def _move(self, settings: MqttSettings) -> None:
        """To another base or discovery prefix: nothing stays behind."""
        notes = self._notes
        old = (notes.base, notes.prefix)
        if notes.base and old != (settings.base, settings.discovery):
            found = list(topics.bridge_topics(*old))
            for device in notes.devices.values():
                found += topics.kept_topics(*old, device)
            if notes.base == settings.base:
                found = [topic for topic in found if topic.startswith(f"{notes.prefix}/device/")]
            notes.gone += found
        notes.base, notes.prefix = settings.base, settings.discovery

    async def _leave_nothing(self, old: MqttSettings) -> None:
        """Take back what a broker keeps of us before it is left, as far as it can be told."""
        notes, will = self._notes, topics.bridge_state(old.base, topics.OFFLINE)
        self._settings = None  # mail waits, or it would be kept there again
        self._has_deferred = True
        kept = [*notes.gone, *topics.bridge_topics(notes.base, notes.prefix)]
        for device in notes.devices.values():
            kept += topics.kept_topics(notes.base, notes.prefix, device)
        try:
            async with asyncio.timeout(FAREWELL_S):
                await self._broker.publish_all([will, *map(topics.forgotten, kept)])
        except (TimeoutError, TemporaryError) as error:
            why = str(error) or f"it did not take all of it within {FAREWELL_S:.0f} s"
            self._left_behind(str(old.url), why)
        else:
            await self._broker.leave(is_said=True)
            notes.gone.clear()
        notes.broker = ""
        notes.touch()

    def _left_behind(self, broker: str, why: str) -> None:
        """Nobody can tell a broker any more to forget."""
        self._notes.gone.clear()
        self._log.event("mqtt-left-behind", to=broker, why=why)

    def _drop_kinds(self, device: Noted, kinds: Collection[str]) -> None:
        """What no mail can mean any more goes, and a device with nothing else goes with it."""
        over = [kind for kind in device.kinds if kind not in kinds]
        if len(over) == len(device.kinds):
            self._remove(device)
            return
        for kind in over:
            del device.kinds[kind]
            device.dropped.append(kind)
            self._notes.gone.append(topics.level_topic(self._notes.base, device, kind))

    def _announce(self, device: Noted, settings: MqttSettings) -> None:
        """Tell Home Assistant of a device."""
        base, prefix, dropped = settings.base, settings.discovery, tuple(device.dropped)
        if not prefix:
            return
        if dropped:
            self._publish(topics.discovery(base, prefix, device, dropped))

        def told(topic: str) -> None:
            if dropped:
                device.dropped = [kind for kind in device.dropped if kind not in dropped]
                self._notes.touch()

        self._publish(topics.discovery(base, prefix, device), done=told)

    def _remove(self, device: Noted) -> None:
        notes = self._notes
        del notes.devices[device.slug]
        notes.gone += topics.kept_topics(notes.base, notes.prefix, device)
        notes.touch()
        self._log.event("mqtt-device-removed", device=device.slug)

    def _forget_gone(self) -> None:
        notes = self._notes
        live = set(topics.bridge_topics(notes.base, notes.prefix))
        for device in notes.devices.values():
            live.update(topics.kept_topics(notes.base, notes.prefix, device))
        notes.gone = [topic for topic in notes.gone if topic not in live]
        for topic in notes.gone:
            self._publish(topics.forgotten(topic), done=self._gone)

    def _gone(self, topic: str) -> None:
        if topic in self._notes.gone:
            self._notes.gone.remove(topic)
            self._notes.touch()

    def _publish(self, message: Message, done: Callable[[str], None] | None = None) -> None:
        """Without waiting: what gets lost is said again with the next connection."""
        with contextlib.suppress(PeerUnreachable):
            result = self._broker.publish(message)
            if done is not None:
                result.add_done_callback(
                    lambda ended: done(message.topic) if _is_good(ended) else None
                )

    async def _save(self) -> None:
        try:
            await self._notes.save()
        except TemporaryError as error:
            self._log.event("mqtt-notes-trouble", why=error)


def _filters(settings: MqttSettings) -> list[str]:
    """All a session of these settings is subscribed to."""
    own = [topics.status_topic(settings.discovery)] if settings.discovery else []
    return [*own, *filters_of(settings)]


def _is_good(ended: asyncio.Future[None]) -> bool:
    return not ended.cancelled() and ended.exception() is None
