"""Attacks 43 to 52: nobody makes the hub connect to where he may not go himself.

Each case names an address by some way, and the connections the hub opens are compared with those
it may open: no one more, and no one less, so a hub that connects nowhere fails as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest

from tests.attacks.addresses import addresses, literal, may_reach, meant, spellings, target
from tests.attacks.conftest import Say
from tests.attacks.talk import Talk
from tests.attacks.world import (
    CONFIG,
    HONEST,
    HUB_PORT,
    LISTENER,
    MAIL_PORT,
    OWN,
    ZONE,
    World,
    hexed,
    wait_until_settled,
)
from tests.support.hub import Hub
from tests.support.mail import message, stuffed
from tests.support.toml import route
from waypost.mail.address import IPAddress

CONTENT = stuffed(message())
ALL = addresses()
PLAIN = [ip for ip in ALL if ip.version == 4 or meant(ip) == ip]
ONE_SPELT = ("127.0.0.1", "169.254.169.254", "10.0.0.1", OWN[0], OWN[2], "8.8.8.8")
SPELT = [text for v4 in ONE_SPELT for text in spellings(IPv4Address(v4))]
# RFC 5321 §4.1.3 leaves room for literals of other kinds, which lead nowhere.
_OTHER_LITERAL = re.compile(r"\[(?!IPv6:)[A-Za-z0-9-]*[A-Za-z0-9]:[!-Z^-~]+\]")
# A session ends at 20 refused commands.
AT_ONCE = 15


def allowed(ips: Iterable[IPAddress], who: str) -> set[str]:
    """The connections these addresses may cause."""
    return {target(ip) for ip in ips if may_reach(ip, who)}


def in_turn(paths: Sequence[str]) -> Iterable[tuple[int, Sequence[str]]]:
    """As many as fit into a session, and its number."""
    for number, start in enumerate(range(0, len(paths), AT_ONCE)):
        yield number, paths[start : start + AT_ONCE]


def test_the_cases_are_many() -> None:
    """R15: 2,000 at least. The other tests here try all of these, some of them more than once."""
    by_literals = 3 * len(ALL)  # a stranger's RCPT, a trusted client's, a return path
    by_names = 2 * (len(ALL) + 3 * len(PLAIN))
    assert by_literals + by_names + 3 * len(SPELT) > 2_000
    assert sum(may_reach(ip, "stranger") for ip in ALL) > 20


def test_attacks_44_to_47_a_stranger_names_a_literal(world: World, hub: Hub, say: Say) -> None:
    paths = [f"x@{literal(ip)}" for ip in ALL]
    with world.watched(hub) as connections:
        for number, some in in_turn(paths):
            with world.stranger(number) as talk:
                for path, reply in zip(some, talk.begin(*some), strict=True):
                    is_own = path.removeprefix("x@") in map(literal, map(ip_address, OWN))
                    wanted = "550 5.1.1" if is_own or "@[127." in path else "550 5.7.1"
                    assert reply.startswith((wanted, "550 5.1.1")), (path, reply)
    assert connections == set()
    say(len(paths), "RCPT to a literal by a stranger")


@pytest.mark.parametrize("who", ["stranger", "trusted"])
def test_attacks_41_and_45_other_spellings(world: World, hub: Hub, say: Say, who: str) -> None:
    """Between brackets none is a literal, and without them none is an address to anybody."""
    paths = [f"x@[{text}]" for text in SPELT] + [f"x@{text}" for text in SPELT]
    taken: list[str] = []
    with world.watched(hub) as connections:
        for number, some in in_turn(paths):
            with world.stranger(number) if who == "stranger" else world.trusted() as talk:
                talk.say("MAIL FROM:<> SMTPUTF8")
                for path in some:
                    (reply,) = talk.say(f"RCPT TO:<{path}>")
                    is_literal = path.startswith("x@[") and _OTHER_LITERAL.search(path) is None
                    if not reply.startswith("501 5.1.3" if is_literal else ("501 ", "550 ")):
                        taken.append(f"{path}: {reply}")
    assert taken == []
    assert connections == set()
    say(len(paths), f"odd spellings by {who}")


def test_attacks_44_to_46_a_trusted_client_names_a_literal(
    world: World, hub: Hub, say: Say
) -> None:
    """What may not be reached is refused at RCPT; all else is tried."""
    paths = [f"x@{literal(ip)}" for ip in ALL if str(meant(ip)) not in OWN]
    with world.watched(hub) as connections:
        for _, some in in_turn(paths):
            with world.trusted() as talk:
                replies = talk.begin(*some)
                assert all(reply.startswith(("250", "550 5.7.1")) for reply in replies), replies
                if any(reply.startswith("250") for reply in replies):
                    assert talk.content(CONTENT).startswith("250")
    # All of loopback is this host, where any local part from a trusted client makes a mailbox.
    assert_only(world, connections, allowed(ALL, "trusted"))
    say(len(paths), "RCPT to a literal by a trusted client")


def test_attack_47_a_sender_that_is_a_literal(world: World, tmp_path: Path, say: Say) -> None:
    """By default nobody but the very host may use it, trusted or not."""
    port = HUB_PORT + 1
    believing = 'literal_sender = "off"'
    assert believing in CONFIG
    hub = Hub(
        tmp_path,
        CONFIG.replace(believing, ""),
        listener=LISTENER.replace(str(HUB_PORT), str(port)),
        host=OWN[0],
        port=port,
        namespace=world.namespace.name,
    )
    # Of the hub's own addresses, all of loopback among them, a trusted client may make use.
    foreign = [ip for ip in ALL if str(meant(ip)) not in OWN and not (meant(ip) or ip).is_loopback]
    count = 0
    with hub, world.watched(hub, port) as connections:
        for client, host, ips in (("45.9.9.9", OWN[0], ALL), ("10.9.0.50", OWN[1], foreign)):
            for _, some in in_turn([f"x@{literal(ip)}" for ip in ips]):
                with world.session(client, host, port) as talk:
                    replies = talk.say(*(f"MAIL FROM:<{sender}>" for sender in some))
                    assert all(reply.startswith("550 5.7.1") for reply in replies), replies
            with world.session(client, host, port) as talk:
                assert talk.say(f"MAIL FROM:<x@[{client}]>")[0].startswith("250")
            count += len(ips)
    assert connections == set()
    say(count, "sender at a literal that is not the client's")


def test_attack_48_a_return_path_that_is_a_literal(world: World, hub: Hub, say: Say) -> None:
    """A stranger's mail fails later: no report goes to a host that it did not come from."""
    with world.watched(hub) as connections, world.stranger(1) as talk:
        for ip in ALL:
            fail_later(talk, f"x@{literal(ip)}")
    assert connections == set()
    say(len(ALL), "report to a literal that is not the client's")


