"""`waypost route` against a running hub, over a table of generated cases.

Each case is told twice by the command, as RCPT sees it and with the content, and done once by a hub
that keeps everything it takes.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import random
import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.dns_servers import Nsd
from tests.support.hub import Hub
from tests.support.mail import accepted, message, next_reply, queue_id_in, reply_to, stuffed, submit
from tests.support.netns import Namespace, joined_namespaces
from tests.support.ports import free_port
from tests.support.toml import route
from waypost.cli import main

from .conftest import StartHub, StartPeer

TRUSTED, GROUPED, SIX, STRANGER = "10.9.0.2", "10.8.0.2", "fd00:9::2", "203.0.113.7"
# Where each of them connects to.
SERVER = {TRUSTED: "10.9.0.1", GROUPED: "10.8.0.1", SIX: "fd00:9::1", STRANGER: "203.0.113.1"}
LISTENERS = {"smtp": 0, "doors": 1}

NO_DNS = "[dns]\nservers = []\n"
LISTS = """
[list.ops]
members = ["ann@plant.test"]
[list.public]
members = ["ann@plant.test"]
domain = "shop.test"
strangers_may_post = true
"""
GROUPS = """
[addresses.groups]
"10.8.0.1" = ["shop.test", "depot.test"]
"10.9.0.1" = ["plant.test"]
[addresses.moved]
"10.0.0.50" = "10.9.0.1"
"10.0.0.51" = "nas.test"
"10.0.0.52" = "10.0.0.53"
"10.0.0.54" = "8.8.8.8"
"""
MAILBOXES = """
[[mailbox]]
name = "Ann"
aliases = ["root", "cam+7"]
[[mailbox]]
name = "sales"
domain = "shop.test"
aliases = ["info"]
[[mailbox]]
name = "both"
domain = "shop.test"
[[mailbox]]
name = "both"
domain = "depot.test"
"""
REST = '[[mailbox]]\nname = "rest"\ndomain = "depot.test"\ncatch_all = true\n'
RULES = (
    route("mailbox:doors", name="doors", match='listener = "doors", recipient = "bell*@*"')
    + route("mailbox:motion", "discard", name="motion", match='subject = "*motion*"', goes_on=True)
    + route("reject:5.7.1 no", name="no", match='subject = "buy*", recipient = "*@*.test"')
    + route("reject:4.7.1 later", name="busy", match='sender = "<>", recipient = "root@*"')
    + route("smtp:[10.4.0.1]:25", name="hall", match='recipient = "*@[10.4.0.0/16]"')
    + route("relay:isp", name="isp", match='recipient = "*@far.example"')
    + route("mailbox:big", name="big", match='larger_than = "1K", recipient = "cam*@*"')
    + route("list:ops", "mailbox:ann", name="copy", match='recipient = "ann@depot.test"')
    + '[relay.isp]\nhost = ["10.3.0.1", "10.3.0.2"]\n'
)

# The port of the first listener, and the configuration.
CONFIGS = {
    "closed": (25, GROUPS + LISTS + MAILBOXES + RULES),
    "open": (
        35,
        'hostname = "hub.test"\n[networks]\naccept_from_strangers = true\n'
        '[addresses]\ndomains = ["x.test"]\n'
        + GROUPS
        + LISTS
        + MAILBOXES
        + REST
        + RULES
        + route("direct", name="world"),
    ),
    "exact": (
        45,
        '[addresses]\ndomains = ["plant.test", "shop.test", "depot.test"]\nbare_ip = "never"\n'
        '[mailboxes]\nauto_create = false\ncase = "exact"\nsubaddress = "-"\n'
        "[networks]\naccept_from_strangers = true\n" + LISTS + MAILBOXES,
    ),
}  # fmt: skip

LOCAL_PARTS = [
    *("ann", "Ann", "ANN+x", "ann-x", "root", "cam+7", "cam8", "sales", "info", "both", "nobody"),
    *("ops", "ops-bounces", "public", "bell1", "postmaster", "Postmaster", '"a@b"', "a%b"),
]
DOMAINS = [
    *("plant.test", "SHOP.test", "depot.test", "hub.test", "x.test", "nas.test", "far.example"),
    *("[10.9.0.1]", "[10.8.0.1]", "[IPv6:fd00:9::1]", "[203.0.113.1]", "10.8.0.1", "10.0.0.50"),
    *("[10.0.0.50]", "[10.0.0.51]", "[10.0.0.52]", "[10.0.0.54]", "[10.4.7.7]", "[10.0.0.9]"),
    *("[8.8.8.8]", "[169.254.169.254]", "[224.0.0.1]", "[foo:bar]", "elsewhere.example", ""),
]
SENDERS = ["bob@elsewhere.example", "bob@plant.test", ""]
SUBJECTS = ["quiet", "Motion at gate 3", "buy now", "large"]
OURS = [*DOMAINS[:3], *DOMAINS[7:9], ""]
PER_CONFIG = 80  # and half as many of what is ours


class Case(NamedTuple):
    config: str
    client: str
    listener: str
    sender: str
    recipient: str
    subject: str

    @property
    def content(self) -> bytes:
        return message(self.subject, *(["x" * 900] * 2 if self.subject == "large" else []))


def cases() -> list[Case]:
    """A few that must be among them, the rest by chance, and always the same."""
    dice = random.Random(5321)
    found: dict[Case, None] = {}
    for config in CONFIGS:
        for recipient in (f"both@[{SERVER[GROUPED]}]", "both", "sales"):
            for client in (GROUPED, TRUSTED):
                found[Case(config, client, "smtp", "bob@plant.test", recipient, "quiet")] = None
        recipients = dice.sample(addresses(DOMAINS), PER_CONFIG)
        recipients += dice.sample(addresses(OURS), PER_CONFIG // 2)
        for recipient in recipients:
            client = dice.choice([TRUSTED, GROUPED, SIX, STRANGER, STRANGER])
            if "@" not in recipient and client == STRANGER:
                recipient = "postmaster"  # the grammar has no other for strangers
            listener = dice.choice(list(LISTENERS))
            sender, subject = dice.choice(SENDERS), dice.choice(SUBJECTS)
            found[Case(config, client, listener, sender, recipient, subject)] = None
    return list(found)


def addresses(domains: list[str]) -> list[str]:
    pairs = itertools.product(LOCAL_PARTS, domains)
    # The command would take a bare "a@b" for an address.
    return [
        f"{local_part}@{domain}" if domain else local_part.strip(chr(34)).replace("@", "%")
        for local_part, domain in pairs
    ]


CASES = cases()


class Happened(NamedTuple):
    to_rcpt: str
    to_content: str | None  # None: it did not come to that
    entry: dict[str, Any] | None  # of the queue


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Namespace, Namespace]]:
    near = ("10.9.0.1/24", "10.8.0.1/24", "203.0.113.1/24", "fd00:9::1/64")
    far = ("10.9.0.2/24", "10.8.0.2/24", "203.0.113.7/24", "fd00:9::2/64")
    with joined_namespaces(near, far) as namespaces:
        yield namespaces


@pytest.fixture(scope="module")
def hubs(
    hosts: tuple[Namespace, Namespace], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Hub]]:
    """One for each configuration, which keep what they take."""
    with contextlib.ExitStack() as stack:
        running = {}
        for name, (port, config) in CONFIGS.items():
            listeners = "".join(
                f'[[listener]]\nname = "{listener}"\n'
                f'bind = ["0.0.0.0:{port + more}", "[::]:{port + more}"]\n'
                for listener, more in LISTENERS.items()
            )
            hub = Hub(
                tmp_path_factory.mktemp(name),
                config + NO_DNS,
                listener=listeners,
                port=port,
                namespace=hosts[0].name,
            )
            running[name] = stack.enter_context(hub)
            assert hub.run("queue", "hold", "--all").returncode == 0
        yield running


@pytest.fixture(scope="module")
def happened(hosts: tuple[Namespace, Namespace], hubs: dict[str, Hub]) -> dict[Case, Happened]:
    """What the hubs said, and what they have in their queues."""
    told: dict[Case, tuple[str, str | None]] = {}
    for case in CASES:
        # One session for each: a hub hangs up on clients that make many errors.
        with hosts[1].entered():
            smtp = smtplib.SMTP(
                *(SERVER[case.client], CONFIGS[case.config][0] + LISTENERS[case.listener]),
                local_hostname="x",
                source_address=(case.client, 0),
                timeout=20,
            )
        with smtp:
            smtp.ehlo()
            accepted(smtp, f"MAIL FROM:<{case.sender}>")
            to_rcpt = reply_to(smtp, f"RCPT TO:<{case.recipient}>")
            to_content = None
            if to_rcpt.startswith("250"):
                assert reply_to(smtp, "DATA").startswith("354")
                smtp.send(stuffed(case.content))
                to_content = next_reply(smtp)
            told[case] = (to_rcpt, to_content)
    queued = {
        entry["id"]: entry
        for hub in hubs.values()
        for entry in hub.json("queue", "list", "--limit", "9999")
    }
    return {
        case: Happened(
            to_rcpt,
            to_content,
            queued[queue_id_in(to_content)] if (to_content or "").startswith("250") else None,
        )
        for case, (to_rcpt, to_content) in told.items()
    }


def tell(host: Namespace, hub: Hub, case: Case, content: Path | None = None) -> dict[str, Any]:
    """What the command says, run in this process but among the hub's addresses."""
    arguments = ["route", case.recipient, "--client", case.client, "--listener", case.listener]
    arguments += ["--from", case.sender or "<>"]
    arguments += ["--message", str(content)] if content is not None else []
    said = io.StringIO()
    with host.entered(), contextlib.redirect_stdout(said):
        main([*arguments, "--config", str(hub.config_file), "--json"])
    told: dict[str, Any] = json.loads(said.getvalue())
    steps = told["steps"] if content is None else told["recipients"][0]["steps"]
    assert steps
    assert all(step["because"] for step in steps)
    return told


