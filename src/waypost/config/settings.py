"""The configuration as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from waypost.accounts.accounts import Account
from waypost.acme.settings import AcmeSettings
from waypost.check.settings import CheckSettings
from waypost.delivery.attachments import EventSettings
from waypost.delivery.notify import NotifySettings
from waypost.delivery.webhook import WebhookSettings
from waypost.devices.names import DeviceSettings
from waypost.dns.resolver import SYSTEM
from waypost.intake.acceptance import Limits
from waypost.intake.senders import SenderPolicy
from waypost.intake.smtp_listener import ListenerSettings
from waypost.intake.tokens import TokenSettings
from waypost.mail.address import IPAddress
from waypost.mqtt.settings import MqttSettings
from waypost.queue.retry import RetrySettings
from waypost.routing.hops import Relay
from waypost.routing.mailboxes import MailboxSettings
from waypost.routing.table import RoutingSettings
from waypost.tls.settings import TlsSettings
from waypost.web.settings import ApiToken, HttpSettings, InboundHook

DEFAULT_LISTENERS = (
    ListenerSettings("smtp", ("0.0.0.0:2525", "[::]:2525"), "hub"),
    ListenerSettings("submission", ("0.0.0.0:2587", "[::]:2587"), "submission"),
    ListenerSettings("submissions", ("0.0.0.0:2465", "[::]:2465"), "submission", tls="implicit"),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a hub is told."""

    data_dir: Path
    hostname: str | None = None  # None: we call ourselves by the literal connected to
    follow_interfaces: bool = True
    extra_own: tuple[IPAddress, ...] = ()
    trusted: tuple[str, ...] = ("loopback", "private")
    masked: frozenset[IPAddress] = frozenset()  # gateways that strangers may hide behind
    routing: RoutingSettings = field(default_factory=RoutingSettings)
    relays: tuple[Relay, ...] = ()
    webhooks: tuple[WebhookSettings, ...] = ()
    notify: tuple[NotifySettings, ...] = ()
    mailboxes: MailboxSettings = field(default_factory=MailboxSettings)
    listeners: tuple[ListenerSettings, ...] = DEFAULT_LISTENERS
    tls: TlsSettings = field(default_factory=TlsSettings)
    acme: AcmeSettings | None = None  # None: no public certificate
    limits: Limits = field(default_factory=Limits)
    retry: RetrySettings = field(default_factory=RetrySettings)
    dns_servers: tuple[str, ...] = (SYSTEM,)
    dnsbl_zones: tuple[str, ...] = ()
    check: CheckSettings = field(default_factory=CheckSettings)
    accounts: tuple[Account, ...] = ()
    tokens: TokenSettings | None = None  # None: nobody logs in with a token
    senders: SenderPolicy = field(default_factory=SenderPolicy)
    mqtt: MqttSettings | None = None  # None: there is no broker
    mqtt_events: EventSettings = field(default_factory=EventSettings)
    web_url: str | None = None  # where others reach the web page; None: nothing links to it
    devices: tuple[DeviceSettings, ...] = ()
    http: HttpSettings = field(default_factory=HttpSettings)
    api_tokens: tuple[ApiToken, ...] = ()
    inbound: tuple[InboundHook, ...] = ()
    log_as_json: bool = False
    source: Path | None = None  # None: no configuration file
