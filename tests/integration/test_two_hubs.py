"""Hubs on hosts of their own: mail crosses to address literals, and no DNS is asked, ever."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub import Hub
from tests.support.mail import accepted, fields_of, parsed, reply_to, submit
from tests.support.netns import Namespace, joined_namespaces
from tests.support.toml import PORT_25
from tests.support.waiting import wait_until

from .conftest import StartHub

Hosts = tuple[Namespace, Namespace]


@pytest.fixture
def hubs(hosts: Hosts, start_hub: StartHub) -> tuple[Hub, Hub]:
    """A hub on each host, at port 25."""
    here, there = (
        start_hub(listener=PORT_25, host=address, port=25, namespace=host.name)
        for host, address in zip(hosts, ("10.9.0.1", "10.9.0.2"), strict=True)
    )
    return here, there


@contextlib.contextmanager
def nobody_asks_dns(*hosts: Namespace) -> Iterator[None]:
    """Fails if anything is sent to the resolver that the hosts' empty resolv.conf means."""
    with contextlib.ExitStack() as stack:
        watches = []
        for host in hosts:
            with host.entered():
                watch = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            watch.bind(("127.0.0.1", 53))
            watch.setblocking(False)
            watches.append(watch)
        yield
        for watch in watches:
            with contextlib.suppress(BlockingIOError):
                raise AssertionError(f"somebody asked DNS: {watch.recv(4096)!r}")


def test_namespaces_have_no_dns(hosts: Hosts) -> None:
    assert hosts[0].run("cat", "/etc/resolv.conf") == ""


@pytest.mark.parametrize("literal", ["[10.9.0.2]", "[IPv6:fd00:9::2]"])
def test_send_crosses(hubs: tuple[Hub, Hub], hosts: Hosts, literal: str) -> None:
    here, there = hubs
    with nobody_asks_dns(*hosts):
        done = here.run("send", "--to", f"ann@{literal}", "--subject", "hi", "--body", "Hello.")
        assert done.returncode == 0, done.stderr
        assert b"queued as" in done.stdout
        (stored,) = there.wait_for_mail("ann")
    received = parsed(stored)
    assert received["delivered-to"] == f"ann@{literal}"
    assert received.get_content().split() == ["Hello."]
    # Two hops: the sending hub's own, and the receiving one, which was told a literal.
    newest, oldest = fields_of(stored, "received")
    own = "[IPv6:fd00:9::1]" if "fd00" in literal else "[10.9.0.1]"
    using = "(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384)"
    assert newest.startswith(f"from {own} ({own}) {using} by {literal} (Waypost) with ESMTPS id ")
    assert "127.0.0.1" in oldest
    assert received["return-path"] == f"<root@{own}>"
    (entry,) = here.json("trace")
    assert entry["recipients"][0]["outcome"] == "relayed"
    assert entry["recipients"][0]["last_hop"] == f"{literal}:25"


@pytest.mark.parametrize("literal", ["[10.9.0.2]", "[IPv6:fd00:9::2]"])
def test_send_goes_straight_where_no_hub_runs(
    hosts: Hosts, start_hub: StartHub, literal: str, tmp_path: Path
) -> None:
    there = start_hub(listener=PORT_25, port=25, namespace=hosts[1].name)
    alone = Hub(tmp_path / "alone", namespace=hosts[0].name)  # never started
    with nobody_asks_dns(*hosts):
        (told,) = alone.json("send", "--to", f"ann@{literal}", "--body", "Hello.")
        assert told["outcome"] == "relayed"
        assert told["hop"] == f"{literal}:25"
        assert "queued as" in told["reply"]
        assert b"Hello." in there.wait_for_mail("ann")[0]


