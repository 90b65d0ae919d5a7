"""Logins against a running hub: foreign clients, accounts, and what a login may do.

The clients are at 127.0.0.0/8; only 127.0.0.9 and 127.0.0.10 are trusted without a login.
"""

from __future__ import annotations

import re
import select
import signal
import smtplib
import socket
import ssl
import subprocess
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from scramp import ScramClient

from tests.support.hub import Hub
from tests.support.mail import (
    accepted,
    content_of,
    fields_of,
    message,
    reply_to,
    submit,
    submit_content,
    wire,
)
from tests.support.ports import free_port
from tests.support.toml import route
from tests.support.waiting import wait_until

from .conftest import StartHub

PASSWORD = "pässwörd-geheim"
KINDS = ("starttls", "implicit", "clear", "careless", "submission")
TRUSTED, CARELESS = "127.0.0.9", "127.0.0.10"


class LoginHub:
    """A hub with a listener of each kind; accounts cam1, ann, printer, and alerts."""

    def __init__(self, directory: Path) -> None:
        self.ports = {kind: free_port() for kind in KINDS}
        more = {
            "implicit": 'tls = "implicit"',
            "clear": 'login_in_clear = ["127.0.0.4/32"]',
            "careless": f'any_login = ["{CARELESS}/32", "127.0.0.11/32"]',
            "submission": 'role = "submission"',
        }
        listeners = "".join(
            f'[[listener]]\nname = "{kind}"\nbind = ["127.0.0.1:{port}"]\n{more.get(kind, "")}\n'
            for kind, port in self.ports.items()
        )
        self.hash = subprocess.run(
            Hub(directory, listener="").command("user", "hash", "--password-file", "-"),
            input=PASSWORD.encode(),
            capture_output=True,
            check=True,
        ).stdout.decode()[:-1]
        config = (
            'hostname = "hub.test"\n'
            f'[networks]\ntrusted = ["{TRUSTED}/32", "{CARELESS}/32"]\n'
            "accept_from_strangers = true\n"
            f'[[mailbox]]\nname = "alerts"\npassword_hash = "{self.hash}"\n'
            'aliases = ["alarm"]\nsenders = ["bell@door.example"]\n'
            '[[mailbox]]\nname = "ann"\n[[mailbox]]\nname = "bob"\n'
            + route("mailbox:from-cameras", match='login = "cam*", recipient = "*@far.example"')
        )
        self.hub = Hub(directory, config, listener=listeners)
        for words in (
            ("cam1", "--scram"),
            ("ann",),
            ("printer", "--sender", "*@[192.168.1.0/24]", "--sender", "scan*@plant.example"),
        ):
            self.user("add", *words)

    def user(self, action: str, *words: str, password: str = PASSWORD) -> str:
        """`waypost user` with the password at its standard input; what it says."""
        asks = ("--password-file", "-") if action in ("add", "password") else ()
        done = self.hub.run("user", action, *words, *asks, stdin=f"{password}\n".encode())
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    @property
    def ca(self) -> Path:
        return self.hub.data / "tls" / "ca.pem"

    def smtp(self, kind: str = "starttls", client: str = "127.0.0.1") -> smtplib.SMTP:
        """A session that is greeted, and encrypted where it can be."""
        context = ssl.create_default_context(cafile=str(self.ca))
        where = ("127.0.0.1", self.ports[kind], "client.test")
        source = (client, 0)
        if kind == "implicit":
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(
                *where, timeout=30, source_address=source, context=context
            )
        else:
            smtp = smtplib.SMTP(*where, timeout=30, source_address=source)
            if kind in ("starttls", "submission"):
                smtp.starttls(context=context)
        smtp.ehlo()
        return smtp

    def logged_in(self, name: str, kind: str = "starttls") -> smtplib.SMTP:
        """As `smtp`, logged in."""
        smtp = self.smtp(kind)
        assert login(smtp, name) == "235 2.7.0 Logged in"
        return smtp


