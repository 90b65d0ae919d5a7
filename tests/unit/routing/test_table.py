"""Where mail goes, and what strangers cannot do: RFC 5321 §3.6, §4.5.1, §7.9; RFC 1123 §5.2.17."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.mail.address import Address, AddressLiteral, Domain
from waypost.mail.envelope import REPORT, Arrival
from waypost.net.gate import Gate
from waypost.net.interfaces import OwnAddresses
from waypost.net.networks import Networks
from waypost.routing.groups import GroupSettings
from waypost.routing.hours import Hours, local_time
from waypost.routing.mailboxes import MailboxNames, MailboxSettings
from waypost.routing.patterns import AddressGlob, Glob
from waypost.routing.table import (
    LIST,
    ContentFacts,
    ListSettings,
    Routing,
    RoutingSettings,
    RoutingTable,
    Rule,
)
from waypost.routing.targets import parse_target
from waypost.smtp import command as grammar
from waypost.smtp.command import CommandRefused

OWN_IPS = ("192.0.2.5", "192.168.1.5", "fd00::5")
CONNECTED = "198.51.100.9"  # where the client connected to: NATed, on no interface
STRANGER = "203.0.113.66"
CAMERA = "192.168.1.7"
MAILBOXES = MailboxSettings(names=("alerts", "ann"), aliases=(("root", "alerts"),))


def arrival(
    client: str | None = CAMERA, *, listener: str = "smtp", local: str | None = CONNECTED
) -> Arrival:
    ip = None if client is None else ip_address(client)
    trusted = ip is None or ip in Networks(("loopback", "private"))
    return Arrival(
        "ESMTP", ip, None if local is None else ip_address(local), "x", listener, trusted
    )


def make_table(
    *rules: Rule,
    hostname: str | None = None,
    accept_from_strangers: bool = False,
    bare_ip: bool = True,
    mailboxes: MailboxSettings = MAILBOXES,
    lists: tuple[ListSettings, ...] = (),
    groups: GroupSettings | None = None,
    device_mailbox: str | None = None,
    clock: Callable[[], datetime] = local_time,
) -> RoutingTable:
    own = OwnAddresses(follow_interfaces=False, extra=[ip_address(text) for text in OWN_IPS])
    trusted = Networks(("loopback", "private"))
    return RoutingTable(
        RoutingSettings(
            hostname=hostname,
            domains=frozenset({Domain("plant.example")}),
            bare_ip=bare_ip,
            accept_from_strangers=accept_from_strangers,
            rules=rules,
            lists=lists,
            groups=groups or GroupSettings(),
        ),
        own=own,
        trusted=trusted,
        mailboxes=MailboxNames(mailboxes),
        gate=Gate(trusted=trusted, own=own, listening=lambda: frozenset({(None, 2525)})),
        mailbox_of_client=lambda client: device_mailbox if client == ip_address(CAMERA) else None,
        clock=clock,
    )


def rule(name: str, to: Sequence[str], **match: Any) -> Rule:
    for key in ("recipient", "sender"):
        if key in match:
            match[key] = AddressGlob(match[key])
    for key in ("subject", "helo"):
        if key in match:
            match[key] = Glob(match[key])
    if "client" in match:
        match["client"] = Networks(match["client"])
    return Rule(name, tuple(parse_target(text) for text in to), **match)


def routed(
    table: RoutingTable,
    path: str,
    client: str | None = CAMERA,
    sender: str | None = "s@x.example",
    **more: Any,
) -> tuple[Routing, list[str]]:
    """The answer for one RCPT, and what was explained."""
    steps: list[str] = []

    def explain(why: str, what: str, *values: object) -> None:
        assert why
        steps.append(what.format(*values))

    address = Address.parse(path) if "@" in path else path
    routing = table.route(
        address,
        arrival(client, **more),
        None if sender is None else Address.parse(sender),
        explain,
    )
    assert steps, "every decision is explained"
    assert bool(routing.routes) != (routing.refusal is not None)
    quiet = table.route(
        address, arrival(client, **more), None if sender is None else Address.parse(sender)
    )
    assert quiet == routing
    return routing, steps


def outcome(
    table: RoutingTable,
    path: str,
    client: str | None = CAMERA,
    sender: str | None = "s@x.example",
    **more: Any,
) -> str:
    """The targets, or the refusal, in words."""
    routing, _ = routed(table, path, client, sender, **more)
    if routing.refusal is not None:
        return f"{routing.refusal.code} {routing.refusal.enhanced}"
    return " ".join(str(route.target) for route in routing.routes)


# What is ours.


@pytest.mark.parametrize(
    "path",
    [
        "alerts@[192.0.2.5]",
        "alerts@[192.168.1.5]",
        "alerts@[IPv6:fd00::5]",
        "alerts@[ipv6:FD00:0:0::0005]",
        "alerts@[IPv6:::ffff:192.0.2.5]",
        "alerts@[IPv6:0:0:0:0:0:ffff:c000:205]",
        "alerts@[198.51.100.9]",
        "alerts@plant.example",
        "alerts@PLANT.Example",
        "ALERTS@plant.example",
        "alerts+motion@[192.0.2.5]",
        "root@plant.example",
        "Root+x@[192.0.2.5]",
        '"alerts"@plant.example',
        "alerts",
        "root",
        # Bare, from a trusted client.
        "alerts@192.0.2.5",
        "alerts@198.51.100.9",
    ],
)
def test_every_spelling_of_ours_reaches_one_mailbox(path: str) -> None:
    """RFC 1123 §5.2.17: literals of all our addresses, and the one connected to."""
    assert outcome(make_table(), path) == "mailbox:alerts"


def test_our_host_name_is_ours() -> None:
    table = make_table(hostname="hub.lan")
    assert outcome(table, "alerts@hub.lan") == "mailbox:alerts"
    assert outcome(table, "alerts@HUB.LAN") == "mailbox:alerts"
    assert table.qualify("root", arrival()) == Address.parse("root@hub.lan")


def test_an_address_without_a_domain_gets_ours() -> None:
    """RFC 5321 §4.1.1.3."""
    table = make_table()
    assert table.qualify("root", arrival()) == Address.parse("root@[198.51.100.9]")
    assert table.qualify("root", arrival(None, local=None)) == Address.parse("root@localhost")
    assert outcome(table, "alerts@localhost", None, local=None) == "mailbox:alerts"


def test_mailboxes_are_made_for_trusted_clients_only() -> None:
    assert outcome(make_table(), "new@plant.example") == "mailbox:new"
    fixed = MailboxSettings(auto_create=False, names=("alerts",))
    assert outcome(make_table(mailboxes=fixed), "new@plant.example") == "550 5.1.1"
    assert outcome(make_table(mailboxes=fixed), "alerts@plant.example") == "mailbox:alerts"
    open_ = make_table(accept_from_strangers=True)
    assert outcome(open_, "new@plant.example", STRANGER) == "550 5.1.1"


def test_percent_and_bang_are_never_rewritten() -> None:
    """Whoever sends: they are letters of a local part of ours (RFC 5321 §3.6.1)."""
    for path in ("a%b.example@plant.example", "b.example!a@[192.0.2.5]", '"a@b"@plant.example'):
        assert outcome(make_table(), path).startswith("mailbox:")
        assert outcome(make_table(accept_from_strangers=True), path, STRANGER) == "550 5.1.1"


# Postmaster.


@pytest.mark.parametrize("client", [STRANGER, CAMERA, None])
@pytest.mark.parametrize(
    "path",
    [
        "postmaster",
        "Postmaster",
        "POSTMASTER",
        "postmaster@plant.example",
        "PostMaster@[192.0.2.5]",
        "postmaster@[198.51.100.9]",
    ],
)
@pytest.mark.parametrize("fold_case", [True, False])
def test_postmaster_is_always_taken(client: str | None, path: str, fold_case: bool) -> None:
    """RFC 5321 §4.5.1."""
    mailboxes = MailboxSettings(auto_create=False, fold_case=fold_case)
    table = make_table(mailboxes=mailboxes)
    assert outcome(table, path, client) == "mailbox:postmaster"
    aliased = MailboxSettings(
        auto_create=False,
        fold_case=fold_case,
        names=("alerts",),
        aliases=(("postmaster", "alerts"),),
    )
    assert outcome(make_table(mailboxes=aliased), path, client) == "mailbox:alerts"


def test_postmaster_of_others_is_no_way_to_relay() -> None:
    for path in ("postmaster@x.example", "postmaster@[192.0.2.99]", "postmaster@[10.0.0.9]"):
        assert outcome(make_table(), path, STRANGER) == "550 5.7.1"


# Strangers: rows 17 to 40 of the attack table.

RELAY_ATTEMPTS = [
    "<a@b.example>",
    "<a%b.example@plant.example>",
    "<a%b.example@[192.0.2.5]>",
    '<"a@b.example">',
    '<"a%b.example">',
    '<"a@b.example"@plant.example>',
    '<"a@b.example"@[192.0.2.5]>',
    "<a@b.example@plant.example>",
    "<a@b.example@[192.0.2.5]>",
    "<@plant.example:a@b.example>",
    "<@[192.0.2.5]:a@b.example>",
    "<@plant.example,@[192.0.2.5]:a@b.example>",
    "<@plant.example:a@[10.0.0.9]>",
    "<b.example!a>",
    "<b.example!a@plant.example>",
    "<b.example!a@[192.0.2.5]>",
    "<plant.example!b.example!a>",
    "<a@[192.0.2.99]>",
    "<a@[10.0.0.9]>",
    "<a@[127.0.0.1]>",
    "<a@[169.254.169.254]>",
    "<a@[IPv6:2001:db8::99]>",
    "<a@[IPv6:2001:DB8:0:0:0:0:0:99]>",
    "<a@[IPv6:::1]>",
    "<a@[IPv6:::ffff:10.0.0.9]>",
    "<a@[IPv6:::ffff:192.0.2.99]>",
    "<a@[IPv6:::192.0.2.5]>",
    "<a@[IPv6:64:ff9b::192.0.2.5]>",
    "<a@[IPv6:2002:c000:205::1]>",
    "<a@[2001:db8::99]>",
    "<a@[192.0.2.5.]>",
    "<a@[192.0.2.05]>",
    "<a@[192.0.2.5 ]>",
    "<a@192.0.2.5>",
    "<a@10.0.0.9>",
    "<a@3221225989>",
    "<a@0xc0000205>",
    "<a@plant.example.>",
    "<a@b.example.>",
    "<a@sub.plant.example>",
    "<a@plant.example.b.example>",
    "<a@[tag:x]>",
    "<a@localhost>",
    "<a>",
    "<>",
    "<|/bin/sh@plant.example>",
    "<-oQ/tmp@plant.example>",
    "<../../etc/passwd@plant.example>",
    "a@b.example",
]


def rcpt(table: RoutingTable, path: str, client: str, sender: Address | None) -> str:
    """RCPT as a stranger sends it, from the command line to the answer."""
    try:
        inner, _ = grammar.split_path(f"TO:{path}", "TO:", lenient=False)
        address = grammar.parse_address(inner, (1, 3), lenient=False)
    except CommandRefused as refused:
        return f"{refused.reply.code}"
    routing = table.route(address, arrival(client), sender)
    assert not routing.routes, f"{path} goes to {routing.routes}"
    assert routing.refusal is not None
    return f"{routing.refusal.code} {routing.refusal.enhanced}"


@pytest.mark.parametrize("path", RELAY_ATTEMPTS)
@pytest.mark.parametrize("accept", [False, True])
@pytest.mark.parametrize(
    "sender",
    [
        None,
        "a@b.example",
        "alerts@plant.example",
        "alerts@[192.0.2.5]",
        f"a@[{STRANGER}]",
        "a@[127.0.0.1]",
    ],
)
def test_no_stranger_relays(path: str, accept: bool, sender: str | None) -> None:
    table = make_table(accept_from_strangers=accept)
    said = rcpt(table, path, STRANGER, None if sender is None else Address.parse(sender))
    assert said in ("501", "550 5.7.1", "550 5.1.1")


def test_what_a_stranger_hears() -> None:
    """The fixed codes: a bad literal 501, relaying 550 5.7.1, an unknown mailbox 550 5.1.1."""
    shut, public = make_table(), make_table(accept_from_strangers=True)
    for table in (shut, public):
        assert rcpt(table, "<a@[192.0.2.05]>", STRANGER, None) == "501"
        assert rcpt(table, "<a@b.example>", STRANGER, None) == "550 5.7.1"
        assert rcpt(table, "<a@[10.0.0.9]>", STRANGER, None) == "550 5.7.1"
        assert rcpt(table, "<a@192.0.2.5>", STRANGER, None) == "550 5.7.1"
    assert rcpt(public, "<nobody@plant.example>", STRANGER, None) == "550 5.1.1"
    assert rcpt(public, "<nobody@[192.0.2.5]>", STRANGER, None) == "550 5.1.1"
    # Where strangers may mail nobody, they do not learn who is there.
    assert rcpt(shut, "<nobody@plant.example>", STRANGER, None) == rcpt(
        shut, "<alerts@plant.example>", STRANGER, None
    )


def test_a_public_mx_takes_mail_for_existing_mailboxes() -> None:
    public = make_table(accept_from_strangers=True)
    for path in ("alerts@plant.example", "root@[192.0.2.5]", "ann+x@[198.51.100.9]"):
        assert outcome(public, path, STRANGER).startswith("mailbox:a")


@pytest.mark.parametrize("path", ["a@b.example", "a@[10.0.0.9]", "a@[192.0.2.99]"])
def test_no_rule_lets_a_stranger_relay(path: str) -> None:
    table = make_table(
        rule("all", ["direct"]), rule("more", ["smtp:[10.0.0.5]:25"]), accept_from_strangers=True
    )
    assert outcome(table, path, STRANGER) == "550 5.7.1"


@given(
    st.from_regex(r"[a-z%!+]{1,6}", fullmatch=True),
    st.one_of(
        st.ip_addresses(v=4).map(lambda ip: f"[{ip}]"),
        st.ip_addresses(v=6).map(lambda ip: f"[IPv6:{ip}]"),
        st.from_regex(r"[a-z]{1,5}\.(example|lan)", fullmatch=True),
    ),
    st.booleans(),
)
def test_no_stranger_gets_a_route_out(local_part: str, domain: str, accept: bool) -> None:
    table = make_table(accept_from_strangers=accept)
    try:
        address = Address.parse(f"{local_part}@{domain}")
    except ValueError:
        return  # "::" for one group: RFC 5952 never prints it, ipaddress may
    routing = table.route(address, arrival(STRANGER), None)
    assert all(route.target.kind == "mailbox" for route in routing.routes)


# Trusted clients.


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("ann@[10.0.0.9]", "direct"),
        ("ann@[IPv6:fd00::9]", "direct"),
        ("ann@10.0.0.9", "direct"),
        ("ann@[127.0.0.2]", "direct"),  # not ours while interfaces are not followed
        # Not in a trusted network, not a unicast host, or a wrapper: refused at RCPT.
        ("ann@[8.8.8.8]", "550 5.7.1"),
        ("ann@[169.254.169.254]", "550 5.7.1"),
        ("ann@[224.0.0.1]", "550 5.7.1"),
        ("ann@[255.255.255.255]", "550 5.7.1"),
        ("ann@[0.0.0.0]", "550 5.7.1"),
        ("ann@[IPv6:64:ff9b::10.0.0.9]", "550 5.7.1"),
        ("ann@[IPv6:fe80::1]", "550 5.7.1"),
        # Names need a route; general literals have none, ever.
        ("ann@b.example", "550 5.7.1"),
        ("ann@[tag:x]", "550 5.1.2"),
        ("ann@10.0.0.09", "550 5.7.1"),
    ],
)
def test_trusted_clients_reach_trusted_literals(path: str, said: str) -> None:
    assert outcome(make_table(), path) == said


def test_bare_ips_may_be_switched_off() -> None:
    """By the grammar it is a name (RFC 5321 §4.1.2), and ours it is not."""
    table = make_table(bare_ip=False)
    assert outcome(table, "alerts@192.0.2.5") == "550 5.7.1"
    assert outcome(table, "alerts@[192.0.2.5]") == "mailbox:alerts"


def test_the_literal_of_a_bare_ip_is_what_goes_on() -> None:
    routing, steps = routed(make_table(), "ann@10.0.0.9")
    assert routing.recipient == Address.parse("ann@[10.0.0.9]")
    assert any("ann@[10.0.0.9]" in step for step in steps)


def test_reports_go_back_to_the_host_the_mail_came_from() -> None:
    table = make_table()
    report = Arrival("local", None, ip_address(CONNECTED), "", REPORT, trusted=False)
    for path, said in (
        ("cam@[203.0.113.66]", "direct"),
        ("cam@[192.168.1.7]", "direct"),
        ("cam@[127.0.0.1]", "550 5.7.1"),
        ("cam@[224.0.0.1]", "550 5.7.1"),
        ("alerts@[192.0.2.5]", "mailbox:alerts"),
    ):
        routing = table.route(Address.parse(path), report, None)
        if routing.refusal is None:
            assert " ".join(str(route.target) for route in routing.routes) == said
        else:
            assert f"{routing.refusal.code} {routing.refusal.enhanced}" == said


# Rules.


def test_the_first_rule_that_matches_wins() -> None:
    table = make_table(
        rule("one", ["mailbox:one"], recipient="cam*@*"),
        rule("two", ["mailbox:two"], recipient="*@plant.example"),
    )
    assert outcome(table, "cam7@plant.example") == "mailbox:one"
    assert outcome(table, "ann@plant.example") == "mailbox:two"
    assert outcome(table, "ann@[192.0.2.5]") == "mailbox:ann"


def test_continue_looks_on_and_collects() -> None:
    table = make_table(
        rule("copy", ["mailbox:copy", "lmtp:/run/x"], continues=True),
        rule("none", ["mailbox:none"], recipient="nothing@*"),
        rule("last", ["smtp:[10.0.0.5]:25"]),
        rule("never", ["discard"]),
    )
    assert outcome(table, "ann@plant.example") == "mailbox:copy lmtp:/run/x smtp:[10.0.0.5]:25"
    routing, steps = routed(table, "ann@plant.example")
    assert [route.rule for route in routing.routes] == ["copy", "copy", "last"]
    assert any("copy" in step for step in steps)


def test_continue_leaves_the_usual_way_in_place() -> None:
    table = make_table(rule("copy", ["mailbox:copy"], continues=True))
    assert outcome(table, "ann@plant.example") == "mailbox:copy mailbox:ann"
    # What the usual way refuses is refused, whatever copies there would have been.
    assert outcome(table, "ann@elsewhere.example") == "550 5.7.1"


def test_direct_needs_a_literal_and_the_gate() -> None:
    table = make_table(rule("out", ["direct"]))
    assert outcome(table, "ann@[8.8.8.8]") == "direct"
    assert outcome(table, "ann@elsewhere.example") == "direct"
    assert outcome(table, "ann@192.0.2.1", client=STRANGER) == "550 5.7.1"
    assert outcome(table, "ann@[169.254.169.254]") == "550 5.7.1"


def test_reject_refuses_even_after_a_rule_that_continues() -> None:
    table = make_table(
        rule("copy", ["mailbox:copy"], continues=True), rule("no", ["reject:5.7.1 not here"])
    )
    routing, steps = routed(table, "ann@plant.example")
    assert routing.refusal is not None
    assert str(routing.refusal) == "550 5.7.1 not here"
    assert any("'no'" in step for step in steps)
    later = make_table(rule("later", ["reject:4.7.1 come back"]))
    assert outcome(later, "ann@plant.example") == "450 4.7.1"


def test_discard_is_a_target_like_others() -> None:
    assert outcome(make_table(rule("drop", ["discard"])), "ann@plant.example") == "discard"


def test_rules_open_ways_for_trusted_clients() -> None:
    table = make_table(rule("out", ["smtp:[10.0.0.5]:25"], recipient="*@b.example"))
    assert outcome(table, "a@b.example") == "smtp:[10.0.0.5]:25"
    assert outcome(table, "a@c.example") == "550 5.7.1"


@pytest.mark.parametrize(
    ("glob", "address", "does"),
    [
        ("cam*@*", "cam7@plant.example", True),
        ("CAM*@*", "cam7@PLANT.example", True),
        ("cam*@*", "xcam7@plant.example", False),
        ("*@[10.*]", "a@[10.0.0.9]", True),
        ("*@[10.*]", "a@[110.0.0.9]", False),
        ("*@[10.0.0.?]", "a@[10.0.0.9]", True),
        ("*@[10.0.0.?]", "a@[10.0.0.99]", False),
        ("*@[IPv6:fd00::*]", "a@[ipv6:FD00::9]", True),
        ("a@b.example", "a@b.example", True),
        ("a@b.example", "a@bxexample", False),
        ("*", "any@thing.example", True),
        ("[abc]@*", "a@b.example", False),
        ("*@b.example", "a@b.example.evil.example", False),
    ],
)
def test_patterns_are_over_whole_addresses(glob: str, address: str, does: bool) -> None:
    table = make_table(rule("glob", ["discard"], recipient=glob))
    said = table.route(Address.parse(address), arrival(None), None)
    assert any(str(route.target) == "discard" for route in said.routes) is does


def test_rules_match_all_that_they_name() -> None:
    table = make_table(
        rule(
            "narrow",
            ["discard"],
            recipient="ann@*",
            sender="*@x.example",
            client=["192.168.1.0/24"],
            listener="smtp",
        )
    )
    assert outcome(table, "ann@plant.example") == "discard"
    assert outcome(table, "bob@plant.example") == "mailbox:bob"
    assert outcome(table, "ann@plant.example", sender="s@y.example") == "mailbox:ann"
    assert outcome(table, "ann@plant.example", sender=None) == "mailbox:ann"
    assert outcome(table, "ann@plant.example", "10.0.0.1") == "mailbox:ann"
    assert outcome(table, "ann@plant.example", None) == "mailbox:ann"
    assert outcome(table, "ann@plant.example", listener="other") == "mailbox:ann"


def test_the_null_sender_is_matched_by_its_brackets() -> None:
    table = make_table(rule("bounces", ["discard"], sender="<>"))
    assert outcome(table, "ann@plant.example", sender=None) == "discard"
    assert outcome(table, "ann@plant.example") == "mailbox:ann"


def test_rules_see_the_literal_of_a_bare_ip() -> None:
    table = make_table(rule("nvr", ["smtp:[10.0.0.5]:25"], recipient="*@[10.0.0.9]"))
    for path in ("a@10.0.0.9", "a@[10.0.0.9]", "a@[IPv6:::ffff:10.0.0.9]"):
        assert outcome(table, path) == "smtp:[10.0.0.5]:25"


@pytest.mark.parametrize(("fold_case", "name"), [(True, "alerts"), (False, "Alerts")])
def test_a_rule_names_the_same_mailbox_as_an_address_does(fold_case: bool, name: str) -> None:
    mailboxes = MailboxSettings(names=("alerts",), fold_case=fold_case)
    table = make_table(rule("to", ["mailbox:Alerts"], recipient="cam@*"), mailboxes=mailboxes)
    assert outcome(table, "cam@plant.example") == f"mailbox:{name}"


def test_an_unknown_mailbox_is_said_so_at_once() -> None:
    """550 5.1.1 at RCPT and never a later bounce."""
    fixed = make_table(mailboxes=MailboxSettings(auto_create=False))
    routing, steps = routed(fixed, "nobody@[192.0.2.5]")
    assert routing.refusal is not None
    assert routing.refusal.enhanced == "5.1.1"
    assert any("nobody" in step for step in steps)


# Domain groups.

PLANT_IP, SHOP_IP = "192.0.2.5", "192.168.1.5"
GROUPED = GroupSettings(
    groups=(
        (ip_address(PLANT_IP), (Domain("plant.example"),)),
        (ip_address(SHOP_IP), (Domain("shop.example"), Domain("depot.example"))),
    ),
    moved=(
        (ip_address("10.0.0.50"), AddressLiteral(ip_address("10.0.0.77"))),
        (ip_address("10.0.0.51"), Domain("nas.plant.example")),
        (ip_address("10.0.0.52"), AddressLiteral(ip_address("8.8.8.8"))),
        (ip_address("10.0.0.53"), AddressLiteral(ip_address(PLANT_IP))),
        (ip_address("10.0.0.77"), AddressLiteral(ip_address("10.0.0.78"))),
    ),
)
IN_GROUPS = MailboxSettings(
    names=(
        *("sales@plant.example", "sales@shop.example", "both@shop.example", "both@depot.example"),
        *("rest@depot.example", "hubs", "postmaster@shop.example", "postmaster@depot.example"),
    ),
    aliases=(("info@shop.example", "sales@shop.example"), ("root", "hubs")),
    catch_alls=(("depot.example", "rest@depot.example"),),
    lists=(("team@shop.example", "team"), ("ops", "ops"), ("closed", "closed")),
)
LISTS = (
    ListSettings("team", (Address.parse("a@b.example"),), "shop.example", strangers_may_post=True),
    ListSettings("ops", (), strangers_may_post=True),
    ListSettings("closed", ()),
)


def grouped(*rules: Rule, mailboxes: MailboxSettings = IN_GROUPS, **more: Any) -> RoutingTable:
    return make_table(*rules, mailboxes=mailboxes, groups=GROUPED, lists=LISTS, **more)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("sales@plant.example", "mailbox:sales@plant.example"),
        (f"sales@[{PLANT_IP}]", "mailbox:sales@plant.example"),
        ("sales@shop.example", "mailbox:sales@shop.example"),
        (f"sales@[{SHOP_IP}]", "mailbox:sales@shop.example"),
        (f"SALES+x@{SHOP_IP}", "mailbox:sales@shop.example"),
        (f"info@[{SHOP_IP}]", "mailbox:sales@shop.example"),
        (f"team@[{SHOP_IP}]", "list:team"),
        (f"team-bounces@[{SHOP_IP}]", "list:team:owner"),
        (f"both@[{SHOP_IP}]", "550 5.1.4"),
        ("both@shop.example", "mailbox:both@shop.example"),
        ("both@depot.example", "mailbox:both@depot.example"),
        # Then the hub's, then the catch-alls.
        (f"hubs@[{SHOP_IP}]", "mailbox:hubs"),
        ("root@depot.example", "mailbox:hubs"),
        (f"ops@[{SHOP_IP}]", "list:ops"),
        (f"nobody@[{SHOP_IP}]", "mailbox:rest@depot.example"),
        ("nobody+x@depot.example", "mailbox:rest@depot.example"),
        # Made where one domain only can be meant.
        (f"new@[{PLANT_IP}]", "mailbox:new@plant.example"),
        ("new@shop.example", "mailbox:new@shop.example"),
        ("new@[IPv6:fd00::5]", "mailbox:new"),
        ("sales@[IPv6:fd00::5]", "mailbox:sales"),  # an address that stands for nothing
    ],
)
def test_groups(path: str, said: str) -> None:
    assert outcome(grouped(), path) == said


def test_nothing_is_made_where_several_domains_could_be_meant() -> None:
    alone = MailboxSettings(names=("sales@shop.example",))
    assert outcome(grouped(mailboxes=alone), f"new@[{SHOP_IP}]") == "550 5.1.1"
    assert outcome(grouped(mailboxes=alone), f"sales@[{SHOP_IP}]").endswith("sales@shop.example")


@pytest.mark.parametrize("client", [CAMERA, None])
def test_a_bare_name_goes_to_the_group_connected_to(client: str | None) -> None:
    table = grouped(hostname="hub.lan")
    assert outcome(table, "sales", client, local=PLANT_IP) == "mailbox:sales@plant.example"
    assert outcome(table, "sales", client, local=SHOP_IP) == "mailbox:sales@shop.example"
    assert outcome(table, "both", client, local=SHOP_IP) == "550 5.1.4"
    assert outcome(table, "sales", client, local=CONNECTED) == "mailbox:sales"
    # And a sender without a domain is of that group.
    assert table.qualify("cam", arrival(local=SHOP_IP)) == Address.parse(f"cam@[{SHOP_IP}]")
    assert table.qualify("cam", arrival()) == Address.parse("cam@hub.lan")


@pytest.mark.parametrize("client", [CAMERA, STRANGER])
@pytest.mark.parametrize(
    "path", ["postmaster", f"Postmaster@[{SHOP_IP}]", "postmaster@plant.example"]
)
def test_postmaster_is_taken_where_several_domains_have_one(client: str, path: str) -> None:
    """RFC 5321 §4.5.1 knows no exception: where nobody can say which, it is the hub's."""
    assert outcome(grouped(), path, client, local=SHOP_IP) == "mailbox:postmaster"
    assert (
        outcome(grouped(), "postmaster@shop.example", client) == "mailbox:postmaster@shop.example"
    )