def test_attack_48_a_return_path_that_is_the_client(world: World, hub: Hub, say: Say) -> None:
    """It goes to the very host, unless that is where nobody may go."""
    clients = [ip for ip in PLAIN if is_a_client(ip)]
    with world.watched(hub) as connections:
        for ip in clients:
            with world.session(str(ip)) as talk:
                fail_later(talk, f"x@{literal(ip)}")
    assert_only(world, connections, allowed(clients, "proven"))
    assert len(connections) > 50
    say(len(clients), "report to the client's own literal")


def test_attacks_43_and_49_a_return_path_whose_name_leads_anywhere(
    world: World, hub: Hub, say: Say
) -> None:
    """Through MX, A, AAAA and CNAME: what a stranger causes goes to the Internet only."""
    names = names_of("report")
    with world.watched(hub) as connections, world.stranger(2) as talk:
        for name in names:
            fail_later(talk, f"x@{name}")
    assert_only(world, connections, allowed(ALL, "stranger"))
    say(len(names), "report to a name")


def test_attacks_43_and_49_a_recipient_whose_name_leads_anywhere(
    world: World, hub: Hub, say: Say
) -> None:
    """As above; a trusted client's mail goes to trusted networks as well."""
    names = names_of("to")
    with world.watched(hub) as connections, world.trusted() as talk:
        for name in names:
            assert talk.begin(f"x@{name}")[0].startswith("250"), name
            assert talk.content(CONTENT).startswith("250")
    assert_only(world, connections, allowed(ALL, "routed"))
    say(len(names), "recipient by name")


def test_attack_43_a_name_that_moves_between_attempts(world: World, hub: Hub, say: Say) -> None:
    """DNS rebinding: the address is judged that is connected to, not one seen before."""
    moving = [ip for ip in PLAIN if not may_reach(ip, "stranger")]
    with world.watched(hub) as connections:
        with world.trusted() as talk:
            for ip in moving:
                assert talk.begin(f"x@to-{hexed(ip)}.moves.{ZONE}")[0].startswith("250")
                assert talk.content(CONTENT).startswith("250")
        with world.stranger(3) as talk:
            for ip in moving:
                fail_later(talk, f"x@report-{hexed(ip)}.moves.{ZONE}")
    honest = f"{HONEST}:{MAIL_PORT}"
    assert_only(world, connections, {honest} | allowed(moving, "routed"))
    # Each was at the honest place first.
    assert world.reached[ip_address(HONEST)] >= len(moving)
    say(2 * len(moving), "name that moves")