def login(smtp: smtplib.SMTP, name: str, password: str = PASSWORD) -> str:
    """AUTH PLAIN; the reply."""
    return reply_to(smtp, f"AUTH PLAIN {encoded(f'{chr(0)}{name}{chr(0)}{password}')}")


def encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoginHub]:
    """One for all tests that do not change it; no secret ever gets into its log."""
    login_hub = LoginHub(tmp_path_factory.mktemp("logins") / "hub")
    with login_hub.hub:
        yield login_hub
    assert_shows_nothing(login_hub, login_hub.hub.log_text())
    assert " bug " not in login_hub.hub.log_text()


def assert_shows_nothing(login_hub: LoginHub, text: str) -> None:
    """No password, no hash, no base64 of them, in whatever form."""
    secrets = [PASSWORD, PASSWORD.encode("unicode_escape").decode(), "$argon2id$v=19"]
    secrets += [login_hub.hash.rpartition("$")[2]]
    secrets += [encoded(f"{chr(0)}{name}{chr(0)}{PASSWORD}") for name in ("cam1", "ann")]
    secrets += [encoded(PASSWORD)]
    assert [secret for secret in secrets if secret in text] == []


# Foreign clients.


def sent(*command: str, stdin: bytes = b"") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, said
    return said


def assert_came_by_login(running: LoginHub, mailbox: str, name: str) -> None:
    (stored,) = running.hub.wait_for_mail(mailbox)
    assert " with ESMTPSA id " in fields_of(stored, "received")[0]
    (results,) = fields_of(stored, "authentication-results")
    assert f"{results};".startswith(f"hub.test; auth=pass smtp.auth={name};")


@pytest.mark.parametrize("kind", ["starttls", "implicit"])
def test_smtplib(running: LoginHub, kind: str) -> None:
    for mechanism in ("PLAIN", "LOGIN"):
        with running.smtp(kind) as smtp:
            assert smtp.esmtp_features["auth"].split() == ["SCRAM-SHA-256", "PLAIN", "LOGIN"]
            smtp.user, smtp.password = "ann", "pw"
            # smtplib itself knows ASCII only.
            if mechanism == "PLAIN":
                assert login(smtp, "ann").startswith("235")
            else:
                assert reply_to(smtp, "auth login") == "334 VXNlcm5hbWU6"
                assert reply_to(smtp, encoded("ann")) == "334 UGFzc3dvcmQ6"
                assert reply_to(smtp, encoded(PASSWORD)).startswith("235")
            mailbox = f"lib-{kind}-{mechanism.lower()}"
            submit(smtp, f"{mailbox}@[127.0.0.1]", sender="ann@hub.test")
        assert_came_by_login(running, mailbox, "ann")


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("option", ["--tls", "--tlsc"])
def test_swaks(running: LoginHub, mechanism: str, option: str) -> None:
    port = running.ports["starttls" if option == "--tls" else "implicit"]
    mailbox = f"swaks-{mechanism}{option}".lower()
    sent(
        *("swaks", "--server", f"127.0.0.1:{port}", option, "--tls-verify"),
        *("--tls-ca-path", str(running.ca), "--auth", mechanism, "--auth-user", "ann"),
        *("--auth-password", PASSWORD, "--auth-hide-password"),
        *("--from", "ann@hub.test", "--to", f"{mailbox}@[127.0.0.1]"),
    )
    assert_came_by_login(running, mailbox, "ann")


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("kind", ["starttls", "implicit"])
def test_curl(running: LoginHub, mechanism: str, kind: str, tmp_path: Path) -> None:
    mailbox = f"curl-{mechanism}-{kind}".lower()
    (tmp_path / "mail").write_bytes(message())
    scheme = "smtps" if kind == "implicit" else "smtp"
    sent(
        *("curl", "--silent", "--show-error", f"{scheme}://127.0.0.1:{running.ports[kind]}"),
        *("--ssl-reqd", "--cacert", str(running.ca), "--user", f"ann:{PASSWORD}"),
        *("--login-options", f"AUTH={mechanism}", "--mail-from", "ann@hub.test"),
        *("--mail-rcpt", f"{mailbox}@[127.0.0.1]", "--upload-file", str(tmp_path / "mail")),
    )
    assert_came_by_login(running, mailbox, "ann")


