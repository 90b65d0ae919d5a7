"""`waypost check --depth smtp` as a user runs it, with a real name server and real mail servers."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.dns_servers import Nsd
from tests.support.netns import Namespace, joined_namespaces
from tests.support.ports import free_port
from tests.support.postfix import Postfix, install
from tests.support.scripted_peer import ScriptedPeer
from tests.support.waiting import wait_until

# One Postfix that is a different host at each of its addresses.
PLAIN, CATCH_ALL, NO_LITERALS, NO_RELAY = (f"127.0.0.{number}" for number in range(31, 35))
BLOCKED, TLS_ONLY, GREY, OLD = (f"127.0.0.{number}" for number in range(35, 39))
HOSTS = {
    "plain": PLAIN,
    "all": CATCH_ALL,
    "nolit": NO_LITERALS,
    "blocked": BLOCKED,
    "tls": TLS_ONLY,
    "grey": GREY,
    "old": OLD,
}
# Written out it has more characters than a label may have octets.
ODD_LABEL = "\\001" * 20
ZONES = {f"{name}.test": f"@ MX 10 mx\nmx A {ip}" for name, ip in HOSTS.items()}
ZONES |= {
    "norelay.test": f"@ MX 10 mx\nmx A {NO_RELAY}",
    "stranger.test": f"@ MX 10 mx\nmx A {PLAIN}",
    "second.test": f"@ MX 10 dead\n@ MX 20 mx\ndead A 127.0.0.40\nmx A {PLAIN}",
    "inside.test": "@ MX 10 mx\nmx A 10.9.8.7",
    "mapped.test": "@ MX 10 mx\nmx AAAA ::ffff:10.9.8.7",
    "here.test": "@ MX 10 mx\nmx A 127.0.0.1",
    "odd.test": f"@ MX 10 {ODD_LABEL}\n{ODD_LABEL} A {TLS_ONLY}",
}


@dataclass
class Site:
    """All servers, and what a configuration needs to know of them."""

    port: int
    nsd: Nsd
    postfix: Postfix
    directory: Path
    namespace: str | None = None

    def sessions(self) -> int:
        """How many Postfix has seen begin."""
        return self.postfix.log_text().count(": connect from")


@dataclass
class User:
    """Somebody with a configuration, who runs `waypost check`."""

    directory: Path
    config: str
    namespace: str | None = None
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def command(self, *arguments: str) -> list[str]:
        (self.directory / "waypost.toml").write_text(self.config)
        words = [sys.executable, "-m", "waypost", "check", "--depth", "smtp", *arguments]
        return ["ip", "netns", "exec", self.namespace, *words] if self.namespace else words

    def check(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            cwd=self.directory,
            env=self.environment,
        )

    def json(self, *arguments: str, status: int | None = None) -> dict[str, Any]:
        done = self.check("--json", *arguments)
        assert not done.stderr, done.stderr
        assert status is None or done.returncode == status
        [line] = done.stdout.splitlines()
        found: dict[str, Any] = json.loads(line)
        return found


def config_of(
    site: Site, check: str = "", *, networks: Sequence[str] = ("loopback",), top: str = ""
) -> str:
    listed = ", ".join(f'"{network}"' for network in networks)
    return (
        f'data_dir = "data"\nhostname = "check.client.test"\n{top}\n'
        f'[dns]\nservers = ["{site.nsd.address}:{site.nsd.port}"]\n'
        f"[delivery]\nport = {site.port}\n"
        f'[check]\nprobe = true\nsender = "postmaster@client.test"\nnetworks = [{listed}]\n'
        f"host_per_minute = 100\nnetwork_per_minute = 100\n{check}\n"
    )


def at_port(config: str, port: int) -> str:
    """The same, with hosts that listen elsewhere."""
    return config.replace("[delivery]\nport = ", f"[delivery]\nport = {port} #")


@contextmanager
def postgrey(directory: Path) -> Iterator[int]:
    """The real one, with a delay of two seconds; its port."""
    install("postgrey")
    data = directory / "postgrey"
    data.mkdir()
    shutil.chown(data, user="postgrey", group="postgrey")
    port = free_port()
    with (directory / "postgrey.log").open("wb") as log:
        process = subprocess.Popen(
            ["postgrey", f"--inet=127.0.0.1:{port}", f"--dbdir={data}", "--delay=2"],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    try:

        def answers() -> bool:
            assert process.poll() is None, (directory / "postgrey.log").read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(answers)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def certificate_in(directory: Path) -> tuple[Path, Path]:
    """Key and certificate that nobody has signed."""
    install("openssl")
    key, certificate = directory / "key.pem", directory / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=nobody.test"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return key, certificate


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The servers of all tests on this host."""
    directory = tmp_path_factory.mktemp("site")
    with ExitStack() as stack:
        grey_port = stack.enter_context(postgrey_in_the_open(directory))
        key, certificate = certificate_in(directory)
        port = free_port()

        def listener(ip: str, *options: str) -> str:
            return f"{ip}:{port} inet n - n - - smtpd {' '.join(f'-o {each}' for each in options)}"

        restrictions = "smtpd_recipient_restrictions"
        zen = "554 5.7.1 Service unavailable; Client host blocked using zen.spamhaus.org"
        postfix = Postfix(
            address=PLAIN,
            port=port,
            more_addresses=[*list(HOSTS.values())[1:], NO_RELAY],
            mailboxes=("postmaster", "ann", "åsa"),
            domains=[f"{name}.test" for name in HOSTS] + ["second.test", "odd.test"],
            mynetworks=("127.0.0.99",),
            main_cf={
                # It sees 127.0.0.1 alone on the loopback interface; the others are ours, too.
                "inet_interfaces": "127.0.0.1",
                "proxy_interfaces": " ".join([*HOSTS.values(), NO_LITERALS]),
                "smtpd_client_connection_count_limit": "0",
            },
            master_cf=[
                listener(CATCH_ALL, "local_recipient_maps="),
                listener(
                    NO_LITERALS,
                    f"{{ {restrictions} = check_recipient_access"
                    " static:{550 5.1.2 Mail to domain literals is refused} }",
                ),
                listener(NO_RELAY, "smtpd_relay_restrictions=reject_unauth_destination"),
                listener(
                    BLOCKED,
                    f"{{ smtpd_client_restrictions = check_client_access static:{{{zen}}} }}",
                ),
                listener(
                    TLS_ONLY,
                    "smtpd_tls_security_level=encrypt",
                    f"smtpd_tls_key_file={key}",
                    f"smtpd_tls_cert_file={certificate}",
                ),
                listener(
                    GREY,
                    f"{{ {restrictions} = check_policy_service inet:127.0.0.1:{grey_port} }}",
                ),
                listener(OLD, "smtputf8_enable=no"),
            ],
        )
        stack.enter_context(postfix)
        nsd = stack.enter_context(Nsd(ZONES))
        yield Site(port, nsd, postfix, directory)


