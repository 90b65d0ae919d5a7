"""`waypost check --depth dns` as a user runs it, before a name server with zones of ours.

Addresses such as 8.8.8.8 are looked up here and never connected to.
"""

from __future__ import annotations

import asyncio
import csv
import json
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from tests.support.dns_servers import Nsd, Unbound, signed_tree
from tests.support.ports import free_port
from tests.support.waiting import wait_until
from waypost.check import bulk
from waypost.check.assessment import Assessment
from waypost.check.checker import Checker
from waypost.check.reasons import REASONS
from waypost.cli import main
from waypost.dns import caching
from waypost.dns.blocklist import Blocklists, query_name
from waypost.dns.caching import CachingResolver
from waypost.net.networks import Networks

DOMAINS = 50
GLOBAL = ip_address("2606:4700::1")
MAPPED = ip_address("::ffff:127.0.0.2")

PLANT = r"""
    @          MX   10 mx
    @          MX   20 mx2
    @          MX   10 MX
    @          TXT  "v=spf1 mx " "-all"
    _dmarc     TXT  "v=DMARC1; p=reject; sp=quarantine"
    _mta-sts   TXT  "v=STSv1; id=1"
    mx         A    8.8.8.8
    mx         AAAA 2606:4700::1
    mx2        A    8.8.4.4
    implicit   A    8.8.4.4
    null       MX   0 .
    none       TXT  "nothing for mail"
    nohost     MX   0 missing
    mxip       MX   0 8.8.8.8.
    private    MX   5 inner
    private    MX   5 inner2
    inner      A    10.0.0.5
    inner2     A    127.0.0.1
    mixed      MX   5 inner
    mixed      MX   6 mx2
    alias      MX   5 cname
    cname      CNAME mx
    other      CNAME plant.test.
    half       MX   5 mx.broken.test.
    half       MX   6 inner
    ill        MX   5 mx.broken.test.
    hostile    MX   5 \027[31m\032\007.plant.test.
    hostile    MX   6 mx2
    hostile    TXT  "v=spf1 \255\254 \027[31m -all"
    nobody     MX   5 \027[31m\032\007.plant.test.
    crowd      A    8.8.1.1
"""
PLANT += "".join(f"    crowd A 8.7.{number // 200}.{number % 200}\n" for number in range(1_000))
BULK = "".join(
    f"    d{number} MX 5 mx.d{number}\n    mx.d{number} A 8.9.0.{number}\n"
    for number in range(DOMAINS)
)
LIST = rf"""
    2.0.0.127 A   127.0.0.2
    8.8.8.8   A   127.0.0.4
    8.8.8.8   TXT "Spam, see " "https://bl.test/ \027[31m"
    {query_name(MAPPED, "bl.test.")} A 127.0.0.2
    {query_name(GLOBAL, "bl.test.")} A 127.0.0.2
"""
ZONES = {
    "test": "",
    "plant.test": PLANT,
    "bulk.test": BULK,
    "bl.test": LIST,
    "wild.test": "* A 127.0.0.2",
    "refusing.test": "* A 127.255.255.254",
    "8.in-addr.arpa": r"""
        8.8.8  PTR mx.plant.test.
        4.4.8  PTR elsewhere.plant.test.
    """,
    "0.0.7.4.6.0.6.2.ip6.arpa": (
        f"{'.'.join(GLOBAL.reverse_pointer.split('.')[:24])} PTR mx.plant.test."
    ),
}


class Withholder:
    """Passes datagrams on to a name server, and drops those about names with "slow"."""

    def __init__(self, nsd: Nsd) -> None:
        self._server = (nsd.address, nsd.port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.where = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.questions = 0
        self.is_withholding = True

    def __enter__(self) -> Withholder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as onward:
            onward.settimeout(5)
            while True:
                question, asker = self._socket.recvfrom(4096)
                if not question:
                    return
                self.questions += 1
                if b"slow" in question and self.is_withholding:
                    continue
                onward.sendto(question, self._server)
                self._socket.sendto(onward.recv(65_535), asker)


@pytest.fixture(scope="module")
def nsd() -> Iterator[Nsd]:
    with Nsd(ZONES, broken=["broken.test"]) as running:
        yield running


@pytest.fixture
def config(nsd: Nsd, tmp_path: Path) -> Path:
    """A directory with the configuration of somebody who asks `nsd` and one blocklist."""
    configure(tmp_path, f"{nsd.address}:{nsd.port}")
    return tmp_path


def configure(directory: Path, *servers: str, zones: Sequence[str] = ("bl.test",)) -> None:
    (directory / "waypost.toml").write_text(
        f"[dns]\nservers = {json.dumps(servers)}\n[policy]\ndnsbl_zones = {json.dumps(zones)}\n"
        '[networks]\ntrusted = ["192.168.0.0/16"]\n'
    )


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "default", "-m", "waypost", "check", "--depth", "dns", *arguments]


