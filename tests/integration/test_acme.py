"""Public certificates from a real ACME server (Pebble), and from servers that are none."""

from __future__ import annotations

import base64
import contextlib
import datetime
import http.server
import json
import smtplib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.support.hub import Hub
from tests.support.netns import joined_namespaces
from tests.support.pebble import Pebble
from tests.support.ports import free_port
from tests.support.waiting import wait_until
from waypost.hub.ports import DRAIN_S
from waypost.tls.authority import Authority, Subjects, subjects_of

from .conftest import StartHub

ISSUED = "certificate-issued"
TROUBLE = "certificate-trouble"


@pytest.fixture(scope="module")
def pebble() -> Iterator[Pebble]:
    with Pebble() as running:
        yield running


def acme(server: Pebble, *identifiers: str, challenge: str = "http-01", **more: Any) -> str:
    """The section, for a server on loopback."""
    port = server.http_port if challenge == "http-01" else server.tls_port
    keys = {
        "directory": server.url,
        "agree": True,
        "contact": ["ann@plant.example"],
        "identifiers": list(identifiers),
        "challenge": challenge,
        "bind": [f"127.0.0.1:{port}", f"[::1]:{port}"],
        "ca": str(server.ca),
        **more,
    }
    return "[acme]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())


class Listener:
    """An implicit TLS listener on all of loopback, and what it shows."""

    def __init__(self) -> None:
        self.port, self.starttls = free_port("::1"), free_port("::1")
        self.text = (
            f'[[listener]]\nname = "in"\nbind = ["0.0.0.0:{self.port}", "[::1]:{self.port}"]\n'
            'tls = "implicit"\n[[listener]]\nname = "starttls"\n'
            f'bind = ["0.0.0.0:{self.starttls}", "[::1]:{self.starttls}"]\n'
        )

    def shown(self, host: str = "127.0.0.1", name: str | None = None) -> x509.Certificate:
        context = ssl._create_unverified_context()
        with (
            socket.create_connection((host, self.port), timeout=10) as raw,
            context.wrap_socket(raw, server_hostname=name) as client,
        ):
            octets = client.getpeercert(binary_form=True)
        assert octets is not None
        return x509.load_der_x509_certificate(octets)


@pytest.fixture
def listener() -> Listener:
    return Listener()


def is_own(certificate: x509.Certificate) -> bool:
    """Whether the hub's own authority issued it."""
    return "Waypost" in certificate.issuer.rfc4514_string()


def verified(host: str, port: int, root: Path, *options: str) -> bool:
    """What openssl says of a certificate for an address."""
    address = f"[{host}]" if ":" in host else host
    done = subprocess.run(
        [
            *("openssl", "s_client", "-connect", f"{address}:{port}", "-CAfile", str(root)),
            *("-verify_return_error", "-verify_ip", host, *options),
        ],
        input="QUIT\r\n",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return "Verify return code: 0 (ok)" in done.stdout


def standing(hub: Hub) -> dict[str, Any]:
    (found,) = hub.json("tls", "acme")
    return found


def count(hub: Hub, event: str) -> int:
    return hub.log_text().count(f" {event} ")


@pytest.mark.parametrize("challenge", ["http-01", "tls-alpn-01"])
@pytest.mark.parametrize(("ip", "other"), [("127.0.0.1", "::1"), ("::1", "127.0.0.1")])
def test_a_certificate_for_an_address(
    pebble: Pebble, start_hub: StartHub, listener: Listener, challenge: str, ip: str, other: str
) -> None:
    hub = start_hub(acme(pebble, ip, challenge=challenge), listener=listener.text)
    hub.wait_for_log(ISSUED)
    assert verified(ip, listener.port, pebble.root())
    assert verified(ip, listener.starttls, pebble.root(), "-starttls", "smtp")
    # Our own authority's is there as before, for the addresses that the other is not for.
    assert verified(other, listener.port, hub.data / "tls" / "ca.pem")
    for name in ("acme.pem", "acme-account.key"):
        assert (hub.data / "tls" / name).stat().st_mode & 0o777 == 0o600
    for host in ("127.0.0.1", "::1"):
        port = pebble.http_port if challenge == "http-01" else pebble.tls_port
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, port), timeout=5)
    found = standing(hub)
    assert found["identifiers"] == found["certificate"]["identifiers"] == [ip]
    assert found["problem"] is None
    assert found["running"] is True
    begins, due, ends = (
        datetime.datetime.fromisoformat(text)
        for text in (
            *(found["certificate"]["not_before"], found["renewal_at"]),
            found["certificate"]["not_after"],
        )
    )
    assert abs((ends - due) - (due - begins)) < datetime.timedelta(seconds=3)
    assert "PRIVATE" not in hub.log_text()