def test_a_stranger_learns_nothing_of_a_group() -> None:
    shut, public = grouped(), grouped(accept_from_strangers=True)
    for name in ("sales", "both", "nobody", "new", "team", "hubs", "closed"):
        for domain in (f"[{SHOP_IP}]", f"[{PLANT_IP}]", "shop.example", "depot.example"):
            assert outcome(shut, f"{name}@{domain}", STRANGER) == "550 5.7.1"
    routing, _ = routed(public, f"both@[{SHOP_IP}]", STRANGER)
    assert routing.refusal is not None
    for word in ("shop", "depot", "plant"):
        assert word not in str(routing.refusal)
    assert outcome(public, f"both@[{SHOP_IP}]", STRANGER) == "550 5.1.4"
    assert outcome(public, f"sales@[{SHOP_IP}]", STRANGER) == "mailbox:sales@shop.example"
    assert outcome(public, f"new@[{PLANT_IP}]", STRANGER) == "550 5.1.1"
    assert outcome(public, "new@shop.example", STRANGER) == "550 5.1.1"


# Aliases, catch-alls, lists.


def test_a_catch_all_of_the_hub() -> None:
    table = make_table(
        mailboxes=MailboxSettings(
            auto_create=False, names=("ann", "rest"), catch_alls=(("", "rest"),)
        ),
        accept_from_strangers=True,
    )
    for client in (CAMERA, STRANGER):
        assert outcome(table, "ann+x@plant.example", client) == "mailbox:ann"
        assert outcome(table, "any.body+x@[192.0.2.5]", client) == "mailbox:rest"
        assert outcome(table, "postmaster@plant.example", client) == "mailbox:postmaster"
    assert outcome(table, "x@b.example", STRANGER) == "550 5.7.1"