@contextmanager
def postgrey_in_the_open(directory: Path) -> Iterator[int]:
    """Where its user can reach its directory."""
    place = Path(f"/tmp/postgrey-{os.getpid()}")
    place.mkdir(mode=0o755)
    try:
        with postgrey(place) as port:
            yield port
    finally:
        shutil.rmtree(place)


@pytest.fixture
def user(site: Site, tmp_path: Path) -> User:
    return User(tmp_path, config_of(site))


# What hosts answer.


def test_a_mailbox_that_exists(user: User) -> None:
    found = user.json("ann@plain.test", status=0)
    assert (found["verdict"], found["primary"]) == ("deliverable", "smtp.rcpt_ok")
    smtp = found["smtp"]
    assert (smtp["ip"], smtp["stage"], smtp["rcpt"]["code"]) == (PLAIN, "rcpt", 250)
    assert (smtp["catch_all"], smtp["control"]) == ("no", {"kind": "random", "code": 550})
    assert smtp["mail_from"] == "<>"
    said = [line[3:] for line in smtp["transcript"] if line.startswith("C: ")]
    assert said == [
        *("EHLO check.client.test", "MAIL FROM:<>", "RCPT TO:<ann@plain.test>", "RSET", "QUIT")
    ]


def test_a_mailbox_that_does_not(user: User) -> None:
    found = user.json("nobody@plain.test", status=1)
    assert (found["verdict"], found["primary"]) == ("undeliverable", "smtp.no_such_user")
    assert found["bounce"] == {"class": "hard", "smtp": 550, "enhanced": "5.1.1"}
    done = user.check("nobody@plain.test")
    assert "nobody@plain.test: undeliverable" in done.stdout
    assert "the host was asked earlier" in done.stdout


