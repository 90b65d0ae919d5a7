"""Mail to names: MX, families, loops, trouble, relays; and where no name may lead a stranger."""

from __future__ import annotations

import functools
import socket
import time
from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from tests.support.dns_servers import Nsd
from tests.support.hub import Hub
from tests.support.mail import accepted, message, parsed, reply_to, submit, submit_content
from tests.support.netns import Namespace, joined_namespaces
from tests.support.ports import free_port
from tests.support.postfix import Postfix
from tests.support.scripted_peer import EXTENSIONS, ScriptedPeer
from tests.support.toml import PORT_25, retry, route
from tests.support.waiting import wait_until
from waypost.delivery.smtp import CONNECT_S

from .conftest import StartHub, StartPeer

Hosts = tuple[Namespace, Namespace]

WORLD = route("direct", name="world", match='recipient = "*@*.test"')
# Loopback addresses are other servers here, not the hub's own.
OWN = '[addresses]\nown = ["203.0.113.7"]\n'


class PeerAt(Protocol):
    """Starts a peer at 127.0.0.N."""

    def __call__(self, number: int, **more: Any) -> ScriptedPeer: ...


ZONES = {
    "order.test": """
        @ MX 30 mx3
        @ MX 10 mx1
        @ MX 20 mx2
        mx1 A 127.0.0.2
        mx2 A 127.0.0.3
        mx3 A 127.0.0.4""",
    "many.test": """
        @ MX 10 mx1
        @ MX 20 mx2
        mx1 A 127.0.0.2
        mx1 A 127.0.0.3
        mx1 A 127.0.0.4
        mx1 A 127.0.0.5
        mx2 A 127.0.0.6""",
    "equal.test": "@ MX 10 mx1\n@ MX 10 mx2\nmx1 A 127.0.0.2\nmx2 A 127.0.0.3",
    "loop.test": "@ MX 10 mx1\n@ MX 20 HUB.test.\n@ MX 30 mx3\nmx1 A 127.0.0.2\nmx3 A 127.0.0.4",
    "onlyus.test": "@ MX 10 hub.test.\n@ MX 20 mx2\nmx2 A 127.0.0.2",
    "usbyip.test": "@ MX 10 mx1\n@ MX 20 mx2\nmx1 A 203.0.113.7\nmx2 A 127.0.0.2",
    "null.test": "@ MX 0 .\n@ A 127.0.0.2",
    "ip.test": "@ MX 10 127.0.0.2.\n@ A 127.0.0.2",
    "nothing.test": "@ MX 10 gone\n@ A 127.0.0.2",
    "empty.test": '@ TXT "no host here"',
    "implicit.test": "@ A 127.0.0.2",
    "alias.test": "www CNAME implicit.test.\nmail CNAME mxalias.test.",
    "mxalias.test": "@ MX 10 mx\nmx CNAME host\nhost A 127.0.0.2",
    "xn--bcher-kva.test": "@ MX 10 mx\nmx A 127.0.0.2",
    "inside.test": "@ MX 10 mx\nmx A 127.0.0.1",
    "relays.test": "@ MX 10 wrong\nwrong A 127.0.0.9\none A 127.0.0.2\ntwo A 127.0.0.3",
    "root.test": "gone CNAME nowhere.root.test.",
}  # fmt: skip


@pytest.fixture(scope="module")
def nsd() -> Iterator[Nsd]:
    with Nsd(ZONES, broken=["broken.test"]) as running:
        yield running


@pytest.fixture(scope="module")
def port() -> int:
    """Where all hosts of ZONES take mail."""
    return free_port("127.0.0.2")