def test_lists_and_strangers() -> None:
    public = grouped(accept_from_strangers=True)
    assert outcome(public, "closed@plant.example", STRANGER) == "550 5.7.1"
    assert outcome(public, "closed@plant.example") == "list:closed"
    assert outcome(public, "ops@plant.example", STRANGER) == "list:ops"
    # What comes back from members comes from strangers, to lists that they may not post to, too.
    assert outcome(public, "closed-bounces@plant.example", STRANGER, None) == "list:closed:owner"


def test_a_list_called_postmaster_takes_mail_of_strangers() -> None:
    table = make_table(
        mailboxes=MailboxSettings(lists=(("postmaster", "postmaster"),)),
        lists=(ListSettings("postmaster", (Address.parse("a@b.example"),)),),
    )
    assert outcome(table, "postmaster", STRANGER) == "list:postmaster"


# Hosts that have moved.


@pytest.mark.parametrize(
    ("path", "recipient", "said"),
    [
        ("ann@[10.0.0.50]", "ann@[10.0.0.77]", "direct"),
        ("ann@10.0.0.50", "ann@[10.0.0.77]", "direct"),
        ("ann@[IPv6:::ffff:10.0.0.50]", "ann@[10.0.0.77]", "direct"),
        ("ann@[10.0.0.51]", "ann@nas.plant.example", "550 5.7.1"),  # until there is a route
        ("ann@[10.0.0.52]", "ann@[8.8.8.8]", "550 5.7.1"),
        ("sales@[10.0.0.53]", f"sales@[{PLANT_IP}]", "mailbox:sales@plant.example"),
        ("ann@[10.0.0.77]", "ann@[10.0.0.78]", "direct"),
    ],
)
def test_moved(path: str, recipient: str, said: str) -> None:
    routing, steps = routed(grouped(), path)
    assert str(routing.recipient) == recipient
    assert routing.has_moved or routing.refusal is not None
    assert outcome(grouped(), path) == said
    assert any("has moved to" in step for step in steps)
    for route in routing.routes:
        assert route.rule.startswith("moved from [10.0.0.")