@pytest.mark.parametrize("method", ["plain", "login", "scram-sha-256"])
@pytest.mark.parametrize("kind", ["starttls", "implicit"])
def test_msmtp(running: LoginHub, method: str, kind: str) -> None:
    mailbox = f"msmtp-{method}-{kind}"
    sent(
        *("msmtp", "--host=127.0.0.1", f"--port={running.ports[kind]}", f"--auth={method}"),
        *("--user=cam1", f"--passwordeval=printf %s '{PASSWORD}'", "--tls=on"),
        *(f"--tls-starttls={'on' if kind == 'starttls' else 'off'}",),
        *(f"--tls-trust-file={running.ca}", "--from=cam1@hub.test", f"{mailbox}@[127.0.0.1]"),
        stdin=message(),
    )
    assert_came_by_login(running, mailbox, "cam1")


def test_scram_with_the_library(running: LoginHub) -> None:
    for password, reply in (("wrong", "535"), (PASSWORD, "235")):
        with running.smtp() as smtp:
            client = ScramClient(["SCRAM-SHA-256"], "cam1@phone", password)
            first = reply_to(smtp, f"AUTH SCRAM-SHA-256 {encoded(client.get_client_first())}")
            client.set_server_first(b64decode(first[4:]).decode())
            last = reply_to(smtp, encoded(client.get_client_final()))
            if reply == "235":
                client.set_server_final(b64decode(last[4:]).decode())
                last = reply_to(smtp, "")
            assert last.startswith(reply)


# Before TLS, and without.


def test_attack_14_in_clear_nothing_is_offered_or_taken(running: LoginHub) -> None:
    for kind, client in (
        *(("starttls", "127.0.0.1"), ("starttls", TRUSTED), ("clear", "127.0.0.1")),
        *(("careless", "127.0.0.4"), ("careless", "127.0.0.11")),  # 11 is not trusted
    ):
        with smtplib.SMTP(
            "127.0.0.1", running.ports[kind], "x", timeout=20, source_address=(client, 0)
        ) as smtp:
            smtp.ehlo()
            assert not smtp.has_extn("auth"), (kind, client)
            assert login(smtp, "ann").startswith("538 5.7.11")
            assert reply_to(smtp, "AUTH LOGIN").startswith("538")
            assert reply_to(smtp, "MAIL FROM:<x@y.example>").startswith("250")
            # Still a stranger.
            assert reply_to(smtp, "RCPT TO:<x@far.example>").startswith("550 5.7.1")


def test_in_clear_for_those_that_are_named(running: LoginHub) -> None:
    with running.smtp("clear", "127.0.0.4") as smtp:
        assert smtp.has_extn("auth")
        assert login(smtp, "ann").startswith("235")
        submit(smtp, "in-clear@[127.0.0.1]", sender="ann@hub.test")
    (stored,) = running.hub.wait_for_mail("in-clear")
    assert " with ESMTPA id " in fields_of(stored, "received")[0]


@pytest.mark.parametrize("greeting", ["EHLO", "HELO"])
def test_attack_13_a_login_does_not_survive_tls(running: LoginHub, greeting: str) -> None:
    """Not in what a message is taken to come from either, with the same greeting again."""
    with running.smtp("clear", "127.0.0.4") as smtp:
        reply_to(smtp, f"{greeting} same.test")
        assert login(smtp, "ann").startswith("235")
        accepted(smtp, "MAIL FROM:<ann@hub.test>")
        accepted(smtp, "RCPT TO:<x@hub.test>")
        reply_to(smtp, "RSET")
        smtp.starttls(context=ssl.create_default_context(cafile=str(running.ca)))
        reply_to(smtp, f"{greeting} same.test")
        # smtplib would greet by itself, and in another way.
        assert reply_to(smtp, "MAIL FROM:<x@elsewhere.example>").startswith("250")
        assert reply_to(smtp, "RCPT TO:<nobody-yet@hub.test>").startswith("550 5.1.1")