def check(*arguments: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*arguments),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
    )
    assert "Traceback" not in done.stderr
    assert "never" not in done.stderr  # retrieved, awaited
    return done


def found_for(*addresses: str, cwd: Path) -> list[dict[str, Any]]:
    done = check("--json", *addresses, cwd=cwd)
    return [json.loads(line) for line in done.stdout.splitlines()]


def codes(found: dict[str, Any]) -> list[str]:
    return [reason["code"] for reason in found["reasons"]]


# Address, what decides, and how the command ends.
CASES = [
    ("ann@plant.test", "dns.ok", 0),
    ("ann@implicit.plant.test", "dns.ok", 0),
    ("ann@mixed.plant.test", "dns.ok", 0),
    ("ann@alias.plant.test", "dns.ok", 0),
    ("ann@other.plant.test", "dns.ok", 0),
    ("ann@hostile.plant.test", "dns.ok", 0),
    ("ann@crowd.plant.test", "dns.ok", 0),
    ("ann@[8.8.8.8]", "dns.literal", 0),
    ("ann@[IPv6:2606:4700::1]", "dns.literal", 0),
    ("ann@[192.168.1.20]", "dns.literal", 0),
    ("ann@[10.0.0.5]", "ip.private", 1),
    ("ann@missing.plant.test", "dns.nxdomain", 1),
    ("ann@null.plant.test", "dns.null_mx", 1),
    ("ann@none.plant.test", "dns.no_address", 1),
    ("ann@nohost.plant.test", "dns.no_address", 1),
    ("ann@nobody.plant.test", "dns.no_address", 1),
    ("ann@mxip.plant.test", "dns.mx_is_ip", 1),
    ("ann@private.plant.test", "dns.mx_nonglobal", 1),
    ("ann@broken.test", "dns.servfail", 75),
    ("ann@ill.plant.test", "dns.servfail", 75),
    ("ann@half.plant.test", "dns.servfail", 75),
    ("ann@far.example", "dns.servfail", 75),
    ("ann@a\u200db.test", "dns.idna_invalid", 1),
    ("a..b@plant.test", "syntax.dot_double", 1),
]


def test_every_address_gets_its_reason(config: Path) -> None:
    found = found_for(*(address for address, _, _ in CASES), cwd=config)
    assert [(one["input"], one["primary"]) for one in found] == [case[:2] for case in CASES]
    for one in found:
        assert one["verdict"] == REASONS[one["primary"]].verdict or "possible_typo" in codes(one)


@pytest.mark.parametrize(
    ("address", "status"),
    [("ann@plant.test", 0), ("ann@missing.plant.test", 1), ("ann@broken.test", 75)],
)
def test_how_the_command_ends(config: Path, address: str, status: int) -> None:
    assert check(address, cwd=config).returncode == status


def test_the_worst_of_several_ends_the_command(config: Path) -> None:
    assert check("ann@plant.test", "ann@broken.test", cwd=config).returncode == 75
    assert check("ann@broken.test", "ann@missing.plant.test", cwd=config).returncode == 1


def test_every_reason_of_the_name_service_is_reached_here() -> None:
    elsewhere = {"dns.mx_is_cname", "dns.timeout", "dns.bogus", "dns.no_servers"}
    reached = {code for _, code, _ in CASES} | elsewhere
    assert {code for code in REASONS if code.startswith("dns.")} <= reached


def test_an_alias_is_told(config: Path) -> None:
    [found] = found_for("ann@alias.plant.test", cwd=config)
    assert "dns.mx_is_cname" in codes(found)
    assert found["dns"]["mx"][0]["cname"] is True


