"""The composition root: what is made of which settings, for the hub and for commands alike."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from waypost.accounts.accounts import Accounts
from waypost.accounts.users_file import USERS_FILE, read_users
from waypost.check.assessment import Depth
from waypost.check.checker import Checker
from waypost.check.inquiry import Inquiry
from waypost.check.memory import Memory
from waypost.check.probe import Prober
from waypost.check.standing import Standings
from waypost.config.settings import Settings
from waypost.delivery.credentials import Credentials, OnLogin
from waypost.delivery.demands import Demands
from waypost.delivery.maildir import mailbox_names
from waypost.delivery.securing import OnPin, Securing
from waypost.delivery.smtp import SmtpSettings, SmtpTransport
from waypost.delivery.sts import StsPolicies
from waypost.devices.names import DeviceNames
from waypost.devices.registry import FILE as DEVICES_FILE
from waypost.devices.registry import Registry
from waypost.dns.blocklist import Blocklists
from waypost.dns.resolver import Resolver
from waypost.http.client import HttpClient
from waypost.intake.smtp_listener import split_bind
from waypost.intake.tokens import Introspection
from waypost.mail.address import IPAddress
from waypost.net.gate import Gate, Origin
from waypost.net.interfaces import OwnAddresses
from waypost.net.networks import NOWHERE, Networks
from waypost.observe import Log
from waypost.queue.store import QueueIdSource
from waypost.routing.groups import DomainGroups
from waypost.routing.mailboxes import MailboxNames
from waypost.routing.table import RoutingTable
from waypost.tls.pins import Pins
from waypost.tls.policy import TlsPolicy

if TYPE_CHECKING:
    from waypost.delivery.preview import Preview
    from waypost.tls.authority import Subjects
    from waypost.tls.keeper import Keeper

# Programs of this host come by these, whatever is configured as ours.
_LOOPBACK: tuple[IPAddress, ...] = (ip_address("127.0.0.1"), ip_address("::1"))


def mailbox_root(settings: Settings) -> Path:
    """Where Maildirs lie."""
    return settings.data_dir / settings.mailboxes.root


def make_gate(
    settings: Settings,
    own: OwnAddresses,
    listening: Callable[[], frozenset[tuple[IPAddress | None, int]]] = frozenset,
) -> Gate:
    """The gate these settings ask for."""
    return Gate(trusted=Networks(settings.trusted), own=own, listening=listening)


def make_hook_gate(
    own: OwnAddresses,
    listening: Callable[[], frozenset[tuple[IPAddress | None, int]]],
    networks: Networks,
) -> Gate:
    """The gate of one webhook: its host's name may lead into these networks."""
    return Gate(trusted=NOWHERE, own=own, listening=listening, probed=networks)


def trusted_clients(settings: Settings) -> Networks:
    """Clients that may send without a login."""
    return Networks(settings.trusted, without=settings.masked)


def configured_places(settings: Settings) -> frozenset[tuple[IPAddress | None, int]]:
    """Where a hub with these settings listens, for a gate; None: every address."""
    places: set[tuple[IPAddress | None, int]] = set()
    binds = [bind for listener in settings.listeners for bind in listener.bind]
    for bind in (*binds, *settings.http.bind):
        host, port = split_bind(bind)
        if port:
            ip = ip_address(host)
            places.add((None if ip.is_unspecified else ip, port))
    return frozenset(places)


def make_own_addresses(settings: Settings) -> OwnAddresses:
    """Our addresses as these settings say."""
    return OwnAddresses(follow_interfaces=settings.follow_interfaces, extra=settings.extra_own)


def make_keeper(settings: Settings) -> Keeper:
    """The keeper of these settings' certificates."""
    # cryptography takes a while to load, as dnspython does below.
    from waypost.tls.keeper import Keeper

    return Keeper(settings.data_dir / "tls")


def make_subjects(settings: Settings, own: OwnAddresses) -> Subjects:
    """What a certificate of the hub stands for, by these settings."""
    from waypost.tls.authority import Subjects

    names = [name.ascii for _, name in settings.routing.groups.names]
    if settings.hostname is not None:
        names.append(settings.hostname)
    return Subjects(own.current | {*_LOOPBACK, *settings.extra_own}, frozenset(names))


def make_table(
    settings: Settings,
    own: OwnAddresses,
    mailboxes: MailboxNames,
    gate: Gate,
    registry: Registry,
) -> RoutingTable:
    """The route table these settings ask for; the command line explains with the same one."""
    return RoutingTable(
        settings.routing,
        own=own,
        trusted=Networks(settings.trusted),
        mailboxes=mailboxes,
        gate=gate,
        mailbox_of_client=registry.mailbox_of,
        command_of_device=registry.command_of,
    )


def make_registry(settings: Settings, log: Log | None = None) -> Registry:
    """The devices, not loaded yet; `log` is a hub's."""
    registry = Registry(settings.data_dir / DEVICES_FILE, log)
    registry.configure(settings.devices)
    return registry


def smtp_settings(settings: Settings) -> SmtpSettings:
    """What SMTP on the way out is told."""
    return SmtpSettings(
        settings.hostname,
        settings.routing.delivery_port,
        {relay.name: relay for relay in settings.relays},
        DomainGroups(settings.routing.groups),
    )


def make_tls_policy(settings: Settings) -> TlsPolicy:
    """What is asked of other hosts. Raises AuthorityError, OSError for a trusted authority that
    cannot be read.
    """
    directory = settings.data_dir / "tls" / "trusted"
    if not directory.exists():
        return TlsPolicy(settings.tls.rules)
    # cryptography takes a while to load, as dnspython does below.
    from waypost.tls.trusted import trusted_files

    trusted = [entry.authority for entry in trusted_files(directory)]
    return TlsPolicy(settings.tls.rules, trusted)


