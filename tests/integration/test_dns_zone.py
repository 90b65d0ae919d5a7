"""waypost dns: foreign name servers load what it makes, and mail goes by those names."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.rcode
import pytest

from tests.support.dns_servers import Nsd
from tests.support.hub import Hub
from tests.support.mail import submit
from tests.support.netns import Namespace
from tests.support.ports import free_port
from tests.support.postfix import install
from tests.support.toml import PORT_25, route
from tests.support.waiting import wait_until

from .conftest import StartHub

PLANT = """
hostname = "hub.plant.example"
[addresses]
own = ["192.168.1.5", "fd00:9::5"]
domains = ["plant.example"]
[addresses.groups]
"192.168.1.10" = ["shop.example", "depot.example"]
"fd00:9::10" = ["shop.example", "hall.shop.example"]
[addresses.names]
"fd00:9::10" = "six.shop.example"
[[listener]]
name = "submission"
bind = ["0.0.0.0:2587", "[::]:2587"]
role = "submission"
"""
ZONES = [
    "shop.example",
    "depot.example",
    "hall.shop.example",
    "plant.example",
    "1.168.192.in-addr.arpa",
    "0.0.0.0.0.0.0.0.9.0.0.0.0.0.d.f.ip6.arpa",
]


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    """named-checkzone and dnsmasq."""
    install("bind9-utils", "dnsmasq-base", "openssl")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A public key whose record does not fit into one string."""
    directory = tmp_path_factory.mktemp("key")
    for command in ("genrsa -out private.pem 2048", "rsa -in private.pem -pubout -out public.pem"):
        run("openssl", *command.split(), cwd=directory)
    return directory / "public.pem"


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    """A configuration, with no hub running."""
    return Hub(tmp_path / "hub", PLANT, listener="")


def run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, cwd=cwd)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def made(hub: Hub, directory: Path, *options: str) -> dict[str, str]:
    """The text of each zone file the command writes."""
    written = hub.json("dns", "zone", "--output", str(directory), *options)
    return {entry["zone"]: Path(entry["file"]).read_text() for entry in written}


def serials(hub: Hub, directory: Path, *options: str) -> dict[str, tuple[int, bool]]:
    written = hub.json("dns", "zone", "--output", str(directory), *options)
    return {entry["zone"]: (entry["serial"], entry["changed"]) for entry in written}


def checked(hub: Hub, server: Any, what: str = "zone", *options: str) -> tuple[int, list[Any]]:
    """What `--check` says that is not in order."""
    place = f"{server.address}:{server.port}"
    done = hub.run("dns", what, "--check", "--server", place, "--json", *options)
    assert not done.stderr, done.stderr.decode()
    compared = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(compared) > 20 or "--zone" in options
    return done.returncode, [entry for entry in compared if entry["state"] != "ok"]


# The files.


def test_bind_s_own_tools_take_the_files(hub: Hub, key: Path, tmp_path: Path) -> None:
    zones = made(hub, tmp_path / "zones", "--dkim", f"s1={key}")
    assert list(zones) == ZONES
    strict = [word for switch in "kmMnrS" for word in (f"-{switch}", "fail")]
    for name in zones:
        file = tmp_path / "zones" / f"{name}.zone"
        said = run("named-checkzone", *strict, "-W", "warn", "-i", "local", name, str(file))
        assert "OK" in said
        # Nothing to complain of, but for the names that lie in another zone.
        complaints = [line for line in said.splitlines()[:-2] if "out of zone" not in line]
        assert not complaints, complaints
    run("named-checkconf", "-z", str(tmp_path / "zones" / "zones.bind.conf"))
    (tmp_path / "nsd.conf").write_text(
        f'server:\n  username: ""\ninclude: "{tmp_path}/zones/zones.nsd.conf"\n'
    )
    run("nsd-checkconf", str(tmp_path / "nsd.conf"))
    for file in (tmp_path / "zones").iterdir():
        assert file.stat().st_mode & 0o777 == 0o644


def test_standard_output_has_all_zones(hub: Hub) -> None:
    done = hub.run("dns", "zone")
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode()
    for name in ZONES:
        assert f"; {name}, made by waypost dns zone" in text
        assert f"$ORIGIN {name}.\n" in text


