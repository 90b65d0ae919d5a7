"""TLS inward, against a running hub: STARTTLS and implicit, with foreign clients and bad ones."""

from __future__ import annotations

import contextlib
import re
import signal
import smtplib
import socket
import ssl
import struct
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub import Hub
from tests.support.mail import content_of, fields_of, message, submit
from tests.support.netns import Namespace
from tests.support.ports import free_port
from tests.support.waiting import wait_until
from waypost.control import ask_hub

from .conftest import StartHub

PROTOCOLS = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}


class TlsHub:
    """A hub with a listener of each kind; `ports` by their names."""

    def __init__(self, directory: Path) -> None:
        self.ports = {
            name: free_port() for name in ("starttls", "implicit", "legacy", "off", "lmtp")
        }
        ports = self.ports
        both = '["127.0.0.1:{0}", "[::1]:{0}"]'
        devices = 'networks = ["127.0.0.0/8"]\n'
        listeners = (
            f'[[listener]]\nname = "starttls"\nbind = {both.format(ports["starttls"])}\n'
            f'[[listener]]\nname = "implicit"\nbind = {both.format(ports["implicit"])}\n'
            'tls = "implicit"\n'
            f'[[listener]]\nname = "legacy"\nbind = ["127.0.0.1:{ports["legacy"]}"]\n'
            f'tls = "implicit"\ntls_profile = "legacy"\n{devices}'
            f'[[listener]]\nname = "off"\nbind = ["127.0.0.1:{ports["off"]}"]\ntls = "off"\n'
            f'[[listener]]\nname = "lmtp"\nbind = ["127.0.0.1:{ports["lmtp"]}"]\nrole = "lmtp"\n'
        )
        config = 'hostname = "hub.test"\n'
        self.hub = Hub(directory, config, listener=listeners)

    @property
    def ca(self) -> Path:
        return self.hub.data / "tls" / "ca.pem"

    def context(self) -> ssl.SSLContext:
        """A client that trusts the hub's authority and nobody else."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.ca)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    def smtp(
        self, kind: str = "starttls", host: str = "127.0.0.1", context: ssl.SSLContext | None = None
    ) -> smtplib.SMTP:
        """A session that is encrypted and greeted."""
        context = context or self.context()
        if kind in ("implicit", "legacy"):
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(
                host, self.ports[kind], "client.test", context=context, timeout=20
            )
        else:
            smtp = smtplib.SMTP(host, self.ports[kind], "client.test", timeout=20)
            smtp.starttls(context=context)
        smtp.ehlo()
        return smtp

    def sessions(self, kind: str) -> int:
        """How many sessions a listener knows of."""
        status = ask_hub(self.hub.data, "status")
        return next(int(e["sessions"]) for e in status["listeners"] if e["name"] == kind)

    def failures(self, kind: str) -> list[str]:
        """What it has logged of handshakes."""
        lines = self.hub.log_text().splitlines()
        return [line for line in lines if "tls-failed" in line and f"listener={kind}" in line]

    def connect(self, kind: str) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.ports[kind]), timeout=10)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsHub]:
    """One for all tests of this module that do not change it."""
    tls_hub = TlsHub(tmp_path_factory.mktemp("tls") / "hub")
    with tls_hub.hub:
        yield tls_hub
        log = tls_hub.hub.log_text()
    # Whatever clients did: no fault of ours, and nothing said but in lines of the log.
    assert " bug " not in log, log
    assert all(re.match(r"\d{4}-\d\d-\d\dT\S+Z [a-z-]+", line) for line in log.splitlines()), log


def verified(host: str, port: int, ca: Path, *options: str, starttls: bool) -> str:
    """What openssl's client says of a certificate it verifies."""
    address = f"[{host}]" if ":" in host else host
    hello = ("-starttls", "smtp") if starttls else ()
    done = subprocess.run(
        [
            *("openssl", "s_client", "-connect", f"{address}:{port}", *hello),
            *("-CAfile", str(ca), "-verify_return_error", "-x509_strict", *options),
        ],
        input="QUIT\r\n",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["starttls", "implicit"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_openssl_verifies_the_address_and_the_name(running: TlsHub, kind: str, host: str) -> None:
    port, starttls = running.ports[kind], kind == "starttls"
    for options in (("-verify_ip", host), ("-verify_hostname", "hub.test")):
        said = verified(host, port, running.ca, *options, starttls=starttls)
        assert "Verify return code: 0 (ok)" in said, said
    said = verified(host, port, running.ca, "-verify_ip", "192.0.2.1", starttls=starttls)
    assert "IP address mismatch" in said


@pytest.mark.parametrize("kind", ["starttls", "implicit"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_smtplib_verifies_and_sends(running: TlsHub, kind: str, host: str) -> None:
    user = f"lib-{kind}-{'six' if ':' in host else 'four'}"
    with running.smtp(kind, host) as smtp:
        assert not smtp.has_extn("starttls")
        submit(smtp, f"{user}@[127.0.0.1]", content=message("over TLS"))
    (stored,) = running.hub.wait_for_mail(user)
    assert " with ESMTPS id " in fields_of(stored, "received")[0]


@pytest.mark.parametrize(("kind", "option"), [("starttls", "--tls"), ("implicit", "--tlsc")])
def test_swaks_verifies_and_sends(running: TlsHub, kind: str, option: str) -> None:
    done = subprocess.run(
        [
            *("swaks", "--server", f"127.0.0.1:{running.ports[kind]}", option, "--tls-verify"),
            *("--tls-ca-path", str(running.ca), "--to", f"swaks-{kind}@[127.0.0.1]"),
            *("--from", "ann@[127.0.0.1]"),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    running.hub.wait_for_mail(f"swaks-{kind}")


@pytest.mark.parametrize("kind", ["starttls", "implicit"])
def test_old_ciphers_and_tls_1_2(running: TlsHub, kind: str) -> None:
    """A device that knows RSA only, and one that knows no TLS 1.3."""
    context = running.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    for ciphers, seen in (("aRSA", "RSA"), ("aECDSA", "ECDSA")):
        context.set_ciphers(ciphers)
        with running.smtp(kind, context=context) as smtp:
            assert isinstance(smtp.sock, ssl.SSLSocket)
            cipher = smtp.sock.cipher()
            assert cipher is not None
            assert seen in cipher[0] or cipher[0].startswith("AES")
            assert cipher[1] == "TLSv1.2"


@pytest.mark.parametrize("version", PROTOCOLS)
@pytest.mark.parametrize("kind", ["implicit", "legacy"])
def test_old_versions_are_for_the_legacy_profile(running: TlsHub, kind: str, version: str) -> None:
    context = running.context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = PROTOCOLS[version]
    if kind == "implicit" and version in ("1.0", "1.1"):
        with pytest.raises(ssl.SSLError):
            running.smtp(kind, context=context)
        return
    with running.smtp(kind, context=context) as smtp:
        assert isinstance(smtp.sock, ssl.SSLSocket)
        assert smtp.sock.version() == ("TLSv1" if version == "1.0" else f"TLSv{version}")
        user = f"old-{kind}-{version.replace('.', '-')}"
        submit(smtp, f"{user}@[127.0.0.1]")


def test_legacy_needs_networks(tmp_path: Path) -> None:
    listener = '[[listener]]\nname = "old"\nbind = ["127.0.0.1:2525"]\ntls_profile = "legacy"\n'
    for networks in ("", 'networks = ["any"]\n', 'networks = ["10.0.0.0/8", "any"]\n'):
        hub = Hub(tmp_path, listener=listener + networks)
        done = hub.run("config", "check")
        assert done.returncode == 2
        assert b"name their networks" in done.stderr
    assert (
        Hub(tmp_path, listener=f'{listener}networks = ["10.0.0.0/8"]\n')
        .run("config", "check")
        .returncode
        == 0
    )


def test_off_does_not_offer_it(running: TlsHub) -> None:
    with smtplib.SMTP("127.0.0.1", running.ports["off"], "client.test", timeout=20) as smtp:
        smtp.ehlo()
        assert not smtp.has_extn("starttls")
        assert smtp.docmd("STARTTLS")[0] == 502
        assert smtp.noop()[0] == 250


def test_lmtp_over_tcp(running: TlsHub) -> None:
    with smtplib.LMTP("127.0.0.1", running.ports["lmtp"], "client.test") as lmtp:
        lmtp.ehlo("client.test")
        assert lmtp.has_extn("starttls")
        lmtp.starttls(context=running.context())
        lmtp.ehlo("client.test")
        lmtp.sendmail("ann@[127.0.0.1]", ["lmtp-tls@[127.0.0.1]"], message())
    (stored,) = running.hub.wait_for_mail("lmtp-tls")
    assert " with LMTPS id " in fields_of(stored, "received")[0]


# Attackers and accidents.


@pytest.mark.parametrize("injected", [b"MAIL FROM:<a@[127.0.0.1]>\r\n", b"EHLO x\r\n", b"N"])
def test_attack_11_commands_behind_starttls_end_the_session(
    running: TlsHub, injected: bytes
) -> None:
    with running.connect("starttls") as client:
        file = client.makefile("rb")
        assert file.readline().startswith(b"220 ")
        client.sendall(b"STARTTLS\r\n" + injected)
        assert file.readline().startswith(b"554 5.5.1 ")
        assert file.read() == b""


def test_attack_11_commands_in_clear_after_the_220_end_the_session(running: TlsHub) -> None:
    """Whatever arrives in clear is never taken for what was encrypted."""
    before = len(running.failures("starttls"))
    with running.connect("starttls") as client:
        file = client.makefile("rb")
        assert file.readline().startswith(b"220 ")
        client.sendall(b"STARTTLS\r\n")
        assert file.readline().startswith(b"220 ")
        client.sendall(b"EHLO x\r\nMAIL FROM:<a@[127.0.0.1]>\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b"250" not in file.read()
    wait_until(lambda: len(running.failures("starttls")) == before + 1, running.hub.log_text)


def test_attack_11_clear_bytes_before_the_hello_do_not_survive_the_handshake(
    running: TlsHub,
) -> None:
    """Sent before the client may know of the 220, so as to lie in the hub's buffers."""
    context = running.context()
    for pause_s in (0.0, 0.001, 0.005, 0.02):
        with running.connect("starttls") as client:
            file = client.makefile("rb")
            file.readline()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(b"STARTTLS\r\n")
            time.sleep(pause_s)
            with contextlib.suppress(OSError):
                client.sendall(b"EHLO injected.example\r\n")
                reply = file.readline()
                assert reply[:4] in (b"220 ", b"554 ", b"")
            with pytest.raises((ssl.SSLError, OSError)):
                context.wrap_socket(client, server_hostname="127.0.0.1")


def test_a_plain_client_on_an_implicit_listener(running: TlsHub) -> None:
    before = len(running.failures("implicit"))
    with running.connect("implicit") as client:
        client.sendall(b"EHLO x\r\n")
        with contextlib.suppress(ConnectionResetError):
            said = client.makefile("rb").read()
            assert b"250" not in said
            assert b"220" not in said
    wait_until(lambda: running.failures("implicit")[before:], running.hub.log_text)
    (line,) = running.failures("implicit")[before:]
    assert "client=127.0.0.1" in line
    assert "HTTP" not in line
    wait_until(lambda: running.sessions("implicit") == 0)


def test_a_tls_client_on_a_plain_listener(running: TlsHub) -> None:
    """It hears the greeting in clear, gives up at once, and is forgotten."""
    with pytest.raises(ssl.SSLError):
        running.context().wrap_socket(running.connect("off"), server_hostname="127.0.0.1")
    wait_until(lambda: running.sessions("off") == 0)


@pytest.mark.parametrize("kind", ["starttls", "implicit"])
@pytest.mark.parametrize("how", ["close", "reset", "half a hello", "garbage", "reset at once"])
def test_clients_that_go_in_the_handshake_are_forgotten(
    running: TlsHub, kind: str, how: str
) -> None:
    for _ in range(5):
        with running.connect(kind) as client:
            if kind == "starttls":
                file = client.makefile("rb")
                file.readline()
                client.sendall(b"STARTTLS\r\n")
                if how != "reset at once":
                    assert file.readline().startswith(b"220 ")
                file.close()
            if how == "half a hello":
                client.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
            elif how == "garbage":
                client.sendall(bytes(range(256)) * 8)
            if "reset" in how:
                if how == "reset":
                    time.sleep(0.02)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: running.sessions(kind) == 0, running.hub.log_text)


def test_a_client_that_closes_while_it_waits_for_an_answer(running: TlsHub) -> None:
    """TLS cannot be half closed, and asyncio would complain where a protocol thinks it can."""
    for number in range(10):
        smtp = running.smtp()
        assert isinstance(smtp.sock, ssl.SSLSocket)
        submit_start = (
            b"MAIL FROM:<ann@[127.0.0.1]>\r\nRCPT TO:<gone@[127.0.0.1]>\r\n"
            b"BDAT 10 LAST\r\nA: b\r\n\r\nc\r\n"
        )
        smtp.sock.sendall(submit_start[: None if number % 2 else -1])
        raw = smtp.sock.detach()
        closing = socket.socket(fileno=raw)
        closing.close()
    wait_until(lambda: running.sessions("starttls") == 0)


def test_a_polite_end_while_it_answers(running: TlsHub) -> None:
    """close_notify straight behind the content."""
    context = running.context()
    for _ in range(5):
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(there, back, server_hostname="127.0.0.1")
        with running.connect("implicit") as client:
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    client.sendall(back.read())
                    there.write(client.recv(65_536))
            client.sendall(back.read())
            tls.write(
                b"EHLO x\r\nMAIL FROM:<ann@[127.0.0.1]>\r\nRCPT TO:<polite@[127.0.0.1]>\r\n"
                b"BDAT 11 LAST\r\nA: b\r\n\r\nc\r\n"
            )
            with contextlib.suppress(ssl.SSLError):
                tls.unwrap()
            client.sendall(back.read())
            client.settimeout(5)
            with contextlib.suppress(ConnectionResetError):
                while client.recv(65_536):
                    pass
    running.hub.wait_for_mail("polite", 5)
    wait_until(lambda: running.sessions("implicit") == 0)


def test_two_hundred_sessions_at_once(running: TlsHub) -> None:
    context = running.context()
    sessions: list[smtplib.SMTP] = []
    lock = threading.Lock()
    troubles: list[Exception] = []

    def open_some(count: int, kind: str) -> None:
        try:
            for _ in range(count):
                smtp = running.smtp(kind, context=context)
                with lock:
                    sessions.append(smtp)
        except Exception as error:
            troubles.append(error)

    threads = [
        threading.Thread(target=open_some, args=(20, kind)) for kind in ("starttls", "implicit") * 5
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not troubles
    assert len(sessions) == 200
    assert running.sessions("starttls") == running.sessions("implicit") == 100
    for number, smtp in enumerate(sessions):
        assert smtp.noop()[0] == 250
        if number % 20 == 0:
            submit(smtp, "crowd@[127.0.0.1]")
    for smtp in sessions:
        smtp.quit()
    running.hub.wait_for_mail("crowd", 10)
    wait_until(lambda: running.sessions("starttls") + running.sessions("implicit") == 0)


def test_five_megabytes(running: TlsHub) -> None:
    content = message("big", *("x" * 76 for _ in range(65_000)))
    for kind in ("starttls", "implicit"):
        with running.smtp(kind) as smtp:
            submit(smtp, f"big-{kind}@[127.0.0.1]", content=content)
    for kind in ("starttls", "implicit"):
        (stored,) = running.hub.wait_for_mail(f"big-{kind}")
        assert content_of(stored) == content


def test_limits_hold_before_tls(start_hub: StartHub) -> None:
    """Who may not connect, or is one too many, costs no handshake."""
    port = free_port()
    hub = start_hub(
        "[limits]\nconnections = 2\n",
        listener=f'[[listener]]\nname = "in"\nbind = ["127.0.0.1:{port}", "[::1]:{port}"]\n'
        'tls = "implicit"\nnetworks = ["127.0.0.0/8"]\n',
    )
    with (
        socket.create_connection(("::1", port), timeout=10) as stranger,
        contextlib.suppress(ConnectionResetError),
    ):
        assert stranger.recv(100) == b""
    context = ssl._create_unverified_context()
    with contextlib.ExitStack() as stack:
        for _ in range(2):  # which do not even begin a handshake
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as third,
            pytest.raises((ssl.SSLError, ConnectionResetError)),
        ):
            context.wrap_socket(third)

    def look() -> bool:
        with (
            contextlib.suppress(ssl.SSLError, ConnectionResetError),
            socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
            context.wrap_socket(raw) as client,
        ):
            return client.recv(4) == b"220 "
        return False

    wait_until(look, hub.log_text)


# Certificates that change, and the end.


def shown_by(port: int) -> bytes:
    context = ssl._create_unverified_context()
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
        context.wrap_socket(raw) as client,
    ):
        certificate = client.getpeercert(binary_form=True)
    assert certificate is not None
    return certificate


def test_a_reload_shows_a_new_certificate_and_keeps_sessions(tmp_path: Path) -> None:
    tls_hub = TlsHub(tmp_path / "hub")
    with tls_hub.hub as hub:
        ca = tmp_path / "first-ca.pem"
        ca.write_bytes(tls_hub.ca.read_bytes())
        before = shown_by(tls_hub.ports["implicit"])
        with tls_hub.smtp() as smtp:
            # The name is another: the certificate has to say so.
            config = hub.config_file.read_text()
            issued = hub.run("tls", "issue", "127.0.0.1", "--rsa", "--output", str(tmp_path))
            assert issued.returncode == 0, issued.stderr
            hub.config_file.write_text(
                f"{config}\n[tls]\n"
                f'certificate = "{tmp_path}/127.0.0.1.pem"\nkey = "{tmp_path}/127.0.0.1.key"\n'
            )
            assert hub.run("reload").returncode == 0
            after = shown_by(tls_hub.ports["implicit"])
            given = (tmp_path / "127.0.0.1.pem").read_text().partition("-----END")[0]
            assert after == ssl.PEM_cert_to_DER_cert(f"{given}-----END CERTIFICATE-----\n")
            assert after != before
            submit(smtp, "kept@[127.0.0.1]")
            # A bad one is refused, and what is shown stays.
            (tmp_path / "127.0.0.1.key").write_text("no key")
            done = hub.run("reload")
            assert done.returncode != 0
            assert b"127.0.0.1.key" in done.stdout + done.stderr
            assert shown_by(tls_hub.ports["implicit"]) == after
        hub.wait_for_mail("kept")
        # Back to its own, under another name.
        hub.config_file.write_text(config.replace("hub.test", "printer.hub.test"))
        assert hub.run("reload").returncode == 0
        said = verified(
            *("127.0.0.1", tls_hub.ports["implicit"], ca, "-verify_hostname", "printer.hub.test"),
            starttls=False,
        )
        assert "Verify return code: 0 (ok)" in said, said


@pytest.mark.parametrize("kind", ["starttls", "implicit"])
def test_shutdown_waits_for_a_transaction_and_for_nobody_who_sleeps(
    tmp_path: Path, kind: str
) -> None:
    tls_hub = TlsHub(tmp_path / "hub")
    tls_hub.hub.start()
    try:
        smtp = tls_hub.smtp(kind)
        sleeping = [tls_hub.smtp(kind) for _ in range(5)]
        stuck = tls_hub.connect("implicit")  # in the middle of its handshake
        smtp.docmd("MAIL FROM:<ann@[127.0.0.1]>")
        smtp.docmd("RCPT TO:<late@[127.0.0.1]>")
        assert smtp.docmd("DATA")[0] == 354
        tls_hub.hub.send_signal(signal.SIGTERM)
        # All of them have to go while one is still at work.
        for client in sleeping:
            assert client.getreply()[0] == 421
        with contextlib.suppress(ConnectionResetError):
            assert stuck.recv(1) == b""
        smtp.send(b"Subject: late\r\n\r\nHello.\r\n.\r\n")
        assert smtp.getreply()[0] == 250
        assert smtp.getreply()[0] == 421
        tls_hub.hub.stop()
        stuck.close()
        for client in (smtp, *sleeping):
            client.close()
    finally:
        tls_hub.hub.stop()
    log = tls_hub.hub.log_text()
    assert " bug " not in log
    assert "Traceback" not in log
    tls_hub.hub.start()
    tls_hub.hub.wait_for_mail("late")
    tls_hub.hub.stop()


def test_own_addresses_that_come_are_certified(
    hosts: tuple[Namespace, Namespace], start_hub: StartHub
) -> None:
    """No reload is needed."""
    hub = start_hub(
        listener='[[listener]]\nname = "in"\nbind = ["0.0.0.0:465"]\ntls = "implicit"\n',
        namespace=hosts[0].name,
        host="10.9.0.1",
        port=465,
    )
    hosts[0].add_address("10.9.0.77/24")
    ca = str(hub.data / "tls" / "ca.pem")

    def look() -> bool:
        said = hosts[1].run(
            *(
                "sh",
                "-c",
                f"openssl s_client -connect 10.9.0.77:465 -CAfile {ca}"
                " -verify_ip 10.9.0.77 </dev/null 2>&1 || true",
            )
        )
        return "Verify return code: 0 (ok)" in said

    wait_until(look, hub.log_text)


# The command.


def test_tls_commands(tmp_path: Path) -> None:
    hub = Hub(tmp_path / "hub", 'hostname = "hub.test"\n')
    out = tmp_path / "out"
    missing = hub.run("tls", "show")
    assert missing.returncode == 1
    assert b"waypost tls init" in missing.stderr
    assert hub.run("tls", "issue", "10.0.0.1", "--output", str(out)).returncode == 1
    assert hub.run("tls", "init").returncode == 0
    ca = hub.data / "tls" / "ca.pem"
    first = ca.read_bytes()
    assert hub.run("tls", "show").stdout == first
    assert hub.run("tls", "show", "--der").stdout == ssl.PEM_cert_to_DER_cert(first.decode())
    (told,) = hub.json("tls", "show")
    assert "hub.test" in told["permitted"]
    assert "10.0.0.0/8" in told["permitted"]
    again = hub.run("tls", "init")
    assert again.returncode == 1
    assert b"--force" in again.stderr
    assert ca.read_bytes() == first
    issue = hub.run(
        *("tls", "issue", "10.0.0.1", "[IPv6:fd00::1]", "cam.hub.test", "--output", str(out)),
        *("--rsa", "--days", "30"),
    )
    assert issue.returncode == 0, issue.stderr
    assert (out / "10.0.0.1.key").stat().st_mode & 0o777 == 0o600
    done = subprocess.run(
        [
            *("openssl", "verify", "-x509_strict", "-verify_ip", "fd00::1"),
            *("-CAfile", str(ca), str(out / "10.0.0.1.pem")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for bad, code in (("8.8.8.8", 1), ("example.com", 1), ("a b", 2), ("../x", 2)):
        refused = hub.run("tls", "issue", bad, "--output", str(out))
        assert refused.returncode == code, (bad, refused.stderr)
        assert b"Traceback" not in refused.stderr
    assert sorted(path.name for path in out.iterdir()) == ["10.0.0.1.key", "10.0.0.1.pem"]
    assert hub.run("tls", "init", "--force").returncode == 0
    assert ca.read_bytes() != first
    assert b"PRIVATE" not in hub.run("tls", "show").stdout


def test_init_makes_an_authority_beside_a_given_certificate(tmp_path: Path) -> None:
    """It may be wanted for other hosts."""
    hub = Hub(tmp_path / "hub")
    assert hub.run("tls", "init").returncode == 0
    own = hub.data / "tls"
    given = f'[tls]\ncertificate = "{own}/hub-rsa.pem"\nkey = "{own}/hub-rsa.key"\n'
    with hub.config_file.open("a") as file:
        file.write(given)
    first = (own / "ca.pem").read_bytes()
    assert hub.run("tls", "init", "--force").returncode == 0
    assert (own / "ca.pem").read_bytes() != first


def test_a_given_certificate_that_is_not_there_is_said_at_the_start(tmp_path: Path) -> None:
    hub = Hub(tmp_path / "hub", '[tls]\ncertificate = "/nowhere.pem"\nkey = "/nowhere.key"\n')
    done = hub.run("serve")
    assert done.returncode != 0
    assert b"/nowhere.pem" in done.stderr
    assert b"Traceback" not in done.stderr