def test_a_login_after_helo_counts_from_then_on(running: LoginHub) -> None:
    with running.smtp() as smtp:
        reply_to(smtp, "HELO same.test")
        accepted(smtp, "MAIL FROM:<x@elsewhere.example>")
        reply_to(smtp, "RSET")
        assert login(smtp, "ann").startswith("235")
        assert reply_to(smtp, "MAIL FROM:<x@elsewhere.example>").startswith("553 5.7.1")
        submit(smtp, "after-helo@hub.test", sender="ann@hub.test")
    running.hub.wait_for_mail("after-helo")


def test_a_device_that_insists(running: LoginHub) -> None:
    with running.smtp("careless", CARELESS) as smtp:
        assert smtp.esmtp_features["auth"].split() == ["PLAIN", "LOGIN"]
        assert login(smtp, "whoever", "whatever").startswith("235")
        content = wire("From: anybody@elsewhere.example", "", "x")
        submit(*(smtp, "insists@[127.0.0.1]"), sender="anybody@elsewhere.example", content=content)
    (stored,) = running.hub.wait_for_mail("insists")
    assert fields_of(stored, "authentication-results") == []
    # On another listener it is a device like any other.
    with running.smtp("starttls", CARELESS) as smtp:
        assert login(smtp, "whoever", "whatever").startswith("535")


def test_a_submission_listener_needs_a_login(running: LoginHub) -> None:
    with running.smtp("submission") as smtp:
        assert reply_to(smtp, "MAIL FROM:<ann@hub.test>").startswith("530 5.7.0")
        assert login(smtp, "ann").startswith("235")
        assert reply_to(smtp, "MAIL FROM:<ann@hub.test>").startswith("250")


# Senders.


@pytest.mark.parametrize(
    ("name", "sender", "may"),
    [
        ("ann", "ann@hub.test", True),
        ("ann", "ann@[127.0.0.1]", True),
        ("ann", "ANN+phone@hub.test", True),
        ("ann", "", True),
        ("ann", "bob@hub.test", False),
        ("ann", "ann@elsewhere.example", False),
        ("ann", "cam1@hub.test", False),
        ("ann", "annx@hub.test", False),
        ("cam1", "cam1@hub.test", True),
        ("cam1@phone", "cam1+x@[127.0.0.1]", True),
        ("alerts", "alerts@hub.test", True),
        ("alerts", "alarm@hub.test", True),
        ("alerts", "alarm+x@hub.test", True),
        ("alerts", "bell@door.example", True),
        ("alerts", "ring@door.example", False),
        ("printer", "x@[192.168.1.7]", True),
        ("printer", "x@[IPv6:::ffff:192.168.1.7]", True),
        ("printer", "x@[192.168.2.7]", False),
        ("printer", "scan-2@plant.example", True),
        ("printer", "ann@plant.example", False),
    ],
)
def test_senders(running: LoginHub, name: str, sender: str, may: bool) -> None:
    with running.logged_in(name) as smtp:
        said = reply_to(smtp, f"MAIL FROM:<{sender}>")
        assert said.startswith("250" if may else "553 5.7.1"), said


def test_a_trusted_client_that_logs_in_is_held_to_it(running: LoginHub) -> None:
    with running.smtp("starttls", TRUSTED) as smtp:
        assert reply_to(smtp, "MAIL FROM:<any@elsewhere.example>").startswith("250")
        reply_to(smtp, "RSET")
        assert login(smtp, "ann").startswith("235")
        assert reply_to(smtp, "MAIL FROM:<any@elsewhere.example>").startswith("553")