def test_a_stranger_is_not_led_to_where_a_host_has_moved() -> None:
    table = grouped(rule("all", ["direct"]), accept_from_strangers=True)
    for path in ("ann@[10.0.0.50]", "ann@[10.0.0.51]", "sales@[10.0.0.53]"):
        routing, steps = routed(table, path, STRANGER)
        assert not routing.has_moved
        assert str(routing.refusal).startswith("550 5.7.1")
        assert not any("moved" in step for step in steps)


def test_rules_see_where_a_host_is_now() -> None:
    table = grouped(
        rule("old", ["discard"], recipient="*@[10.0.0.50]"),
        rule("nas", ["smtp:[10.0.0.5]:25"], recipient="*@nas.plant.example"),
    )
    assert outcome(table, "ann@[10.0.0.50]") == "direct"
    routing, _ = routed(table, "ann@[10.0.0.51]")
    assert routing.routes[0].rule == "moved from [10.0.0.51], nas"


# Rules that need the content.

ALARM = ContentFacts(
    2_000, [("subject", "Alarm at gate 3"), ("x-kind", "fire"), ("x-kind", "smoke")]
)


def by_content(table: RoutingTable, path: str, facts: ContentFacts, client: str = CAMERA) -> str:
    routing = table.route(
        Address.parse(path), arrival(client), Address.parse("s@x.example"), content=facts
    )
    assert not routing.needs_content
    if routing.refusal is not None:
        return f"{routing.refusal.code} {routing.refusal.enhanced}"
    return " ".join(str(route.target) for route in routing.routes)