def test_a_host_that_takes_everybody(user: User) -> None:
    found = user.json("whoever@all.test", status=0)
    assert (found["verdict"], found["primary"]) == ("probably_deliverable", "smtp.catch_all")
    assert found["smtp"]["catch_all"] == "yes"


@pytest.mark.parametrize(
    ("local_part", "primary", "accepts"),
    [("ann", "smtp.rcpt_ok", "yes"), ("nobody", "smtp.no_such_user", "yes")],
)
def test_a_host_that_takes_its_literal(
    user: User, local_part: str, primary: str, accepts: str
) -> None:
    found = user.json(f"{local_part}@[{PLAIN}]")
    assert found["primary"] == primary
    assert found["smtp"]["accepts_literal"] == accepts


def test_a_host_that_takes_no_literals(user: User) -> None:
    found = user.json(f"ann@[{NO_LITERALS}]", status=1)
    assert (found["primary"], found["smtp"]["accepts_literal"]) == (
        *("smtp.literal_not_accepted", "no"),
    )
    assert found["smtp"]["control"] == {"kind": "postmaster", "code": 550}


def test_relaying_is_not_for_us(user: User) -> None:
    found = user.json("ann@norelay.test", status=1)
    assert (found["verdict"], found["primary"]) == ("probably_undeliverable", "smtp.relay_denied")
    assert user.json("ann@stranger.test")["primary"] == "smtp.relay_denied"


def test_being_on_a_blocklist_says_nothing_of_the_mailbox(user: User, site: Site) -> None:
    found = user.json("ann@blocked.test")
    assert (found["verdict"], found["outcome"]) == ("unknown", "refused_us")
    assert (found["primary"], found["bounce"]["class"]) == ("smtp.blocked_dnsbl", "policy")
    before = site.sessions()
    assert user.json("nobody@blocked.test")["primary"] == "smtp.blocked_dnsbl"
    assert site.sessions() == before


def test_a_host_that_wants_tls_gets_it(user: User) -> None:
    found = user.json("ann@tls.test", status=0)
    assert (found["primary"], found["smtp"]["tls"]) == ("smtp.rcpt_ok", True)
    assert "no_starttls" not in [reason["code"] for reason in found["reasons"]]


def test_a_host_whose_name_tls_cannot_say(user: User) -> None:
    found = user.json("ann@odd.test", status=0)
    assert (found["primary"], found["smtp"]["tls"]) == ("smtp.rcpt_ok", True)


def test_an_address_beyond_ascii(user: User) -> None:
    assert user.json("åsa@plain.test", status=0)["primary"] == "smtp.rcpt_ok"
    found = user.json("åsa@old.test", status=1)
    assert (found["primary"], found["outcome"]) == ("smtp.no_smtputf8", "not_transmittable")
    assert found["smtp"]["rcpt"] is None


def test_the_second_host_where_the_first_is_dead(user: User) -> None:
    found = user.json("ann@second.test", status=0)
    assert (found["primary"], found["smtp"]["attempts"]) == ("smtp.rcpt_ok", 2)


