"""The route table: one recipient and how the mail came in, to the targets it goes to.

Answers at RCPT whether we take the mail at all, so that nothing unknown is accepted and bounced
later. Asks only what is in memory: no DNS, no disk, no waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from waypost.mail import reply as replies
from waypost.mail.address import (
    Address,
    AddressLiteral,
    Domain,
    DomainPart,
    IPAddress,
    literal_of,
)
from waypost.mail.envelope import Arrival
from waypost.mail.reply import Reply
from waypost.net.gate import Gate, Origin, origin_of
from waypost.net.interfaces import OwnAddresses
from waypost.net.networks import Networks
from waypost.routing.groups import DomainGroups, GroupSettings
from waypost.routing.hours import Hours, local_time
from waypost.routing.mailboxes import HUB, POSTMASTER, MailboxNames
from waypost.routing.patterns import AddressGlob, Glob
from waypost.routing.storms import StormSettings
from waypost.routing.targets import Target, rejection
from waypost.routing.topics import TopicSettings, command_target

# What stands for the listener of mail that a list sends to its members.
LIST = "(list)"

# Called with the setting or RFC section behind a step, and the step as a format and its values:
# mail is routed far more often than explained, so nothing is formatted unless somebody asks.
Explain = Callable[..., None]

# The mailbox a client's mail goes to where its address has none; None: it has no such mailbox.
MailboxOf = Callable[[IPAddress], str | None]

# What mail to a device's own address is published as, see mqtt/publication; None: it is sent there.
CommandOf = Callable[[IPAddress], str | None]


def _nobody_asks(because: str, step: str, *values: object) -> None:
    pass


def _none_of(ip: IPAddress) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Rule:
    """One [[route]]; a field that is None matches everything."""

    name: str
    targets: tuple[Target, ...]
    recipient: AddressGlob | None = None
    sender: AddressGlob | None = None
    client: Networks | None = None
    listener: str | None = None
    login: Glob | None = None
    subject: Glob | None = None
    header: tuple[tuple[str, Glob], ...] = ()
    larger_than: int | None = None  # octets
    has_attachment: bool | None = None
    helo: Glob | None = None
    time: tuple[Hours, ...] | None = None
    continues: bool = False
    storm: StormSettings | None = None  # None: all mail goes as it comes
    duplicates_s: float | None = None  # None: nobody asks whether mail was here before

    @property
    def needs_content(self) -> bool:
        """True where only the content can say whether it matches."""
        return bool(
            self.subject
            or self.header
            or self.larger_than is not None
            or self.has_attachment is not None
        )


class ContentFacts(NamedTuple):
    """What rules ask of a message's content."""

    size: int  # octets
    fields: Sequence[tuple[str, str]]  # of the header: name in lower case, decoded text

    @property
    def has_attachment(self) -> bool:
        """As far as the header tells: nobody parses MIME while a client waits for its answer.

        So it is what programs make that attach files (multipart/mixed, RFC 2046 §5.1.3), and a
        mail that is nothing but a file.
        """
        said = dict(reversed(self.fields))  # the first of each
        kind = said.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/mixed":
            return True
        if said.get("content-disposition", "").strip().lower().startswith("attachment"):
            return True
        return "/" in kind and kind.partition("/")[0] not in ("text", "multipart", "message")


@dataclass(frozen=True, slots=True)
class ListSettings:
    """One [list.NAME]."""

    name: str
    members: tuple[Address, ...]
    scope: str = HUB  # the domain it belongs to
    owner: Address | None = None  # None: postmaster here
    strangers_may_post: bool = False


@dataclass(frozen=True, slots=True)
class RoutingSettings:
    """What the table is made from, besides the live sets."""

    hostname: str | None = None  # None: we call ourselves by the literal connected to
    domains: frozenset[Domain] = frozenset()
    bare_ip: bool = True  # for trusted clients: user@10.0.0.5 means the literal
    accept_from_strangers: bool = False
    delivery_port: int = 25
    rules: tuple[Rule, ...] = ()
    lists: tuple[ListSettings, ...] = ()
    groups: GroupSettings = field(default_factory=GroupSettings)
    topics: TopicSettings | None = None  # None: there is no MQTT broker


class Route(NamedTuple):
    """One target for one recipient, and what decided it."""

    target: Target
    rule: str