def test_renewed_in_time_with_the_same_account_and_no_session_ends(
    start_hub: StartHub, listener: Listener
) -> None:
    with Pebble(valid_s=16) as pebble:
        hub = start_hub(acme(pebble, "127.0.0.1"), listener=listener.text)
        hub.wait_for_log(ISSUED)
        account = (hub.data / "tls" / "acme-account.key").read_bytes()
        first = listener.shown()
        context = ssl._create_unverified_context()
        with smtplib.SMTP_SSL("127.0.0.1", listener.port, "client.test", context=context) as smtp:
            smtp.ehlo()
            wait_until(lambda: count(hub, ISSUED) == 2, hub.log_text)
            second = listener.shown()
            assert second != first
            assert second.public_key() != first.public_key()
            assert verified("127.0.0.1", listener.port, pebble.root())
            assert smtp.noop()[0] == 250
        assert first.not_valid_after_utc > second.not_valid_before_utc
        assert (hub.data / "tls" / "acme-account.key").read_bytes() == account
        assert "There are now 1 accounts" in pebble.log_text()
        assert "There are now 2 accounts" not in pebble.log_text()
        assert count(hub, TROUBLE) == 0


def test_a_server_that_refuses_good_nonces(start_hub: StartHub) -> None:
    with Pebble(bad_nonces=40) as pebble:
        hub = start_hub(acme(pebble, "127.0.0.1"))
        for _ in range(2):
            done = hub.run("tls", "acme", "--now")
            assert done.returncode == 0, done.stdout + done.stderr
        # One is asked for at the begin of each order, and after each refusal.
        assert pebble.log_text().count("HEAD /nonce-plz") > count(hub, ISSUED)


def test_a_failure_is_said_in_words_and_tried_later(
    pebble: Pebble, start_hub: StartHub, listener: Listener
) -> None:
    """Nobody answers where the server looks."""
    elsewhere = [f"127.0.0.1:{free_port()}"]
    hub = start_hub(acme(pebble, "127.0.0.1", bind=elsewhere), listener=listener.text)
    hub.wait_for_log(TROUBLE)
    found = standing(hub)
    assert found["certificate"] is None
    assert "127.0.0.1 was not proven" in found["problem"]
    assert "connection refused" in found["problem"]
    waits = [_wait_s(found)]
    assert is_own(listener.shown())
    # Asked for, it is tried at once, and the wait grows.
    done = hub.run("tls", "acme", "--now")
    assert done.returncode == 1
    assert b"was not proven" in done.stdout
    found = standing(hub)
    waits.append(_wait_s(found))
    assert 500 < waits[0] < waits[1] < 1_300
    # A restart is no reason to try again: servers count failures.
    orders = pebble.log_text().count("POST /order-plz")
    hub.stop()
    done = hub.run("tls", "acme")
    assert done.returncode == 1
    assert b"No hub is running" in done.stdout
    assert hub.run("tls", "acme", "--now").returncode == 75
    hub.start()
    assert standing(hub)["problem"] == found["problem"]
    time.sleep(0.5)
    assert pebble.log_text().count("POST /order-plz") == orders
    # Another configuration is.
    text = hub.config_file.read_text()
    hub.config_file.write_text(text.replace(elsewhere[0], f"127.0.0.1:{pebble.http_port}"))
    assert hub.run("reload").returncode == 0
    hub.wait_for_log(ISSUED)
    assert standing(hub)["problem"] is None
    assert not is_own(listener.shown())
    # And without the section all is as it was.
    hub.config_file.write_text(text.partition("[acme]")[0] + listener.text)
    assert hub.run("reload").returncode == 0
    assert is_own(listener.shown())
    assert hub.run("tls", "acme").returncode == 1


def _wait_s(found: dict[str, Any]) -> float:
    again, failed = (
        datetime.datetime.fromisoformat(found[key]) for key in ("again_at", "failed_at")
    )
    return (again - failed).total_seconds()


def test_a_taken_port_and_an_unknown_profile_are_said(pebble: Pebble, start_hub: StartHub) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        place = f"127.0.0.1:{holder.getsockname()[1]}"
        hub = start_hub(acme(pebble, "127.0.0.1", bind=[place]))
        hub.wait_for_log(TROUBLE)
        problem = standing(hub)["problem"]
        assert place in problem
        assert "acme.bind" in problem
    hub = start_hub(acme(pebble, "127.0.0.1", profile="shortlived"))
    hub.wait_for_log(TROUBLE)
    assert "no profile 'shortlived'" in standing(hub)["problem"]