def test_the_table_is_worth_its_name(happened: dict[Case, Happened]) -> None:
    """Enough of each answer, or the comparison below would say little."""
    assert len(CASES) >= 300
    replies = [entry.to_rcpt[:9] for entry in happened.values()]
    for code in ("250 2.1.5", "550 5.7.1", "550 5.1.1", "550 5.1.4"):
        assert replies.count(code) >= 2, code
    assert sum(entry.to_content is not None for entry in happened.values()) >= 100
    assert any((entry.to_content or "").startswith("550") for entry in happened.values())
    kept = [entry.entry for entry in happened.values() if entry.entry is not None]
    kinds = {one["target"].partition(":")[0] for entry in kept for one in entry["recipients"]}
    assert kinds >= {"mailbox", "list", "direct", "relay", "smtp"}


@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda index: " ".join(CASES[index]))
def test_the_command_says_what_the_hub_does(
    hosts: tuple[Namespace, Namespace],
    hubs: dict[str, Hub],
    happened: dict[Case, Happened],
    tmp_path: Path,
    index: int,
) -> None:
    case = CASES[index]
    hub, done = hubs[case.config], happened[case]
    told = tell(hosts[0], hub, case)
    assert told["accepted"] == done.to_rcpt.startswith("250")
    if not told["accepted"]:
        assert told["reply"] == done.to_rcpt
        return
    path = tmp_path / "mail.eml"
    path.write_bytes(case.content)
    whole = tell(hosts[0], hub, case, path)
    assert not whole["needs_content"]
    if not told["needs_content"]:
        [one] = whole["recipients"]
        assert (told["targets"], told["recipient"]) == (whole["targets"], one["recipient"])
    if done.entry is None:
        assert whole["reply"] == done.to_content
        return
    assert [one["target"] for one in done.entry["recipients"]] == whole["targets"]
    assert {one["address"] for one in done.entry["recipients"]} == {
        one["recipient"] for one in whole["recipients"]
    }