def test_send_straight_tells_each_hop_and_reply(
    hosts: Hosts, start_hub: StartHub, tmp_path: Path
) -> None:
    closed = '[mailboxes]\nauto_create = false\n[[mailbox]]\nname = "ann"\n'
    hosts[1].add_address("10.9.0.3/24")  # where nobody listens
    start_hub(closed, host="10.9.0.2", port=25, namespace=hosts[1].name)
    alone = Hub(tmp_path / "alone", namespace=hosts[0].name)
    done = alone.run("send", "--to", "ann@[10.9.0.2]", "bob@[10.9.0.2]", "carl@[10.9.0.3]")
    ann, bob, carl = done.stdout.decode().splitlines()
    assert ann.startswith("ann@[10.9.0.2]: accepted by [10.9.0.2]:25 over TLSv1.3 ")
    assert bob.startswith("bob@[10.9.0.2]: failed by [10.9.0.2]:25 over TLSv1.3 ")
    assert ": 550 5.1.1 " in bob
    assert carl.startswith("carl@[10.9.0.3]: deferred")
    assert done.returncode == 1
    assert alone.run("send", "--to", "carl@[10.9.0.3]").returncode == 75


def test_send_via(hubs: tuple[Hub, Hub], tmp_path: Path, hosts: Hosts) -> None:
    _, there = hubs
    alone = Hub(tmp_path / "alone", namespace=hosts[0].name)
    (tmp_path / "door.jpg").write_bytes(b"\xff\xd8\xff\xe0picture")
    done = alone.run(
        *("send", "--to", "ann@[10.9.0.2]", "--from", "cam@[10.9.0.1]", "--body", "-"),
        *("--attach", str(tmp_path / "door.jpg"), "--via", "10.9.0.2:25"),
        stdin="Grüße.\n".encode(),
    )
    assert done.returncode == 0, done.stderr
    received = parsed(there.wait_for_mail("ann")[0])
    assert received["from"] == "cam@[10.9.0.1]"
    text = received.get_body(("plain",))
    assert text is not None
    assert text.get_content().split() == ["Grüße."]
    (picture,) = received.iter_attachments()
    assert picture.get_filename() == "door.jpg"
    assert picture.get_content() == b"\xff\xd8\xff\xe0picture"


@pytest.mark.parametrize("alone", [True, False])
def test_every_spelling_of_a_literal_reaches_one_mailbox(
    hosts: Hosts, start_hub: StartHub, tmp_path: Path, alone: bool
) -> None:
    # Its neighbour passes on mail of one of its addresses by another.
    config = "" if alone else '[policy]\nvouchers = ["private"]\n'
    there = start_hub(config, listener=PORT_25, port=25, namespace=hosts[1].name)
    here = Hub(tmp_path / "here", listener=PORT_25, port=25, namespace=hosts[0].name)
    spellings = [
        "ann@[IPv6:fd00:9::2]",
        "ann@[IPV6:FD00:9::2]",
        "ann@[ipv6:fd00:0009:0:0:0:0:0:2]",
        "ann@[IPv6:FD00:9:0::0.0.0.2]",
        "ANN@[iPv6:fd00:9:0:0::2]",
        "ann@[10.9.0.2]",
        "ann@[IPv6:::ffff:10.9.0.2]",
        "ann@[ipv6:::FFFF:0A09:0002]",
        "ann@10.9.0.2",
    ]
    with contextlib.ExitStack() as stack:
        if not alone:
            stack.enter_context(here)
        done = here.run("send", "--to", *spellings)
        assert done.returncode == 0, done.stdout
        # Recipients that share a host travel in one transaction, and so come as one message.
        stored = there.wait_for_mail("ann", 2)
    reached = [address for octets in stored for address in fields_of(octets, "delivered-to")]
    assert len(reached) == len(spellings)
    # Printed in one canonical form, however they were written.
    assert {address.lower() for address in reached} == {"ann@[ipv6:fd00:9::2]", "ann@[10.9.0.2]"}
    assert [box["mailbox"] for box in there.json("mailbox", "list")] == ["ann"]


def test_what_is_no_literal_is_refused(hubs: tuple[Hub, Hub], hosts: Hosts) -> None:
    _, there = hubs
    with hosts[0].entered():
        smtp = there.smtp(local_hostname="x")
    with smtp:
        accepted(smtp, "MAIL FROM:<>")
        for bad in (
            "[010.9.0.2]",  # octal or not: ambiguous
            "[10.9.0.256]",
            "[10.9.2]",
            "[IPv6:fe80::1%eth0]",
            "[IPv6:fd00:9::02222]",
            "[IPv6:1::2::3]",
            "[IPv6:1:2:3:4:5:6:7::8]",  # "::" for a single group
            "[fd00:9::2]",
            "[]",
        ):
            assert reply_to(smtp, f"RCPT TO:<ann@{bad}>").startswith("501 5.1.3"), bad
        general = reply_to(smtp, "RCPT TO:<ann@[X400:c=de]>")
        assert general.startswith("550 5.1.2")
        accepted(smtp, "RCPT TO:<ann@[10.9.0.2]>")


