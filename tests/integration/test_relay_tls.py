"""Relays over TLS, and logging in: a real Postfix that asks a real Dovecot, and hostile peers."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.dovecot import Dovecot
from tests.support.hub import Hub
from tests.support.mail import message, submit
from tests.support.ports import free_port
from tests.support.postfix import Postfix
from tests.support.toml import retry, route
from tests.support.waiting import wait_until
from waypost.oauth.messages import Tokens
from waypost.oauth.settings import Grant, OAuthSettings
from waypost.oauth.store import Kept, TokenFile
from waypost.smtp.auth import Secret
from waypost.tls.authority import Authority, Subjects

from .conftest import StartHub, StartPeer

PASSWORD = "s3cret pass w\u00f6rd"
WRONG = "wr0ng-and-s3cret"
# Port 465 of this address is nobody's but this test run's.
AT_465 = f"127.46.{os.getpid() % 250 + 1}.5"
NOW = datetime.datetime.now(datetime.UTC)


class Pair(NamedTuple):
    """A certificate and its key."""

    certificate: Path
    key: Path


class Certificates:
    """Issued by an authority whose certificate is `ca`; `others` vouches for none of them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        everywhere = self._subjects("10.99.0.1")
        self._authority = Authority.create(directory / "ca", everywhere, now=NOW)
        Authority.create(directory / "others", everywhere, now=NOW)
        self.ca = directory / "ca" / "ca.pem"
        self.others = directory / "others" / "ca.pem"
        self.fine = self._issue("fine", self._subjects("127.0.0.1", "::1", AT_465))
        self.elsewhere = self._issue("elsewhere", self._subjects("10.99.0.1"))
        self.expired = self._issue("expired", self._subjects("127.0.0.1"), age_days=30)

    def _subjects(self, *ips: str) -> Subjects:
        return Subjects(frozenset(map(ip_address, ips)), frozenset())

    def _issue(self, name: str, subjects: Subjects, age_days: int = 0) -> Pair:
        since = NOW - datetime.timedelta(days=age_days)
        leaf = self._authority.issue(subjects, is_rsa=False, now=since, days=20)
        pair = Pair(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        pair.certificate.write_bytes(leaf.certificate)
        pair.key.write_bytes(leaf.key)
        return pair


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    directory = tmp_path_factory.mktemp("certificates")
    return Certificates(directory)


class Services:
    """Postfix at a port for each kind of service, all in one instance."""

    def __init__(self, certificates: Certificates, sasl: Path) -> None:
        self.ports: dict[str, int] = {}
        self._lines: list[str] = []
        fine = certificates.fine
        self._add("fine", fine)
        self._add("fine6", fine, host="[::1]")
        self._add("elsewhere", certificates.elsewhere)
        self._add("expired", certificates.expired)
        self._add("plain", None)
        self._add("broken", fine, "smtpd_tls_protocols=TLSv1", "smtpd_tls_exclude_ciphers=ALL")
        self._add("tls-first", fine, "smtpd_tls_wrappermode=yes", host=AT_465, port=465)
        login = ("smtpd_sasl_auth_enable=yes", "smtpd_tls_auth_only=yes")
        refuse = "smtpd_client_restrictions=permit_sasl_authenticated,reject"
        self._add("login", fine, *login, refuse)
        self._add("login-only", fine, *login, refuse, "smtpd_sasl_mechanism_filter=login")
        self.postfix = Postfix(
            domains=("far.example",),
            mailboxes=("ann", "postmaster"),
            main_cf={
                "smtpd_sasl_type": "dovecot",
                "smtpd_sasl_path": str(sasl),
                "smtpd_tls_loglevel": "1",
                "smtpd_tls_received_header": "yes",
                "local_recipient_maps": "",
                "message_size_limit": "50000000",
                "mailbox_size_limit": "0",
                "virtual_mailbox_limit": "0",
            },
            master_cf=self._lines,
        )

    def _add(
        self,
        name: str,
        pair: Pair | None,
        *options: str,
        host: str = "127.0.0.1",
        port: int = 0,  # 0: a free one
    ) -> None:
        port = port or free_port(host.strip("[]"))
        self.ports[name] = port
        tls = ["smtpd_tls_security_level=none"]
        if pair is not None:
            tls = [
                "smtpd_tls_security_level=may",
                f"smtpd_tls_cert_file={pair.certificate}",
                f"smtpd_tls_key_file={pair.key}",
            ]
        words = " ".join(f"-o {option}" for option in (*tls, *options))
        self._lines.append(f"{host}:{port} inet n - n - - smtpd {words}")

    def stored(self) -> list[str]:
        """All messages that were taken."""
        new = self.postfix.mailbox("ann") / "new"
        return [path.read_text(errors="replace") for path in new.glob("*")] if new.exists() else []


@pytest.fixture(scope="module")
def services(certificates: Certificates) -> Iterator[Services]:
    with Dovecot({"hub": PASSWORD}) as dovecot:
        made = Services(certificates, dovecot.socket)
        # Postfix' smtpd reads keys as root, before it gives that up.
        with made.postfix:
            yield made


class Case(NamedTuple):
    """A relay, and what becomes of mail for it."""

    service: str
    settings: str  # {ca} and {others} stand for files
    expected: str  # "TLS", "clear", or words of why it waits
    host: str = "127.0.0.1"


LOGIN = f'username = "hub"\npassword = "{PASSWORD}"\n'
VERIFY = 'tls = "verify"\nca = "{ca}"\n'
CASES = {
    "verified": Case("fine", VERIFY, "TLS"),
    "verified6": Case("fine6", VERIFY, "TLS", "[IPv6:::1]"),
    "wrong-ca": Case("fine", 'tls = "verify"\nca = "{others}"\n', "failed: "),
    "system-ca": Case("fine", "", "failed: self-signed certificate in certificate chain"),
    "no-ca": Case("fine", 'ca = "/nowhere/ca.pem"\n', "/nowhere/ca.pem: No such file"),
    "wrong-address": Case("elsewhere", VERIFY, "IP address mismatch"),
    "expired": Case("expired", VERIFY, "certificate has expired"),
    "encrypt": Case("expired", 'tls = "encrypt"\n', "TLS"),
    "encrypt-none": Case("plain", 'tls = "encrypt"\n', "does not offer TLS"),
    "verify-none": Case("plain", VERIFY, "does not offer TLS"),
    "encrypt-broken": Case("broken", 'tls = "encrypt"\n', "failed: "),
    "opportunistic": Case("elsewhere", 'tls = "opportunistic"\n', "TLS"),
    "opportunistic-none": Case("plain", 'tls = "opportunistic"\n', "clear"),
    "opportunistic-broken": Case("broken", 'tls = "opportunistic"\n', "clear"),
    "none": Case("fine", 'tls = "none"\n', "clear"),
    "tls-first": Case("tls-first", VERIFY, "TLS", AT_465),
    "tls-first-wrong-ca": Case("tls-first", 'ca = "{others}"\n', "failed: ", AT_465),
    "login": Case("login", VERIFY + LOGIN, "TLS"),
    "login-only": Case("login-only", VERIFY + LOGIN, "TLS"),
    "login-encrypt": Case("login", 'tls = "encrypt"\n' + LOGIN, "TLS"),
    "login-wrong": Case(
        "login", f'{VERIFY}username = "hub"\npassword = "{WRONG}"\n', "The login was refused: 535"
    ),
    "login-not-there": Case("fine", VERIFY + LOGIN, "does not offer a way to log in"),
    "login-clear": Case("plain", VERIFY + LOGIN, "does not offer TLS"),
}


def relay_config(name: str, port: int, settings: str, host: str = "127.0.0.1") -> str:
    """A relay, and the route to it for mail from `name`@here.example."""
    host = host if ":" in host or host.startswith("[") else f"[{host}]"
    return (
        route(f"relay:{name}", name=name, match=f'sender = "{name}@here.example"')
        + f'[relay.{name}]\nhost = "{host}"\nport = {port}\n{settings}'
    )


@pytest.fixture(scope="module")
def sent(
    tmp_path_factory: pytest.TempPathFactory, services: Services, certificates: Certificates
) -> Iterator[Hub]:
    """A hub with all relays of CASES, one message on its way to each."""
    config = 'hostname = "hub.test"\n' + retry(1, max_s=30)
    for name, case in CASES.items():
        settings = case.settings.format(ca=certificates.ca, others=certificates.others)
        config += relay_config(name, services.ports[case.service], settings, case.host)
    with Hub(tmp_path_factory.mktemp("relays") / "hub", config) as hub:
        with hub.smtp() as smtp:
            for name in CASES:
                submit(
                    *(smtp, "ann@far.example"),
                    sender=f"{name}@here.example",
                    content=message(f"case {name}"),
                )
        yield hub


def attempts(hub: Hub, name: str) -> list[str]:
    """The log of attempts for the message of a case."""
    lines = hub.log_text().splitlines()
    ids = [
        found[1]
        for line in lines
        if (found := re.search(rf" received id=(\w+) .*sender={name}@here\.example ", line))
    ]
    # The log may be a little behind the reply.
    return [line for line in lines if " attempt " in line and ids and f"id={ids[0]} " in line]


def secured(connected: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A session as far as the second EHLO, to which nothing is said yet."""
    connected.sendall(b"220 x\r\n")
    connected.recv(1_000)
    connected.sendall(HELLO)
    connected.recv(1_000)
    connected.sendall(b"220 go\r\n")
    encrypted = context.wrap_socket(connected, server_side=True)
    encrypted.recv(1_000)
    return encrypted


@pytest.mark.parametrize("name", CASES)
def test_relays(sent: Hub, services: Services, name: str) -> None:
    case = CASES[name]
    log = services.postfix.log_text
    wait_until(lambda: attempts(sent, name), lambda: sent.log_text() + log())
    last = attempts(sent, name)[-1]
    if case.expected not in ("TLS", "clear"):
        assert "outcome=deferred" in last
        assert case.expected in last
        return
    assert "outcome=relayed" in last, last + log()[-3000:]

    def look() -> list[str]:
        return [text for text in services.stored() if f"Subject: case {name}\n" in text]

    (stored,) = wait_until(look, log)
    assert ("(using TLS" in stored) == (case.expected == "TLS"), stored
    word = "ESMTPSA" if "login" in name else ("ESMTPS" if case.expected == "TLS" else "ESMTP")
    assert f" with {word} id " in " ".join(stored.split())


def test_what_waits_is_not_returned(sent: Hub, services: Services) -> None:
    """A wrong password, or a certificate, is for the operator to mend."""
    waiting = {name for name, case in CASES.items() if case.expected not in ("TLS", "clear")}
    for name in waiting:
        wait_until(lambda name=name: len(attempts(sent, name)) > 1, sent.log_text)  # type: ignore[misc]
    listed = sent.run("queue", "list", "--json").stdout.decode()
    for name in waiting:
        assert f"{name}@here.example" in listed
    assert "outcome=failed" not in sent.log_text()


def test_a_password_is_shown_nowhere(sent: Hub, services: Services) -> None:
    wait_until(lambda: attempts(sent, "login-wrong"), sent.log_text)
    shown = [
        sent.log_text(),
        services.postfix.log_text(),
        *(
            sent.run(*words).stdout.decode()
            for words in (
                ("config", "show"),
                ("config", "show", "--json"),
                ("config", "check", "--json"),
                ("queue", "list"),
                ("queue", "list", "--json"),
                ("trace", "--json"),
                ("route", "--from", "login@here.example", "ann@far.example"),
            )
        ),
        *(
            path.read_bytes().decode("latin-1")
            for path in sent.data.rglob("*")
            if path.is_file() and not path.is_socket()
        ),
    ]
    assert "Secret(***)" in shown[2]
    for text in shown:
        for secret in (PASSWORD, WRONG, PASSWORD.encode().decode("latin-1")):
            assert secret not in text


def test_a_big_message_leaves_over_tls(
    start_hub: StartHub, services: Services, certificates: Certificates
) -> None:
    settings = VERIFY.format(ca=certificates.ca)
    hub = start_hub(relay_config("big", services.ports["fine"], settings))
    content = message("case big", *("x" * 76 for _ in range(65_000)))
    with hub.smtp() as smtp:
        submit(smtp, "ann@far.example", sender="big@here.example", content=content)

    def look() -> list[str]:
        return [text for text in services.stored() if "Subject: case big\n" in text]

    (stored,) = wait_until(look, lambda: hub.log_text() + services.postfix.log_text()[-2000:])
    assert stored.count("x" * 76 + "\n") == 65_000
    assert "(using TLS" in stored


def test_the_next_message_uses_the_session_again(
    start_hub: StartHub, services: Services, certificates: Certificates
) -> None:
    settings = VERIFY.format(ca=certificates.ca) + LOGIN
    hub = start_hub(relay_config("twice", services.ports["login"], settings))
    before = services.postfix.log_text().count("sasl_username=hub")
    with hub.smtp() as smtp:
        for _ in range(2):
            submit(smtp, "ann@far.example", sender="twice@here.example")
            done = before + _ + 1
            wait_until(lambda done=done: hub.log_text().count("outcome=relayed") == done - before)  # type: ignore[misc]
    assert len({line.split()[4] for line in attempts(hub, "twice")}) == 1


# The configuration.


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o777])
def test_a_password_file_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    settings = f'username = "hub"\npassword_file = "{file}"\n'
    hub = Hub(tmp_path / "hub", relay_config("x", 25, settings))
    file.chmod(mode)
    done = hub.run("config", "check")
    assert done.returncode == 2
    assert b"chmod 600" in done.stderr
    assert PASSWORD.encode() not in done.stderr
    file.chmod(0o600)
    assert hub.run("config", "check").returncode == 0
    assert PASSWORD.encode() not in hub.run("config", "show", "--json").stdout


def test_a_password_file_is_used(
    tmp_path: Path, start_hub: StartHub, services: Services, certificates: Certificates
) -> None:
    file = tmp_path / "password"
    file.touch(0o600)
    file.write_text(f"{PASSWORD}\r\nand a second line\n")
    settings = VERIFY.format(ca=certificates.ca) + f'username = "hub"\npassword_file = "{file}"\n'
    hub = start_hub(relay_config("file", services.ports["login"], settings))
    with hub.smtp() as smtp:
        submit(smtp, "ann@far.example", sender="file@here.example")
    hub.wait_for_log("outcome=relayed")


@pytest.mark.parametrize("tls", ["none", "opportunistic"])
def test_a_login_needs_tls(tmp_path: Path, tls: str) -> None:
    hub = Hub(tmp_path / "hub", relay_config("x", 25, f'tls = "{tls}"\n{LOGIN}'))
    done = hub.run("config", "check")
    assert done.returncode == 2
    assert b"a login needs tls" in done.stderr
    assert PASSWORD.encode() not in done.stderr


# Hostile peers.

Talk = Callable[[socket.socket], None]


@contextlib.contextmanager
def peer(talk: Talk) -> Iterator[tuple[int, list[threading.Thread]]]:
    """A server that talks to each client in a thread of its own: its port, and the threads."""
    threads: list[threading.Thread] = []
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(0.1)
    is_over = threading.Event()

    def one(connected: socket.socket) -> None:
        with connected, contextlib.suppress(OSError):
            connected.settimeout(15)
            talk(connected)

    def serve() -> None:
        while not is_over.is_set():
            with contextlib.suppress(TimeoutError):
                thread = threading.Thread(target=one, args=(listening.accept()[0],))
                thread.start()
                threads.append(thread)

    server = threading.Thread(target=serve)
    server.start()
    try:
        yield listening.getsockname()[1], threads
    finally:
        is_over.set()
        server.join()
        listening.close()
        for thread in threads:
            thread.join(20)


def deferred(start_hub: StartHub, port: int, settings: str, *, limit: str = "") -> Hub:
    """A hub that has tried in vain to hand a message to the relay at `port`."""
    hub = start_hub(retry(5) + relay_config("bad", port, settings))
    with hub.smtp() as smtp:
        submit(smtp, "ann@far.example", sender="bad@here.example")
    hub.wait_for_log("outcome=deferred")
    assert PASSWORD not in hub.log_text()
    assert " bug " not in hub.log_text()
    assert "Traceback" not in hub.log_text()
    return hub


def test_no_credentials_in_clear(start_hub: StartHub, start_peer: StartPeer) -> None:
    """A peer, or who sits before it, that offers AUTH and hides STARTTLS."""
    bait = start_peer(extensions=("PIPELINING", "AUTH PLAIN LOGIN"))
    for tls in ("encrypt", "verify"):
        hub = deferred(start_hub, bait.port, f'tls = "{tls}"\n{LOGIN}')
        assert "does not offer TLS" in hub.log_text()
    assert {command.split()[0] for command in bait.commands} <= {"EHLO", "QUIT"}


@pytest.mark.parametrize("refusal", ["454 4.7.0 not now", "502 what", "250 fine"])
def test_no_credentials_after_refused_tls(
    start_hub: StartHub, start_peer: StartPeer, refusal: str
) -> None:
    bait = start_peer(extensions=("STARTTLS", "AUTH PLAIN LOGIN"))
    bait.answer("STARTTLS", refusal)
    deferred(start_hub, bait.port, f'tls = "encrypt"\n{LOGIN}')
    assert {command.split()[0] for command in bait.commands} <= {"EHLO", "STARTTLS", "QUIT"}


HELLO = b"250-x\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n"


@pytest.mark.parametrize(
    "injected", [b"250-x\r\n250 AUTH PLAIN\r\n", b"250 x\r\n250 x\r\n235 in\r\n", b"250-x\r\n"]
)
def test_attack_12_replies_injected_before_the_handshake(
    start_hub: StartHub, injected: bytes
) -> None:
    heard: list[bytes] = []

    def talk(connected: socket.socket) -> None:
        connected.sendall(b"220 x\r\n")
        heard.append(connected.recv(1_000))
        connected.sendall(HELLO)
        heard.append(connected.recv(1_000))
        connected.sendall(b"220 go\r\n" + injected)
        while received := connected.recv(10_000):
            heard.append(received)
            connected.sendall(b"250 x\r\n")

    with peer(talk) as (port, _):
        deferred(start_hub, port, f'tls = "encrypt"\n{LOGIN}')
    said = b"".join(heard)
    assert b"STARTTLS\r\n" in said
    assert b"AUTH" not in said
    assert b"MAIL" not in said


@pytest.mark.parametrize("how", ["drop", "garbage"])
def test_a_handshake_that_breaks_off(start_hub: StartHub, how: str) -> None:
    """Required: mail waits. Opportunistic: it goes in clear, on a connection of its own."""
    taken = threading.Event()

    def talk(connected: socket.socket) -> None:
        connected.sendall(b"220 x\r\n")
        replies = {b"EHLO": HELLO, b"DATA": b"354 go\r\n", b"STAR": b"220 go\r\n"}
        while received := connected.recv(10_000):
            if received.startswith(b"STAR") and how == "drop":
                connected.sendall(b"220 go\r\n")
                return
            if received.startswith(b"\x16"):
                connected.sendall(b"250 what is this\r\n")
                return
            if received.endswith(b"\r\n.\r\n"):
                taken.set()
            connected.sendall(replies.get(received[:4], b"250 x\r\n"))

    with peer(talk) as (port, _):
        hub = deferred(start_hub, port, 'tls = "encrypt"\n')
        assert "TLS with 127.0.0.1 failed: " in hub.log_text()
        assert not taken.is_set()
        hub = start_hub(relay_config("bad", port, 'tls = "opportunistic"\n'))
        with hub.smtp() as smtp:
            submit(smtp, "ann@far.example", sender="bad@here.example")
        assert taken.wait(10), hub.log_text()
        hub.wait_for_log("outcome=relayed")
        assert " bug " not in hub.log_text()
        hub.stop()  # it keeps the connection for a while


@pytest.mark.parametrize("offer", [b"PLAIN", b"LOGIN"])
def test_endless_challenges_end(
    start_hub: StartHub, certificates: Certificates, offer: bytes
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.fine.certificate, certificates.fine.key)
    challenges = 0

    def talk(connected: socket.socket) -> None:
        nonlocal challenges
        with secured(connected, context) as encrypted:
            encrypted.sendall(b"250-x\r\n250 AUTH " + offer + b"\r\n")
            while encrypted.recv(1_000):
                challenges += 1
                encrypted.sendall(b"334 bW9yZQ==\r\n")

    with peer(talk) as (port, _):
        settings = VERIFY.format(ca=certificates.ca) + LOGIN
        hub = deferred(start_hub, port, settings)
        assert "challenges without end" in hub.log_text()
    assert challenges < 10


def test_a_peer_that_repeats_the_password(start_hub: StartHub, certificates: Certificates) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.fine.certificate, certificates.fine.key)

    def talk(connected: socket.socket) -> None:
        with secured(connected, context) as encrypted:
            encrypted.sendall(b"250-x\r\n250 AUTH PLAIN\r\n")
            said = encrypted.recv(1_000).split()[-1]
            encrypted.sendall(b"535 5.7.8 not " + said + b" nor " + PASSWORD.encode() + b"\r\n")
            encrypted.recv(1_000)

    with peer(talk) as (port, _):
        settings = VERIFY.format(ca=certificates.ca) + LOGIN
        hub = deferred(start_hub, port, settings)
    assert "535 5.7.8 not *** nor ***" in hub.log_text()
    assert "***" in hub.run("queue", "list", "--json").stdout.decode()


# A login that the relay refuses.


def test_a_password_that_is_refused_until_it_is_mended(
    start_hub: StartHub, services: Services, certificates: Certificates
) -> None:
    """Mail is held, however long; one alarm tells of it, and one that all is well."""
    settings = VERIFY.format(ca=certificates.ca) + 'alarm = "mailbox:alerts"\nusername = "hub"\n'
    config = relay_config(
        "held", services.ports["login"], f'{settings}password = "{WRONG}"\n'
    ) + retry(1, max_s=1, warn_after_s=60, give_up_after_s=2)
    hub = start_hub(config)
    before = services.postfix.log_text().count("authentication failed")
    with hub.smtp() as smtp:
        for subject in ("held 1", "held 2"):
            content = message(subject)
            submit(smtp, "ann@far.example", sender="held@here.example", content=content)
    (alarm,) = hub.wait_for_mail("alerts")
    text = " ".join(alarm.decode().split())
    assert "Subject: Mail waits: the login of relay held is lost" in text
    assert "Relay held does not let hub log in: The login was refused: 535 5.7.8" in text
    assert "What to do: see username and password." in text
    wait_until(lambda: len(attempts(hub, "held")) > 4, hub.log_text)
    # It is not asked by every message in turn, nor at every attempt.
    assert services.postfix.log_text().count("authentication failed") - before <= 2
    assert "outcome=failed" not in hub.log_text()
    hub.config_file.write_text(hub.config_file.read_text().replace(WRONG, PASSWORD))
    assert hub.run("reload").returncode == 0
    wait_until(
        lambda: sum("Subject: held" in text for text in services.stored()) == 2, hub.log_text
    )
    alarms = hub.wait_for_mail("alerts", 2)
    assert b"Subject: The login of relay held is back\r\n" in alarms[1]
    assert len(hub.mailbox("alerts")) == 2


def test_a_fresh_token_that_is_refused(start_hub: StartHub, certificates: Certificates) -> None:
    """As Microsoft says it where SMTP AUTH is off for a mailbox."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.fine.certificate, certificates.fine.key)
    logins = 0

    def talk(connected: socket.socket) -> None:
        nonlocal logins
        with secured(connected, context) as encrypted:
            encrypted.sendall(b"250-x\r\n250 AUTH XOAUTH2\r\n")
            assert encrypted.recv(10_000).startswith(b"AUTH XOAUTH2 ")
            logins += 1
            encrypted.sendall(
                b"535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled"
                b" for the Mailbox\r\n"
            )
            encrypted.recv(1_000)

    with peer(talk) as (port, _):
        settings = VERIFY.format(ca=certificates.ca) + (
            'auth = "xoauth2"\nusername = "me"\ngrant = "device"\nclient_id = "app"\n'
            'token_url = "https://127.0.0.1:1/token"\ndevice_url = "https://127.0.0.1:1/device"\n'
            'scopes = ["smtp"]\n'
        )
        hub = start_hub(relay_config("fresh", port, settings) + retry(1, max_s=1))
        now = time.time()
        hub.stop()
        known = OAuthSettings(Grant.DEVICE, "me", "https://127.0.0.1:1/token", "app")
        file = TokenFile(hub.data / "tokens", "fresh", known)
        file.write(Kept(Tokens(Secret("a"), Secret("r"), now, now + 3_600)))
        hub.start()
        with hub.smtp() as smtp:
            submit(smtp, "ann@far.example", sender="fresh@here.example")
        (alarm,) = hub.wait_for_mail("postmaster")
        assert b"SMTP AUTH is off for the mailbox" in b" ".join(alarm.split())
        wait_until(lambda: len(attempts(hub, "fresh")) > 3, hub.log_text)
        assert logins == 1
        assert len(hub.mailbox("postmaster")) == 1
        hub.stop()
