"""REQUIRETLS and TLS-Required (RFC 8689), through hubs that run."""

from __future__ import annotations

import contextlib
import sqlite3
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.certificates import Certificate
from tests.support.hub import Hub
from tests.support.mail import message, parsed, submit, wire
from tests.support.tls_peer import TlsPeer
from tests.support.toml import retry, route

from .conftest import StartHub

OFTEN = retry(1, max_s=1)
OFFERS = ("8BITMIME", "REQUIRETLS")
BOB = "bob@[127.0.0.1]"


def send(hub: Hub, *, sender: str = BOB, mail: str = "REQUIRETLS", content: bytes = b"") -> str:
    """Over TLS, whoever the hub is."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with hub.smtp() as smtp:
        smtp.starttls(context=context)
        smtp.ehlo()
        assert smtp.has_extn("requiretls")
        return submit(
            smtp, "ann@far.example", sender=sender, mail=mail, content=content or message()
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("site"), "site", is_authority=True)


@pytest.fixture
def issue(site: Certificate, tmp_path: Path) -> Callable[..., Certificate]:
    return lambda name, **more: Certificate(tmp_path, name, issuer=site, **more)


def verify(site: Certificate) -> str:
    return f'[[tls.policy]]\nmatch = ["loopback"]\nlevel = "verify"\nca = "{site.file}"\n'


CASES = {
    # What the rule says, whether the peer is the right one, offers TLS, and REQUIRETLS.
    "fine": ("verify", True, True, True, ""),
    "without a rule": ("", True, True, True, "550 5.7.10 REQUIRETLS: TLS with"),
    "clear by a rule": ("none", True, True, True, "550 5.7.10 REQUIRETLS: TLS with"),
    "pinned": ("pin", False, True, True, ""),
    "another host": ("verify", False, True, True, "550 5.7.10 REQUIRETLS: TLS with"),
    "no tls": ("verify", True, False, True, "550 5.7.10 REQUIRETLS: The next host does not offer"),
    "no promise": ("verify", True, True, False, "550 5.7.30 The next host does not offer"),
}


@pytest.mark.parametrize("case", CASES)
def test_it_goes_on_protected_or_back(
    start_hub: StartHub, site: Certificate, issue: Callable[..., Certificate], case: str
) -> None:
    level, is_right, has_tls, promises, problem = CASES[case]
    leaf = issue("leaf", ips=["127.0.0.1" if is_right else "127.0.0.9"])
    rule = verify(site) if level == "verify" else ""
    if level in ("pin", "none"):
        rule = f'[[tls.policy]]\nmatch = ["any"]\nlevel = "{level}"\n'
    with TlsPeer(
        *(leaf.chain_file, leaf.key_file),
        extensions=OFFERS if promises else (),
        offers_tls=has_tls,
    ) as peer:
        hub = start_hub(
            rule + route(peer.target, name="out", match='recipient = "*@far.example"') + OFTEN
        )
        send(hub, mail="REQUIRETLS RET=FULL")
        if not problem:
            (taken,) = peer.wait_for_mail()
            assert taken.is_encrypted
            assert f"MAIL FROM:<{BOB}> REQUIRETLS" in taken.commands
        else:
            (report,) = hub.wait_for_mail("bob")
            hub.wait_for_log(problem)
            text = report.decode()
            # RFC 8689 §5: of what was not to be seen, nobody sees the body.
            assert "text/rfc822-headers" in text
            assert "Hello." not in text
            assert peer.taken == []
            assert not any("MAIL" in command for command in peer.commands)
        # Other mail is none the worse for it.
        if case in ("without a rule", "no promise"):
            send(hub, mail="")
            peer.wait_for_mail()
        hub.stop()


def test_a_report_is_protected_as_its_message(
    start_hub: StartHub, site: Certificate, issue: Callable[..., Certificate]
) -> None:
    leaf = issue("leaf", ips=["127.0.0.1"])
    with TlsPeer(leaf.chain_file, leaf.key_file, extensions=OFFERS) as peer:
        hub = start_hub(
            route(peer.target, name="back", match='recipient = "*@back.example"')
            + route("reject:5.7.1 no", name="no", match='recipient = "x@*"')
            + route("smtp:[127.0.0.1]:1", name="out", match='recipient = "*@far.example"')
            + retry(1, max_s=1, give_up_after_s=2)
        )
        send(hub, sender="bob@back.example")
        (taken,) = peer.wait_for_mail()
        assert "MAIL FROM:<> REQUIRETLS" in " ".join(taken.commands).replace("SIZE", "\n")
        assert parsed(taken.content).get_content_type() == "multipart/report"
        hub.stop()


def test_what_came_in_clear_promises_nothing(hub: Hub) -> None:
    with hub.smtp() as smtp:
        smtp.ehlo()
        assert not smtp.has_extn("requiretls")
        smtp.send(f"MAIL FROM:<{BOB}> REQUIRETLS\r\n".encode())
        assert smtp.getreply()[0] == 555


def test_a_hub_passes_it_on_to_a_hub(start_hub: StartHub) -> None:
    there = start_hub('[addresses]\ndomains = ["far.example"]\n')
    here = start_hub(route(f"smtp:[127.0.0.1]:{there.port}", match='recipient = "*@far.example"'))
    authority = str(there.data / "tls" / "ca.pem")
    assert here.run("tls", "trust", authority, "--for", "loopback").returncode == 0
    assert here.run("reload").returncode == 0
    send(here)
    there.wait_for_mail("ann")
    here.wait_for_log("verified, tls trust")
    for hub in (here, there):
        with contextlib.closing(sqlite3.connect(hub.data / "queue.db")) as queue:
            assert queue.execute("SELECT requiretls FROM message").fetchall() == [(1,)]


@pytest.mark.parametrize("field", ["TLS-Required: No", "tls-required:  no "])
def test_tls_required_no_does_not_lower_a_rule(
    start_hub: StartHub, site: Certificate, issue: Callable[..., Certificate], field: str
) -> None:
    leaf = issue("leaf", ips=["127.0.0.9"])
    with TlsPeer(leaf.chain_file, leaf.key_file) as peer:
        hub = start_hub(verify(site) + route(peer.target, match='recipient = "*@far.example"'))
        send(hub, mail="", content=wire("From: <a@b.example>", field, "", "Hello."))
        hub.wait_for_log("outcome=deferred")
        assert peer.taken == []
        hub.stop()