@pytest.fixture(scope="module")
def hub(nsd: Nsd, port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub that may send anywhere in ZONES; each test has recipients of its own."""
    config = f'hostname = "hub.test"\n{OWN}{dns(nsd)}[delivery]\nport = {port}\n'
    with Hub(
        tmp_path_factory.mktemp("names") / "hub", config + retry(1, max_s=1) + WORLD
    ) as running:
        yield running


def dns(*servers: Nsd | str) -> str:
    names = [f"{s.address}:{s.port}" if isinstance(s, Nsd) else s for s in servers]
    return "[dns]\nservers = [" + ", ".join(f'"{name}"' for name in names) + "]\n"


@pytest.fixture
def peer_at(start_peer: StartPeer, port: int) -> PeerAt:
    """See PeerAt."""
    return lambda number, **more: start_peer(host=f"127.0.0.{number}", port=port, **more)


def send(hub: Hub, *recipients: str, sender: str = "ann@[127.0.0.1]") -> str:
    with hub.smtp(local_hostname="x") as smtp:
        return submit(smtp, *recipients, sender=sender)


def last_hop(hub: Hub, queue_id: str) -> str:
    (entry,) = wait_until(lambda: hub.json("trace", "--id", queue_id))
    return str(entry["recipients"][0]["last_hop"])


def settled(hub: Hub, queue_id: str, outcome: str) -> str:
    """The log line of the attempt that ended so."""

    def look() -> str:
        lines = hub.log_text().splitlines()
        wanted = (f" attempt id={queue_id} ", f" outcome={outcome} ")
        return next((line for line in lines if all(word in line for word in wanted)), "")

    return wait_until(look, hub.log_text)


def report_on(hub: Hub, recipient: str, mailbox: str = "ann") -> str:
    def look() -> str:
        return next((o.decode() for o in hub.mailbox(mailbox) if recipient.encode() in o), "")

    return wait_until(look, hub.log_text)


def test_the_next_host_takes_what_the_one_before_does_not(hub: Hub, peer_at: PeerAt) -> None:
    """Nobody listens at the first, the second has no time, the third takes it."""
    busy, free = peer_at(3), peer_at(4)
    busy.answer("GREETING", "554 5.3.2 Not now")
    queue_id = send(hub, "a@order.test")
    assert free.wait_for_mails()[0].paths == ["a@order.test"]
    settled(hub, queue_id, "relayed")
    assert busy.connections == 1
    assert last_hop(hub, queue_id) == f"mx3.order.test[127.0.0.4]:{free.port}"
    assert free.commands[0] == "EHLO hub.test"


def test_every_address_of_a_host_comes_before_the_next_host(hub: Hub, peer_at: PeerAt) -> None:
    """Of four one is dead, one refuses, one hangs up; the fourth takes it."""
    refusing, dropping, taking, next_one = peer_at(3), peer_at(4), peer_at(5), peer_at(6)
    refusing.answer("GREETING", "421 4.3.2 Not now")
    dropping.answer("GREETING", "DROP")
    for number in range(4):
        settled(hub, send(hub, f"a{number}@many.test"), "relayed")
    assert len(taking.wait_for_mails(4)) == 4
    assert next_one.connections == 0


def test_equal_hosts_share(hub: Hub, peer_at: PeerAt) -> None:
    one, two = peer_at(2), peer_at(3)
    for number in range(16):
        send(hub, f"a{number}@equal.test")
    wait_until(lambda: len(one.mails) + len(two.mails) == 16)
    assert one.mails
    assert two.mails


def test_nobody_behind_us_is_asked(hub: Hub, peer_at: PeerAt) -> None:
    """RFC 5321 §5.1: a backup does not hand mail to a worse backup, nor to itself."""
    backup = peer_at(4)
    queue_id = send(hub, "a@loop.test")
    assert "127.0.0.2" in settled(hub, queue_id, "deferred")
    first = peer_at(2)
    first.wait_for_mails()
    assert backup.connections == 0


@pytest.mark.parametrize(
    ("domain", "status", "words"),
    [
        ("onlyus.test", "5.4.6", "comes back to this host"),
        ("usbyip.test", "5.4.6", "comes back to this host"),
        ("null.test", "5.1.10", "556 5.1.10 null.test takes no mail"),
        ("gone.root.test", "5.1.2", "no domain"),
        ("neverwas.root.test", "5.1.2", "no domain"),
        ("ip.test", "5.4.4", "has an address"),
        ("nothing.test", "5.4.4", "has an address"),
        ("empty.test", "5.4.4", "has an address"),
    ],
)
def test_no_way(hub: Hub, peer_at: PeerAt, domain: str, status: str, words: str) -> None:
    peer = peer_at(2)
    send(hub, f"a@{domain}")
    report = report_on(hub, f"a@{domain}")
    assert "Action: failed" in report
    assert f"Status: {status}" in report
    assert words in " ".join(report.split())
    assert peer.connections == 0


@pytest.mark.parametrize(
    "domain", ["implicit.test", "www.alias.test", "mail.alias.test", "mxalias.test", "bücher.test"]
)
def test_ways(hub: Hub, peer_at: PeerAt, domain: str) -> None:
    peer = peer_at(2)
    with hub.smtp(local_hostname="x") as smtp:
        smtp.ehlo()
        accepted(smtp, "MAIL FROM:<ann@[127.0.0.1]> SMTPUTF8")
        accepted(smtp, f"RCPT TO:<a@{domain}>")
        submit_content(smtp, message())
    peer.wait_for_mails()


def test_a_sick_name_server_is_waited_for(hub: Hub, nsd: Nsd, peer_at: PeerAt) -> None:
    """Trouble is remembered for ten seconds; the zone is well by then."""
    peer = peer_at(2)
    queue_id = send(hub, "a@broken.test")
    assert "451 4.4.3 " in settled(hub, queue_id, "deferred")
    nsd.reload({"broken.test": "@ MX 10 mx\nmx A 127.0.0.2"})
    peer.wait_for_mails()
    assert peer.mails[0].paths == ["a@broken.test"]


def test_a_peer_that_takes_a_part_gets_the_rest_later(hub: Hub, peer_at: PeerAt) -> None:
    """What it took is not given to the next host again."""
    limits = (*EXTENSIONS, "LIMITS MAILMAX=1 RCPTMAX=1")
    first, second = peer_at(2, extensions=limits), peer_at(3)
    # It takes one recipient, then hangs up on the connection for the next.
    first.answer("GREETING", "220 peer.test", "DROP", "220 peer.test")
    second.answer("GREETING", "220 peer.test")
    for _ in range(40):
        queue_id = send(hub, "one@equal.test", "two@equal.test")
        settled(hub, queue_id, "relayed")
        wait_until(lambda: len(paths_of(first, second)) >= 2)
        if first.mails:
            break
        second.mails.clear()
    wait_until(lambda: not hub.json("queue", "list"))
    assert sorted(paths_of(first, second)) == ["one@equal.test", "two@equal.test"]


def paths_of(*peers: ScriptedPeer) -> list[str]:
    return [path for peer in peers for mail in peer.mails for path in mail.paths]


def test_our_own_addresses_are_no_way(start_hub: StartHub, nsd: Nsd, start_peer: StartPeer) -> None:
    """All of 127.0.0.0/8 is ours by default, so a name that leads there is refused."""
    peer = start_peer()
    hub = start_hub(dns(nsd) + f"[delivery]\nport = {peer.port}\n" + WORLD)
    send(hub, "a@inside.test")
    report = report_on(hub, "a@inside.test")
    assert "Status: 5.4.4" in report
    assert "127.0.0.1 is" not in report
    assert peer.connections == 0


# Relays.


def test_relays_take_turns_when_one_is_away(
    start_hub: StartHub, nsd: Nsd, port: int, peer_at: PeerAt
) -> None:
    relays = (
        '[relay.isp]\nhost = ["gone.relays.test", "one.relays.test", "127.0.0.4"]\n'
        f'port = {port}\ntls = "none"\n'
        f'[relay.other]\nhost = "relays.test"\nport = {port}\ntls = "none"\n'
        f'[relay.late]\nhost = "gone.relays.test"\nport = {port}\ntls = "none"\n'
    )
    hub = start_hub(
        OWN
        + dns(nsd)
        + relays
        + retry(0.5, max_s=0.5)
        + route("relay:other", name="other", match='recipient = "*@other.example"')
        + route("relay:late", name="late", match='recipient = "*@late.example"')
        + route(f"smtp:two.relays.test:{port}", name="named", match='recipient = "*@named.example"')
        + route("relay:isp", name="isp", match='recipient = "*@*.example"')
    )
    second = peer_at(4)
    send(hub, "a@far.example")
    assert second.wait_for_mails()[0].paths == ["a@far.example"]
    first = peer_at(2)
    send(hub, "b@far.example", "c@elsewhere.example")
    assert first.wait_for_mails()[0].paths == ["b@far.example", "c@elsewhere.example"]
    assert len(second.mails) == 1
    # The MX of a name that the operator gave does not count, and its own host does.
    named = peer_at(3)
    send(hub, "d@named.example")
    assert named.wait_for_mails()[0].paths == ["d@named.example"]
    # A relay that cannot be found is for the operator to repair, not for senders to hear of.
    queue_id = send(hub, "e@other.example", "f@late.example")
    assert "451 4.4.4" in settled(hub, queue_id, "deferred")
    (told,) = hub.json("route", "a@late.example")
    assert "451 4.4.4" in told["trouble"]["relay:late"]
    assert hub.mailbox("ann") == []


# Without DNS.


def test_no_dns_at_all(start_hub: StartHub, port: int, peer_at: PeerAt) -> None:
    hub = start_hub(OWN + f"[dns]\nservers = []\n[delivery]\nport = {port}\n" + WORLD)
    peer = peer_at(2)
    queue_id = send(hub, "a@far.test")
    assert "451 4.4.3" in settled(hub, queue_id, "deferred")
    send(hub, "a@[127.0.0.2]")
    assert peer.wait_for_mails()[0].paths == ["a@[127.0.0.2]"]
    done = hub.run("route", "a@far.test")
    assert done.returncode == 75
    assert b"4.4.3" in done.stdout


def test_no_session_waits_for_dns(start_hub: StartHub) -> None:
    """Nothing is asked before the 220, nor for MAIL, RCPT and DATA."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.setblocking(False)
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        hub = start_hub(dns(server) + WORLD)
        hub.run("queue", "hold", "--all")
        with hub.smtp(local_hostname="client.elsewhere.test") as smtp:
            submit(smtp, "a@far.test", sender="b@near.test")
        with pytest.raises(BlockingIOError):
            silent.recv(512)


# Other hosts, both families.

FAR_ZONE = """
    @ MX 10 mx
    mx A 10.9.0.2
    mx AAAA fd00:9::2
    four MX 10 mx4
    mx4 A 10.9.0.2
    hole MX 10 mxhole
    mxhole AAAA fd00:9::66
    mxhole A 10.9.0.2"""


@pytest.fixture
def far_nsd(hosts: Hosts) -> Iterator[Nsd]:
    """At the hub's own port 53."""
    with Nsd({"far.test": FAR_ZONE}, netns=hosts[0].name) as running:
        yield running


@pytest.fixture
def near(hosts: Hosts, far_nsd: Nsd, start_hub: StartHub) -> Hub:
    """A hub on the first host."""
    config = 'hostname = "near.test"\n' + dns("127.0.0.1") + WORLD
    return start_hub(config, host="10.9.0.1", port=25, listener=PORT_25, namespace=hosts[0].name)


def send_from(host: Namespace, hub: Hub, *recipients: str, sender: str) -> str:
    with host.entered():
        smtp = hub.smtp(local_hostname="x")
    with smtp:
        return submit(smtp, *recipients, sender=sender)


def test_an_address_that_swallows_everything_costs_a_moment(
    near: Hub, hosts: Hosts, start_peer: StartPeer
) -> None:
    """RFC 8305: the other family is asked after a quarter of a second."""
    hosts[0].run(
        *("ip", "neigh", "add", "fd00:9::66", "lladdr", "02:00:00:00:00:66", "dev", "mail0"),
        *("nud", "permanent"),
    )
    peer = start_peer(host="10.9.0.2", port=25, namespace=hosts[1])
    start = time.monotonic()
    queue_id = send_from(hosts[0], near, "a@hole.far.test", sender="b@near.test")
    peer.wait_for_mails()
    assert time.monotonic() - start < CONNECT_S / 2  # of the address that says nothing
    assert last_hop(near, queue_id).startswith("mxhole.far.test[10.9.0.2]")


def test_another_hub_is_found_by_name(near: Hub, hosts: Hosts, start_hub: StartHub) -> None:
    there = start_hub(
        '[addresses]\ndomains = ["far.test", "four.far.test"]\n',
        host="10.9.0.2",
        port=25,
        listener=PORT_25,
        namespace=hosts[1].name,
    )
    six = send_from(hosts[0], near, "ann@far.test", sender="b@[IPv6:fd00:9::1]")
    there.wait_for_mail("ann")
    assert last_hop(near, six) == "mx.far.test[fd00:9::2]:25"
    four = send_from(hosts[0], near, "ann@four.far.test", sender="b@[10.9.0.1]")
    there.wait_for_mail("ann", 2)
    assert last_hop(near, four) == "mx4.far.test[10.9.0.2]:25"


def test_postfix_is_found_by_name(near: Hub, hosts: Hosts) -> None:
    with Postfix(
        address="10.9.0.2",
        more_addresses=("fd00:9::2",),
        mailboxes=("ann",),
        domains=("far.test",),
        netns=hosts[1].name,
    ) as postfix:
        new = postfix.mailbox("ann") / "new"
        send_from(hosts[0], near, "ann@far.test", "nobody@far.test", sender="bob@[10.9.0.1]")
        (path,) = wait_until(lambda: list(new.iterdir()) if new.exists() else [], postfix.log_text)
        assert "near.test" in parsed(path.read_bytes())["received"]
    # What it refused comes back, with its words.
    assert "mx.far.test said" in report_on(near, "nobody@far.test", "bob")


# What a stranger may cause.


@pytest.fixture
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Hosts, Nsd]]:
    """A hub at 8.8.8.1 that takes mail of a stranger, 8.8.8.8; inside there is 10.9.0.2."""
    with (
        joined_namespaces(
            ("8.8.8.1/24", "10.9.0.1/24"), ("8.8.8.8/24", "8.8.8.9/24", "10.9.0.2/24")
        ) as hosts,
        ScriptedPeer(host="10.9.0.2", port=2525, namespace=hosts[1]) as refusing,
        Nsd(
            {
                "mx.test": "@ 1 MX 10 mx\nmx 1 A 10.9.0.2",
                "a.test": "@ A 10.9.0.2",
                "own.test": "@ A 8.8.8.1",
                "both.test": "@ MX 10 mx\n@ MX 20 mx2\nmx A 10.9.0.2\nmx2 A 8.8.8.9",
                "rebind.test": "@ 1 MX 10 mx\nmx 1 A 8.8.8.8",
            },
            netns=hosts[0].name,
        ) as nsd,
    ):
        refusing.answer("RCPT", "550 5.1.1 Nobody here")
        config = (
            '[addresses]\ndomains = ["plant.example"]\n[networks]\naccept_from_strangers = true\n'
            + '[[mailbox]]\nname = "broken"\n'
            + dns("127.0.0.1")
            + retry(2, max_s=2)
            + route("smtp:[10.9.0.2]:2525", name="inside", match='recipient = "broken@*"')
            + WORLD
        )
        with Hub(
            tmp_path_factory.mktemp("public") / "hub",
            config,
            host="8.8.8.1",
            port=25,
            listener=PORT_25,
            namespace=hosts[0].name,
        ) as hub:
            yield hub, hosts, nsd


