"""Mail to a topic: who may name which, and that no address whatever leads to another."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from waypost.errors import AddressError
from waypost.mail.address import Address
from waypost.mail.envelope import REPORT, Arrival
from waypost.net.gate import Gate
from waypost.net.interfaces import OwnAddresses
from waypost.net.networks import Networks
from waypost.routing.mailboxes import MailboxNames, MailboxSettings
from waypost.routing.patterns import AddressGlob
from waypost.routing.table import LIST, Routing, RoutingSettings, RoutingTable, Rule
from waypost.routing.targets import Target, parse_target
from waypost.routing.topics import TopicSettings

HUB = "192.0.2.5"
PUMP = "192.168.1.7"
MACHINE = "192.168.1.8"  # hears on a topic that has become the hub's own
SENDER = Address.parse("plc@[192.168.1.9]")
TOPICS = TopicSettings("waypost", "homeassistant", "mqtt", ("pump/#", "lights/+/set", "haus/Tür"))
ALL_TOPICS = TOPICS.__class__("waypost", "homeassistant", "mqtt", ("#", "+/+"))


def table(
    topics: TopicSettings | None = TOPICS, *rules: Rule, subaddress: str = "+"
) -> RoutingTable:
    own = OwnAddresses(follow_interfaces=False, extra=[ip_address(HUB)])
    trusted = Networks(("loopback", "private"))
    commands = {PUMP: "plant/pump7/set#line", MACHINE: "waypost/x"}
    return RoutingTable(
        RoutingSettings(accept_from_strangers=True, rules=rules, topics=topics),
        own=own,
        trusted=trusted,
        mailboxes=MailboxNames(MailboxSettings(names=("alerts",), subaddress=subaddress)),
        gate=Gate(trusted=trusted, own=own, listening=frozenset),
        command_of_device=lambda ip: commands.get(str(ip)),
    )


TABLE, OPEN_TABLE = table(), table(ALL_TOPICS)


def arrival(client: str | None = "192.168.1.9", listener: str = "smtp") -> Arrival:
    ip = None if client is None else ip_address(client)
    is_trusted = ip is None or ip in Networks(("loopback", "private"))
    return Arrival("ESMTP", ip, ip_address(HUB), "x", listener, is_trusted)


def routed(
    local_part: str,
    domain: str = f"[{HUB}]",
    *,
    of: RoutingTable = TABLE,
    sender: Address | None = SENDER,
    came: Arrival | None = None,
) -> Routing:
    address = Address(local_part, Address.parse(f"x@{domain}").domain)
    return of.route(address, came or arrival(), sender)


@pytest.mark.parametrize(
    ("local_part", "topic"),
    [
        ("mqtt+pump/set", "pump/set"),
        ("MQTT+pump/Set", "pump/Set"),  # the mailbox has no case, topics have
        ("mqtt+pump", "pump"),  # MQTT 5 §4.7.1.2: pump/# is pump, too
        ("mqtt+lights/hall/set", "lights/hall/set"),
        ("mqtt+pump/front door", "pump/front door"),
        ("mqtt+haus/Tür", "haus/Tür"),
    ],
)
def test_mail_to_a_topic_is_published(local_part: str, topic: str) -> None:
    routing = routed(local_part)
    assert [str(route.target) for route in routing.routes] == [f"publish:{topic}"]
    assert parse_target(str(routing.routes[0].target)) == routing.routes[0].target


@pytest.mark.parametrize(
    ("local_part", "status", "said"),
    [
        ("mqtt", "5.1.1", "a topic is missing"),
        ("mqtt+", "5.1.1", "a topic is missing"),
        ("mqtt+PUMP/set", "5.7.1", "none of mqtt.topics"),
        ("mqtt+lights/set", "5.7.1", "none of mqtt.topics"),
        ("mqtt+other", "5.7.1", "none of mqtt.topics"),
        ("mqtt+pump/+", "5.7.1", "many topics"),
        ("mqtt+pump/#", "5.7.1", "many topics"),
        ("mqtt+pump/a#line", "5.7.1", "many topics"),
        ("mqtt+$SYS/x", "5.7.1", "broker's own"),
        ("mqtt+/pump/set", "5.7.1", "empty level"),
        ("mqtt+pump//set", "5.7.1", "empty level"),
        ("mqtt+pump/", "5.7.1", "empty level"),
        ("mqtt+pump/\0", "5.7.1", "control"),
        ("mqtt+pump/" + "x" * 300, "5.7.1", "256"),
        ("mqtt+waypost/bridge/state", "5.7.1", "hub's own"),
        ("mqtt+homeassistant/x", "5.7.1", "hub's own"),
    ],
)
def test_what_is_refused_says_why(local_part: str, status: str, said: str) -> None:
    routing = routed(local_part)
    assert routing.refusal is not None
    assert routing.refusal.enhanced == status
    assert said in routing.refusal.text
    assert len(routing.refusal.wire) < 512


@example("MqTt+pump/set")
@example("mqtt+$SYS/a")
@example("mqtt+waypost/x")
@given(st.one_of(st.text(), st.text().map(lambda rest: f"mqtt+{rest}")))
def test_no_local_part_leads_to_a_forbidden_topic(local_part: str) -> None:
    """Not even where everything is allowed; and without the name in front, to none at all."""
    for tables in (TABLE, OPEN_TABLE):
        for route in routed(local_part, of=tables).routes:
            if route.target.kind != "publish":
                continue
            topic = route.target.argument
            assert local_part.casefold().startswith("mqtt+")
            assert local_part.endswith(f"+{topic}")
            assert not set(topic) & set("+#\0")
            assert not topic.startswith(("$", "/", "waypost/", "homeassistant/"))
            assert topic not in ("", "waypost", "homeassistant")
            if tables is TABLE:
                levels = topic.split("/")
                assert (
                    levels[0] == "pump"
                    or topic == "haus/Tür"
                    or (levels[0], levels[2:]) == ("lights", ["set"])
                )


@given(st.text())
def test_no_address_on_the_wire_does_either(text: str) -> None:
    try:
        address = Address.parse(f"{text}@[{HUB}]")
    except AddressError:
        return
    for route in OPEN_TABLE.route(address, arrival(), SENDER).routes:
        if route.target.kind == "publish":
            assert not set(route.target.argument) & set("+#\0\r\n")


@pytest.mark.parametrize("local_part", ["mqtt+pump/set", "mqtt", "mqtt+other", "MQTT+$SYS/x"])
def test_strangers_may_not(local_part: str) -> None:
    """Though they may mail mailboxes here."""
    stranger = arrival("203.0.113.9")
    assert routed("alerts", came=stranger).refusal is None
    routing = routed(local_part, came=stranger)
    assert routing.refusal is not None
    assert routing.refusal.enhanced == "5.7.1"
    assert "published" not in routing.refusal.text  # nor do they learn of topics


def test_reports_are_not_published() -> None:
    report = arrival(None, REPORT)
    refused = routed("mqtt+pump/set", came=report, sender=None).refusal
    assert refused is not None
    assert "Reports" in refused.text


def test_members_of_lists_may_be_topics() -> None:
    routing = routed("mqtt+pump/set", came=arrival(None, LIST))
    assert [route.target for route in routing.routes] == [Target("publish", "pump/set")]


def test_without_a_broker_or_a_mailbox_it_is_an_ordinary_name() -> None:
    for topics in (None, TopicSettings("waypost", "homeassistant")):
        routing = routed("mqtt+pump/set", of=table(topics))
        assert [str(route.target) for route in routing.routes] == ["mailbox:mqtt"]


def test_routes_come_first() -> None:
    first = Rule("keep", (Target("mailbox", "alerts"),), recipient=AddressGlob("mqtt+*@*"))
    routing = routed("mqtt+pump/set", of=table(TOPICS, first))
    assert [str(route.target) for route in routing.routes] == ["mailbox:alerts"]


def test_the_separator_is_that_of_sub_addresses() -> None:
    routing = routed("mqtt=pump/set", of=table(subaddress="="))
    assert [str(route.target) for route in routing.routes] == ["publish:pump/set"]


@pytest.mark.parametrize("domain", [f"[{PUMP}]", PUMP])
def test_mail_to_a_device_is_published_on_its_topic(domain: str) -> None:
    routing = routed("anything", domain)
    assert [str(route.target) for route in routing.routes] == ["publish:plant/pump7/set#line"]


def test_other_devices_get_their_mail() -> None:
    routing = routed("anything", "[192.168.1.50]")
    assert [str(route.target) for route in routing.routes] == ["direct"]


def test_reports_go_to_the_device_itself() -> None:
    routing = routed("pump", f"[{PUMP}]", sender=None)
    assert [str(route.target) for route in routing.routes] == ["direct"]


def test_strangers_command_no_device() -> None:
    refused = routed("pump", f"[{PUMP}]", came=arrival("203.0.113.9")).refusal
    assert refused is not None
    assert refused.enhanced == "5.7.1"


@pytest.mark.parametrize(
    ("ip", "topics", "said"), [(PUMP, None, "mqtt.url"), (MACHINE, TOPICS, "the hub's own")]
)
def test_a_topic_that_cannot_be_is_put_off(
    ip: str, topics: TopicSettings | None, said: str
) -> None:
    refused = routed("pump", f"[{ip}]", of=table(topics)).refusal
    assert refused is not None
    assert refused.code == 451
    assert said in refused.text