def waits(table: RoutingTable, path: str, client: str = CAMERA) -> bool:
    routing = table.route(Address.parse(path), arrival(client), Address.parse("s@x.example"))
    assert not (routing.needs_content and (routing.routes or routing.refusal))
    return routing.needs_content


@pytest.mark.parametrize(
    ("match", "does"),
    [
        ({"subject": "alarm*"}, True),
        ({"subject": "*gate 4"}, False),
        ({"header": (("X-Kind", Glob("smoke")),)}, True),
        ({"header": (("x-KIND", Glob("f*")), ("Subject", Glob("*"))), "larger_than": 1_999}, True),
        ({"header": (("X-Kind", Glob("water")),)}, False),
        ({"header": (("X-None", Glob("*")),)}, False),
        ({"larger_than": 2_000}, False),
        ({"larger_than": 1_999, "subject": "quiet"}, False),
    ],
)
def test_content(match: dict[str, Any], does: bool) -> None:
    table = make_table(rule("content", ["mailbox:content"], **match))
    assert waits(table, "ann@plant.example")
    assert by_content(table, "ann@plant.example", ALARM) == (
        "mailbox:content" if does else "mailbox:ann"
    )
    assert by_content(table, "ann@plant.example", ContentFacts(0, [])) == "mailbox:ann"