def test_accounts_named_as_something_else(start_hub: StartHub) -> None:
    """A sub-address, an alias, a domain's mailbox: none gives the hub's mailbox behind it."""
    config = (
        "[networks]\ntrusted = []\n"
        '[addresses]\ndomains = ["hub.example"]\ngroups = { "127.0.0.1" = ["plant.example"] }\n'
        '[[mailbox]]\nname = "ann"\naliases = ["info"]\n[[mailbox]]\nname = "boss@plant.example"\n'
    )
    port = free_port()
    hub = start_hub(
        config,
        listener=f'[[listener]]\nname = "s"\nbind = ["127.0.0.1:{port}"]\n'
        'login_in_clear = ["loopback"]\n',
        port=port,
    )
    for name, senders in {
        "ann": {"ann@hub.example": True, "info@hub.example": True, "ann+x@plant.example": True},
        "ann+x": {"ann@hub.example": False, "ann+x@hub.example": False},
        "info": {"ann@hub.example": False},
        "ann@plant.example": {
            "ann@plant.example": True,
            "ann@hub.example": False,
            "info@plant.example": False,
        },
        "ann@elsewhere.example": {"ann@elsewhere.example": True, "ann@hub.example": False},
        "boss@plant.example": {"boss+x@plant.example": True, "boss@hub.example": False},
        # Mail would make one for the domain, which is not the hub's.
        "new": {"new@hub.example": True, "new@plant.example": False},
    }.items():
        done = hub.run("user", "add", name, "--password-file", "-", stdin=b"secret\n")
        assert done.returncode == 0, done.stderr
        with hub.smtp() as smtp:
            smtp.ehlo()
            assert login(smtp, name, "secret").startswith("235")
            for sender, may in senders.items():
                said = reply_to(smtp, f"MAIL FROM:<{sender}>")
                assert said.startswith("250" if may else "553"), (name, sender, said)
                reply_to(smtp, "RSET")


# What is submitted.


def test_repairs(running: LoginHub) -> None:
    content = wire(
        *("From: Boss <boss@hub.test>", "Bcc: secret@far.example,", " other@far.example"),
        *("Subject: x", "", "Bcc: in the body", "Date: in the body"),
    )
    with running.logged_in("ann") as smtp:
        submit(smtp, "repaired@hub.test", sender="ann@hub.test", content=content)
    (stored,) = running.hub.wait_for_mail("repaired")
    head, _, body = stored.partition(b"\r\n\r\n")
    assert b"\nBcc" not in head
    assert body == b"Bcc: in the body\r\nDate: in the body\r\n"
    assert fields_of(stored, "sender") == ["ann@hub.test"]
    assert len(fields_of(stored, "date")) == 1
    assert re.fullmatch(r"<[0-9a-z]{13}@hub\.test>", fields_of(stored, "message-id")[0])


def test_what_is_whole_is_not_touched(running: LoginHub) -> None:
    content = wire(
        *("Date: Thu, 01 Jan 1970 00:00:00 +0000", "Message-ID: <x@y>", "From: ann+x@hub.test"),
        *("", "x"),
    )
    with running.logged_in("ann") as smtp:
        submit(smtp, "whole@hub.test", sender="ann@hub.test", content=content)
    (stored,) = running.hub.wait_for_mail("whole")
    assert content_of(stored) == content


def test_what_only_passes_is_not_touched_either(running: LoginHub) -> None:
    content = wire("From: boss@hub.test", "Bcc: x@far.example", "", "x")
    with running.smtp("starttls", TRUSTED) as smtp:
        submit(smtp, "passes@hub.test", sender="any@elsewhere.example", content=content)
    (stored,) = running.hub.wait_for_mail("passes")
    assert content_of(stored) == content


def test_routes_by_login(running: LoginHub) -> None:
    with running.logged_in("cam1") as smtp:
        submit(smtp, "x@far.example", sender="cam1@hub.test")
    running.hub.wait_for_mail("from-cameras")
    with running.logged_in("ann") as smtp:
        accepted(smtp, "MAIL FROM:<ann@hub.test>")
        assert reply_to(smtp, "RCPT TO:<x@far.example>").startswith("550")
    (explained,) = running.hub.json("route", "x@far.example", "--login", "cam1")
    assert explained["targets"] == ["mailbox:from-cameras"]
    assert not running.hub.run("route", "x@far.example", "--login", "cam1").returncode
    assert running.hub.run("route", "x@far.example", "--login", "ann").returncode == 1


