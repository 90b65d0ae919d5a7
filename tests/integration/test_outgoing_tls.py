"""TLS to hosts mail goes straight to: levels, trusted authorities, pins; hubs and a Postfix."""

from __future__ import annotations

import contextlib
import datetime
import sqlite3
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.support.certificates import Certificate
from tests.support.hub import Hub
from tests.support.mail import message, parsed, submit
from tests.support.ports import free_port
from tests.support.postfix import Postfix
from tests.support.tls_peer import TlsPeer
from tests.support.toml import retry, route
from tests.support.waiting import wait_until
from waypost.tls.authority import Authority, Subjects

from .conftest import StartHub

OFTEN = retry(1, max_s=1)


def policy(*entries: str) -> str:
    """[[tls.policy]] tables, each with its lines."""
    return "".join(f"[[tls.policy]]\n{entry}\n" for entry in entries)


def rule(match: str, level: str, more: str = "") -> str:
    return f'match = ["{match}"]\nlevel = "{level}"\n{more}'


def send(hub: Hub, recipient: str = "ann@far.example", **options: str) -> str:
    with hub.smtp() as smtp:
        return submit(smtp, recipient, content=message(options.pop("subject", "test")), **options)


def attempt(hub: Hub, queue_id: str, outcome: str, count: int = 1) -> str:
    """The line of the log that tells of it."""

    def look() -> list[str]:
        found = [
            line
            for line in hub.log_text().splitlines()
            if f" attempt id={queue_id} " in line and f"outcome={outcome}" in line
        ]
        return found if len(found) >= count else []

    return wait_until(look, hub.log_text)[-1]


