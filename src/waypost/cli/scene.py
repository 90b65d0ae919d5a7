"""Who would send, and the table and policy that judge: what `waypost route` explains with."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from ipaddress import ip_address

from waypost.app import (
    configured_places,
    make_accounts,
    make_device_names,
    make_gate,
    make_mailbox_names,
    make_own_addresses,
    make_registry,
    make_smtp,
    make_table,
    trusted_clients,
)
from waypost.cli.context import settings_of
from waypost.cli.output import paint, printable, say
from waypost.config.settings import Settings
from waypost.delivery.smtp import SmtpTransport
from waypost.devices.names import DeviceNames
from waypost.errors import AddressError
from waypost.intake.senders import Senders
from waypost.mail.address import Address, IPAddress, as_value
from waypost.mail.authentication import LITERAL
from waypost.mail.envelope import Arrival
from waypost.mail.reply import Reply
from waypost.net.gate import Gate
from waypost.net.interfaces import OwnAddresses, source_towards
from waypost.routing.table import RoutingTable

THIS_HOST = "127.0.0.1"


class UsageFault(Exception):
    """What was typed cannot be meant; never leaves the command."""


@dataclass(slots=True)
class Steps:
    """What was decided, and by which setting, in order."""

    taken: list[dict[str, str]] = field(default_factory=list)

    def add(self, because: str, step: str, *values: object) -> None:
        """See table.Explain."""
        self.taken.append({"step": step.format(*values), "because": because})

    def say(self) -> None:
        """A line for each."""
        for step in self.taken:
            because = paint(f"({step['because']})", "dim")
            say(f"  {printable(step['step'])}  {because}")


@dataclass(frozen=True, slots=True)
class Scene:
    """A client before a hub with these settings; nothing of it connects."""

    settings: Settings
    own: OwnAddresses
    gate: Gate
    table: RoutingTable
    names: DeviceNames
    senders: Senders
    arrival: Arrival
    role: str  # of the listener

    def first_steps(self) -> Steps:
        """Who it is that sends."""
        who = "trusted" if self.arrival.trusted else "a stranger"
        if self.arrival.login is not None:
            who = f"logged in as {self.arrival.login}"
        steps = Steps()
        steps.add("networks.trusted", "{} is {}", self.arrival.client_ip, who)
        return steps

    def judge(self, sender: Address | None, steps: Steps) -> Reply | None:
        """Why the sender may not be used; None: it may."""
        results, refusal = self.senders.judge(self.arrival, sender)
        for result in results:
            because = "policy.literal_sender" if result.method == LITERAL else "[[mailbox]] or user"
            steps.add(because, "the sender: {}", result)
        return refusal

    def smtp(self) -> SmtpTransport:
        """What finds the hosts."""
        return make_smtp(self.settings, self.own, self.gate)


def scene_of(parsed: argparse.Namespace, client_text: str) -> Scene:
    """As --listener, --login and --helo say, too. Raises UsageFault, ConfigError."""
    settings = settings_of(parsed)
    try:
        client = as_value(ip_address(client_text))
    except ValueError:
        raise UsageFault(f"--client {client_text}: not an IP address") from None
    name = parsed.listener or settings.listeners[0].name
    roles = {listener.name: listener.role for listener in settings.listeners}
    own = make_own_addresses(settings)
    gate = make_gate(settings, own, lambda: configured_places(settings))
    devices = make_registry(settings)
    devices.load()
    table = make_table(settings, own, make_mailbox_names(settings), gate, devices)
    arrival = Arrival(
        protocol="ESMTP",
        client_ip=client,
        local_ip=_local_ip(client),
        helo=parsed.helo,
        listener=name,
        trusted=parsed.login is not None or client in trusted_clients(settings),
        login=parsed.login,
    )
    find = make_accounts(settings).find
    senders = Senders(settings.senders, own=own, account_of=find, table=lambda: table)
    names = make_device_names(settings, devices)
    return Scene(settings, own, gate, table, names, senders, arrival, roles.get(name, "hub"))


def path_of(text: str) -> Address | str:
    """A recipient as it was typed; a bare name is one of the hub's. Raises UsageFault."""
    return _parsed(text) if "@" in text else text


def sender_of(text: str | None) -> Address | None:
    """A sender as it was typed; nothing or <> is the null reverse-path. Raises UsageFault."""
    return _parsed(text) if text and text != "<>" else None


def _parsed(text: str) -> Address:
    try:
        return Address.parse(text)
    except AddressError as error:
        raise UsageFault(str(error)) from None


def _local_ip(client: IPAddress) -> IPAddress | None:
    """The address of ours such a client would connect to; None: there is no way to it."""
    try:
        return source_towards(client)
    except OSError:
        return None
