"""The route table: one recipient and how the mail came in, to the targets it goes to.

Answers at RCPT whether we take the mail at all, so that nothing unknown is accepted and bounced
later. Asks only what is in memory: no DNS, no disk, no waiting.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import translate
from typing import NamedTuple

from waypost.mail import reply as replies
from waypost.mail.address import Address, AddressLiteral, Domain, DomainPart
from waypost.mail.envelope import Arrival
from waypost.mail.reply import Reply
from waypost.net.gate import Gate, Origin, origin_of
from waypost.net.interfaces import OwnAddresses
from waypost.net.networks import Networks
from waypost.routing.mailboxes import POSTMASTER, MailboxNames
from waypost.routing.targets import Target, rejection

# Called with the setting or RFC section behind a step, and the step as a format and its values:
# mail is routed far more often than explained, so nothing is formatted unless somebody asks.
Explain = Callable[..., None]


def _nobody_asks(because: str, step: str, *values: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Rule:
    """One [[route]]; a field that is None matches everything."""

    name: str
    targets: tuple[Target, ...]
    recipient: re.Pattern[str] | None = None
    sender: re.Pattern[str] | None = None
    client: Networks | None = None
    listener: str | None = None
    continues: bool = False


def address_pattern(glob: str) -> re.Pattern[str]:
    """A shell-style pattern over whole addresses, without case; ``<>`` is the null sender.

    ``[`` stands for itself, as addresses have literals: ``*@[10.*]`` means what it shows.
    """
    return re.compile(translate(glob.replace("[", "[[]")), re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RoutingSettings:
    """What the table is made from, besides the live sets."""

    hostname: str | None = None  # None: we call ourselves by the literal connected to
    domains: frozenset[Domain] = frozenset()
    bare_ip: bool = True  # for trusted clients: user@10.0.0.5 means the literal
    accept_from_strangers: bool = False
    delivery_port: int = 25
    rules: tuple[Rule, ...] = ()


class Route(NamedTuple):
    """One target for one recipient, and what decided it."""

    target: Target
    rule: str


class Routing(NamedTuple):
    """The table's answer: routes, or the refusal to give at RCPT."""

    recipient: Address  # qualified, and with a bare IP read as the literal
    routes: tuple[Route, ...] = ()
    refusal: Reply | None = None  # None: the routes are to be used


_WHAT_IS_OURS = "addresses.own, addresses.domains, RFC 1123 §5.2.17"


class RoutingTable:
    """Decides where mail goes; see the module text."""

    def __init__(
        self,
        settings: RoutingSettings,
        *,
        own: OwnAddresses,
        trusted: Networks,
        mailboxes: MailboxNames,
        gate: Gate,
    ) -> None:
        self._settings = settings
        self._own = own
        self._trusted = trusted
        self._mailboxes = mailboxes
        self._gate = gate

    def qualify(self, path: Address | str, arrival: Arrival) -> Address:
        """The address a path means: our own domain where it names none, literals for bare IPs."""
        if isinstance(path, str):
            return Address(path, self.own_domain(arrival))
        if arrival.trusted and self._settings.bare_ip and isinstance(path.domain, Domain):
            ip = path.domain.as_ip()
            if ip is not None:
                return Address(path.local_part, AddressLiteral(ip))
        return path

    def own_domain(self, arrival: Arrival) -> DomainPart:
        """What stands for this hub after an "@": its name, else the literal connected to."""
        if self._settings.hostname is not None:
            return Domain(self._settings.hostname)
        if arrival.local_ip is not None:
            return AddressLiteral(arrival.local_ip)
        return Domain("localhost")

    def is_ours(self, domain: DomainPart, arrival: Arrival) -> bool:
        """True for our names, our addresses, and the address the client connected to.

        RFC 1123 §5.2.17: a literal of any of our own addresses is to be recognised as ours.
        """
        if isinstance(domain, AddressLiteral):
            return domain.ip in self._own or domain.ip == arrival.local_ip
        if isinstance(domain, Domain):
            return domain in self._settings.domains or domain == self.own_domain(arrival)
        return False

    def route(
        self,
        path: Address | str,
        arrival: Arrival,
        sender: Address | None,
        explain: Explain = _nobody_asks,
    ) -> Routing:
        """Where mail for `path` goes. `sender` None: the null reverse-path."""
        recipient = self.qualify(path, arrival)
        if recipient is not path:
            explain("addresses.bare_ip, RFC 5321 §4.1.1.3", "{} is read as {}", path, recipient)
        ours = self.is_ours(recipient.domain, arrival)
        verdict = "{} is ours" if ours else "{} is not ours"
        explain(_WHAT_IS_OURS, verdict, recipient.domain)
        name = self._mailboxes.resolve(recipient.local_part) if ours else ""
        if not arrival.trusted and arrival.client_ip is not None:
            refusal = self._why_not_for_stranger(ours, name, recipient, explain)
            if refusal is not None:
                return Routing(recipient, refusal=refusal)
        routes, refusal, is_settled = self._by_rules(recipient, arrival, sender, explain)
        if refusal is None and not is_settled:
            # No rule matched, or all that did let others add to them: the usual way counts too.
            route, refusal = (
                self._to_mailbox(name, arrival, explain)
                if ours
                else self._onward(recipient, arrival, explain)
            )
            if route is not None:
                routes.append(route)
        if refusal is not None:
            return Routing(recipient, refusal=refusal)
        return Routing(recipient, tuple(routes))

    def _why_not_for_stranger(
        self, ours: bool, name: str, recipient: Address, explain: Explain
    ) -> Reply | None:
        if not ours:
            explain("networks.trusted", "a stranger may not relay: refused")
            return replies.RELAY_DENIED
        if recipient.local_part.lower() == POSTMASTER:
            explain("RFC 5321 §4.5.1", "mail to postmaster is always taken")
            return None
        if not self._settings.accept_from_strangers:
            explain("networks.accept_from_strangers", "strangers may mail nobody here: refused")
            return replies.RELAY_DENIED
        if not self._mailboxes.exists(name):
            explain("[[mailbox]]", "there is no mailbox {!r}: refused", name)
            return replies.NO_SUCH_MAILBOX
        return None

    def _by_rules(
        self, recipient: Address, arrival: Arrival, sender: Address | None, explain: Explain
    ) -> tuple[list[Route], Reply | None, bool]:
        """Routes, a refusal, and whether a rule had the last word."""
        routes: list[Route] = []
        for rule in self._settings.rules:
            if not _matches(rule, recipient, arrival, sender):
                continue
            for target in rule.targets:
                if target.kind == "reject":
                    explain("[[route]]", "route {!r} refuses it", rule.name)
                    return [], rejection(target), True
                if target.kind == "direct":
                    refusal = self._why_not_direct(recipient, arrival, Origin.ROUTED, explain)
                    if refusal is not None:
                        return [], refusal, True
                if target.kind == "mailbox":
                    # The mailbox an address of that name reaches, however the rule spells it.
                    target = Target("mailbox", self._mailboxes.fold(target.argument))
                explain("[[route]]", "route {!r} sends it to {}", rule.name, target)
                routes.append(Route(target, rule.name))
            if not rule.continues:
                return routes, None, True
        return routes, None, False

    def _to_mailbox(
        self, name: str, arrival: Arrival, explain: Explain
    ) -> tuple[Route | None, Reply | None]:
        if self._mailboxes.exists(name):
            explain("[[mailbox]]", "mailbox {!r}", name)
        elif arrival.trusted and self._mailboxes.may_create:
            explain("mailboxes.auto_create", "mailbox {!r} will be made", name)
        else:
            explain("mailboxes.auto_create", "there is no mailbox {!r}: refused", name)
            return None, replies.NO_SUCH_MAILBOX
        return Route(Target("mailbox", name), "own address"), None

    def _onward(
        self, recipient: Address, arrival: Arrival, explain: Explain
    ) -> tuple[Route | None, Reply | None]:
        if isinstance(recipient.domain, Domain):
            explain("[[route]]", "mail to names needs a route, and none matches: refused")
            return None, Reply(550, f"No route to {recipient.domain} is set up here", (7, 1))
        refusal = self._why_not_direct(recipient, arrival, origin_of(arrival), explain)
        if refusal is not None:
            return None, refusal
        explain("networks.trusted", "straight to {}", recipient.domain)
        return Route(Target("direct"), "literal in a trusted network"), None

    def _why_not_direct(
        self, recipient: Address, arrival: Arrival, origin: Origin, explain: Explain
    ) -> Reply | None:
        """Why mail cannot go straight to the recipient's own host; None: it can."""
        domain = recipient.domain
        if not isinstance(domain, AddressLiteral):
            explain("RFC 5321 §4.1.3", "{} is no host's address: refused", domain)
            return Reply(550, f"No way is known to {domain}", (1, 2))
        reason = self._gate.refusal(domain.ip.packed, self._settings.delivery_port, origin)
        if reason is not None:
            explain("networks.trusted", "{}: refused", reason)
            return Reply(550, f"Mail to {domain} is not allowed from here", (7, 1))
        return None


def _matches(rule: Rule, recipient: Address, arrival: Arrival, sender: Address | None) -> bool:
    if rule.listener is not None and rule.listener != arrival.listener:
        return False
    if rule.client is not None and (
        arrival.client_ip is None or arrival.client_ip not in rule.client
    ):
        return False
    if rule.recipient is not None and rule.recipient.match(str(recipient)) is None:
        return False
    return rule.sender is None or (
        rule.sender.match("<>" if sender is None else str(sender)) is not None
    )


def describe_rules(rules: Sequence[Rule]) -> list[str]:
    """One line for each rule, for the start-up log."""
    return [f"{rule.name} -> {', '.join(map(str, rule.targets))}" for rule in rules]