def test_no_servers(tmp_path: Path) -> None:
    configure(tmp_path, zones=[])
    done = check("ann@plant.test", "ann@[8.8.8.8]", "--json", cwd=tmp_path)
    name, literal = (json.loads(line) for line in done.stdout.splitlines())
    assert done.returncode == 75
    assert (name["primary"], name["dns"]) == (
        "dns.no_servers",
        {"status": "no servers", "dnssec": "unknown"},
    )
    assert name["auth"] == {"spf": None, "dmarc": None, "mta_sts": "unknown"}
    assert (literal["primary"], literal["literal"]["fcrdns"]) == ("dns.literal", "unknown")


def test_no_answer_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(caching, "SERVER_S", 0.1)
    monkeypatch.setattr(caching, "LIFETIME_S", 0.3)
    monkeypatch.chdir(tmp_path)
    configure(tmp_path, f"127.0.0.1:{free_port()}")
    assert main(["check", "--depth", "dns", "--json", "ann@plant.test"]) == 75
    [found] = map(json.loads, capsys.readouterr().out.splitlines())
    assert (found["primary"], found["dns"]["status"]) == ("dns.timeout", "timeout")
    assert found["verdict"] == "unknown"


def test_signatures(tmp_path: Path) -> None:
    zone = "@ MX 10 mx\nmx A 8.8.8.8"
    tree = signed_tree(
        secure={"secure.test": zone}, insecure={"plain.test": zone}, bogus={"bogus.test": zone}
    )
    with Nsd(tree.zones) as nsd, Unbound(nsd, trust_anchors=[tree.trust_anchor]) as unbound:
        configure(tmp_path, f"{unbound.address}:{unbound.port}", zones=[])
        names = ("secure.test", "plain.test", "bogus.test")
        found = found_for(*(f"ann@{name}" for name in names), cwd=tmp_path)
    assert [one["primary"] for one in found] == ["dns.ok", "dns.ok", "dns.bogus"]
    assert [one["dns"]["dnssec"] for one in found] == ["secure", "insecure", "bogus"]
    assert (found[2]["verdict"], found[2]["advice"]) == ("probably_undeliverable", "retry_later")


# The objects of one answer and their members: docs/reference/verdicts.md.
SHAPE: dict[str, set[str]] = {
    "": {
        *("v", "input", "id", "checked_at", "took_ms", "depth", "from_cache", "verdict", "score"),
        *("outcome", "bounce", "confidence", "primary", "reasons", "plain", "advice", "retry_at"),
        *("suggestion", "address", "literal", "dns", "auth", "dnsbl", "smtp", "class"),
    },
    "bounce": {"class", "smtp", "enhanced"},
    "reasons": {"code", "level", "at", "text", "ref"},
    "address": {
        *("display_name", "group", "local", "local_quoted", "domain", "normalized", "ascii"),
        *("key", "tag", "comments", "smtputf8", "levels", "length"),
    },
    "literal": {"kind", "ip", "class", "global", "v4_mapped", "ptr", "fcrdns"},
    "dns": {"status", "mx", "implicit_mx", "null_mx", "dnssec", "ttl"},
    "auth": {"spf", "dmarc", "mta_sts"},
    "dnsbl": {"zone", "ip", "listed", "code", "text"},
    "class": {
        *("role", "disposable", "free", "provider", "case_rule", "dots_rule", "subaddress"),
    },
}


def test_the_shape_of_an_answer(config: Path) -> None:
    addresses = [address for address, _, _ in CASES]
    for found in found_for(*addresses, cwd=config):
        assert set(found) == SHAPE[""]
        for name, members in SHAPE.items():
            parts = found[name] if name else []
            for part in parts if isinstance(parts, list) else [parts]:
                has_status_only = name == "dns" and part is not None and "mx" not in part
                assert part is None or has_status_only or set(part) == members, (name, part)
        asked = found["depth"] == "dns"
        assert (found["dns"] is None) == (found["auth"] is None)
        assert asked or found["dns"] is None
        assert found["bounce"] == {"class": "none", "smtp": None, "enhanced": None}
        assert (found["v"], found["id"], found["smtp"], found["retry_at"]) == (1, None, None, None)