def test_a_report_to_a_strangers_domain_stays_outside(
    public: tuple[Hub, Hosts, Nsd], start_peer: StartPeer
) -> None:
    hub, hosts, _ = public
    inside = start_peer(host="10.9.0.2", port=25, namespace=hosts[1])
    outside = start_peer(host="8.8.8.9", port=25, namespace=hosts[1])
    for domain in ("mx.test", "a.test", "own.test", "both.test"):
        send_from(hosts[1], hub, "broken@plant.example", sender=f"x@{domain}")
    # What leads inside, or to us, is refused for good; what also leads outside goes there.
    for domain, status in (("mx.test", "5.4.4"), ("a.test", "5.4.4"), ("own.test", "5.4.6")):
        words = (f"to=x@{domain} ", f" {status} ")
        wait_until(functools.partial(lines_of, hub, *words), hub.log_text)
    assert outside.wait_for_mails()[0].paths == ["x@both.test"]
    assert inside.connections == 0


def lines_of(hub: Hub, *words: str) -> list[str]:
    return [line for line in hub.log_text().splitlines() if all(word in line for word in words)]


def test_a_name_that_moves_inside_between_attempts(
    public: tuple[Hub, Hosts, Nsd], start_peer: StartPeer
) -> None:
    """Rebinding: each attempt is judged by where it leads now."""
    hub, hosts, nsd = public
    inside = start_peer(host="10.9.0.2", port=25, namespace=hosts[1])
    outside = start_peer(host="8.8.8.8", port=25, namespace=hosts[1])
    outside.answer("MAIL", "451 4.3.0 Later")
    send_from(hosts[1], hub, "broken@plant.example", sender="x@rebind.test")
    outside.wait_for_commands("MAIL")
    nsd.reload({"rebind.test": "@ 1 MX 10 mx\nmx 1 A 10.9.0.2"})
    wait_until(lambda: lines_of(hub, "to=x@rebind.test ", "5.4.4"), hub.log_text)
    assert lines_of(hub, " forbidden ", "rebind.test")
    assert inside.connections == 0


def test_a_trusted_client_may_go_inside_by_name(
    public: tuple[Hub, Hosts, Nsd], start_peer: StartPeer
) -> None:
    hub, hosts, _ = public
    inside = start_peer(host="10.9.0.2", port=25, namespace=hosts[1])
    with hosts[0].entered():
        smtp = hub.smtp(local_hostname="x", source_address=("10.9.0.1", 0))
    with smtp:
        submit(smtp, "x@mx.test", sender="")
    assert inside.wait_for_mails()[0].paths == ["x@mx.test"]
    with hosts[1].entered():
        smtp = hub.smtp(local_hostname="x")
    with smtp:
        accepted(smtp, "MAIL FROM:<>")
        assert reply_to(smtp, "RCPT TO:<x@mx.test>").startswith("550 5.7.1")