def test_a_serial_rises_when_something_changed_and_only_then(hub: Hub, tmp_path: Path) -> None:
    first = serials(hub, tmp_path)
    today = int(time.strftime("%Y%m%d")) * 100
    assert all(today < serial < today + 200 and new for serial, new in first.values())
    assert serials(hub, tmp_path) == {name: (serial, False) for name, (serial, _) in first.items()}
    hub.config_file.write_text(hub.config_file.read_text().replace("192.168.1.5", "192.168.1.6"))
    second = serials(hub, tmp_path)
    for name, (serial, changed) in second.items():
        assert changed == (name in ("plant.example", "1.168.192.in-addr.arpa"))
        assert serial == first[name][0] + changed
    done = hub.run("dns", "zone", "--output", str(tmp_path), "--serial", "5", "--ttl", "60")
    assert done.returncode == 1
    assert "needs one above it" in done.stderr.decode()
    assert serials(hub, tmp_path) == {name: (serial, False) for name, (serial, _) in second.items()}
    third = serials(hub, tmp_path, "--serial", "4000000000", "--ttl", "60")
    assert set(third.values()) == {(4_000_000_000, True)}
    assert set(serials(hub, tmp_path).values()) == {(4_000_000_001, True)}


def test_a_file_of_another_is_left_alone(hub: Hub, tmp_path: Path) -> None:
    other = tmp_path / "plant.example.zone"
    other.write_text("@ SOA a. b. 1 2 3 4 5\n")
    done = hub.run("dns", "zone", "--output", str(tmp_path))
    assert done.returncode == 1
    assert "was not made by this command" in done.stderr.decode()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [other.name]
    assert other.read_text() == "@ SOA a. b. 1 2 3 4 5\n"
    # Its own zone is chosen, so the others are not looked at, and what loads them stays as it is.
    assert list(made(hub, tmp_path, "--zone", "depot.example.")) == ["depot.example"]
    assert not (tmp_path / "zones.nsd.conf").exists()