def test_what_is_said_of_a_domain(config: Path) -> None:
    [found] = found_for("ann@plant.test", cwd=config)
    assert found["depth"] == "dns"
    assert found["dns"] == {
        "status": "ok",
        "mx": [
            {
                "pref": 10,
                "host": "mx.plant.test",
                "cname": False,
                "addresses": [
                    {
                        "ip": ip,
                        "class": "global",
                        "ptr": ["mx.plant.test"],
                        "fcrdns": "pass",
                    }
                    for ip in ("2606:4700::1", "8.8.8.8")
                ],
            },
            {
                "pref": 20,
                "host": "mx2.plant.test",
                "cname": False,
                # Only the first host is looked at closely.
                "addresses": [{"ip": "8.8.4.4", "class": "global", "ptr": None, "fcrdns": None}],
            },
        ],
        "implicit_mx": None,
        "null_mx": False,
        "dnssec": "unknown",
        "ttl": 300,
    }
    assert found["auth"] == {
        "spf": {"present": True, "all": "-all", "valid": True},
        "dmarc": {"present": True, "p": "reject", "at": "_dmarc.plant.test"},
        "mta_sts": "unknown",
    }
    assert [(one["ip"], one["listed"], one["code"]) for one in found["dnsbl"]] == [
        ("2606:4700::1", "yes", "127.0.0.2"),
        ("8.8.8.8", "yes", "127.0.0.4"),
    ]
    assert found["dnsbl"][1]["text"] == "Spam, see https://bl.test/ \x1b[31m"
    assert Counter(codes(found))["listed_dnsbl"] == 2
    assert found["verdict"] == "unknown"


def test_a_domain_without_mx(config: Path) -> None:
    [found] = found_for("ann@implicit.plant.test", cwd=config)
    assert found["dns"]["mx"] == []
    assert found["dns"]["implicit_mx"] == [
        {
            "ip": "8.8.4.4",
            "class": "global",
            "ptr": ["elsewhere.plant.test"],
            "fcrdns": "fail",
        }
    ]
    assert found["auth"]["dmarc"] == {
        "present": True,
        "p": "quarantine",
        "at": "_dmarc.plant.test",
    }
    assert set(codes(found)) == {
        *("syntax.ok", "special_use_domain", "dns.ok", "no_spf", "fcrdns_mismatch"),
    }


def test_literals(config: Path) -> None:
    listed, ipv6, inner = found_for(
        "ann@[8.8.8.8]", "ann@[IPv6:2606:4700::1]", "ann@[192.168.1.20]", cwd=config
    )
    for found, ip in ((listed, "8.8.8.8"), (ipv6, "2606:4700::1")):
        assert found["literal"]["ptr"] == ["mx.plant.test"]
        assert found["literal"]["fcrdns"] == "pass"
        assert [(one["ip"], one["listed"]) for one in found["dnsbl"]] == [(ip, "yes")]
        assert (found["dns"], found["auth"]) == (None, None)
    # Nobody else is told of the addresses within a house.
    assert inner["dnsbl"] == []
    assert (inner["literal"]["ptr"], inner["literal"]["fcrdns"]) == ([], "unknown")


def test_lists_out_of_order_list_nobody(nsd: Nsd, tmp_path: Path) -> None:
    zones = ["wild.test", "refusing.test", "missing.test", "broken.test", "bl.test"]
    configure(tmp_path, f"{nsd.address}:{nsd.port}", zones=zones)
    [found] = found_for("ann@[8.8.8.8]", cwd=tmp_path)
    assert [(one["zone"], one["listed"]) for one in found["dnsbl"]] == [
        *((zone, "error") for zone in zones[:-1]),
        ("bl.test", "yes"),
    ]
    assert Counter(codes(found))["listed_dnsbl"] == 1


def test_what_strangers_wrote_is_shown_not_obeyed(config: Path) -> None:
    done = check("ann@hostile.plant.test", "ann@nobody.plant.test", "ann@[8.8.8.8]", cwd=config)
    assert "ann@nobody.plant.test: undeliverable" in done.stdout
    assert r"\027[31m\032\007.plant.test" in done.stdout
    assert r"https://bl.test/ \x1b[31m" in done.stdout
    assert all(char.isprintable() for char in done.stdout.replace("\n", ""))
    as_json = check("--json", "ann@hostile.plant.test", "ann@[8.8.8.8]", cwd=config).stdout
    assert "\x1b" not in as_json