@pytest.mark.parametrize(
    ("fields", "has"),
    [
        ([], False),
        ([("content-type", "text/plain; charset=utf-8")], False),
        ([("content-type", "text")], False),
        ([("content-type", "multipart/alternative; boundary=x")], False),
        ([("content-type", "multipart/related; boundary=x")], False),
        ([("content-type", "Multipart/Mixed; boundary=x")], True),
        ([("content-type", "image/jpeg")], True),
        ([("content-disposition", "attachment; filename=a.txt")], True),
        ([("content-type", "text/html"), ("content-type", "multipart/mixed")], False),
    ],
)
def test_attachments_as_the_header_tells(fields: list[tuple[str, str]], has: bool) -> None:
    facts = ContentFacts(99, fields)
    for wanted in (True, False):
        table = make_table(rule("files", ["mailbox:files"], has_attachment=wanted))
        assert waits(table, "ann@plant.example")
        found = by_content(table, "ann@plant.example", facts)
        assert (found == "mailbox:files") == (has is wanted)


def test_what_a_client_calls_itself() -> None:
    table = make_table(rule("nvr", ["mailbox:nvr"], helo="NVR-*"))
    path, sender = Address.parse("ann@plant.example"), None
    for helo, target in (("nvr-7", "mailbox:nvr"), ("[10.0.0.9]", "mailbox:ann")):
        routing = table.route(path, arrival(CAMERA)._replace(helo=helo), sender)
        assert [str(route.target) for route in routing.routes] == [target]


