"""Relays with OAuth2: a hub, Postfix with Dovecot's SASL as the relay, and two token servers that
are nobody's of ours (Glewlwyd, Authlib). Every step is over TLS that is verified.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import os
import re
import ssl
import stat
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support import machine_tokens
from tests.support.dovecot import Dovecot, Introspection
from tests.support.glewlwyd import Client, Glewlwyd, consent, enter_code
from tests.support.hub import Hub
from tests.support.machine_tokens import DAEMON_SECRET, MachineTokens
from tests.support.mail import message, submit
from tests.support.ports import free_port, reserved_port
from tests.support.postfix import Postfix
from tests.support.toml import retry, route
from tests.support.waiting import wait_until
from waypost.accounts.passwords import hash_password
from waypost.smtp.auth import Secret
from waypost.tls.authority import Authority, Subjects

from .conftest import StartHub

APP_SECRET = "app-s3cret-7731"
NOW = datetime.datetime.now(datetime.UTC)


class World:
    """All servers, and the relays that lead there."""

    def __init__(self, directory: Path) -> None:
        subjects = Subjects(frozenset({ip_address("127.0.0.1")}), frozenset())
        authority = Authority.create(directory, subjects, now=NOW)
        leaf = authority.issue(subjects, is_rsa=False, now=NOW)
        self.ca = directory / "ca.pem"
        self.certificate, self.key = directory / "leaf.pem", directory / "leaf.key"
        self.certificate.write_bytes(leaf.certificate)
        self.key.write_bytes(leaf.key)
        # Where the browser comes back to has to be registered with its port.
        self.back = free_port()
        self.key_file, public = service_key(directory)
        self.glewlwyd = Glewlwyd(
            *(self.ca, self.certificate, self.key),
            [
                Client(
                    *("app", APP_SECRET, ("code", "refresh_token", "device_authorization")),
                    (f"http://127.0.0.1:{self.back}", "http://127.0.0.1"),
                ),
            ],
        )
        self.machines = MachineTokens(directory, self.certificate, self.key, public)
        self.postfix: Postfix
        self.dovecot: Dovecot
        self.port = free_port()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.glewlwyd)
            stack.enter_context(self.machines)
            # Glewlwyd tells a client of its own tokens only.
            place = f"127.0.0.1:{self.glewlwyd.port}/api/oidc/introspect"
            self.dovecot = Dovecot(
                {"hub": "never used"},
                [
                    Introspection(f"https://app:{APP_SECRET}@{place}", "username", self.ca),
                    Introspection(f"{self.machines.url}/introspect", "username", self.ca),
                ],
            )
            stack.enter_context(self.dovecot)
            self.postfix = Postfix(
                domains=("far.example",),
                mailboxes=("ann", "postmaster"),
                main_cf={
                    "smtpd_sasl_type": "dovecot",
                    "smtpd_sasl_path": str(self.dovecot.socket),
                    "smtpd_sasl_auth_enable": "yes",
                    "smtpd_tls_auth_only": "yes",
                    "smtpd_tls_received_header": "yes",
                    "smtpd_tls_security_level": "may",
                    "smtpd_tls_cert_file": str(self.certificate),
                    "smtpd_tls_key_file": str(self.key),
                    "smtpd_client_restrictions": "permit_sasl_authenticated,reject",
                    "local_recipient_maps": "",
                },
                master_cf=[f"127.0.0.1:{self.port} inet n - n - - smtpd"],
            )
            stack.enter_context(self.postfix)
            yield

    def relay(self, name: str, grant: str, extra: str = "", *, auth: str = "xoauth2") -> str:
        """A route for mail from NAME@here.example, and its relay."""
        account = {"client_credentials": "daemon", "service_account": machine_tokens.ACCOUNT}
        client = {
            "client_credentials": f'client_id = "daemon"\nclient_secret = "{DAEMON_SECRET}"\n',
            "service_account": f'key_file = "{self.key_file}"\n',
        }
        url = self.glewlwyd.url
        scope, token_url = "mail.send", f"{url}/token"
        if grant in account:
            scope, token_url = machine_tokens.SCOPE, f"{self.machines.url}/token"
        urls = {
            "code": f'authorization_url = "{url}/auth"\n',
            "device": f'device_url = "{url}/device_authorization"\n',
        }
        app = f'client_id = "app"\nclient_secret = "{APP_SECRET}"\n'
        return (
            route(f"relay:{name}", name=name, match=f'sender = "{name}@here.example"')
            + f'[relay.{name}]\nhost = "[127.0.0.1]"\nport = {self.port}\ntls = "verify"\n'
            f'ca = "{self.ca}"\ntoken_ca = "{self.ca}"\nauth = "{auth}"\n'
            f'username = "{account.get(grant, "hub")}"\ngrant = "{grant}"\n'
            f'token_url = "{token_url}"\nscopes = ["{scope}"]\n'
            f"{client.get(grant, app)}{urls.get(grant, '')}{extra}"
        )

    def stored(self, subject: str) -> list[str]:
        """Messages that reached the relay's mailbox."""
        new = self.postfix.mailbox("ann") / "new"
        texts = [path.read_text(errors="replace") for path in new.glob("*")] if new.exists() else []
        return [text for text in texts if f"Subject: {subject}\n" in text]