def test_queue_and_trace_say_who(running: LoginHub) -> None:
    with running.logged_in("ann") as smtp:
        queue_id = submit(smtp, "traced@hub.test", sender="ann@hub.test")
    running.hub.wait_for_mail("traced")
    (shown,) = running.hub.json("queue", "show", queue_id)
    assert shown["login"] == "ann"
    # The From field is a literal, which that client has: see test_literal_senders.
    assert shown["auth_results"].startswith("auth=pass smtp.auth=ann; x-literal=pass header.from=")
    assert "ann" in running.hub.run("queue", "show", queue_id).stdout.decode()
    (traced,) = (e for e in running.hub.json("trace", "--id", queue_id) if "login" in e)
    assert traced["login"] == "ann"


# Nothing is shown.


def test_no_secret_is_shown_anywhere(running: LoginHub) -> None:
    with running.logged_in("ann"):
        pass
    with running.smtp() as smtp:
        login(smtp, "ann", PASSWORD + "x")
    hub = running.hub
    for words in (
        *(("config", "show"), ("config", "show", "--json"), ("config", "check")),
        *(("user", "list"), ("user", "list", "--json"), ("trace",), ("trace", "--json")),
    ):
        done = hub.run(*words)
        assert_shows_nothing(running, (done.stdout + done.stderr).decode())
    assert_shows_nothing(running, hub.log_text())
    hub.wait_for_log("login-failed")
    for path in hub.data.rglob("*"):
        if path.is_file() and path.name != "users.json":
            assert PASSWORD.encode() not in path.read_bytes(), path
            assert b"$argon2" not in path.read_bytes(), path


def test_a_broken_hash_in_the_configuration_is_not_shown(tmp_path: Path) -> None:
    broken = "$argon2-very-secret"
    hub = Hub(tmp_path, f'[[mailbox]]\nname = "a"\npassword_hash = "{broken}"\n')
    done = hub.run("config", "check")
    assert done.returncode == 2
    assert b"waypost user hash" in done.stderr
    assert broken.encode() not in done.stderr + done.stdout


# Accounts come and go.


def test_user_commands_with_a_running_hub(running: LoginHub) -> None:
    def said(name: str, password: str = PASSWORD) -> str:
        with running.smtp(client="127.0.7.7") as smtp:
            return login(smtp, name, password)[:3]

    running.user("add", "new")
    assert said("new") == "235"
    assert "new" in running.user("list")
    assert running.hub.run("user", "add", "NEW", "--password-file", "-").returncode == 1
    old = running.smtp(client="127.0.7.8")
    running.user("password", "New", password="another")
    assert said("new", "another") == "235"
    assert login(old, "new").startswith("535")
    assert login(old, "new", "another").startswith("235")
    assert {"name": "new", "senders": [], "scram": False, "place": "users.json"} in (
        running.hub.json("user", "list")
    )
    running.user("remove", "new")
    assert said("new", "another") == "535"
    # What was open is of nobody any more.
    assert reply_to(old, "MAIL FROM:<new@hub.test>").startswith("553")
    old.close()
    for words in (("password", "alerts", "--password-file", "-"), ("remove", "alerts")):
        done = running.hub.run("user", *words)
        assert done.returncode == 1
        assert b"configuration" in done.stderr
    assert running.hub.run("user", "remove", "nobody").returncode == 1
    assert running.hub.data.joinpath("users.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("words", "stdin"),
    [
        (("x",), b""),
        (("x",), b"\n"),
        (("x",), b"x" * 256),
        (("x",), b"\xff\n"),
        (("x", "--scram"), b"a\tb\n"),
        (("a\tb",), b"p\n"),
        (("x" * 256,), b"p\n"),
        (("",), b"p\n"),
        (("x", "--sender", "*@[1.2.3.4/99]"), b"p\n"),
    ],
)
def test_accounts_that_cannot_be(running: LoginHub, words: tuple[str, ...], stdin: bytes) -> None:
    before = running.user("list")
    done = running.hub.run("user", "add", *words, "--password-file", "-", stdin=stdin)
    assert done.returncode in (1, 2)
    assert b"Traceback" not in done.stderr
    assert running.user("list") == before


