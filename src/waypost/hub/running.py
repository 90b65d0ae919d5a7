"""The running hub: starts the parts, reloads them, stops them, and answers its command line."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import signal
import sys
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from waypost import __version__
from waypost.app import (
    loop_factory,
    mailbox_root,
    make_accounts,
    make_device_names,
    make_gate,
    make_hook_gate,
    make_mailbox_names,
    make_own_addresses,
    make_registry,
    make_resolver,
    make_smtp,
    make_table,
    make_tls_policy,
    make_verifier,
    smtp_settings,
    trusted_clients,
)
from waypost.config.load import load_settings
from waypost.config.settings import Settings
from waypost.control import ControlServer
from waypost.delivery.credentials import LostLogin
from waypost.delivery.discard import DiscardTransport
from waypost.delivery.events import EventReader
from waypost.delivery.list import ListTransport
from waypost.delivery.maildir import MaildirTransport
from waypost.delivery.mqtt import MqttTransport
from waypost.delivery.notify import NotifyTransport
from waypost.delivery.pace import Paces
from waypost.delivery.publish import PublishTransport
from waypost.delivery.reject import RejectTransport
from waypost.delivery.transport import Transport
from waypost.delivery.webhook import WebhookTransport
from waypost.devices.desk import Desk
from waypost.devices.visits import Visits
from waypost.devices.watch import Watch
from waypost.dispatch.alarms import Alarms
from waypost.dispatch.dispatcher import Dispatcher
from waypost.dispatch.reports import Reporter
from waypost.dispatch.storms import Storms, Why
from waypost.errors import ConfigError, TemporaryError, WaypostError
from waypost.http.client import HttpClient
from waypost.hub.certificates import Certificates
from waypost.hub.commands import Commands
from waypost.hub.ports import DRAIN_S, Ports
from waypost.intake.acceptance import Acceptance
from waypost.intake.door import Door
from waypost.intake.duplicates import Duplicates
from waypost.intake.logins import Logins
from waypost.intake.mqtt_subscriber import MqttSubscriber
from waypost.intake.senders import Senders
from waypost.intake.smtp_listener import ListenerSettings, SmtpListener
from waypost.intake.visitors import Visitors
from waypost.mail.address import IPAddress, ip_text
from waypost.mail.envelope import QueueId
from waypost.mail.message import Content
from waypost.mqtt.bridge import Bridge
from waypost.net.networks import Networks
from waypost.observe import Log
from waypost.queue.history import History
from waypost.queue.spool import FileContent, InlineContent, Spool
from waypost.queue.sqlite import SqliteStore
from waypost.queue.store import Action
from waypost.reading.process import MailReader
from waypost.routing.hops import Relay
from waypost.routing.mailboxes import MailboxNames
from waypost.routing.table import RoutingTable
from waypost.tls.policy import TlsPolicy
from waypost.web.server import WebServer
from waypost.web.site import Site

if TYPE_CHECKING:
    pass


class Hub:
    """A running Waypost."""

    def __init__(self, settings: Settings, log: Log, reload_from: Mapping[str, Any]) -> None:
        """`reload_from`: the arguments `load_settings` is called with again on a reload."""
        self._settings = settings
        self._log = log
        self._reload_from = reload_from
        self._stop = asyncio.Event()
        self._background: list[asyncio.Task[Any]] = []
        self._lost_logins: set[str] = set()  # of relays, by name
        self._trouble: str | None = None  # the part that died; None: all is well
        self._is_writer_lost = False
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings.data_dir.chmod(0o700)
        self._own = make_own_addresses(settings)
        self._visitors = Visitors(settings.limits, log)
        self._gate = make_gate(settings, self._own, lambda: self._ports.bound)
        self._mailboxes = make_mailbox_names(settings)
        self._devices = make_registry(settings, log)
        self._visits = Visits(self._devices)
        self._table = self._make_table(settings)
        self._certificates = Certificates(
            settings,
            self._own,
            lambda origin: HttpClient(self._gate, self._smtp.resolver, origin),
            log,
        )
        self._spool = Spool(settings.data_dir / "content")
        self._store = SqliteStore(
            settings.data_dir,
            self._spool,
            self._writer_lost,
            on_unreadable=lambda queue_id, why: log.event("unreadable", id=queue_id, why=why),
        )
        self._logins = Logins(make_accounts(settings), log)
        self._senders = Senders(
            settings.senders,
            own=self._own,
            account_of=self._logins.account_of,
            table=lambda: self._table,
        )
        self._acceptance = Acceptance(
            store=self._store,
            spool=self._spool,
            table=self._table,
            own=self._own,
            hostname=settings.hostname,
            senders=self._senders,
            on_received=self._devices.took,
            duplicates=Duplicates(lambda: self._device_names),
            log=log,
        )
        self._door = Door(self._acceptance, lambda: self._settings.limits)
        self._site = Site(
            self._door, lambda: self._settings.limits, self._visitors, self._troubles, log
        )
        self._configure_site(settings)
        self._ports = Ports(
            self._make_listener,
            WebServer(
                self._site.serve, names=lambda: self._site.names, visitors=self._visitors, log=log
            ),
            spawn=self._spawn,
            log=log,
        )
        self._maildir = MaildirTransport(
            mailbox_root(settings), on_created=lambda name: self._mailboxes.add(name)
        )
        self._smtp = make_smtp(
            *(settings, self._own, self._gate),
            log=log,
            on_login=self._relay_login_changed,
            on_pin=lambda pin: self._alarms.pin_changed(pin),
        )
        self._logins.verifier = make_verifier(settings, self._gate, self._smtp.resolver)
        self._alarms = Alarms(
            self._store, table=lambda: self._table, mailboxes=lambda: self._mailboxes, log=log
        )
        self._reader = MailReader()
        self._watch = Watch(
            *(self._devices, self._alarms.tell, self._reader, log),
            on_silence=lambda: self._mqtt.note_silence(self._silent_slugs()),
        )
        lists = ListTransport(
            table=lambda: self._table, next_id=self._store.next_id, share=self._share
        )
        self._device_names = make_device_names(settings, self._devices)
        self._from_mqtt = MqttSubscriber(
            self._door,
            say=lambda message: self._mqtt.say(message),
            connect_again=lambda: self._mqtt.connect_again(),
            log=log,
        )
        self._mqtt = Bridge(
            *(settings.data_dir, self._gate),
            resolver=lambda: self._smtp.resolver,
            on_back=lambda: self._spawn(self._send_to_mqtt(), "mail for MQTT"),
            on_mail=self._from_mqtt.take,
            web_url=lambda: self._settings.web_url,
            log=log,
        )
        events = EventReader(
            self._reader, lambda: self._device_names, lambda: self._settings.web_url
        )
        self._mqtt_events = MqttTransport(self._mqtt, events)
        self._mqtt_events.settings = settings.mqtt_events
        self._webhooks = WebhookTransport(
            events, gate_of=partial(make_hook_gate, self._own, lambda: self._ports.bound), log=log
        )
        self._webhooks.configure(settings.webhooks, self._smtp.resolver)
        self._notify = NotifyTransport(events, settings.data_dir / "notify.json")
        self._notify.configure(settings.notify)
        transports: dict[str, Transport] = {
            "mailbox": self._maildir,
            "smtp": self._smtp,
            "lmtp": self._smtp,
            "relay": self._smtp,
            "direct": self._smtp,
            "list": lists,
            "mqtt": self._mqtt_events,
            "discard": DiscardTransport(),
            "reject": RejectTransport(),
            "webhook": self._webhooks,
            "notify": self._notify,
            "publish": PublishTransport(self._mqtt, events),
        }
        self._paces = Paces(settings.relays, settings.data_dir / "relays.json", log)
        self._storms = Storms(
            settings.routing.rules,
            names=lambda: self._device_names,
            devices=self._devices,
            events=events,
            log=log,
        )
        self._dispatcher = Dispatcher(
            self._store,
            transports,
            Reporter(
                next_id=self._store.next_id,
                table=lambda: self._table,
                retry=lambda: self._settings.retry,
                hostname=lambda: self._settings.hostname,
                log=log,
            ),
            retry=lambda: self._settings.retry,
            paces=self._paces,
            storms=self._storms,
            share=self._share,
            log=log,
        )
        commands = Commands(
            hostname=lambda: self._settings.hostname,
            own=self._own,
            ports=self._ports,
            store=self._store,
            dispatcher=self._dispatcher,
            credentials=self._smtp.credentials,
            certificates=self._certificates,
            logins=self._logins,
            read_accounts=lambda: make_accounts(self._settings),
            reload=self.reload,
            log=log,
        )
        desk = Desk(
            self._devices,
            self._visits,
            on_rename=self._device_renamed,
            on_forget=self._device_forgotten,
            log=log,
        )
        self._control = ControlServer(settings.data_dir, {**commands.actions, **desk.actions})

    async def run(self) -> None:
        """Start, serve until told to stop, drain. Raises OSError when an address is taken."""
        log = self._log
        live = await self._store.live_content(await asyncio.to_thread(self._spool.names))
        swept = await asyncio.to_thread(self._spool.sweep, live)
        if swept:
            log.event("swept", files=swept)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self.reload(), "reload"))
        try:
            await asyncio.to_thread(self._devices.load)
        except TemporaryError as error:  # mail comes first
            log.event("devices-trouble", why=error)
        try:
            history = History(self._settings.data_dir)
            self._storms.resume(await asyncio.to_thread(history.held_back, Why.STORM))
        except TemporaryError as error:  # then windows begin anew, and digests come all the same
            log.event("storms-forgotten", why=error)
        try:
            await self._certificates.start()
            self._say_masked(self._settings)
            await self._ports.open(self._settings)
            await self._control.start()
            self._spawn(self._own.follow(self._interfaces_changed), "interfaces")
            self._spawn(self._dispatcher.run(), "dispatcher")
            self._spawn(self._certificates.keep(), "certificates")
            self._spawn(self._smtp.credentials.keep(), "relay logins")
            self._spawn(self._certificates.keep_public(), "acme")
            self._spawn(self._devices.keep(), "devices")
            self._spawn(self._watch.keep_time(), "devices' silence")
            self._spawn(self._watch.read_mail(), "devices' mail")
            await self._configure_mqtt(self._settings)
            self._spawn(self._mqtt.run(), "mqtt")
            self._spawn(self._mqtt.watch(), "mqtt states")
            self._spawn(self._from_mqtt.run(), "mail from mqtt")
            _calm_the_collector()
            log.event("ready", version=__version__, data=self._settings.data_dir)
            await self._stop.wait()
            log.event("stopping")
        finally:
            await self._shut_down()
        if self._trouble is not None:
            raise WaypostError(f"stopped by a fault in the {self._trouble}; the log has it")

    async def reload(self) -> str | None:
        """Read the configuration again; None, or what is wrong with it or could not be done."""
        try:
            settings = load_settings(**self._reload_from)
        except ConfigError as error:
            for fault in error.faults:
                self._log.event("reload-refused", why=fault)
            return str(error)
        old = self._settings
        if (settings.data_dir, settings.mailboxes.root, settings.log_as_json) != (
            *(old.data_dir, old.mailboxes.root, old.log_as_json),
        ):
            why = "data_dir, mailboxes.root and log.format cannot change while the hub runs"
            self._log.event("reload-refused", why=why)
            return why
        try:
            accounts = await asyncio.to_thread(make_accounts, settings)
            await self._certificates.renew(settings)
            policy = await asyncio.to_thread(make_tls_policy, settings)
        except (WaypostError, OSError) as error:
            self._log.event("reload-refused", why=error)
            return str(error)
        self._logins.accounts = accounts
        return await self._apply(settings, policy)

    async def _apply(self, settings: Settings, policy: TlsPolicy) -> str | None:
        old = self._settings
        self._settings = settings
        if (old.follow_interfaces, old.extra_own) != (
            settings.follow_interfaces,
            settings.extra_own,
        ):
            self._own.reconfigure(
                follow_interfaces=settings.follow_interfaces, extra=settings.extra_own
            )
            self._certificates.look_again()
        self._gate.trusted = Networks(settings.trusted)
        self._devices.configure(settings.devices)
        mailboxes = MailboxNames(settings.mailboxes)
        mailboxes.carry_over(self._mailboxes)
        self._mailboxes = mailboxes
        self._table = self._make_table(settings)
        self._acceptance.table = self._table
        self._acceptance.hostname = settings.hostname
        self._senders.policy = settings.senders
        if old.dns_servers != settings.dns_servers:
            self._smtp.resolver = make_resolver(settings)
            self._smtp.credentials.http.resolver = self._smtp.resolver
        self._logins.verifier = make_verifier(settings, self._gate, self._smtp.resolver)
        self._smtp.settings = smtp_settings(settings)
        self._smtp.credentials.configure(settings.relays)
        self._smtp.demands.policy = policy
        await self._certificates.configure(settings)
        self._paces.configure(settings.relays)
        self._storms.configure(settings.routing.rules)
        await self._configure_mqtt(settings)
        self._mqtt_events.settings = settings.mqtt_events
        self._webhooks.configure(settings.webhooks, self._smtp.resolver)
        self._notify.configure(settings.notify)
        self._visitors.limits = settings.limits
        self._say_masked(settings)
        self._configure_site(settings)
        trouble = await self._ports.move(settings)
        self._log.event("reloaded", source=settings.source)
        return trouble

    async def _device_renamed(self) -> None:
        """Its topics have another name, and those of the old one go."""
        await self._configure_mqtt(self._settings)

    async def _device_forgotten(self, ip: IPAddress) -> None:
        """Nothing is left of it, whatever its name was."""
        self._mqtt.forget(self._device_names.called(ip_text(ip)).slug)
        await self._configure_mqtt(self._settings)

    async def _configure_mqtt(self, settings: Settings) -> None:
        names = self._device_names = make_device_names(settings, self._devices)
        if settings.mqtt is not None:
            self._lost_logins = await asyncio.to_thread(self._smtp.credentials.lost)
            self._mqtt.note_logins(self._lost_logins)
        await self._mqtt.configure(
            settings.mqtt,
            lambda source: names.called(source).slug,
            kinds=self._event_kinds(settings),
            silent=self._silent_slugs,
        )

    def _event_kinds(self, settings: Settings) -> set[str]:
        """All that `mqtt:` targets say mail means."""
        targets = [target for rule in settings.routing.rules for target in rule.targets]
        alarms = [device.settings.alarm for device in self._devices.all()]
        targets += [alarm for alarm in alarms if alarm is not None]
        return {target.argument for target in targets if target.kind == "mqtt"}

    def _silent_slugs(self) -> set[str]:
        """Devices whose mail is overdue; of one with several addresses, at all that are watched."""
        awaited: dict[str, bool] = {}
        for device in self._devices.all():
            if device.settings.expect_s is not None:
                name = self._device_names.called(ip_text(device.ip)).slug
                awaited[name] = awaited.get(name, True) and device.is_silent
        return {name for name, is_silent in awaited.items() if is_silent}

    def _configure_site(self, settings: Settings) -> None:
        self._site.configure(
            *(settings.http, settings.api_tokens, settings.inbound),
            trusted=trusted_clients(settings),
            hostname=settings.hostname,
        )

    def _troubles(self) -> dict[str, str | None]:
        """What keeps the hub from taking mail; see Health."""
        refusal = self._store.refusal(0)
        return {
            "listeners": self._ports.away(self._settings),
            "store": None if refusal is None else refusal.text,
        }

    def _say_masked(self, settings: Settings) -> None:
        trusted = Networks(settings.trusted)
        for gateway in sorted(settings.masked, key=str):
            if gateway in trusted:
                self._log.event(
                    "gateway-not-trusted",
                    client=gateway,
                    why="clients from anywhere may come under a container's gateway address;"
                    " networks.trust_gateway says otherwise",
                )

    def _make_listener(self, wanted: ListenerSettings, settings: Settings) -> SmtpListener:
        return SmtpListener(
            wanted,
            acceptance=self._acceptance,
            logins=self._logins,
            trusted=trusted_clients(settings),
            limits=settings.limits,
            hostname=settings.hostname,
            visitors=self._visitors,
            visits=self._visits,
            tls=self._certificates.context_for(wanted),
            log=self._log,
        )

    def _make_table(self, settings: Settings) -> RoutingTable:
        return make_table(settings, self._own, self._mailboxes, self._gate, self._devices)

    async def _shut_down(self) -> None:
        await self._control.close()
        # What nobody can write down any more need not be waited for.
        limit_s = 0.0 if self._is_writer_lost else DRAIN_S
        await self._ports.drain(limit_s)
        await self._from_mqtt.close(limit_s)
        self._logins.close()
        for task in self._background:
            task.cancel()
        await self._watch.close(limit_s)
        await self._devices.close()
        await self._dispatcher.drain(limit_s)
        await self._smtp.close()
        await self._smtp.credentials.close()
        await self._paces.close()
        await self._mqtt.close()
        await self._maildir.close()
        await self._notify.close()
        await self._reader.close()
        await self._spool.close()
        await self._store.close()
        self._log.event("stopped")

    def _spawn(self, work: Coroutine[Any, Any, object], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._background.append(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """A background task that dies takes the hub down: a supervisor starts a sound one."""
        self._background.remove(task)
        if not task.cancelled() and task.exception() is not None:
            self._log.event("bug", task=task.get_name(), why=repr(task.exception()))
            self._trouble = task.get_name()
            self._stop.set()

    def _writer_lost(self) -> None:
        """Without its writer the hub can keep nothing: down, as above."""
        self._log.event("writer-lost", why="the process that writes queue.db has ended")
        self._is_writer_lost = True
        self._trouble = "queue's writer"
        self._stop.set()

    def _interfaces_changed(self, addresses: frozenset[IPAddress]) -> None:
        self._log.event("own-addresses", now=" ".join(sorted(map(str, addresses))))
        self._certificates.look_again()

    async def _relay_login_changed(self, relay: Relay, lost: LostLogin | None) -> None:
        """Tell the operator; when the login is back, its mail goes at once."""
        name = relay.name
        self._lost_logins = self._lost_logins - {name} | ({name} if lost is not None else set())
        self._mqtt.note_logins(self._lost_logins)
        if lost is not None:
            await self._alarms.login_lost(relay, lost)
            return
        await self._alarms.login_back(relay)
        try:
            await self._send_waiting(f"relay:{name}")
        except TemporaryError as error:  # then it goes when its time has come
            self._log.event("relay-login-trouble", relay=name, why=error)

    async def _send_to_mqtt(self) -> None:
        """The broker is back: events are worth most at once."""
        try:
            for kind in ("mqtt", "publish"):
                await self._send_waiting(kind)
        except TemporaryError as error:  # as above
            self._log.event("mqtt-retry-trouble", why=error)

    async def _send_waiting(self, target: str) -> None:
        """`target`: one, or all of a kind."""
        history = History(self._settings.data_dir)
        waiting = await asyncio.to_thread(history.waiting_for, target)
        await self._store.act(Action.RETRY, waiting)
        self._dispatcher.forget_trouble()

    async def _share(self, content: Content, queue_id: QueueId) -> Content:
        assert isinstance(content, InlineContent | FileContent)  # all that our store lends
        return await asyncio.to_thread(self._spool.share, content, queue_id)


def run_hub(settings: Settings, reload_from: Mapping[str, Any]) -> None:
    """Run a hub until it is told to stop. Raises OSError, StoreInUse, StoreUnavailable."""
    _raise_file_limit()
    log = Log(sys.stderr.fileno(), as_json=settings.log_as_json)

    async def main() -> None:
        await Hub(settings, log, reload_from).run()

    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(main())
    finally:
        log.close()


def _calm_the_collector() -> None:
    """What is made by now stays, so the cycle collector need not look at it again and again.

    Messages and sessions hold no cycles and go by reference counts alone. The collector's own
    pace, a look after every 700 new objects, took a tenth of the time of accepting mail.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


def _raise_file_limit() -> None:
    """Every session needs a descriptor; the soft limit is often 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