def test_a_host_with_a_thousand_addresses_costs_few_questions(config: Path) -> None:
    [found] = found_for("ann@crowd.plant.test", cwd=config)
    assert len(found["dns"]["implicit_mx"]) == 20
    assert len(found["dnsbl"]) == 20


def rows_of(count: int, *, slow: int | None = None) -> list[str]:
    """Rows of a CSV file; the domain of row `slow` answers late."""
    return [
        f"No {number},u{number}@{'slow.d0' if number == slow else f'd{number % DOMAINS}'}.bulk.test"
        for number in range(count)
    ]


def test_many_rows_of_few_domains_ask_few_questions(nsd: Nsd) -> None:
    async def run() -> tuple[list[Assessment], int]:
        resolver = CachingResolver([f"{nsd.address}:{nsd.port}"])
        checker = Checker(
            resolver=resolver,
            blocklists=Blocklists(resolver, ["bl.test"]),
            reachable=Networks([]),
            probed=Networks([]),
            inquiry=None,
        )
        rows = [
            bulk.Row(number, row.partition(",")[2]) for number, row in enumerate(rows_of(2_000))
        ]
        found = [assessment async for _, assessment in bulk.in_order(rows, checker.check)]
        return found, resolver.asked

    found, asked = asyncio.run(run())
    assert {assessment.primary.code for assessment in found} == {"dns.ok"}
    assert len(found) == 2_000
    # MX, TXT, _dmarc, _mta-sts; A, AAAA, PTR of the host and the list; a few that all share.
    assert asked <= DOMAINS * 8 + 10


@contextmanager
def under_way(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, as long as the block lasts."""
    process = subprocess.Popen(
        command(*arguments), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=cwd
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("as_json", [False, True])
def test_a_break_is_gone_on_from(nsd: Nsd, tmp_path: Path, as_json: bool) -> None:
    rows = rows_of(2_000, slow=1_000)
    (tmp_path / "in.csv").write_text("\n".join(["name,email", *rows]) + "\n")
    flags = ["--file", "in.csv", *(["--json"] if as_json else [])]
    output = tmp_path / "out"
    with Withholder(nsd) as server:
        configure(tmp_path, server.where)
        with under_way(*flags, "--output", "out", cwd=tmp_path) as process:
            wait_until(lambda: output.exists() and len(output.read_bytes().splitlines()) > 800)
            process.send_signal(signal.SIGINT)
            _, complaints = process.communicate(timeout=120)
        assert process.returncode == 130
        assert "stopped; the same command goes on from here" in complaints
        assert "Traceback" not in complaints
        assert "never" not in complaints
        done = len(output.read_bytes().splitlines()) - (not as_json)
        assert done == 1_000  # all before the one that waits
        server.is_withholding = False
        again = check(*flags, "--output", "out", cwd=tmp_path)
        assert again.returncode == 0
        assert f"out has {done} rows; going on behind them" in again.stderr
        once = check(*flags, "--output", "once", cwd=tmp_path)
    assert once.returncode == 0
    if as_json:
        whole, broken = (
            [plain(json.loads(line)) for line in (tmp_path / name).read_text().splitlines()]
            for name in ("once", "out")
        )
        assert whole == broken
        assert len(whole) == 2_000
        assert [one["id"] for one in whole] == [f"row-{number}" for number in range(1, 2_001)]
        return
    assert (tmp_path / "once").read_bytes() == output.read_bytes()
    found = list(csv.DictReader((tmp_path / "once").read_text().splitlines()))
    assert len(found) == 2_000
    assert Counter(one["primary"] for one in found) == {"dns.ok": 1_999, "dns.nxdomain": 1}


def plain(found: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on when it was asked."""
    dns = found["dns"] and {**found["dns"], "ttl": None}
    return {**found, "checked_at": None, "took_ms": None, "dns": dns}


def test_a_pipe_of_lines(config: Path) -> None:
    lines = "\n".join(f"u{number}@d{number % 3}.bulk.test" for number in range(100))
    done = check("--file", "-", cwd=config, stdin=lines)
    assert done.returncode == 0
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["input"] for one in found] == lines.splitlines()