def test_many_at_once_are_all_kept(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    hub.data.mkdir()
    adding = [
        subprocess.Popen(
            hub.command(
                *("user", "add", f"u{number}", "--password-file", "-"),
                *("--config", str(hub.config_file)),
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        for number in range(4)
    ]
    for process in adding:
        process.communicate(b"secret\n", timeout=60)
        assert process.returncode == 0
    assert {entry["name"] for entry in hub.json("user", "list")} == {f"u{n}" for n in range(4)}


def test_a_broken_users_file(start_hub: StartHub, tmp_path: Path) -> None:
    """A running hub goes on with what it knew; one that starts says what is wrong."""
    hub = start_hub()
    assert hub.run("user", "add", "x", "--password-file", "-", stdin=b"secret\n").returncode == 0
    (hub.data / "users.json").write_text('{"users": ["$argon2id$secret"]}')
    hub.send_signal(signal.SIGHUP)
    hub.wait_for_log("reload-refused")
    for words in (("list",), ("add", "y", "--password-file", "-"), ("remove", "x")):
        done = hub.run("user", *words, stdin=b"secret\n")
        assert done.returncode == 1
        assert b"users.json" in done.stderr
        assert b"argon2" not in done.stderr
    assert "argon2" not in hub.log_text()
    hub.stop()
    done = hub.run("serve")
    assert done.returncode == 1
    assert b"users.json" in done.stderr


def test_reload_reads_accounts(start_hub: StartHub, running: LoginHub) -> None:
    port = free_port()
    listener = (
        f'[[listener]]\nname = "s"\nbind = ["127.0.0.1:{port}"]\nlogin_in_clear = ["loopback"]\n'
    )
    hub = start_hub(listener=listener, port=port)
    with hub.smtp() as smtp:
        smtp.ehlo()
        assert not smtp.has_extn("auth")
    text = hub.config_file.read_text()
    mailbox = f'[[mailbox]]\nname = "ann"\npassword_hash = "{running.hash}"\n'
    hub.config_file.write_text(text + mailbox)
    hub.send_signal(signal.SIGHUP)
    hub.wait_for_log("reloaded")
    with hub.smtp() as smtp:
        smtp.ehlo()
        assert smtp.has_extn("auth")
        assert login(smtp, "ann").startswith("235")


@pytest.mark.parametrize(
    "more",
    [
        'role = "lmtp"\nlogin_in_clear = ["loopback"]',
        'login_in_clear = ["any"]',
        'any_login = ["any"]',
    ],
)
def test_listeners_that_cannot_be(tmp_path: Path, more: str) -> None:
    listener = f'[[listener]]\nname = "s"\nbind = ["127.0.0.1:2525"]\n{more}\n'
    assert Hub(tmp_path, listener=listener).run("config", "check").returncode == 2


# Guessing, and going away.


def test_attack_61_a_wrong_guess_waits_and_others_do_not(running: LoginHub) -> None:
    """While passwords are checked and answers delayed, the hub serves whoever else is there."""
    guessers = [running.smtp(client=f"127.0.8.{number}") for number in range(1, 31)]
    plain = encoded(f"{chr(0)}ann{chr(0)}wrong")
    for smtp in guessers:
        smtp.send(f"AUTH PLAIN {plain}\r\n")
    with running.smtp("careless", TRUSTED) as other:
        for _ in range(50):
            assert other.noop()[0] == 250
        submit(other, "meanwhile@hub.test", sender="x@y.example")
    sockets = [smtp.sock for smtp in guessers if smtp.sock is not None]
    answered, _, _ = select.select(sockets, [], [], 0)
    assert len(answered) < len(sockets)
    assert guessers[0].getreply()[0] in (535, 454)
    for smtp in guessers:
        smtp.close()


def test_attack_61_three_guesses_end_a_session_and_ten_the_client(running: LoginHub) -> None:
    sessions = [running.smtp(client="127.0.9.1") for _ in range(11)]
    plain = encoded(f"{chr(0)}guessed{chr(0)}wrong")
    for smtp in sessions[:10]:
        smtp.send(f"AUTH PLAIN {plain}\r\n")

    def count() -> int:
        return running.hub.log_text().count("account=guessed")

    wait_until(lambda: count() == 10)
    assert login(sessions[10], "ann").startswith("454 4.7.0")
    assert login(sessions[10], "ann").startswith("454 4.7.0")
    assert login(sessions[10], "ann").startswith("454 4.7.0")
    assert sessions[10].getreply()[0] == 421
    for smtp in sessions:
        smtp.close()


@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_clients_that_go_while_they_wait(running: LoginHub, how: str) -> None:
    for number in range(5):
        client = socket.create_connection(
            ("127.0.0.1", running.ports["clear"]), 20, ("127.0.0.4", 0)
        )
        answers = client.makefile("rb")
        answers.readline()  # strangers wait for the greeting, and for the answer to EHLO
        client.sendall(b"EHLO x\r\n")
        while answers.readline()[3:4] == b"-":
            pass
        client.sendall(b"AUTH PLAIN " + encoded("\0gone\0wrong").encode() + b"\r\n")
        if how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if how == "half" and number == 0:
            client.shutdown(socket.SHUT_WR)
            heard = answers.readlines()
            assert heard[-1].startswith(b"535 "), heard
        client.close()
    with running.smtp(client="127.0.0.1") as smtp:
        assert smtp.noop()[0] == 250


def test_the_hub_stops_while_clients_wait(start_hub: StartHub) -> None:
    """Those whose answer is delayed or whose password is checked hear 421 and are let go."""
    port = free_port()
    hub = start_hub(
        listener=f'[[listener]]\nname = "s"\nbind = ["127.0.0.1:{port}"]\n'
        'login_in_clear = ["loopback"]\n',
        port=port,
    )
    assert hub.run("user", "add", "x", "--password-file", "-", stdin=b"secret\n").returncode == 0
    sessions = [hub.smtp() for _ in range(20)]
    for smtp in sessions:
        smtp.ehlo()
        smtp.send(f"AUTH PLAIN {encoded(f'{chr(0)}x{chr(0)}wrong')}\r\n")
    hub.wait_for_log("login-failed")
    stopping = threading.Thread(target=hub.stop)
    stopping.start()
    for smtp in sessions:
        code, _ = smtp.getreply()
        while code in (454, 535):
            code, _ = smtp.getreply()
        assert code == 421
        smtp.close()
    stopping.join()
    assert " bug " not in hub.log_text()
    assert "Traceback" not in hub.log_text()


def test_content_in_pieces_after_a_login(running: LoginHub) -> None:
    """A header that comes octet by octet is filtered as one that comes whole."""
    with running.logged_in("ann") as smtp:
        accepted(smtp, "MAIL FROM:<ann@hub.test>")
        accepted(smtp, "RCPT TO:<pieces@hub.test>")
        content = wire("From: ann@hub.test", "Bcc: a@b.example", "", "Bcc: body")
        assert smtp.docmd("DATA")[0] == 354
        for octet in content:
            smtp.send(bytes([octet]))
        smtp.send(b".\r\n")
        assert smtp.getreply()[0] == 250
        accepted(smtp, "MAIL FROM:<ann@hub.test>")
        accepted(smtp, "RCPT TO:<pieces@hub.test>")
        submit_content(smtp, content)
    for stored in running.hub.wait_for_mail("pieces", 2):
        assert b"a@b.example" not in stored
        assert stored.endswith(b"\r\n\r\nBcc: body\r\n")