def service_key(directory: Path) -> tuple[Path, Path]:
    """A key file in Google's form, and the public key in PEM."""
    key = rsa.generate_private_key(65_537, 2_048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = directory / "service.pub"
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    file = directory / "service.json"
    file.touch(0o600)
    content = {
        "type": "service_account",
        "client_email": machine_tokens.ISSUER,
        "private_key_id": "k1",
        "private_key": pem.decode(),
    }
    file.write_text(json.dumps(content))
    return file, public


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("oauth"))
    with made.running():
        yield made


def send(hub: Hub, name: str, subject: str) -> None:
    with hub.smtp() as smtp:
        submit(smtp, "ann@far.example", sender=f"{name}@here.example", content=message(subject))


def arrives(world: World, hub: Hub, subject: str) -> str:
    def look() -> list[str]:
        return world.stored(subject)

    def complaint() -> str:
        logs = (hub.log_text(), world.postfix.log_text(), world.dovecot.log_text())
        return "\n\n".join(text[-3_000:] for text in logs)

    (found,) = wait_until(look, complaint)
    return found


class Asking:
    """`waypost relay login`, as it waits for a person."""

    def __init__(self, hub: Hub, *words: str) -> None:
        command = hub.command("relay", "login", *words, "--config", str(hub.config_file))
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""

    def read_until(self, pattern: str) -> str:
        """What a line of its output says."""
        assert self._process.stdout is not None
        while (line := self._process.stdout.readline()) != "":
            self.said += line
            found = re.search(pattern, line)
            if found is not None:
                return found[1]
        raise AssertionError(self.said)

    def type(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def status(self) -> int:
        rest, _ = self._process.communicate(timeout=30)
        self.said += rest
        return self._process.returncode


def log_in(world: World, hub: Hub, name: str) -> None:
    """By the browser of this host."""
    asking = Asking(hub, name, "--port", str(world.back))
    place = consent(world.glewlwyd, asking.read_until(r"^(https://\S+)"))
    assert place.startswith(f"http://127.0.0.1:{world.back}")
    with urllib.request.urlopen(place, timeout=20) as page:
        assert b"may close this page" in page.read()
    assert asking.status() == 0, asking.said
    assert f"relay {name}: hub is logged in" in asking.said


def tokens_of(hub: Hub, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((hub.data / "tokens" / f"{name}.json").read_text())
    return found


def secrets_of(hub: Hub, name: str) -> list[str]:
    tokens = tokens_of(hub, name)["tokens"]
    return [text for text in (tokens["access"], tokens["refresh"]) if text]


def age(hub: Hub, name: str, **changes: Any) -> None:
    """Change what the token file says, as time would."""
    content = tokens_of(hub, name)
    content["tokens"].update(changes)
    path = hub.data / "tokens" / f"{name}.json"
    path.write_text(json.dumps(content))


# Each way to come by a token, and mail that leaves with it.


def test_by_a_browser_on_this_host(world: World, start_hub: StartHub) -> None:
    hub = start_hub(retry(1) + world.relay("browser", "code"))
    log_in(world, hub, "browser")
    send(hub, "browser", "by browser")
    found = arrives(world, hub, "by browser")
    assert "(using TLS" in found
    assert " with ESMTPSA id " in " ".join(found.split())
    assert "sasl_method=XOAUTH2, sasl_username=hub" in world.postfix.log_text()
    for path in (hub.data / "tokens", *(hub.data / "tokens").iterdir()):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_by_a_pasted_url(world: World, start_hub: StartHub) -> None:
    hub = start_hub(retry(1) + world.relay("paste", "code", auth="oauthbearer"))
    asking = Asking(hub, "paste", "--paste")
    place = consent(world.glewlwyd, asking.read_until(r"^(https://\S+)"))
    asking.type(place)
    assert asking.status() == 0, asking.said
    send(hub, "paste", "by paste")
    arrives(world, hub, "by paste")
    assert "sasl_method=OAUTHBEARER, sasl_username=hub" in world.postfix.log_text()


def test_by_a_code_typed_elsewhere(world: World, start_hub: StartHub) -> None:
    hub = start_hub(retry(1) + world.relay("device", "device"))
    asking = Asking(hub, "device")
    code = asking.read_until(r"enter the code +(\S+)")
    enter_code(world.glewlwyd, "app", code)
    assert asking.status() == 0, asking.said
    send(hub, "device", "by device")
    arrives(world, hub, "by device")


@pytest.mark.parametrize("grant", ["client_credentials", "service_account"])
def test_without_a_person(world: World, start_hub: StartHub, grant: str) -> None:
    hub = start_hub(retry(1) + world.relay("robot", grant))
    send(hub, "robot", f"by {grant}")
    arrives(world, hub, f"by {grant}")
    account = {"client_credentials": "daemon", "service_account": machine_tokens.ACCOUNT}[grant]
    assert f"sasl_username={account}" in world.postfix.log_text()


def test_a_code_for_somebody_else_is_refused(world: World, tmp_path: Path) -> None:
    hub = Hub(tmp_path / "hub", world.relay("paste", "code"))
    asking = Asking(hub, "paste", "--paste")
    place = consent(world.glewlwyd, asking.read_until(r"^(https://\S+)"))
    asking.type(re.sub(r"state=[^&]+", "state=another", place))
    assert asking.status() == 1
    assert "belongs to another login" in asking.said
    assert not (hub.data / "tokens").exists()


# Keeping it alive.


def test_it_is_refreshed_before_its_end(world: World, start_hub: StartHub) -> None:
    hub = start_hub(retry(1) + world.relay("early", "code"))
    log_in(world, hub, "early")
    first = tokens_of(hub, "early")["tokens"]
    age(hub, "early", obtained_at=time.time() - 3_000, expires_at=time.time() + 600)
    send(hub, "early", "refreshed early")
    arrives(world, hub, "refreshed early")
    second = tokens_of(hub, "early")["tokens"]
    assert second["access"] != first["access"]
    assert second["refresh"] != first["refresh"]  # Glewlwyd's are for one use
    assert second["expires_at"] > time.time() + 3_000
    # The one that was rotated is the one that serves next.
    age(hub, "early", expires_at=time.time() - 5, obtained_at=time.time() - 3_605)
    send(hub, "early", "refreshed again")
    arrives(world, hub, "refreshed again")
    assert tokens_of(hub, "early")["tokens"]["refresh"] not in (first["refresh"], second["refresh"])


def test_many_sessions_share_one_refresh(world: World, start_hub: StartHub) -> None:
    hub = start_hub(retry(1) + world.relay("many", "code"))
    log_in(world, hub, "many")
    age(hub, "many", expires_at=time.time() - 5, obtained_at=time.time() - 3_605)
    before = world.glewlwyd.log_text().count("Access token generated for client 'app'")
    with hub.smtp() as smtp:
        for number in range(12):
            content = message(f"many {number}")
            submit(smtp, "ann@far.example", sender="many@here.example", content=content)
    for number in range(12):
        arrives(world, hub, f"many {number}")
    after = world.glewlwyd.log_text().count("Access token generated for client 'app'")
    assert after - before == 1
    assert "relay-login-lost" not in hub.log_text()


def test_the_server_is_away_for_a_while(world: World, start_hub: StartHub) -> None:
    """The token in hand serves while it lives; a dead one makes mail wait, and is no loss."""
    hub = start_hub(retry(1) + world.relay("away", "code"))
    log_in(world, hub, "away")
    with reserved_port() as nobody:
        config = hub.config_file.read_text()
        kept = tokens_of(hub, "away")
        hub.config_file.write_text(
            re.sub(r"(127\.0\.0\.1):\d+/api/oidc/token", rf"\1:{nobody}/x", config)
        )
        kept["owner"]["token_url"] = f"https://127.0.0.1:{nobody}/x"
        kept["tokens"].update(expires_at=time.time() + 4, obtained_at=time.time() - 3_596)
        (hub.data / "tokens" / "away.json").write_text(json.dumps(kept))
        assert hub.run("reload").returncode == 0
        send(hub, "away", "with the old token")
        found = wait_until(lambda: "outcome=" in hub.log_text() and hub.log_text(), hub.log_text)
        assert found is not None
        wait_until(lambda: time.time() > kept["tokens"]["expires_at"] + 1)
        send(hub, "away", "without a token")
        hub.wait_for_log("Connection refused")
        assert "relay-login-lost" not in hub.log_text()
        hub.config_file.write_text(config)
    kept["owner"]["token_url"] = f"{world.glewlwyd.url}/token"
    (hub.data / "tokens" / "away.json").write_text(json.dumps(kept))
    assert hub.run("reload").returncode == 0
    arrives(world, hub, "without a token")


def test_a_token_the_relay_refuses_is_replaced_once(world: World, start_hub: StartHub) -> None:
    hub = start_hub(retry(1) + world.relay("stale", "code"))
    log_in(world, hub, "stale")
    age(hub, "stale", access="x" * 700, obtained_at=time.time() - 300)
    send(hub, "stale", "with another token")
    arrives(world, hub, "with another token")
    assert "outcome=deferred" not in hub.log_text()
    assert tokens_of(hub, "stale")["tokens"]["access"] != "x" * 700


# Losing it, and getting it back.


def test_a_lost_login(world: World, start_hub: StartHub) -> None:
    lost = 'alarm = "mailbox:alerts"\n'
    hub = start_hub(
        retry(1, max_s=2, warn_after_s=60, give_up_after_s=3) + world.relay("lost", "code", lost)
    )
    log_in(world, hub, "lost")
    secrets = secrets_of(hub, "lost")
    world.glewlwyd.revoke_refresh_tokens()
    age(hub, "lost", expires_at=time.time() - 5, obtained_at=time.time() - 3_605)
    for subject in ("waits 1", "waits 2"):
        send(hub, "lost", subject)
    hub.wait_for_log("relay-login-lost")
    (alarm,) = hub.wait_for_mail("alerts")
    assert b"Subject: Mail waits: the login of relay lost is lost\r\n" in alarm
    assert b"waypost relay login lost" in alarm
    assert b"Auto-Submitted: auto-generated\r\n" in alarm
    assert b"Return-Path: <>\r\n" in alarm
    # Past the time when mail is given up, it waits: it is ours to mend.
    sent_at = time.time()
    wait_until(lambda: time.time() > sent_at + 5)
    listed = hub.run("queue", "list", "--json").stdout.decode()
    assert listed.count("lost@here.example") == 2
    assert "waypost relay login lost" in listed
    assert "outcome=failed" not in hub.log_text()
    (row,) = hub.json("relay", "list")
    assert row["login"] == "lost"
    hub.stop()
    hub.start()  # a restart is no reason to tell it again
    send(hub, "lost", "waits 3")
    wait_until(lambda: hub.log_text().count("waypost relay login lost") > 4, hub.log_text)
    assert len(hub.mailbox("alerts")) == 1
    assert hub.log_text().count("relay-login-lost") == 1
    log_in(world, hub, "lost")
    for subject in ("waits 1", "waits 2", "waits 3"):
        arrives(world, hub, subject)
    alarms = hub.wait_for_mail("alerts", 2)
    assert b"Subject: The login of relay lost is back\r\n" in alarms[1]
    secrets += secrets_of(hub, "lost")
    shown = [
        hub.log_text(),
        listed,
        *(
            hub.run(*words).stdout.decode()
            for words in (
                ("config", "show"),
                ("config", "show", "--json"),
                ("relay", "list"),
                ("relay", "list", "--json"),
                ("relay", "test", "lost"),
                ("trace", "--json"),
            )
        ),
        *(mail.decode() for mail in alarms),
    ]
    for secret in (*secrets, APP_SECRET):
        assert len(secret) > 10
        assert not any(secret in text for text in shown)
        for path in hub.data.rglob("*"):
            if path.is_file() and path.parent.name != "tokens":
                assert secret.encode() not in path.read_bytes(), path


def test_nobody_has_logged_in_yet(world: World, start_hub: StartHub) -> None:
    # A route for everything must not lead the alarm to the relay it is about.
    everything = route("relay:new", name="everything")
    hub = start_hub(retry(1, max_s=1) + everything + world.relay("new", "code"))
    (row,) = hub.json("relay", "list")
    assert row["login"] == "missing"
    send(hub, "new", "first")
    (alarm,) = hub.wait_for_mail("postmaster")
    assert b"waypost relay login new" in alarm
    log_in(world, hub, "new")
    arrives(world, hub, "first")
    hub.wait_for_mail("postmaster", 2)


def test_another_relay_meanwhile(world: World, start_hub: StartHub) -> None:
    first = world.relay("first", "code", 'fallback = "second"\n')
    hub = start_hub(retry(1) + first + world.relay("second", "client_credentials"))
    send(hub, "first", "by another relay")
    arrives(world, hub, "by another relay")
    assert b"login of relay first is lost" in hub.wait_for_mail("postmaster")[0]


# relay test.


def steps_of(hub: Hub, name: str, *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    done = hub.run("relay", "test", name, "--json", *words)
    assert not done.stderr, done.stderr.decode()
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, {step["step"]: step for step in steps}


def test_a_relay_is_tried(world: World, start_hub: StartHub) -> None:
    hub = start_hub(retry(1) + world.relay("tried", "client_credentials"))
    hub.stop()
    status, steps = steps_of(hub, "tried")
    assert status == 0, steps
    assert list(steps) == ["address", "token", "connection", "greeting", "tls", "login"]
    assert steps["tls"]["what"].startswith("TLSv1.3 ")
    assert steps["tls"]["what"].endswith(" verified, relay.tried")
    assert "235 2.7.0" in steps["login"]["what"]
    status, steps = steps_of(hub, "tried", "--to", "ann@far.example")
    assert status == 0, steps
    assert "queued as" in steps["message"]["what"]
    arrives(world, hub, "Test of relay tried")
    done = hub.run("relay", "test", "nowhere")
    assert done.returncode == 2
    assert b"configured: tried" in done.stderr


CASES = {
    # what is changed, the step that fails, its words, the status
    "port": (r"^port = \d+", "port = {nobody}", "connection", "Connection refused", 75),
    "ca": (r'^ca = ".*"', 'tls_ca = ""', "tls", "self-signed certificate", 1),
    "secret": (DAEMON_SECRET, "wrong-secret", "token", "invalid_client", 1),
    "token_url": (r"/token\"", '/nothing"', "token", "404", 75),
    "auth": (r'auth = "xoauth2"', 'auth = "oauthbearer"', None, "", 0),
    "account": (r'username = "daemon"', 'username = "other"', "login", "535 5.7.8", 1),
}


@pytest.mark.parametrize("case", CASES)
def test_a_trial_says_what_is_wrong(world: World, tmp_path: Path, case: str) -> None:
    pattern, instead, failing, words, expected = CASES[case]
    with reserved_port() as nobody:
        config = re.sub(
            pattern,
            instead.format(nobody=nobody),
            world.relay("tried", "client_credentials"),
            flags=re.MULTILINE,
        ).replace('tls_ca = ""\n', "")
        hub = Hub(tmp_path / "hub", config)
        status, steps = steps_of(hub, "tried")
    assert status == expected, steps
    if failing is None:
        assert all(step["ok"] for step in steps.values())
        return
    assert [name for name, step in steps.items() if not step["ok"]] == [failing], steps
    assert words in steps[failing]["what"]
    assert steps[failing]["do"]
    assert DAEMON_SECRET not in str(steps)


# The configuration.


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ('preset = "gmail"\n', "needs a username"),
        ('preset = "gmail"\nusername = "me@gmail.com"\n', "client_id is missing"),
        ('preset = "gmial"\n', "expected one of: gmail"),
        ('preset = "gmail"\nusername = "a"\nclient_id = "x"\npassword = "y"\n', "no password"),
        ('preset = "gmail"\nusername = "a"\nclient_id = "x"\ntls = "encrypt"\n', "proven host"),
        ('preset = "gmail"\nusername = "a"\nclient_id = "x"\nalarm = "relay:r"\n', "by that login"),
        ('preset = "gmail"\nusername = "a"\nclient_id = "x"\nalarm = "relay:z"\n', "no [relay.z]"),
        (
            'preset = "gmail"\nusername = "a"\nclient_id = "x"\ntoken_url = "http://a.example"\n',
            "https://",
        ),
        (
            'preset = "microsoft365-app"\nusername = "a"\nclient_id = "x"\nclient_secret = "y"\n',
            "tenant is missing",
        ),
        (
            'preset = "microsoft365-app"\nusername = "a"\nclient_id = "x"\nclient_secret = "y"\n'
            'tenant = "common"\n',
            "own id or domain",
        ),
        (
            'preset = "gmail-service-account"\nusername = "a"\nkey_file = "/nowhere/key.json"\n',
            "/nowhere/key.json cannot be read",
        ),
        (
            'host = "a.example"\nusername = "a"\npassword = "y"\ngrant = "code"\n',
            "grant needs auth",
        ),
        ('preset = "fastmail"\nusername = "a@fastmail.com"\n', "password or password_file"),
    ],
)
def test_a_faulty_relay(tmp_path: Path, settings: str, expected: str) -> None:
    hub = Hub(tmp_path / "hub", f"[relay.r]\n{settings}")
    done = hub.run("config", "check")
    assert done.returncode == 2, done.stdout
    assert expected in done.stderr.decode()


def test_presets_stand_in_for_keys(tmp_path: Path) -> None:
    hub = Hub(
        tmp_path / "hub",
        '[relay.g]\npreset = "gmail"\nusername = "me@gmail.com"\nclient_id = "x"\n'
        '[relay.p]\npreset = "gmail"\nauth = "plain"\nusername = "me@gmail.com"\npassword = "y"\n'
        '[relay.m]\npreset = "microsoft365"\nusername = "me@plant.example"\nclient_id = "x"\n'
        'port = 25\ntenant = "plant.example"\n',
    )
    google, plain, microsoft = hub.json("relay", "list")
    assert (google["hosts"], google["port"], google["auth"]) == (["smtp.gmail.com"], 587, "xoauth2")
    assert (google["grant"], google["login"]) == ("code", "missing")
    assert (plain["auth"], plain["grant"], plain["login"]) == ("plain", None, "password")
    assert (microsoft["port"], microsoft["grant"]) == (25, "device")
    assert google["limits"]["messages_per_day"] == 500
    assert microsoft["limits"]["connections"] == 3
    assert b"3 at once, 30/min" in hub.run("relay", "list").stdout
    shown = hub.run("config", "show").stdout.decode()
    assert "https://login.microsoftonline.com/plant.example/oauth2/v2.0/token" in shown


def test_a_key_file_others_may_read(world: World, tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    file.write_bytes(world.key_file.read_bytes())
    os.chmod(file, 0o640)
    settings = f'preset = "gmail-service-account"\nusername = "a"\nkey_file = "{file}"\n'
    done = Hub(tmp_path / "hub", f"[relay.r]\n{settings}").run("config", "check")
    assert done.returncode == 2
    assert b"chmod 600" in done.stderr


# The other side: a hub that takes tokens.


def test_a_hub_takes_tokens_and_asks_whose_they_are(
    world: World, start_hub: StartHub, tmp_path: Path
) -> None:
    port = free_port()
    far = start_hub(
        listener=f'[[listener]]\nname = "in"\nbind = ["127.0.0.1:{port}"]\nrole = "submission"\n',
        port=port,
        config='[networks]\ntrusted = []\n[addresses]\ndomains = ["far.example"]\n'
        '[[mailbox]]\nname = "ann"\n'
        f'[tls]\ncertificate = "{world.certificate}"\nkey = "{world.key}"\n'
        f'[tokens]\nintrospection_url = "{world.glewlwyd.url}/introspect"\nclient_id = "app"\n'
        f'client_secret = "{APP_SECRET}"\nca = "{world.ca}"\n',
    )
    relay = world.relay("tokens", "code", auth="oauthbearer")
    near = start_hub(retry(1) + relay.replace(f"port = {world.port}\n", f"port = {port}\n"))
    log_in(world, near, "tokens")
    # "hub" is known to the token server only: its own name is the one sender it has.
    with near.smtp() as smtp:
        submit(smtp, "ann@far.example", sender="tokens@here.example", content=message("not its"))
    near.wait_for_log("553 5.7.1")
    far.config_file.write_text(
        far.config_file.read_text()
        + f'[[mailbox]]\nname = "hub"\npassword_hash = "{hash_password(Secret("unused"))}"\n'
        'senders = ["tokens@here.example"]\n'
    )
    assert far.run("reload").returncode == 0
    with near.smtp() as smtp:
        submit(smtp, "ann@far.example", sender="tokens@here.example", content=message("let in"))
    (stored,) = far.wait_for_mail("ann")
    assert b"auth=pass smtp.auth=hub" in stored
    # A token that is none is refused, and costs a guess.
    with far.smtp(local_hostname="x") as smtp:
        smtp.starttls(context=ssl._create_unverified_context())
        smtp.ehlo()
        for mechanism in ("XOAUTH2", "OAUTHBEARER"):
            assert mechanism in smtp.esmtp_features["auth"].split()
        nonsense = base64.b64encode(b"n,,\x01auth=Bearer nonsense\x01\x01").decode()
        assert smtp.docmd("AUTH", f"OAUTHBEARER {nonsense}")[0] == 334
        assert smtp.docmd("AQ==")[0] == 535
    log = far.log_text() + near.log_text()
    assert not any(text in log for text in (*secrets_of(near, "tokens"), APP_SECRET, "nonsense"))
    # Nobody can tell now: not the client's fault.
    world.glewlwyd.halt()
    try:
        with far.smtp(local_hostname="x") as smtp:
            smtp.starttls(context=ssl._create_unverified_context())
            smtp.ehlo()
            assert smtp.docmd("AUTH", f"OAUTHBEARER {nonsense}")[0] == 454
    finally:
        world.glewlwyd.resume()