@pytest.mark.parametrize("address", ["10.9.0.77/24", "fd00:9::77/64"])
def test_addresses_are_followed_while_the_hub_runs(
    hubs: tuple[Hub, Hub], hosts: Hosts, address: str
) -> None:
    _, there = hubs
    bare = address.partition("/")[0]
    literal = f"[IPv6:{bare}]" if ":" in bare else f"[{bare}]"
    with hosts[0].entered():
        smtp = there.smtp(local_hostname="x")
    with smtp:
        hosts[1].add_address(address)
        wait_until(lambda: f" {bare} " in last_own_addresses(there))
        submit(smtp, f"ann@{literal}", sender="")
        there.wait_for_mail("ann")
        assert is_ours(there, literal)
        hosts[1].delete_address(address)
        wait_until(lambda: f" {bare} " not in last_own_addresses(there))
        assert not is_ours(there, literal)
        accepted(smtp, "MAIL FROM:<>")
        # Not ours any more: the mail would travel on, and no mailbox is made for it.
        assert reply_to(smtp, f"RCPT TO:<bob@{literal}>").startswith("250 ")
    assert [box["mailbox"] for box in there.json("mailbox", "list")] == ["ann"]


def is_ours(hub: Hub, literal: str) -> bool:
    """What `waypost route` says of it to another host."""
    (told,) = hub.json("route", f"ann@{literal}", "--client", "10.9.0.1")
    steps = [step["step"] for step in told["steps"]]
    assert (f"{literal} is ours" in steps) != (f"{literal} is not ours" in steps)
    return f"{literal} is ours" in steps


def last_own_addresses(hub: Hub) -> str:
    """The addresses of the newest own-addresses event, each with spaces around it."""
    events = [line for line in hub.log_text().splitlines() if " own-addresses " in line]
    return events[-1].replace('"', " ") if events else ""


def test_a_hub_is_found_at_an_address_it_was_only_connected_to(start_hub: StartHub) -> None:
    # Nothing is ours by configuration but a NAT address, and yet the address connected to is.
    hub = start_hub('[addresses]\nown = ["192.0.2.9"]\n')
    with hub.smtp() as smtp:
        submit(smtp, "ann@[127.0.0.1]", "ann@[192.0.2.9]")
    assert parsed(hub.wait_for_mail("ann")[0])


def test_nat_addresses_stand_beside_the_interfaces(start_hub: StartHub) -> None:
    hub = start_hub('[addresses]\nown = ["auto", "203.0.113.7"]\n')
    with hub.smtp() as smtp:
        submit(smtp, "ann@[203.0.113.7]")
        hub.wait_for_mail("ann")
        submit(smtp, "ann@[IPv6:::1]")
    hub.wait_for_mail("ann", 2)


def test_two_hubs_on_two_loopback_addresses(start_hub: StartHub) -> None:
    """What is left where namespaces cannot be made."""
    there = start_hub('[addresses]\nown = ["127.0.0.12"]\n', host="127.0.0.12")
    here = start_hub(
        f'[addresses]\nown = ["127.0.0.11"]\n[delivery]\nport = {there.port}\n', host="127.0.0.11"
    )
    done = here.run("send", "--to", "ann@[127.0.0.12]", "--body", "Hello.")
    assert done.returncode == 0, done.stderr
    assert b"Hello." in there.wait_for_mail("ann")[0]


def test_nothing_is_left_of_the_namespaces() -> None:
    with joined_namespaces(("10.9.7.1/24",), ("10.9.7.2/24",)) as made:
        names = {namespace.name for namespace in made}
        assert names <= _namespaces()
    assert not names & _namespaces()


def _namespaces() -> set[str]:
    said = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return {line.split()[0] for line in said.stdout.splitlines()}