def make_pins(settings: Settings) -> Pins:
    """The keys hosts are known by."""
    return Pins(settings.data_dir / "tls" / "pins.db")


def make_smtp(
    settings: Settings,
    own: OwnAddresses,
    gate: Gate,
    *,
    log: Log | None = None,
    on_login: OnLogin | None = None,
    on_pin: OnPin | None = None,
    resolver: Resolver | None = None,
) -> SmtpTransport:
    """The transport for mail on its way out. Raises as `make_tls_policy`.

    `log`, `on_login` and `on_pin` are a hub's, see Credentials and Securing. `resolver` None: one
    is made.
    """
    resolver = resolver or make_resolver(settings)
    http = HttpClient(gate, resolver, Origin.OPERATOR)
    credentials = Credentials(settings.data_dir, http, settings.relays, log=log, on_login=on_login)
    sts = StsPolicies(
        settings.data_dir / "tls" / "mta-sts.db", HttpClient(gate, resolver, Origin.STRANGER), log
    )
    return SmtpTransport(
        *(gate, own, resolver, smtp_settings(settings)),
        Demands(make_tls_policy(settings), sts, log),
        Securing(make_pins(settings), credentials, on_pin),
    )


@contextlib.asynccontextmanager
async def make_preview(
    settings: Settings, table: RoutingTable, names: DeviceNames, smtp: SmtpTransport
) -> AsyncIterator[Preview]:
    """What tells of deliveries, for as long as the block lasts."""
    # All the transports, which no other command needs.
    from waypost.delivery.events import EventReader
    from waypost.delivery.preview import Preview
    from waypost.reading.process import MailReader

    reader = MailReader()
    try:
        yield Preview(
            events=EventReader(reader, lambda: names, lambda: settings.web_url),
            smtp=smtp,
            table=table,
            mail_root=mailbox_root(settings),
            data_dir=settings.data_dir,
            webhooks={one.name: one for one in settings.webhooks},
            notify={one.name: one for one in settings.notify},
            mqtt=settings.mqtt,
            mqtt_events=settings.mqtt_events,
            next_id=QueueIdSource().next_id,
        )
    finally:
        await reader.close()


def make_mailbox_names(settings: Settings) -> MailboxNames:
    """The mailboxes configured, and those on disk."""
    return MailboxNames(settings.mailboxes, mailbox_names(mailbox_root(settings)))


def make_device_names(settings: Settings, registry: Registry) -> DeviceNames:
    """What devices are called."""

    def name_of(source: str) -> str | None:
        try:
            return registry.name_of(ip_address(source))
        except ValueError:
            return None  # a login, and what else is no address

    return DeviceNames(settings.devices, name_of)


def make_accounts(settings: Settings) -> Accounts:
    """The accounts of the configuration and of the users file. Raises UsersFault; blocks."""
    users = read_users(settings.data_dir / USERS_FILE)
    return Accounts([*settings.accounts, *users])


def make_verifier(settings: Settings, gate: Gate, resolver: Resolver) -> Introspection | None:
    """What says whose a token is; None: nobody logs in with one."""
    if settings.tokens is None:
        return None
    return Introspection(HttpClient(gate, resolver, Origin.OPERATOR), settings.tokens)


def make_resolver(settings: Settings) -> Resolver:
    """The resolver these settings ask for."""
    # dnspython takes a while to load, which no other command should wait for.
    from waypost.dns.caching import CachingResolver

    return CachingResolver(settings.dns_servers)


@contextlib.contextmanager
def open_checker(
    settings: Settings,
    depth: Depth,
    *,
    timeout_s: float,
    waits: bool,
    is_fresh: bool,
    on_wait: Callable[[float], None],
) -> Iterator[Checker]:
    """A checker that asks, for as long as the block lasts; arguments as Inquiry's.

    Raises OSError or MemoryUnavailable when what was found before cannot be opened.
    """
    resolver = make_resolver(settings)
    probed = Networks(settings.check.networks)
    with contextlib.ExitStack() as stack:
        inquiry: Inquiry | None = None
        if depth is Depth.SMTP:
            standings = make_standings(settings, resolver)
            gate = Gate(
                trusted=Networks(settings.trusted),
                own=make_own_addresses(settings),
                listening=frozenset,
                probed=probed,
            )
            prober = Prober(
                gate,
                helo=standings.helo_for,
                sender=settings.check.sender,
                port=settings.routing.delivery_port,
            )
            memory = stack.enter_context(contextlib.closing(Memory(settings.data_dir / "check.db")))
            inquiry = Inquiry(
                *(prober, memory, standings, settings.check),
                timeout_s=timeout_s,
                waits=waits,
                is_fresh=is_fresh,
                on_wait=on_wait,
            )
        yield Checker(
            resolver=resolver,
            blocklists=Blocklists(resolver, settings.dnsbl_zones),
            reachable=Networks((*settings.trusted, *settings.check.networks)),
            probed=probed,
            inquiry=inquiry,
        )


def make_standings(settings: Settings, resolver: Resolver) -> Standings:
    """Our own addresses as others see them."""
    return Standings(
        resolver=resolver,
        blocklists=Blocklists(resolver, settings.dnsbl_zones),
        helo=settings.check.helo or settings.hostname,
        nat_addresses=settings.extra_own,
    )


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's loop where it is installed; None: asyncio's own."""
    with contextlib.suppress(ImportError):
        import uvloop

        return uvloop.new_event_loop
    return None