def test_attacks_43_to_46_not_even_for_the_operator(world: World, tmp_path: Path, say: Say) -> None:
    """A route names a host whose name moves: multicast and the like, wrappers, and the hub itself
    are reached by nobody's wish; all else is the operator's to choose."""
    port = HUB_PORT + 1
    ips = [*[ip for ip in ALL if not may_reach(ip, "operator")][::8], ip_address(OWN[1])]
    places = [(ip, f"route-{hexed(ip)}.moves.{ZONE}", 25) for ip in ips]
    places += [(ip_address(ip), f"self-{hexed(ip_address(ip))}.a.{ZONE}", port) for ip in OWN]
    config = CONFIG.partition("[[mailbox]]")[0].replace("first_s = 1.5", "give_up_after_s = 4")
    config += "warn_after_s = 3\nfirst_s = 1.5\n"
    for number, (_, name, at) in enumerate(places):
        config += route(f"smtp:{name}:{at}", name=f"r{number}", match=f'recipient = "r{number}@*"')
    hub = Hub(
        tmp_path,
        config,
        listener=LISTENER.replace(str(HUB_PORT), str(port)),
        host=OWN[0],
        port=port,
        namespace=world.namespace.name,
    )
    with hub, world.watched(hub, port) as connections:
        with world.session("10.9.0.50", OWN[1], port) as talk:
            for number, (_, name, _) in enumerate(places):
                assert talk.begin(f"r{number}@x.example")[0].startswith("250"), name
                assert talk.content(CONTENT).startswith("250")
        wait_until_settled(hub)
        received = hub.log_text().count(" received ")
    assert_only(world, connections, {f"{HONEST}:{MAIL_PORT}", f"{OWN[1]}:{MAIL_PORT}"})
    assert received == len(places)  # nothing came back to it
    say(len(places), "host of a route")


@pytest.mark.parametrize(
    "text",
    [
        *("[8.8.8.8]:587", "[8.8.8.8]:25", "[8.8.8.8:25]", "[8.8.8.8]25", "[10.9.0.2#25]"),
        *("[IPv6:fe80::1%lo]", "[IPv6:fe80::1%251]", "[IPv6:fd00::1%mail0]", "[IPv6:fd00::1]:25"),
        *("[IPv6:fd00::1/64]", "[10.9.0.2/24]", "10.9.0.2:26", "fe80::1%lo", "fd00::1%1"),
    ],
)
def test_attack_50_no_port_and_no_zone(world: World, hub: Hub, text: str) -> None:
    with world.watched(hub) as connections, world.trusted() as talk:
        (reply,) = talk.begin(f"x@{text}")
        assert reply.startswith(("501 5.1.3", "550 5.7.1")), reply
    assert connections == set()


def test_attack_52_a_refusal_tells_nothing_of_the_target(world: World, hub: Hub) -> None:
    """Open, closed, inside, outside: one reply, but for what the asker said himself."""
    heard = set()
    for ip in (ip_address(text) for text in ("10.9.0.2", "8.8.8.8", "169.254.169.254", "0.0.0.0")):
        with world.stranger(4) as talk:
            (reply,) = talk.begin(f"x@{literal(ip)}")
            heard.add(reply.replace(str(ip), "IP"))
    assert len(heard) == 1


def names_of(prefix: str) -> list[str]:
    """Names that lead to every address: to all by an address, to plain ones by all other ways."""
    forms = {"a": ALL, "mx": PLAIN, "cname": PLAIN, "mxcname": PLAIN}
    return [f"{prefix}-{hexed(ip)}.{form}.{ZONE}" for form, ips in forms.items() for ip in ips]


def is_a_client(ip: IPAddress) -> bool:
    """Whether a connection can come from it: unicast, and without a zone."""
    if ip.is_multicast or ip.is_unspecified or ip.is_loopback or str(ip) in OWN:
        return False
    return not ip.is_link_local if ip.version == 6 else ip.packed[0] not in (0, 127, 255)


def fail_later(talk: Talk, sender: str) -> None:
    """Hand over a message whose delivery will fail, which calls for a report."""
    assert talk.begin(f"broken@[{OWN[0]}]", sender=sender)[0].startswith("250"), sender
    assert talk.content(CONTENT).startswith("250")


def assert_only(world: World, connections: set[str], wanted: set[str]) -> None:
    """These connections and no others were tried, and each came about."""
    assert connections - wanted == set()
    assert wanted - connections == set()
    assert {target(ip) for ip in world.reached} == connections