def test_the_time_of_the_week() -> None:
    hours = (Hours.parse("22:00-06:00"), Hours.parse("sat-sun 00:00-24:00"))
    for now, target in (
        ("2026-11-23T21:59", "mailbox:ann"),
        ("2026-11-23T22:00", "mailbox:night"),
        ("2026-11-28T12:00", "mailbox:night"),
    ):
        table = make_table(
            rule("night", ["mailbox:night"], time=hours),
            clock=lambda now=now: datetime.fromisoformat(now),
        )
        assert outcome(table, "ann@plant.example") == target


def test_content_is_not_waited_for_where_it_decides_nothing() -> None:
    content = rule("content", ["discard"], recipient="cam*@*", subject="alarm*")
    table = make_table(content, rule("no", ["reject:5.7.1 no"], recipient="*@*"))
    assert waits(table, "cam1@plant.example")
    assert not waits(table, "ann@plant.example")
    # Settled before it is reached.
    table = make_table(rule("first", ["discard"]), content)
    assert not waits(table, "cam1@plant.example")
    # What is a copy beside a refusal is refused whatever the content.
    copies = rule("copies", ["mailbox:copies"], subject="alarm*", continues=True)
    table = make_table(copies, rule("no", ["reject:5.7.1 no"], recipient="no@*"))
    assert outcome(table, "no@plant.example") == "550 5.7.1"
    assert outcome(table, "x@elsewhere.example") == "550 5.7.1"
    assert waits(table, "ann@plant.example")
    assert by_content(table, "ann@plant.example", ALARM) == "mailbox:copies mailbox:ann"


def test_content_may_open_a_way_that_is_closed_without() -> None:
    table = make_table(rule("out", ["smtp:[10.0.0.5]:25"], subject="alarm*"))
    assert waits(table, "x@elsewhere.example")
    assert by_content(table, "x@elsewhere.example", ALARM) == "smtp:[10.0.0.5]:25"
    assert by_content(table, "x@elsewhere.example", ContentFacts(0, [])) == "550 5.7.1"
    # For strangers it opens none, and no waiting either.
    public = make_table(
        rule("out", ["smtp:[10.0.0.5]:25"], subject="alarm*"), accept_from_strangers=True
    )
    for path in ("x@elsewhere.example", "x@[10.0.0.9]", "nobody@plant.example"):
        assert not waits(public, path, STRANGER)
        assert by_content(public, path, ALARM, STRANGER).startswith("550 5.")


def test_a_target_that_several_rules_name_is_one() -> None:
    """Or a host would be given the same recipient twice."""
    table = make_table(
        rule("one", ["smtp:[10.0.0.5]:25", "mailbox:ann"], continues=True),
        rule("two", ["smtp:[10.0.0.5]:25", "mailbox:Ann"], continues=True),
    )
    assert outcome(table, "ann@plant.example") == "smtp:[10.0.0.5]:25 mailbox:ann"
    routing, _ = routed(table, "ann@plant.example")
    assert [route.rule for route in routing.routes] == ["one", "one"]


def test_members_of_lists_are_routed_as_mail_of_a_trusted_client() -> None:
    here = Arrival("local", None, ip_address(CONNECTED), "", LIST, trusted=True)
    table = grouped(rule("cams", ["discard"], client=["private"]))
    for path, said in (
        ("ann@[10.0.0.9]", "direct"),
        ("new@plant.example", "mailbox:new@plant.example"),
        ("ann@elsewhere.example", "550"),
    ):
        routing = table.route(Address.parse(path), here, None)
        found = " ".join(str(route.target) for route in routing.routes)
        assert found == said or (routing.refusal is not None and said == "550")