class Routing(NamedTuple):
    """The table's answer: routes, or the refusal to give at RCPT."""

    recipient: Address  # qualified, and with a bare IP read as the literal
    routes: tuple[Route, ...] = ()
    refusal: Reply | None = None  # None: the routes are to be used
    needs_content: bool = False  # True: to be asked again when the content is there
    has_moved: bool = False  # True: addresses.moved gave the recipient another host


@dataclass(slots=True)
class _ByRules:
    """What the rules say together."""

    routes: list[Route]
    refusal: Reply | None = None  # None: none of them refuses
    is_settled: bool = False  # one had the last word
    may_match: bool = False  # one waits for the content
    may_settle: bool = False  # and would have the last word


_NO_REPORTS = Reply(550, "Reports are not published", (7, 1))
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
        mailbox_of_client: MailboxOf = _none_of,
        command_of_device: CommandOf = _none_of,
        clock: Callable[[], datetime] = local_time,
    ) -> None:
        self._settings = settings
        self._lists = {entry.name: entry for entry in settings.lists}
        self.groups = DomainGroups(settings.groups)
        self._own = own
        self._trusted = trusted
        self._mailboxes = mailboxes
        self._gate = gate
        self._mailbox_of_client = mailbox_of_client
        self._command_of_device = command_of_device
        self._clock = clock
        # How far back the same mail is looked for, by the names of the rules that ask for it.
        self.duplicates_s = {
            rule.name: rule.duplicates_s for rule in settings.rules if rule.duplicates_s is not None
        }

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
        """What stands for this hub after an "@": its name, else the literal connected to.

        An address that stands for domains is its own: bare names go to its group.
        """
        local_ip = arrival.local_ip
        if local_ip is not None and self.groups.domains_at(local_ip):
            return literal_of(local_ip)
        if self._settings.hostname is not None:
            return Domain(self._settings.hostname)
        return Domain("localhost") if local_ip is None else literal_of(local_ip)

    def is_ours(self, domain: DomainPart, arrival: Arrival) -> bool:
        """True for our names, our addresses, and the address the client connected to.

        RFC 1123 §5.2.17: a literal of any of our own addresses is to be recognised as ours.
        """
        if isinstance(domain, AddressLiteral):
            ip = domain.ip
            return ip in self._own or ip == arrival.local_ip or bool(self.groups.domains_at(ip))
        if isinstance(domain, Domain):
            return (
                domain in self._settings.domains
                or self.groups.has(domain)
                or domain == self.own_domain(arrival)
            )
        return False

    def route(
        self,
        path: Address | str,
        arrival: Arrival,
        sender: Address | None,
        explain: Explain = _nobody_asks,
        content: ContentFacts | None = None,
    ) -> Routing:
        """Where mail for `path` goes. `sender` None: the null reverse-path.

        `content` None: it is not there yet, so rules that need it neither match nor do not.
        """
        recipient = self.qualify(path, arrival)
        if recipient is not path:
            explain("addresses.bare_ip, RFC 5321 §4.1.1.3", "{} is read as {}", path, recipient)
        new_place = self.groups.new_place(recipient.domain) if arrival.trusted else None
        old_place = recipient.domain
        if new_place is not None:
            explain("addresses.moved", "{} has moved to {}", old_place, new_place)
            recipient = Address(recipient.local_part, new_place)
        ours = self.is_ours(recipient.domain, arrival)
        verdict = "{} is ours" if ours else "{} is not ours"
        explain(_WHAT_IS_OURS, verdict, recipient.domain)
        found = self._find(recipient, explain) if ours else None
        if not arrival.trusted and arrival.client_ip is not None:
            refusal = self._why_not_for_stranger(ours, found, recipient, explain)
            if refusal is not None:
                return Routing(recipient, refusal=refusal)
        by_rules = self._by_rules(recipient, arrival, sender, explain, content)
        routes, refusal = by_rules.routes, by_rules.refusal
        if refusal is None and not by_rules.is_settled:
            # No rule matched, or all that did let others add to them: the usual way counts too.
            route, refusal = (
                self._to_own(found, recipient, arrival, explain)
                if ours
                else self._onward(recipient, arrival, sender, explain)
            )
            if route is not None:
                _add(routes, route)
        has_moved = new_place is not None
        # What only copies wait for is refused whatever the content.
        if by_rules.may_match and (refusal is None or by_rules.may_settle):
            return Routing(recipient, needs_content=True, has_moved=has_moved)
        if refusal is not None:
            return Routing(recipient, refusal=refusal)
        if new_place is not None:
            routes = [
                route._replace(rule=f"moved from {old_place}, {route.rule}") for route in routes
            ]
        return Routing(recipient, tuple(routes), has_moved=has_moved)

    def route_named(self, name: str, arrival: Arrival) -> Routing:
        """Where the [[route]] of that name leads, whatever it matches."""
        recipient = Address(name, self.own_domain(arrival))
        routes: list[Route] = []
        rule = next((rule for rule in self._settings.rules if rule.name == name), None)
        refusal: Reply | None = replies.NO_SUCH_ROUTE
        if rule is not None:
            refusal = self._follow(rule, recipient, arrival, _nobody_asks, routes)
        return Routing(recipient, tuple(routes) if refusal is None else (), refusal=refusal)

    def reaches(self, address: Address, mailbox: str, arrival: Arrival) -> bool:
        """True when mail for an address gets, or would get, into a mailbox of this very name here.

        A name with a domain is that of a mailbox which belongs to the domain: never of one that
        belongs to the hub. Nor are sub-addresses and aliases names of mailboxes.
        """
        if not self.is_ours(address.domain, arrival):
            return False
        wanted = self._mailboxes.mailbox_of(Target("mailbox", mailbox))
        found = self._find(address, _nobody_asks)
        if found is not None:
            return found == wanted
        scopes = self.scopes_of(address.domain)
        would_be = self._mailboxes.resolve(address.local_part, self._scope_of_new(scopes))
        return len(scopes) < 2 and would_be == wanted.argument

    def _scope_of_new(self, scopes: Sequence[str]) -> str:
        """What a mailbox belongs to that mail makes, by the scopes of its address."""
        return scopes[0] if scopes and self.groups.has(Domain(scopes[0])) else HUB

    def list_settings(self, name: str) -> ListSettings | None:
        """A list; None: there is none of this name."""
        return self._lists.get(name)

    def scopes_of(self, domain: DomainPart) -> tuple[str, ...]:
        """The domains whose mailboxes an address of ours may mean, besides those of the hub."""
        if isinstance(domain, AddressLiteral):
            return self.groups.domains_at(domain.ip)
        return (domain.ascii,) if isinstance(domain, Domain) else ()

    def _find(self, recipient: Address, explain: Explain) -> Target | Reply | None:
        """What exists under a recipient of ours; a reply: several do. None: nothing does."""
        scopes = self.scopes_of(recipient.domain)
        if isinstance(recipient.domain, AddressLiteral) and scopes:
            explain("addresses.groups", "{} stands for {}", recipient.domain, ", ".join(scopes))
        local_part, mailboxes = recipient.local_part, self._mailboxes
        if (topic := self._topic_in(local_part)) is not None:
            return self._to_topic(topic, explain)
        by_name = [mailboxes.find(local_part, scope) for scope in scopes]
        found = self._only(by_name, local_part, explain) or mailboxes.find(local_part, HUB)
        if found is None:
            rest = [mailboxes.catch_all(scope) for scope in scopes]
            found = self._only(rest, local_part, explain) or mailboxes.catch_all(HUB)
        return found

    def _only(
        self, targets: Sequence[Target | None], local_part: str, explain: Explain
    ) -> Target | Reply | None:
        """The one of several domains that has it; a reply: more have. None: none has."""
        found = {target for target in targets if target is not None}
        if len(found) < 2:
            return found.pop() if found else None
        if local_part.lower() == POSTMASTER:
            return None  # always taken (RFC 5321 §4.5.1): by the hub's, then
        explain("addresses.groups", "{} of them have it: refused", len(found))
        return replies.AMBIGUOUS

    def _topic_in(self, local_part: str) -> str | None:
        """The topic a local part names, perhaps empty or wrong; None: it is no such address."""
        topics = self._settings.topics
        if topics is None or not topics.mailbox:
            return None
        return self._mailboxes.detail_of(local_part, topics.mailbox)

    def _to_topic(self, topic: str, explain: Explain) -> Target | Reply:
        assert self._settings.topics is not None  # else no address names one
        try:
            return self._settings.topics.target_of(topic)
        except ValueError as error:
            explain("mqtt.topics", "{}: refused", error)
            return Reply(550, f"Not published: {error}", (7, 1) if topic else (1, 1))

    def _why_not_for_stranger(
        self, ours: bool, found: Target | Reply | None, recipient: Address, explain: Explain
    ) -> Reply | None:
        if not ours:
            explain("networks.trusted", "a stranger may not relay: refused")
            return replies.RELAY_DENIED
        if recipient.local_part.lower() == POSTMASTER:
            explain("RFC 5321 §4.5.1", "mail to postmaster is always taken")
            return None
        if self._topic_in(recipient.local_part) is not None:
            explain("mqtt.mailbox", "a stranger may not publish: refused")
            return replies.RELAY_DENIED
        if not self._settings.accept_from_strangers:
            explain("networks.accept_from_strangers", "strangers may mail nobody here: refused")
            return replies.RELAY_DENIED
        if found is None:
            explain("[[mailbox]]", "there is no mailbox {!r}: refused", recipient.local_part)
            return replies.NO_SUCH_MAILBOX
        if isinstance(found, Target) and found.kind == "list":
            settings = self._lists.get(found.argument)  # None: its owner, who gets bounces
            if settings is not None and not settings.strangers_may_post:
                explain("list.strangers_may_post", "strangers may not post here: refused")
                return replies.RELAY_DENIED
        return None

    def _by_rules(
        self,
        recipient: Address,
        arrival: Arrival,
        sender: Address | None,
        explain: Explain,
        content: ContentFacts | None,
    ) -> _ByRules:
        by_rules = _ByRules([])
        for rule in self._settings.rules:
            if not _matches(rule, recipient, arrival, sender):
                continue
            if rule.time is not None and not any(map(self._is_now, rule.time)):
                continue
            if rule.needs_content:
                if content is None:
                    explain("[[route]]", "route {!r} waits for the content", rule.name)
                    by_rules.may_match = True
                    by_rules.may_settle = by_rules.may_settle or not rule.continues
                    continue
                if not _matches_content(rule, content):
                    continue
            by_rules.refusal = self._follow(rule, recipient, arrival, explain, by_rules.routes)
            if by_rules.refusal is not None:
                return by_rules
            if not rule.continues:
                by_rules.is_settled = True
                return by_rules
        return by_rules

    def _is_now(self, hours: Hours) -> bool:
        return hours.holds(self._clock())

    def _follow(
        self,
        rule: Rule,
        recipient: Address,
        arrival: Arrival,
        explain: Explain,
        routes: list[Route],
    ) -> Reply | None:
        """Add where a rule leads; or its refusal."""
        for target in rule.targets:
            if target.kind == "reject":
                explain("[[route]]", "route {!r} refuses it", rule.name)
                return rejection(target)
            if target.kind == "direct":
                refusal = self._why_not_direct(recipient, arrival, Origin.ROUTED, explain)
                if refusal is not None:
                    return refusal
            if target.kind == "mailbox":
                target = self._mailboxes.mailbox_of(target)
            explain("[[route]]", "route {!r} sends it to {}", rule.name, target)
            _add(routes, Route(target, rule.name))
        return None

    def _to_own(
        self,
        found: Target | Reply | None,
        recipient: Address,
        arrival: Arrival,
        explain: Explain,
    ) -> tuple[Route | None, Reply | None]:
        if isinstance(found, Reply):
            return None, found
        if found is not None and found.kind == "publish":
            if arrival.is_report:
                explain("mqtt.mailbox", "reports are not published: refused")
                return None, _NO_REPORTS
            explain("mqtt.mailbox", "published on {!r}", found.argument)
            return Route(found, "address of a topic"), None
        if found is not None:
            setting = "[list]" if found.kind == "list" else "[[mailbox]]"
            explain(setting, "{} {!r}", found.kind, found.argument)
            return Route(found, "own address"), None
        route = self._to_mailbox_of_device(arrival, explain)
        if route is not None:
            return route, None
        scopes = self.scopes_of(recipient.domain)
        # Which of several domains is meant nobody can say of a mailbox that does not exist.
        if arrival.trusted and len(scopes) < 2:
            new = self._mailboxes.new(recipient.local_part, self._scope_of_new(scopes))
            if new is not None:
                explain("mailboxes.auto_create", "mailbox {!r} will be made", new.argument)
                return Route(new, "own address"), None
        explain("mailboxes.auto_create", "there is no mailbox {!r}: refused", recipient.local_part)
        return None, replies.NO_SUCH_MAILBOX

    def _to_mailbox_of_device(self, arrival: Arrival, explain: Explain) -> Route | None:
        """For mail that would be refused, or make a mailbox; None: the device was given none."""
        if arrival.client_ip is None or not arrival.trusted:
            return None
        mailbox = self._mailbox_of_client(arrival.client_ip)
        if mailbox is None:
            return None
        step = "the mailbox of the device at {} is {!r}"
        explain("waypost device set --mailbox", step, arrival.client_ip, mailbox)
        target = self._mailboxes.mailbox_of(Target("mailbox", mailbox))
        return Route(target, "mailbox of the device")

    def _onward(
        self, recipient: Address, arrival: Arrival, sender: Address | None, explain: Explain
    ) -> tuple[Route | None, Reply | None]:
        if isinstance(recipient.domain, Domain):
            # Some forms take no literal, so a device may be told a name that is nobody's.
            route = self._to_mailbox_of_device(arrival, explain)
            if route is not None:
                return route, None
            explain("[[route]]", "mail to names needs a route, and none matches: refused")
            return None, Reply(550, f"No route to {recipient.domain} is set up here", (7, 1))
        # Nobody wrote a report to command a machine.
        if isinstance(recipient.domain, AddressLiteral) and sender is not None:
            command = self._command_of_device(recipient.domain.ip)
            if command is not None:
                return self._to_device(command, recipient.domain, explain)
        refusal = self._why_not_direct(recipient, arrival, origin_of(arrival), explain)
        if refusal is not None:
            return None, refusal
        explain("networks.trusted", "straight to {}", recipient.domain)
        return Route(Target("direct"), "literal in a trusted network"), None

    def _to_device(
        self, command: str, domain: AddressLiteral, explain: Explain
    ) -> tuple[Route | None, Reply | None]:
        """A device that only sends hears of mail by its topic."""
        explain("command_topic", "the device at {} hears by MQTT", domain)
        try:
            target = command_target(command, self._settings.topics)
        except ValueError as error:
            explain("command_topic", "{}: put off", error)
            return None, Reply(451, f"Not published: {error}", (3, 5))
        return Route(target, "command topic of the device"), None

    def _why_not_direct(
        self, recipient: Address, arrival: Arrival, origin: Origin, explain: Explain
    ) -> Reply | None:
        """Why mail cannot go straight to the recipient's own host; None: it can."""
        domain = recipient.domain
        if isinstance(domain, Domain) and domain.as_ip() is None:
            return None  # the gate judges where it leads, when that is known
        if not isinstance(domain, AddressLiteral):
            explain("RFC 5321 §4.1.3", "{} is no host's address: refused", domain)
            return Reply(550, f"No way is known to {domain}", (1, 2))
        reason = self._gate.refusal(domain.ip.packed, self._settings.delivery_port, origin)
        if reason is not None:
            explain("networks.trusted", "{}: refused", reason)
            return Reply(550, f"Mail to {domain} is not allowed from here", (7, 1))
        return None