def told(hub: Hub, queue_id: str) -> str:
    """What the trace says of the session the first recipient's mail went by."""
    (entry,) = hub.json("queue", "show", queue_id)
    return str(entry["recipients"][0]["tls"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Another site's authority."""
    return Certificate(tmp_path_factory.mktemp("site"), "site", is_authority=True)


@pytest.fixture
def issue(site: Certificate, tmp_path: Path) -> Callable[..., Certificate]:
    """A certificate of the site's; arguments as Certificate's."""
    return lambda name, **options: Certificate(tmp_path, name, issuer=site, **options)


# Hub to hub.


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_two_hubs_that_trust_each_other(start_hub: StartHub, host: str) -> None:
    there = start_hub(host=host)
    literal = f"IPv6:{host}" if ":" in host else host
    here = start_hub(route(f"smtp:[{literal}]:{there.port}") + OFTEN)
    first = send(here, "ann@[127.0.0.1]")
    assert "unverified" in attempt(here, first, "relayed")
    (said,) = here.json("tls", "trust", str(there.data / "tls" / "ca.pem"), "--for", f"{host}")
    assert said["for"] == [host]
    assert here.run("reload").returncode == 0
    second = send(here, "ann@[127.0.0.1]")
    assert 'verified, tls trust"' in attempt(here, second, "relayed")
    assert told(here, second).startswith("TLSv1.3 ")
    # Somebody else's authority does not vouch for it.
    (known,) = here.json("tls", "trust", "--list")
    assert here.run("tls", "trust", "--forget", known["sha256"][:8]).returncode == 0
    other = here.data.parent / "other.pem"
    made = Subjects(frozenset({ip_address(host)}), frozenset())
    Authority.create(other.parent / "other", made, now=datetime.datetime.now(datetime.UTC))
    file = str(other.parent / "other" / "ca.pem")
    assert here.run("tls", "trust", file, "--for", "loopback").returncode == 0
    assert here.run("reload").returncode == 0
    third = send(here, "ann@[127.0.0.1]")
    assert "451 4.7.5 TLS with" in attempt(here, third, "deferred")
    assert len(there.wait_for_mail("ann", 2)) == 2


def test_trust_says_what_it_takes(start_hub: StartHub, tmp_path: Path) -> None:
    hub = Hub(tmp_path / "hub")
    leaf = Certificate(tmp_path, "leaf", ips=["10.0.0.1"])
    done = hub.run("tls", "trust", str(leaf.file), "--for", "10.0.0.0/8")
    assert done.returncode == 1
    assert b"of a host, not of an authority" in done.stderr
    for words, status in (
        ((str(leaf.file),), 2),
        (("--for", "10.0.0.0/8"), 2),
        ((str(leaf.file), "--for", "10.0.0.0/33"), 2),
        (("/nowhere.pem", "--for", "10.0.0.0/8"), 1),
        (("--forget", "00"), 1),
        (("--list",), 1),
    ):
        assert hub.run("tls", "trust", *words).returncode == status, words
    assert not (hub.data / "tls" / "trusted").exists() or not list(
        (hub.data / "tls" / "trusted").iterdir()
    )


# What a certificate has to be.

CASES: dict[str, tuple[dict[str, object], str]] = {
    "fine": ({"ips": ["127.0.0.1"]}, ""),
    "another address": ({"ips": ["127.0.0.2"]}, "IP address mismatch"),
    "spelled as a name": ({"names": ["127.0.0.1"]}, "IP address mismatch"),
    "common name": ({"common_name": "127.0.0.1"}, "IP address mismatch"),
    "expired": ({"ips": ["127.0.0.1"], "expired": True}, "certificate has expired"),
}


@pytest.mark.parametrize("case", CASES)
def test_an_address_is_proven_by_an_ip_san(
    start_hub: StartHub, site: Certificate, issue: Callable[..., Certificate], case: str
) -> None:
    options, problem = CASES[case]
    leaf = issue("leaf", **options)
    with TlsPeer(leaf.chain_file, leaf.key_file) as peer:
        config = policy(rule("127.0.0.0/8", "verify", f'ca = "{site.file}"'))
        hub = start_hub(config + route(peer.target) + OFTEN)
        queue_id = send(hub)
        if not problem:
            assert "verified, tls.policy[1]" in attempt(hub, queue_id, "relayed")
            assert peer.taken[0].is_encrypted
        else:
            assert problem in attempt(hub, queue_id, "deferred")
            assert not any("MAIL" in command for command in peer.commands)
        hub.stop()


@pytest.mark.parametrize("level", ["encrypt", "verify", "pin", "dane"])
@pytest.mark.parametrize("how", ["stripped", "refused"])
def test_without_tls_nothing_is_sent(
    start_hub: StartHub, issue: Callable[..., Certificate], level: str, how: str
) -> None:
    leaf = issue("leaf", ips=["127.0.0.1"])
    with TlsPeer(
        *(leaf.chain_file, leaf.key_file),
        offers_tls=how == "refused",
        refuses_tls=how == "refused",
    ) as peer:
        hub = start_hub(policy(rule("any", level)) + route(peer.target) + OFTEN)
        assert "451 4.7." in attempt(hub, send(hub), "deferred")
        assert not any("MAIL" in command for command in peer.commands)
        assert not peer.taken
        hub.stop()


@pytest.mark.parametrize("how", ["stripped", "refused", "none"])
def test_opportunistic_goes_in_clear(
    start_hub: StartHub, issue: Callable[..., Certificate], how: str
) -> None:
    leaf = issue("leaf")
    with TlsPeer(
        *(leaf.chain_file, leaf.key_file),
        offers_tls=how != "stripped",
        refuses_tls=how == "refused",
    ) as peer:
        rules = policy(rule("any", "none")) if how == "none" else ""
        hub = start_hub(rules + route(peer.target) + OFTEN)
        queue_id = send(hub)
        assert " tls=" not in attempt(hub, queue_id, "relayed")
        assert told(hub, queue_id) == "None"
        assert not peer.taken[0].is_encrypted
        hub.stop()


# Pins.


@pytest.mark.parametrize("is_relay", [False, True])
def test_another_key_holds_mail_until_it_is_accepted(
    start_hub: StartHub, issue: Callable[..., Certificate], is_relay: bool
) -> None:
    old, new = issue("old"), issue("new")
    again = issue("again", key=old.private)
    with TlsPeer(old.chain_file, old.key_file, is_implicit=False) as peer:
        config = policy(rule("loopback", "pin")) + route(peer.target)
        if is_relay:
            config = route("relay:out")
            config += f'[relay.out]\nhost = "127.0.0.1"\nport = {peer.port}\ntls = "pin"\n'
        hub = start_hub(config + OFTEN)
        place = f"[127.0.0.1]:{peer.port}"
        why = "relay.out" if is_relay else "tls.policy[1]"
        assert f'pinned, {why}"' in attempt(hub, send(hub), "relayed")
        (pin,) = hub.json("tls", "pins", "list")
        assert (pin["place"], pin["key"], pin["offered"]) == (place, old.key_digest, None)
        assert hub.run("tls", "pins", "accept", place).returncode == 1
        hub.stop()
        # The same key in another certificate is no news, and neither is a restart.
        peer.show(again.chain_file, again.key_file)
        hub.start()
        attempt(hub, send(hub), "relayed")
        hub.stop()
        peer.show(new.chain_file, new.key_file)
        hub.start()
        peer.commands.clear()
        waiting = send(hub)
        assert f"waypost tls pins accept '{place}'" in attempt(hub, waiting, "deferred", 2)
        assert not any("MAIL" in command for command in peer.commands)
        assert hub.log_text().count(" pin-changed ") == 1
        assert f"known={old.key_digest} offered={new.key_digest}" in hub.log_text()
        (alarm,) = hub.wait_for_mail("postmaster")
        assert new.key_digest in parsed(alarm).get_content()
        assert place in str(parsed(alarm)["subject"])
        (shown,) = hub.json("tls", "pins", "show", place)
        assert shown["offered"] == new.key_digest
        assert hub.run("tls", "pins", "accept", place, "--key", old.key_digest).returncode == 1
        assert hub.run("tls", "pins", "accept", place, "--key", new.key_digest).returncode == 0
        attempt(hub, waiting, "relayed")
        assert len(hub.mailbox("postmaster")) == 1
        assert hub.run("tls", "pins", "forget", place).returncode == 0
        assert hub.run("tls", "pins", "forget", place).returncode == 1
        assert hub.run("tls", "pins", "show", "[127.0.0").returncode == 2
        hub.stop()


def test_a_login_waits_for_the_pin_where_tls_comes_first(
    start_hub: StartHub, issue: Callable[..., Certificate]
) -> None:
    """On port 465 the peer speaks at once: it hears nothing before its key was looked at."""
    old, new = issue("old"), issue("new")
    with TlsPeer(
        *(old.chain_file, old.key_file),
        host="127.46.4.65",
        port=465,
        is_implicit=True,
        extensions=["AUTH PLAIN"],
    ) as peer:
        hub = start_hub(
            route("relay:out")
            + '[relay.out]\nhost = "127.46.4.65"\nport = 465\ntls = "pin"\n'
            + 'username = "me"\npassword = "secret"\n'
            + OFTEN
        )
        queue_id = send(hub)
        wait_until(lambda: any("AUTH" in line for line in peer.commands), hub.log_text)
        hub.stop()
        peer.show(new.chain_file, new.key_file)
        peer.commands.clear()
        # Somebody else writes the file of pins, so that looking takes its time.
        with contextlib.closing(sqlite3.connect(hub.data / "tls" / "pins.db")) as pins:
            pins.execute("BEGIN EXCLUSIVE")
            peer.greeted = 0
            hub.start()
            wait_until(lambda: peer.greeted, hub.log_text)
            time.sleep(0.5)
            assert peer.commands == []
            pins.rollback()
        attempt(hub, queue_id, "deferred")
        hub.wait_for_log("shows another key")
        hub.stop()
        assert peer.commands == []


def test_a_renewed_certificate_of_a_hub_keeps_its_key(start_hub: StartHub) -> None:
    there = start_hub()
    here = start_hub(
        policy(rule("loopback", "pin")) + route(f"smtp:[127.0.0.1]:{there.port}") + OFTEN
    )
    attempt(here, send(here, "ann@[127.0.0.1]"), "relayed")
    there.stop()
    for path in (there.data / "tls").glob("hub-*.pem"):
        path.unlink()
    there.start()
    attempt(here, send(here, "ann@[127.0.0.1]"), "relayed")
    # A new authority comes with new keys.
    assert there.run("tls", "init", "--force").returncode == 0
    assert there.run("reload").returncode == 0
    here.stop()
    here.start()
    assert "shows another key" in attempt(here, send(here, "ann@[127.0.0.1]"), "deferred")


# A real Postfix.


def test_postfix(start_hub: StartHub, site: Certificate, issue: Callable[..., Certificate]) -> None:
    leaf = issue("postfix", ips=["127.0.0.1"], names=["mx.far.example"])
    port = free_port()
    with Postfix(
        domains=("far.example",),
        mailboxes=("ann",),
        main_cf={
            "smtpd_tls_security_level": "encrypt",
            "smtpd_tls_cert_file": str(leaf.chain_file),
            "smtpd_tls_key_file": str(leaf.key_file),
            "smtpd_tls_received_header": "yes",
        },
        master_cf=[f"127.0.0.1:{port} inet n - n - - smtpd"],
    ) as postfix:
        new = postfix.mailbox("ann") / "new"
        hub = start_hub(route(f"smtp:[127.0.0.1]:{port}") + OFTEN)
        file = str(site.file)
        assert hub.run("tls", "trust", file, "--for", "127.0.0.0/8").returncode == 0
        assert hub.run("reload").returncode == 0
        line = attempt(hub, send(hub, "ann@far.example"), "relayed")
        assert "verified, tls trust" in line
        (stored,) = wait_until(lambda: list(new.iterdir()) if new.exists() else [], hub.log_text)
        assert b"(using TLSv1.3" in stored.read_bytes()


# What would happen.


def test_the_route_command_says_it(start_hub: StartHub) -> None:
    hub = start_hub(
        policy(rule("127.0.0.9", "pin"), rule("*.plant.example", "encrypt"))
        + route("relay:out", name="out", match='recipient = "*@relayed.example"')
        + '[relay.out]\nhost = "127.0.0.8"\ntls = "dane"\n'
        + route("smtp:[127.0.0.9]:25", name="pin", match='recipient = "*@pin.example"')
        + route("smtp:[127.0.0.7]:25", name="none", match='recipient = "*@none.example"')
        + route("lmtp:/run/x", name="lmtp", match='recipient = "*@lmtp.example"')
    )
    for domain, level, because in (
        ("relayed.example", "dane", "relay.out"),
        ("pin.example", "pin", "tls.policy[1]"),
        ("none.example", "opportunistic", "default"),
        ("lmtp.example", "none", "LMTP"),
    ):
        (told,) = hub.json("route", f"ann@{domain}")
        assert list(told["tls"].values()) == [{"level": level, "because": because}]
    assert b"TLS: pin  (tls.policy[1])" in hub.run("route", "ann@pin.example").stdout
    assert b"TLS: opportunistic  (default)" in hub.run("route", "ann@none.example").stdout