def test_a_restart_shows_it_at_once_and_asks_nobody(
    start_hub: StartHub, listener: Listener
) -> None:
    with Pebble() as pebble:
        hub = start_hub(acme(pebble, "127.0.0.1"), listener=listener.text)
        hub.wait_for_log(ISSUED)
        root = pebble.root()
        kept = root.rename(hub.directory / "root.pem")
    hub.stop()
    hub.start()
    assert verified("127.0.0.1", listener.port, kept)
    # What cannot be read is ordered anew, and meanwhile our own authority's does.
    (hub.data / "tls" / "acme.pem").write_text("nothing")
    hub.stop()
    hub.start()
    assert is_own(listener.shown())
    wait_until(lambda: count(hub, TROUBLE) == 1, hub.log_text)


def test_stopped_in_the_middle_of_an_order(start_hub: StartHub) -> None:
    """The directory takes the connection and says nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        directory = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        hub = start_hub(
            f'[acme]\ndirectory = "{directory}"\nagree = true\nidentifiers = ["127.0.0.1"]\n'
        )
        with silent.accept()[0]:
            began = time.monotonic()
            hub.stop()
            assert time.monotonic() - began < DRAIN_S


def test_on_the_internet_as_it_were() -> None:
    """Public and private addresses, a name, the usual ports; and nobody else is asked."""
    # Pebble 2.4 sorts what it was asked for and what the CSR says in two ways: with an IPv4 address
    # it wants an IPv6 one that is above it.
    addresses = ["203.0.113.1/24", "fd00:9::1/64", "10.9.0.1/24"]
    others = ["203.0.113.2/24", "fd00:9::2/64", "10.9.0.2/24"]
    with contextlib.ExitStack() as stack:
        home, outside = stack.enter_context(joined_namespaces(addresses, others))
        dns = stack.enter_context(_names(outside.name, "203.0.113.1"))
        pebble = stack.enter_context(
            Pebble(
                address="203.0.113.2",
                namespace=outside.name,
                http_port=80,
                tls_port=443,
                dns_server=dns,
            )
        )
        config = (
            f'[acme]\ndirectory = "{pebble.url}"\nagree = true\nca = "{pebble.ca}"\n'
            'identifiers = ["203.0.113.1", "fd00:9::1", "mail.public.example"]\n'
        )
        directory = pebble.directory / "hub"
        hub = Hub(
            directory,
            config + '[dns]\nservers = []\n[networks]\ntrusted = ["loopback"]\n',
            listener='[[listener]]\nname = "in"\nbind = ["0.0.0.0:465", "[::]:465"]\n'
            'tls = "implicit"\n',
            namespace=home.name,
        )
        with home.watched() as attempts, hub:
            wait_until(lambda: count(hub, ISSUED) == 1, hub.log_text)
            text = hub.config_file.read_text()
            hub.config_file.write_text(
                text.replace("agree = true\n", 'agree = true\nchallenge = "tls-alpn-01"\n')
            )
            assert hub.run("reload").returncode == 0
            done = hub.run("tls", "acme", "--now")
            assert done.returncode == 0, done.stdout + done.stderr + hub.log_text().encode()
            assert count(hub, ISSUED) == 2
        assert {place for place in attempts if place != f"203.0.113.2:{pebble.port}"} == set()
        assert attempts
        root, own = pebble.root(), hub.data / "tls" / "ca.pem"

        def check(target: str, ca: Path, expected: str, *options: str) -> bool:
            address = f"[{target}]" if ":" in target else target
            said = outside.run(
                *("sh", "-c"),
                f"openssl s_client -connect {address}:465 -CAfile {ca} {' '.join(options)}"
                f" {expected} </dev/null 2>&1 || true",
            )
            return "Verify return code: 0 (ok)" in said

        with hub:
            for ip in ("203.0.113.1", "fd00:9::1"):
                assert check(ip, root, f"-verify_ip {ip}")
                assert check(ip, root, "-verify_hostname mail.public.example")
            # A client of the inner network, as its source address says.
            inner = "-bind 10.9.0.2:0"
            assert check("10.9.0.1", own, "-verify_ip 10.9.0.1", inner)
            # It may ask for the name, wherever it comes in.
            named = "-servername mail.public.example"
            assert check("10.9.0.1", root, "-verify_hostname mail.public.example", inner, named)
            # As one from outside looks behind NAT.
            assert check("10.9.0.1", root, "-verify_ip 203.0.113.1", "-bind 203.0.113.2:0")


@contextlib.contextmanager
def _names(namespace: str, ip: str) -> Iterator[str]:
    """Where Pebble's own name server for tests answers every name with `ip`."""
    port = 5300
    process = subprocess.Popen(
        [
            *("ip", "netns", "exec", namespace, "timeout", "--foreground", "600"),
            *("pebble-challtestsrv", "-dns01", f"127.0.0.1:{port}", "-defaultIPv4", ip),
            *("-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""),
            *("-management", "127.0.0.1:5301"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


# Servers that are none.


Answer = Callable[[str, bytes], tuple[int, dict[str, str], bytes]]  # by path and body


class Liar:
    """An HTTPS server that answers as it is told, and counts."""

    def __init__(self, directory: Path, answer: Answer):
        subjects = Subjects(frozenset({ip_address("127.0.0.1")}), frozenset())
        now = datetime.datetime.now(datetime.UTC)
        authority = Authority.create(directory, subjects, now=now)
        leaf = authority.issue(subjects, is_rsa=False, now=now)
        pair = directory / "liar.pem"
        pair.write_bytes(leaf.key + leaf.certificate)
        self.ca = directory / "ca.pem"

        class Page(http.server.BaseHTTPRequestHandler):
            def _answer(self) -> None:
                asked = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                status, headers, body = answer(self.path, asked)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_POST = do_HEAD = _answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}/dir"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _directory(base: str) -> dict[str, Any]:
    return {name: f"{base}/{name}" for name in ("newNonce", "newAccount", "newOrder")}


BEHIND = {"Replay-Nonce": "bm9uY2U", "Location": "https://127.0.0.1/account"}


def _account_then(order: bytes) -> Callable[[str], tuple[int, dict[str, str], bytes]]:
    def answer(path: str) -> tuple[int, dict[str, str], bytes]:
        if path == "/newAccount":
            return 201, BEHIND, b"{}"
        return 201, BEHIND, order

    return answer


LIES: dict[str, tuple[Callable[[str], tuple[int, dict[str, str], bytes]] | bytes, str]] = {
    "not json": (lambda _: (200, {}, b"<html>"), "cannot be used"),
    "a list": (lambda _: (200, {}, b"[]"), "makes no sense"),
    "without end": (lambda _: (200, {}, b"[" * 200_000), "makes no sense"),
    "too large": (lambda _: (200, {}, b" " * 400_000), "larger than"),
    "empty": (lambda _: (200, {}, b"{}"), "makes no sense"),
    "redirect": (lambda _: (302, {"Location": "http://127.0.0.1:1/"}, b""), "status 302"),
    "problem": (
        lambda _: (403, {}, b'{"type": [], "detail": {"a": "\\u001b[31m"}, "subproblems": []}'),
        "31m",
    ),
    "problem without words": (lambda _: (403, {}, b'{"type": []}'), "no reason given (())"),
    "bad problem": (lambda _: (403, {}, b'{"subproblems": "abc"}'), "about:blank"),
    "later": (
        lambda _: (
            429,
            {"Retry-After": "80000"},
            b'{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many"}',
        ),
        "too many (rateLimited)",
    ),
    "in clear": (b"http://127.0.0.1:1", "expected https://"),
    "private": (b"https://10.9.0.77", "10.9.0.77 is private"),
    "this host": (b"https://127.0.0.1:1", "an address of this host"),
    "no order": (_account_then(b"{}"), "makes no sense"),
    "order of nothing": (
        _account_then(b'{"status": "ready", "authorizations": [], "finalize": "x"}'),
        "it leads to",
    ),
    "odd authorization": (
        _account_then(
            b'{"status": "pending", "authorizations": ["BASE/authz"], "identifiers": [],'
            b' "challenges": null}'
        ),
        "makes no sense",
    ),
}


@pytest.fixture(scope="module")
def lied_to(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """One hub that is told of one server after another."""
    with Hub(tmp_path_factory.mktemp("lied-to") / "hub") as running:
        yield running
    log = running.log_text()
    assert " bug " not in log
    assert "Traceback" not in log


def ask_of(hub: Hub, liar: Liar, more: str) -> None:
    """Have a running hub turn to a server."""
    plain = hub.config_file.read_text().partition("[acme]")[0]
    hub.config_file.write_text(
        f'{plain}[acme]\ndirectory = "{liar.url}"\nca = "{liar.ca}"\nagree = true\n{more}'
    )
    done = hub.run("reload")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("lie", LIES)
def test_whatever_a_server_says_the_hub_lives(tmp_path: Path, lied_to: Hub, lie: str) -> None:
    told, expected = LIES[lie]
    base = ""

    def answer(path: str, _: bytes) -> tuple[int, dict[str, str], bytes]:
        if isinstance(told, bytes):
            return 200, {}, json.dumps(_directory(told.decode())).encode()
        if path == "/dir" and told.__qualname__.startswith("_account_then"):
            return 200, {}, json.dumps(_directory(base)).encode()
        status, headers, body = told(path)
        return status, headers, body.replace(b"BASE", base.encode())

    liar = Liar(tmp_path / "liar", answer)
    base = liar.url.removesuffix("/dir")
    try:
        before = count(lied_to, TROUBLE)
        ask_of(lied_to, liar, 'identifiers = ["127.0.0.1"]\n')
        wait_until(lambda: count(lied_to, TROUBLE) > before, lied_to.log_text)
        found = standing(lied_to)
        assert expected in found["problem"], found["problem"]
        assert "\x1b" not in found["problem"]
        assert len(found["problem"]) <= 600
        if lie == "later":
            assert _wait_s(found) == 80_000
        with lied_to.smtp() as smtp:
            assert smtp.noop()[0] == 250
    finally:
        liar.close()


def test_the_responder_knows_nothing_else(
    pebble: Pebble, start_hub: StartHub, tmp_path: Path
) -> None:
    """Asked badly while an order is under way, which a server that does not answer keeps so."""
    port = free_port()
    asked = threading.Event()

    def answer(path: str, _: bytes) -> tuple[int, dict[str, str], bytes]:
        base = liar.url.removesuffix("/dir")
        headers = {
            "Replay-Nonce": "bm9uY2U",
            "Location": f"{base}/x",
            "Link": f'<{base}/authz>;rel="up"',
        }
        challenge = {
            "type": "http-01",
            "url": f"{base}/chall",
            "token": "dG9rZW4tb2YtdGhlLXRlc3Q",
            "status": "pending",
        }
        if path == "/dir":
            return 200, {}, json.dumps(_directory(base)).encode()
        if path == "/newAccount":
            return 201, headers, b"{}"
        if path == "/chall":
            asked.set()
            return 200, headers, json.dumps(challenge).encode()
        if path == "/authz":
            identifier = {"type": "ip", "value": "127.0.0.1"}
            body = {"status": "pending", "identifier": identifier, "challenges": [challenge]}
            return 200, {**headers, "Location": f"{base}/authz"}, json.dumps(body).encode()
        order = {"status": "pending", "authorizations": [f"{base}/authz"], "finalize": f"{base}/f"}
        return 201, headers, json.dumps(order).encode()

    liar = Liar(tmp_path / "liar", answer)
    try:
        hub = start_hub(
            f'[acme]\ndirectory = "{liar.url}"\nca = "{liar.ca}"\nagree = true\n'
            f'identifiers = ["127.0.0.1"]\nbind = ["127.0.0.1:{port}"]\n'
        )
        assert asked.wait(20), hub.log_text()

        def ask(octets: bytes) -> bytes:
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                client.sendall(octets)
                said = b""
                with contextlib.suppress(ConnectionResetError):
                    while piece := client.recv(4_096):
                        said += piece
                return said

        path = b"/.well-known/acme-challenge/dG9rZW4tb2YtdGhlLXRlc3Q"
        good = ask(b"GET " + path + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert good.startswith(b"HTTP/1.1 200 ")
        assert good.partition(b"\r\n\r\n")[2].startswith(b"dG9rZW4tb2YtdGhlLXRlc3Q.")
        head = ask(b"HEAD " + path + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 404 ")
        for target in (b"/", path[:-1], path + b"/", path + b"?x", b"/../" + path, b"*"):
            said = ask(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            assert said.startswith(b"HTTP/1.1 404 "), (target, said)
        assert ask(
            b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"
        ).startswith(b"HTTP/1.1 404 ")
        for bad in (
            b"EHLO x\r\n\r\n",
            b"\x16\x03\x01" * 100,
            b"GET /" + b"a" * 50_000,
            b"\r\n" * 9_000,
        ):
            assert b"200" not in ask(bad)
        with contextlib.ExitStack() as stack:
            for _ in range(70):  # more than it takes, and none of them says anything
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            assert ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") == b""
        wait_until(lambda: ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 404"))
        began = time.monotonic()
        hub.stop()
        assert time.monotonic() - began < DRAIN_S
        log = hub.log_text()
        assert " bug " not in log
        assert "Traceback" not in log
    finally:
        liar.close()


@pytest.mark.parametrize(
    ("identifier", "profile", "offered", "asked"),
    [
        ("127.0.0.1", None, {"classic": "", "shortlived": ""}, "shortlived"),
        ("mail.public.example", None, {"classic": "", "shortlived": ""}, None),
        ("127.0.0.1", None, {"classic": ""}, None),
        ("127.0.0.1", None, None, None),
        ("127.0.0.1", "classic", {"classic": "", "shortlived": ""}, "classic"),
    ],
)
def test_the_profile_of_an_order(
    lied_to: Hub,
    tmp_path: Path,
    identifier: str,
    profile: str | None,
    offered: dict[str, str] | None,
    asked: str | None,
) -> None:
    orders: list[dict[str, Any]] = []

    def answer(path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if path == "/newAccount":
            return 201, BEHIND, b"{}"
        if path == "/newOrder":
            payload = json.loads(body)["payload"]
            orders.append(json.loads(base64.urlsafe_b64decode(payload + "==")))
            return 403, BEHIND, b'{"detail": "seen"}'
        meta = {} if offered is None else {"meta": {"profiles": offered}}
        there = _directory(liar.url.removesuffix("/dir"))
        return 200, BEHIND, json.dumps({**there, **meta}).encode()

    liar = Liar(tmp_path / "liar", answer)
    try:
        asked_for = f'identifiers = ["{identifier}"]\n'
        ask_of(lied_to, liar, asked_for + (f'profile = "{profile}"\n' if profile else ""))
        wait_until(lambda: orders, lied_to.log_text)
        wait_until(lambda: standing(lied_to)["problem"] == "seen (about:blank)")
    finally:
        liar.close()
    kind = "ip" if identifier[0].isdigit() else "dns"
    (order,) = orders
    assert order["identifiers"] == [{"type": kind, "value": identifier}]
    assert order.get("profile") == asked


# The configuration.


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ('directory = "letsencrypt"', "agree = true"),
        ('directory = "http://ca.example/dir"\nagree = true', "https://"),
        ("agree = true", "acme.directory"),
        ('directory = "letsencrypt"\nagree = true\nidentifiers = []', "an entry"),
        ('directory = "letsencrypt"\nagree = true\nidentifiers = ["a b"]', "domain name"),
        ('directory = "letsencrypt"\nagree = true\nbind = ["/run/x"]', "address:port"),
        ('directory = "letsencrypt"\nagree = true\nchallenge = "dns-01"', "http-01"),
    ],
)
def test_faults_are_said(tmp_path: Path, section: str, complaint: str) -> None:
    done = Hub(tmp_path, f"[acme]\n{section}\n").run("config", "check")
    assert done.returncode == 2
    assert complaint in done.stderr.decode()


def test_a_certificate_of_the_operator_and_acme_exclude_each_other(tmp_path: Path) -> None:
    config = (
        '[acme]\ndirectory = "letsencrypt"\nagree = true\n'
        '[tls]\ncertificate = "/x.pem"\nkey = "/x.key"\n'
    )
    done = Hub(tmp_path, config).run("config", "check")
    assert done.returncode == 2
    assert b"leave out one" in done.stderr


def test_auto_without_a_public_address(start_hub: StartHub) -> None:
    hub = start_hub(
        '[acme]\ndirectory = "https://127.0.0.1:1/"\nagree = true\n'
        '[addresses]\nown = ["10.0.0.1"]\n'
    )
    hub.wait_for_log("no public address or name to certify")
    done = hub.run("tls", "acme")
    assert done.returncode == 1
    assert b"nothing: see acme.identifiers" in done.stdout


def test_the_certificate_stands_for_what_was_asked(pebble: Pebble, start_hub: StartHub) -> None:
    hub = start_hub(acme(pebble, "127.0.0.1", "::1"))
    hub.wait_for_log(ISSUED)
    pem = (hub.data / "tls" / "acme.pem").read_bytes()
    leaf = x509.load_pem_x509_certificates(pem)[0]
    assert subjects_of(leaf).ips == {ip_address("127.0.0.1"), ip_address("::1")}