def _add(routes: list[Route], route: Route) -> None:
    """One message for each target, however many rules name it."""
    if all(route.target != other.target for other in routes):
        routes.append(route)


def _matches(rule: Rule, recipient: Address, arrival: Arrival, sender: Address | None) -> bool:
    if rule.listener is not None and rule.listener != arrival.listener:
        return False
    if rule.client is not None and (
        arrival.client_ip is None or arrival.client_ip not in rule.client
    ):
        return False
    if rule.login is not None and (arrival.login is None or not rule.login.matches(arrival.login)):
        return False
    if rule.helo is not None and not rule.helo.matches(arrival.helo):
        return False
    if rule.recipient is not None and not rule.recipient.matches(recipient):
        return False
    return rule.sender is None or rule.sender.matches(sender)


def _matches_content(rule: Rule, content: ContentFacts) -> bool:
    if rule.larger_than is not None and content.size <= rule.larger_than:
        return False
    if rule.has_attachment is not None and content.has_attachment is not rule.has_attachment:
        return False
    globs = rule.header if rule.subject is None else (*rule.header, ("subject", rule.subject))
    return all(
        any(name == wanted.lower() and glob.matches(text) for name, text in content.fields)
        for wanted, glob in globs
    )


def describe_rules(rules: Sequence[Rule]) -> list[str]:
    """One line for each rule, for the start-up log."""
    return [f"{rule.name} -> {', '.join(map(str, rule.targets))}" for rule in rules]