def test_greylisting(user: User, site: Site) -> None:
    user.config = config_of(site, "retry_s = [3, 3, 3]")
    found = user.json("ann@grey.test", status=75)
    assert (found["verdict"], found["primary"]) == ("unknown", "smtp.greylisted")
    assert (found["bounce"]["class"], found["advice"]) == ("soft", "retry_later")
    assert found["retry_at"] is not None
    before = site.sessions()
    again = user.json("ann@grey.test", status=75)
    assert again["from_cache"]
    assert again["retry_at"] == found["retry_at"]
    assert site.sessions() == before
    found = user.json("--wait", "ann@grey.test", status=0)
    # The mailbox nobody has is greylisted itself.
    assert (found["outcome"], found["primary"]) == ("accepted_unproven", "smtp.unproven")


# What the operator allows.


def test_probing_is_off_until_it_is_switched_on(site: Site, tmp_path: Path) -> None:
    before = site.sessions()
    user = User(tmp_path, config_of(site).replace("probe = true", "probe = false"))
    done = user.check("ann@plain.test")
    assert (done.returncode, done.stdout) == (2, "")
    assert "probing is off" in done.stderr
    assert "check.probe = true" in done.stderr
    assert not (tmp_path / "data" / "check.db").exists()
    assert site.sessions() == before


@pytest.mark.parametrize(
    "address",
    ["ann@plain.test", f"ann@[{PLAIN}]", "ann@[10.9.8.7]", "ann@inside.test", "ann@mapped.test"],
)
def test_private_networks_are_refused_unless_listed(
    site: Site, tmp_path: Path, address: str
) -> None:
    before = site.sessions()
    user = User(tmp_path, config_of(site, networks=("192.168.7.0/24",)))
    found = user.json(address)
    if address == "ann@plain.test":  # a name that leads to loopback leads nowhere
        assert (found["verdict"], found["primary"]) == ("undeliverable", "dns.mx_nonglobal")
    else:
        assert (found["verdict"], found["primary"]) == ("unknown", "net.forbidden")
    user.config += '[networks]\ntrusted = ["192.168.7.0/24"]\n'
    found = user.json(address)
    assert found["primary"] in ("dns.mx_nonglobal", "ip.loopback", "ip.private")
    assert site.sessions() == before


def test_a_second_run_remembers(user: User, site: Site, tmp_path: Path) -> None:
    user.json("ann@plain.test")
    before = site.sessions()
    found = user.json("ann@plain.test")
    assert (found["primary"], found["from_cache"]) == ("smtp.rcpt_ok", True)
    assert site.sessions() == before
    found = user.json("--fresh", "ann@plain.test")
    assert not found["from_cache"]
    assert site.sessions() == before + 2
    path = tmp_path / "data" / "check.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_runs_share_a_budget(site: Site, tmp_path: Path) -> None:
    user = User(tmp_path, config_of(site, "per_day = 3"))
    assert user.json("a@plain.test")["primary"] == "smtp.no_such_user"
    assert user.json("b@plain.test")["primary"] == "smtp.no_such_user"
    before = site.sessions()
    found = user.json("ann@plain.test", status=0)
    assert (found["primary"], found["smtp"]["catch_all"]) == ("smtp.unproven", "unknown")
    found = user.json("c@plain.test", status=75)
    assert (found["primary"], found["outcome"]) == ("net.budget", "not_tried")
    assert site.sessions() == before + 1