def test_hosts_are_told_as_they_are_tried(start_hub: StartHub, start_peer: StartPeer) -> None:
    """By the resolver and the gate that deliver; and nothing is sent."""
    port = free_port("127.0.0.2")
    zone = """
        @ MX 20 mx2
        @ MX 10 mx1
        @ MX 30 mx3
        mx1 A 127.0.0.2
        mx1 A 169.254.169.254
        mx2 A 127.0.0.3
        mx3 A 224.0.0.1
        deep MX 10 metadata
        metadata A 169.254.169.254"""
    with Nsd({"far.test": zone}) as nsd:
        hub = start_hub(
            '[addresses]\nown = ["203.0.113.7"]\n'
            f'[dns]\nservers = ["127.0.0.1:{nsd.port}"]\n[delivery]\nport = {port}\n'
            + route("direct", match='recipient = "*@*.test"')
        )
        first = start_peer(host="127.0.0.2", port=port)
        start_peer(host="127.0.0.3", port=port)
        (told,) = hub.json("route", "ann@far.test")
        assert told["hops"]["direct"] == [
            f"mx1.far.test[127.0.0.2]:{port}",
            f"mx2.far.test[127.0.0.3]:{port}",
        ]
        done = hub.run("route", "ann@far.test")
        assert done.returncode == 0
        assert b"TLS: opportunistic, or more if its host asks for it  (default)" in done.stdout
        assert b"not tried: mx1.far.test[169.254.169.254]" in done.stdout
        assert b"not tried: mx3.far.test[224.0.0.1]" in done.stdout
        for recipient, status, words in (
            ("ann@deep.far.test", 1, b"5.4.4"),
            ("ann@gone.far.test", 1, b"5.1.2"),
            ("ann@elsewhere.test", 75, b"4.4.3"),
        ):
            done = hub.run("route", recipient)
            assert (done.returncode, words in done.stdout) == (status, True), done.stdout
        assert first.connections == 0
        assert hub.json("queue", "list") == []
        with hub.smtp(local_hostname="x") as smtp:
            submit(smtp, "ann@far.test")
        assert first.wait_for_mails()[0].paths == ["ann@far.test"]