def test_addresses_others_cannot_reach_get_no_name(
    hosts: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    """Loopback, link-local and documentation, unless it is named."""
    hosts[0].add_address("198.51.100.3/24")
    hosts[0].add_address("203.0.113.3/24")
    config = '[addresses]\ndomains = ["plant.example"]\nown = ["auto", "203.0.113.3"]\n'
    hub = Hub(tmp_path / "hub", config, listener="", namespace=hosts[0].name)
    records = [record for zone in hub.json("dns", "zone") for record in zone["records"]]
    places = [record["data"] for record in records if record["type"] in ("A", "AAAA")]
    assert places == ["10.9.0.1", "203.0.113.3", "fd00:9::1"]


def test_the_lines_of_another_are_left_alone(hub: Hub, tmp_path: Path) -> None:
    file = tmp_path / "dnsmasq.conf"
    file.write_text("no-resolv\n")
    done = hub.run("dns", "dnsmasq", "--output", str(file))
    assert done.returncode == 1
    assert file.read_text() == "no-resolv\n"


def test_names_that_lie_elsewhere_are_told(hub: Hub) -> None:
    done = hub.run("dns", "zone", "--ns", "ns.far.example")
    assert b"ns.far.example is in none of these zones" in done.stderr
    assert b"@ IN SOA ns.far.example. postmaster (" in done.stdout


@pytest.mark.parametrize(
    ("config", "options", "advice"),
    [
        ("", (), "name one in addresses.domains or addresses.groups"),
        (
            '[addresses]\nown = ["192.168.1.5"]\ndomains = ["plant.example"]\n',
            ("--zone", "far.example"),
            "there are: plant.example",
        ),
        (PLANT, ("--dkim", "s1=/nowhere.pem"), "/nowhere.pem: No such file"),
        (PLANT, ("--server", "127.0.0.1"), "--server goes with --check"),
        (PLANT, ("--spf", "+all"), "expected a term of SPF"),
    ],
)
def test_mistakes_are_told(
    tmp_path: Path, config: str, options: tuple[str, ...], advice: str
) -> None:
    done = Hub(tmp_path / "hub", config, listener="").run("dns", "zone", *options)
    assert done.returncode == 2
    assert advice in done.stderr.decode()


# NSD.


@pytest.fixture
def nsd(hub: Hub, key: Path, tmp_path: Path) -> Iterator[Nsd]:
    """It serves what the command makes."""
    with Nsd(made(hub, tmp_path / "zones", "--dkim", f"s1={key}")) as running:
        yield running


def test_nsd_answers_what_the_zones_say(hub: Hub, key: Path, nsd: Nsd) -> None:
    assert checked(hub, nsd, "zone", "--dkim", f"s1={key}") == (0, [])


def test_check_says_which_record_is_not_so(hub: Hub, key: Path, nsd: Nsd, tmp_path: Path) -> None:
    zones = made(hub, tmp_path / "zones", "--dkim", f"s1={key}")
    shop = zones["shop.example"]
    changes = {
        "\nmail IN A 192.168.1.10\n": "\nmail IN A 192.168.1.99\n",
        "\n@ IN MX 10 mail\n": "\n@ IN MX 10 mail\n@ IN MX 20 old\nold IN A 192.168.1.7\n",
        '\n_dmarc IN TXT "v=DMARC1; p=quarantine; ': '\n_dmarc IN TXT "verification=1" "',
        "\n_submission._tcp IN SRV 0 1 2587 mail\n": "\n_submission._tcp IN SRV 0 1 2588 mail\n",
    }
    for old, new in changes.items():
        assert old in shop
        shop = shop.replace(old, new)
    reverse = zones["1.168.192.in-addr.arpa"].replace("\n5 IN PTR", "\n6 IN PTR")
    nsd.reload({"shop.example": shop, "1.168.192.in-addr.arpa": reverse})
    status, wrong = checked(hub, nsd, "zone", "--dkim", f"s1={key}")
    assert status == 1
    said = {(e["state"], e["name"], e["type"], e["data"], *e["found"]) for e in wrong}
    srv = "_submission._tcp.shop.example", "SRV"
    assert said == {
        ("different", "mail.shop.example", "A", "192.168.1.10", "192.168.1.99"),
        ("extra", "shop.example", "MX", "20 old.shop.example."),
        (
            *("missing", "_dmarc.shop.example", "TXT"),
            "v=DMARC1; p=quarantine; rua=mailto:postmaster@shop.example",
        ),
        (
            *("different", *srv, "0 1 2587 mail.shop.example."),
            "0 1 2588 mail.shop.example.",
        ),
        ("missing", "5.1.168.192.in-addr.arpa", "PTR", "hub.plant.example."),
    }
    text = hub.run("dns", "zone", "--check", "--server", f"127.0.0.1:{nsd.port}").stdout.decode()
    line = "different  mail.shop.example A 192.168.1.10  (192.168.1.99 instead)"
    assert line in text.splitlines()
    assert (
        "missing    5.1.168.192.in-addr.arpa PTR hub.plant.example.  (there is no such name)"
        in (text.splitlines())
    )


def test_check_in_trouble_says_so(hub: Hub) -> None:
    with Nsd({"far.example": "@ MX 10 mx"}) as nsd:
        status, wrong = checked(hub, nsd, "zone", "--zone", "depot.example")
    assert status == 75
    assert {entry["state"] for entry in wrong} == {"unknown"}
    assert wrong[0]["why"] == "DNS: refused for depot.example SOA"


# dnsmasq.


class Dnsmasq:
    """A real one with a file of lines; on a loopback port, or on port 53 of a namespace."""

    def __init__(self, file: Path, *, address: str = "127.0.0.1", netns: str | None = None) -> None:
        self.address = address
        self.port = 53 if netns else free_port()
        inside = ["ip", "netns", "exec", netns] if netns else []
        self._command = [
            *(*inside, "timeout", "--foreground", "3600", "dnsmasq", "--keep-in-foreground"),
            *(f"--conf-file={file}", f"--port={self.port}", f"--listen-address={address}"),
            *("--bind-interfaces", "--no-resolv", "--no-hosts"),
            *("--user=", "--group=", "--pid-file=", "--log-facility=-"),
        ]

    def __enter__(self) -> Dnsmasq:
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        said = ""
        # It says this once its sockets are open.
        while "started" not in said:
            line = self._process.stderr.readline()
            said += line
            if not line:
                self.__exit__()
                raise AssertionError(f"dnsmasq did not start: {said}")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()

    def ask(self, name: str, kind: str) -> dns.message.Message:
        query = dns.message.make_query(name, kind)
        return dns.query.udp(query, self.address, timeout=5.0, port=self.port)


def test_dnsmasq_loads_and_answers(hub: Hub, key: Path, tmp_path: Path) -> None:
    file = tmp_path / "names.conf"
    done = hub.run("dns", "dnsmasq", "--output", str(file), "--dkim", f"s1={key}")
    assert done.returncode == 0, done.stderr
    run("dnsmasq", "--test", "-C", str(file))
    with Dnsmasq(file) as server:
        assert checked(hub, server, "dnsmasq", "--dkim", f"s1={key}") == (0, [])
        # Where two names share an address, it leads back to one of them.
        (pointer,) = server.ask("10.1.168.192.in-addr.arpa", "PTR").answer
        assert [str(rdata) for rdata in pointer] == ["mail.shop.example."]
        # What is not there is answered, and nobody is asked about it.
        assert server.ask("nobody.shop.example", "A").rcode() == dns.rcode.NXDOMAIN
        assert server.ask("mail.shop.example", "AAAA").rcode() == dns.rcode.NOERROR
    changed = file.read_text().replace(
        "mx-host=depot.example,mail.depot.example,10", "mx-host=depot.example,mail.shop.example,10"
    )
    file.write_text(changed)
    with Dnsmasq(file) as server:
        status, wrong = checked(hub, server, "dnsmasq", "--dkim", f"s1={key}")
    assert status == 1
    assert [(e["state"], e["name"], e["type"], e["found"]) for e in wrong] == [
        ("different", "depot.example", "MX", ["10 mail.shop.example."])
    ]


# Mail.


@contextmanager
def name_server(kind: str, hub: Hub, host: Namespace, directory: Path) -> Iterator[None]:
    """At 10.9.0.2, with the names of a hub."""
    with ExitStack() as stack:
        if kind == "zone":
            zones = made(hub, directory)
            stack.enter_context(Nsd(zones, address="10.9.0.2", netns=host.name))
        else:
            file = directory / "names.conf"
            hub.run("dns", "dnsmasq", "--output", str(file))
            stack.enter_context(Dnsmasq(file, address="10.9.0.2", netns=host.name))
        yield


@pytest.mark.parametrize("kind", ["zone", "dnsmasq"])
def test_mail_goes_by_the_names_made(
    hosts: tuple[Namespace, Namespace], start_hub: StartHub, tmp_path: Path, kind: str
) -> None:
    """A hub that knows nothing but a name server finds the way, over IPv6 and over IPv4."""
    here, there = hosts
    asks = '[dns]\nservers = ["10.9.0.2"]\n'
    receiving = start_hub(
        '[addresses.groups]\n"10.9.0.2" = ["plant.example"]\n"fd00:9::2" = ["plant.example"]\n'
        + asks,
        host="10.9.0.2",
        port=25,
        listener=PORT_25,
        namespace=there.name,
    )
    sending = start_hub(
        route("direct", match='recipient = "*@plant.example"') + asks,
        host="10.9.0.1",
        port=25,
        namespace=here.name,
    )
    with name_server(kind, receiving, there, tmp_path):
        done = receiving.run("dns", kind, "--check")
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
        assert hop_of_mail(sending, here) == "mail.plant.example[fd00:9::2]:25"
        sending.stop()  # it would go on with the connection it has
        there.delete_address("fd00:9::2/64")
        sending.start()
        assert hop_of_mail(sending, here) == "mail.plant.example[10.9.0.2]:25"
        receiving.wait_for_mail("ann@plant.example", 2)


def hop_of_mail(hub: Hub, host: Namespace) -> str:
    """Send a mail; where it went."""
    with host.entered():
        smtp = hub.smtp()
    with smtp:
        queue_id = submit(smtp, "ann@plant.example", sender="bob@elsewhere.example")

    def relayed() -> str | None:
        (entry,) = hub.json("trace", "--id", queue_id)
        (recipient,) = entry["recipients"]
        return recipient["last_hop"] if recipient["outcome"] == "relayed" else None

    hop = wait_until(relayed, hub.log_text)
    assert hop is not None
    return hop