def test_a_file_that_cannot_be_used_is_told(user: User, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "check.db").write_bytes(b"no database" * 200)
    done = user.check("ann@plain.test")
    assert (done.returncode, done.stdout) == (75, "")
    assert "check.db: file is not a database" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_csv_file_with_a_break(user: User, site: Site, tmp_path: Path) -> None:
    addresses = ["ann@plain.test", "b@plain.test", "c@all.test", "d@x", "e@blocked.test"]
    addresses += ["ann@plain.test", f"ann@[{NO_LITERALS}]", "ann@tls.test"]
    rows = "".join(f"{number},{address}\n" for number, address in enumerate(addresses))
    (tmp_path / "in.csv").write_text(f"id,email\n{rows}")
    command = ("--file", "in.csv", "--output", "out.csv")
    done = user.check(*command)
    assert (done.returncode, done.stdout) == (0, "")
    output = tmp_path / "out.csv"
    with output.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["id"] for row in found] == [str(number) for number in range(len(addresses))]
    assert [row["primary"] for row in found] == [
        *("smtp.rcpt_ok", "smtp.no_such_user", "smtp.catch_all", found[3]["primary"]),
        *("smtp.blocked_dnsbl", "smtp.rcpt_ok", "smtp.literal_not_accepted", "smtp.rcpt_ok"),
    ]
    whole = output.read_bytes()
    os.truncate(output, len(whole) // 2)
    before = site.sessions()
    assert user.check(*command).returncode == 0
    assert output.read_bytes() == whole
    assert site.sessions() == before


def test_ctrl_c_ends_it_at_once(user: User, tmp_path: Path) -> None:
    """In the middle of a session that goes nowhere, with a traceback for nobody."""
    with ScriptedPeer(host="127.0.0.50") as peer:
        pause = peer.pause_at("RCPT")
        user.config = at_port(user.config, peer.port)
        for arguments in (["ann@[127.0.0.50]"], ["--file", "-"]):
            process = subprocess.Popen(
                user.command(*arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=tmp_path,
            )
            assert process.stdin is not None
            if arguments[0] == "--file":
                process.stdin.write("bob@[127.0.0.50]\n")
            process.stdin.close()
            process.stdin = None
            pause.wait_until_reached()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
            # Nor did it wait for a reply: then there would be a verdict.
            assert (process.returncode, out, err) == (130, "", "")
            pause.go_on()
            pause = peer.pause_at("RCPT")
        pause.go_on()


def test_nothing_a_host_says_is_obeyed_by_the_terminal(user: User) -> None:
    nasty = "\x1b[2J\x1b]0;x\x07\x7f\x9b31m\x85\u2028\u202e"
    with ScriptedPeer(host="127.0.0.51", extensions=[f"X{nasty}", "SMTPUTF8"]) as peer:
        peer.answer("GREETING", f"220 {nasty}")
        peer.answer("RCPT", f"550-{nasty}\r\n550 5.1.1 {nasty}")
        user.config = at_port(user.config, peer.port)
        done = user.check("ann@[127.0.0.51]")
        assert done.stdout.replace("\n", "").isprintable()
        done = user.check("--json", "ann@[127.0.0.51]")
    assert done.stdout.rstrip("\n").isprintable()
    assert len(done.stdout.splitlines()) == 1
    assert json.loads(done.stdout)["primary"] == "smtp.literal_not_accepted"


# On the Internet, as far as the hosts of these tests can tell.

US, THEM, LIST = "5.9.0.1", "5.9.77.2", "dnsbl.test"
ROUND_TABLE = {
    "client.test": f"check A {US}\nwrong A 5.9.0.9",
    "far.test": f"@ MX 10 mx\nmx A {THEM}",
    "0.9.5.in-addr.arpa": "1 PTR check.client.test.",
    "77.9.5.in-addr.arpa": "2 PTR mx.far.test.",
    LIST: "2.0.0.127 A 127.0.0.2\n2.0.0.127 TXT test",
    "home.test": f"@ MX 10 mx\nmx A {US}",
} | {f"dead{number}.test": f"@ MX 10 mx\nmx A 5.9.{number}.66" for number in range(101, 109)}


@pytest.fixture(scope="module")
def internet() -> Iterator[tuple[Site, Namespace]]:
    """Another host with Postfix and the name service; ours is the second of the two."""
    with joined_namespaces([f"{US}/16"], [f"{THEM}/16"]) as (ours, theirs), ExitStack() as stack:
        postfix = stack.enter_context(
            Postfix(
                address=THEM,
                mailboxes=("ann", "postmaster"),
                domains=("far.test",),
                mynetworks=("127.0.0.0/8",),
                netns=theirs.name,
            )
        )
        nsd = stack.enter_context(Nsd(ROUND_TABLE, address=THEM, netns=theirs.name))
        yield Site(25, nsd, postfix, Path(), ours.name), ours


@pytest.fixture
def citizen(internet: tuple[Site, Namespace], tmp_path: Path) -> User:
    """A user on our host, which is in order."""
    site = internet[0]
    config = config_of(site, networks=()) + f'[policy]\ndnsbl_zones = ["{LIST}"]\n'
    return User(tmp_path, config, site.namespace)


def test_a_host_in_order_may_ask(citizen: User) -> None:
    done = citizen.check("--self")
    assert done.returncode == 0
    assert f"{US}: in order" in done.stdout
    for address in ("ann@far.test", f"ann@[{THEM}]"):
        assert citizen.json(address, status=0)["primary"] == "smtp.rcpt_ok"
    assert citizen.json(f"nobody@[{THEM}]", status=1)["primary"] == "smtp.no_such_user"


def test_we_do_not_probe_ourselves(citizen: User, internet: tuple[Site, Namespace]) -> None:
    with internet[1].watched() as attempts:
        assert citizen.json("ann@home.test")["primary"] == "net.forbidden"
        assert citizen.json(f"ann@[{US}]")["primary"] == "net.forbidden"
    assert not [attempt for attempt in attempts if attempt.endswith(":25")]


@pytest.mark.parametrize(
    ("zones", "hostname", "fault"),
    [
        ({"0.9.5.in-addr.arpa": ""}, "check", f"{US} has no name in DNS (PTR)"),
        ({"0.9.5.in-addr.arpa": "1 PTR wrong.client.test."}, "check", "does not lead back"),
        ({}, "wrong", f"wrong.client.test, which does not lead to {US}"),
        (
            {LIST: f"{ROUND_TABLE[LIST]}\n1.0.9.5 A 127.0.0.2\n1.0.9.5 TXT Bad"},
            *("check", f"{US} is on the blocklist {LIST}: Bad"),
        ),
    ],
)
def test_a_host_that_is_not_in_order_asks_nobody(
    citizen: User,
    internet: tuple[Site, Namespace],
    zones: dict[str, str],
    hostname: str,
    fault: str,
) -> None:
    site, ours = internet
    citizen.config = citizen.config.replace("check.client.test", f"{hostname}.client.test")
    site.nsd.reload(zones)
    try:
        with ours.watched() as attempts:
            found = citizen.json("ann@far.test", status=75)
            done = citizen.check("--self")
    finally:
        site.nsd.reload({name: ROUND_TABLE[name] for name in zones})
    assert (found["verdict"], found["primary"]) == ("unknown", "net.self_check")
    assert found["smtp"] is None
    assert fault in str(found["reasons"])
    assert done.returncode == 1
    assert "not in order" in done.stdout
    assert fault in done.stdout
    assert not [attempt for attempt in attempts if attempt.endswith(":25")]


def test_a_blocked_port_is_told_once(citizen: User, tmp_path: Path) -> None:
    rows = "".join(f"ann@dead{number}.test\n" for number in range(101, 109))
    (tmp_path / "in.txt").write_text(rows)
    done = citizen.check("--file", "in.txt")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {each["verdict"] for each in found} == {"unknown"}
    assert {each["primary"] for each in found} <= {"net.unreachable", "net.port25_blocked"}
    assert "net.port25_blocked" in [each["primary"] for each in found]
    assert done.stderr.count("no host at all could be reached on port 25") == 1


def test_dead_hosts_are_no_blocked_port_where_one_answers(citizen: User, tmp_path: Path) -> None:
    rows = "".join(f"ann@dead{number}.test\n" for number in range(101, 106))
    (tmp_path / "in.txt").write_text(rows + "ann@far.test\n")
    done = citizen.check("--file", "in.txt")
    found = [json.loads(line)["primary"] for line in done.stdout.splitlines()]
    assert found == ["net.unreachable"] * 5 + ["smtp.rcpt_ok"]
    assert done.stderr == ""