# Whatever the configuration.

_NAMES = st.sampled_from(["ann", "sales", "ops", "new", "x+y", "postmaster", "ops-bounces", "Root"])
_DOMAINS = st.sampled_from(
    [
        *("plant.example", "shop.example", "depot.example", "hub.lan", "b.example", "localhost"),
        *(f"[{PLANT_IP}]", f"[{SHOP_IP}]", "[IPv6:fd00::5]", f"[{CONNECTED}]", "[10.0.0.50]"),
        *("[10.0.0.9]", "[8.8.8.8]", "[127.0.0.1]", "10.0.0.9", PLANT_IP, "[tag:x]"),
    ]
)
_SCOPES = st.sampled_from(["", "plant.example", "shop.example", "depot.example"])
_IDS = st.tuples(st.sampled_from(["ann", "sales", "root", "x+y"]), _SCOPES).map(
    lambda pair: f"{pair[0]}@{pair[1]}" if pair[1] else pair[0]
)
_TARGETS = st.sampled_from(
    [
        *("direct", "smtp:[10.0.0.5]:25", "relay:isp", "mailbox:ann", "list:ops", "discard"),
        *("reject:5.7.1 no", "lmtp:/run/x"),
    ]
)
_MATCHES = st.fixed_dictionaries(
    {},
    optional={
        "recipient": st.sampled_from(["*", "*@*", "ann@*", "*@[10.0.0.0/8]", "*@b.example"]),
        "sender": st.sampled_from(["*", "<>", "*@x.example"]),
        "subject": st.just("*"),
        "larger_than": st.just(10),
        "has_attachment": st.booleans(),
        "continues": st.booleans(),
    },
)


@given(
    local_part=_NAMES,
    domain=_DOMAINS,
    ids=st.lists(_IDS, max_size=4),
    aliases=st.lists(st.tuples(_IDS, _IDS), max_size=2),
    catch_alls=st.lists(st.tuples(_SCOPES, _IDS), max_size=2),
    list_of=st.none() | _SCOPES,
    rules=st.lists(st.tuples(st.lists(_TARGETS, min_size=1, max_size=2), _MATCHES), max_size=3),
    accept=st.booleans(),
    may_post=st.booleans(),
    hostname=st.sampled_from([None, "hub.lan"]),
    sender=st.sampled_from([None, "s@x.example", "ann@plant.example", f"a@[{SHOP_IP}]"]),
    local=st.sampled_from([PLANT_IP, SHOP_IP, CONNECTED]),
)
def test_a_stranger_never_gets_further_than_what_is_ours_and_exists(
    local_part: str,
    domain: str,
    ids: list[str],
    aliases: list[tuple[str, str]],
    catch_alls: list[tuple[str, str]],
    list_of: str | None,
    rules: list[tuple[list[str], dict[str, Any]]],
    accept: bool,
    may_post: bool,
    hostname: str | None,
    sender: str | None,
    local: str,
) -> None:
    ops = () if list_of is None else ((f"ops@{list_of}" if list_of else "ops", "ops"),)
    table = make_table(
        *(rule(f"r{number}", to, **match) for number, (to, match) in enumerate(rules)),
        hostname=hostname,
        accept_from_strangers=accept,
        mailboxes=MailboxSettings(
            names=tuple(ids), aliases=tuple(aliases), catch_alls=tuple(catch_alls), lists=ops
        ),
        lists=(ListSettings("ops", (), list_of or "", strangers_may_post=may_post),),
        groups=GROUPED,
    )
    path = Address.parse(f"{local_part}@{domain}")
    came = arrival(STRANGER, local=local)
    reverse_path = None if sender is None else Address.parse(sender)
    for content in (None, ContentFacts(99, [("subject", "x")])):
        routing = table.route(path, came, reverse_path, content=content)
        if routing.refusal is not None:
            assert not routing.routes
            continue
        # Taken: then it is ours, it exists, and strangers are let in; or it is postmaster.
        assert table.is_ours(path.domain, came)
        assert routing.recipient == path
        if path.local_part.lower() == "postmaster":
            continue
        assert accept
        known = {*ids, *(alias for alias, _ in aliases)}
        exists = any(
            entry.partition("@")[0] in (path.local_part.lower(), path.local_part.partition("+")[0])
            for entry in known
        )
        exists = exists or bool(catch_alls) or (list_of is not None and "ops" in path.local_part)
        assert exists
        if not rules:
            assert {route.target.kind for route in routing.routes} <= {"mailbox", "list"}


def test_a_device_s_mailbox_takes_what_has_none() -> None:
    """Before one is made, also where none would be; what exists, and rules, come first."""
    table = make_table(rule("up", ["discard"], recipient="up@*"), device_mailbox="Door")
    assert outcome(table, "new@plant.example") == "mailbox:door"
    assert outcome(table, "alerts@plant.example") == "mailbox:alerts"
    assert outcome(table, "up@plant.example") == "discard"
    assert outcome(table, "new@plant.example", "10.0.0.77") == "mailbox:new"
    fixed = make_table(mailboxes=MailboxSettings(auto_create=False), device_mailbox="door")
    assert outcome(fixed, "new@plant.example") == "mailbox:door"


def test_a_device_s_mailbox_takes_what_goes_to_names_that_are_nobody_s() -> None:
    """Where a rule leads there it does not; nor for mail to a host that may not be reached."""
    table = make_table(rule("far", ["relay:x"], recipient="*@far.example"), device_mailbox="door")
    assert outcome(table, "new@elsewhere.example") == "mailbox:door"
    assert outcome(table, "new@far.example") == "relay:x"
    assert outcome(table, "new@[203.0.113.9]").startswith("550")
    assert outcome(table, "new@elsewhere.example", "10.0.0.77").startswith("550 5.7.1")
    assert outcome(table, "new@elsewhere.example", "203.0.113.9").startswith("550 5.7.1")
