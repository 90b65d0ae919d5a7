"""`waypost sendmail` and `waypost send` with a running hub, as cron and people call them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.hub import Hub
from tests.support.mail import content_of, parsed
from tests.support.ports import free_port

from .conftest import StartHub

MAIL = b"""\
From: Backup <backup@nas.example>
To: ann@[127.0.0.1], "Bob, the builder" <bob@[127.0.0.1]>
Cc: carl@[127.0.0.1]
Bcc: dora@[127.0.0.1],
\teve@[127.0.0.1]
Subject: report

All is well.
.
After the dot.
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub for all of these; each test has mailboxes of its own."""
    with Hub(tmp_path_factory.mktemp("sendmail") / "hub") as running:
        yield running


def send(hub: Hub, *arguments: str, text: bytes = MAIL, status: int = 0) -> str:
    """Call it as a script would; what it complained of."""
    done = subprocess.run(
        hub.command("sendmail", "--config", str(hub.config_file), *arguments),
        input=text,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr.decode()
    return done.stderr.decode()


def test_recipients_from_the_header(hub: Hub) -> None:
    assert send(hub, "-t", "-i", "-f", "root@[127.0.0.1]") == ""
    for name in ("ann", "bob", "carl", "dora", "eve"):
        (stored,) = hub.wait_for_mail(name)
        received = parsed(stored)
        assert received["return-path"] == "<root@[127.0.0.1]>"
        assert received["bcc"] is None
        assert received["from"] == "Backup <backup@nas.example>"
        assert received["date"]
        assert received["message-id"]
        assert b"\r\n.\r\nAfter the dot.\r\n" in stored


def test_a_lone_dot_ends_the_message_without_i(hub: Hub) -> None:
    send(hub, "dot@[127.0.0.1]")
    (stored,) = hub.wait_for_mail("dot")
    assert stored.endswith(b"All is well.\r\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("-FCronDaemon", "-i", "-B8BITMIME", "-oem", "cron1"),  # Debian's cron
        ("-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "root"),  # cronie
        ("-i", "-t"),  # PHP
        ("-oi", "-t", "-fcron4"),  # Perl
        ("-bm", "-i", "--", "cron5"),
    ],
)
def test_as_cron_and_scripts_call_it(hub: Hub, arguments: tuple[str, ...]) -> None:
    name = arguments[-1] if arguments[-1].startswith("cron") else f"to-{len(arguments)}"
    text = f"To: {name}\nSubject: Cron <root@nas> backup\n\nGrüße\n".encode()
    send(hub, *arguments, text=text)
    (stored,) = hub.wait_for_mail(name)
    assert parsed(stored)["subject"] == "Cron <root@nas> backup"
    assert "Grüße\r\n".encode() in stored


def test_a_text_without_any_header(hub: Hub) -> None:
    send(hub, "bare", text=b"just words\n")
    content = content_of(hub.wait_for_mail("bare")[0])
    assert content.endswith(b"\r\n\r\njust words\r\n")
    assert parsed(content)["from"] is not None


def test_the_full_name(hub: Hub) -> None:
    send(hub, "-F", "Ann Example", "-f", "ann@[127.0.0.1]", "named", text=b"Subject: x\n\ny\n")
    assert parsed(hub.wait_for_mail("named")[0])["from"] == "Ann Example <ann@[127.0.0.1]>"


def test_the_null_sender(hub: Hub) -> None:
    send(hub, "-f", "<>", "null@[127.0.0.1]")
    assert hub.wait_for_mail("null")[0].startswith(b"Return-Path: <>\r\n")


def test_what_is_refused_is_told(hub: Hub) -> None:
    told = send(hub, "x@elsewhere.example", "fine@[127.0.0.1]", status=1)
    assert "x@elsewhere.example: failed: 550 5.7.1" in told
    hub.wait_for_mail("fine")
    assert send(hub, status=2)  # nobody to send to
    assert send(hub, "a@@b", status=2)


def test_without_a_hub_it_says_try_later(tmp_path: Path) -> None:
    done = Hub(tmp_path / "down").run("sendmail", "ann@[127.0.0.1]", stdin=MAIL)
    assert done.returncode == 75
    assert b"waypost serve" in done.stderr


@pytest.mark.parametrize("bind", ["[::]:PORT", "[::1]:PORT", "0.0.0.0:PORT"])
def test_send_finds_the_hub_wherever_it_listens(start_hub: StartHub, bind: str) -> None:
    port = free_port("::1" if ":" in bind.removesuffix(":PORT") else "127.0.0.1")
    listener = f'[[listener]]\nname = "smtp"\nbind = ["{bind.replace("PORT", str(port))}"]\n'
    hub = start_hub(listener=listener, port=port)
    done = hub.run("send", "--to", "ann@[127.0.0.1]", "--body", "Hello.")
    assert done.returncode == 0, done.stderr
    hub.wait_for_mail("ann")
    send(hub, "bob")
    hub.wait_for_mail("bob")


def test_send_tells_of_each_recipient(hub: Hub) -> None:
    told = hub.json("send", "--to", "told@[127.0.0.1]", "x@elsewhere.example", "--from", "<>")
    assert [(entry["recipient"], entry["outcome"]) for entry in told] == [
        ("told@[127.0.0.1]", "relayed"),
        ("x@elsewhere.example", "failed"),
    ]
    assert told[1]["reply"].startswith("550 5.7.1")
    assert hub.run("send", "--to", "x@elsewhere.example", "--from", "a@b.example").returncode == 1
    assert hub.wait_for_mail("told")[0].startswith(b"Return-Path: <>\r\n")


def test_send_reads_a_bare_address_as_the_literal(hub: Hub) -> None:
    done = hub.run("send", "--to", "short@127.0.0.1", "--from", "cam@127.0.0.1", "--subject", "Ö")
    assert done.returncode == 0, done.stderr
    received = parsed(hub.wait_for_mail("short")[0])
    assert received["delivered-to"] == "short@[127.0.0.1]"
    assert received["return-path"] == "<cam@[127.0.0.1]>"
    assert received["subject"] == "Ö"


def test_send_to_names_beyond_ascii(hub: Hub) -> None:
    done = hub.run("send", "--to", "jürgen@[127.0.0.1]", "--from", "ann@[127.0.0.1]")
    assert done.returncode == 0, done.stderr
    received = parsed(hub.wait_for_mail(quote("jürgen"))[0])
    assert received["to"] == "jürgen@[127.0.0.1]"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--to", "ann@[127.0.0.1]", "--via", "127.0.0.1"),
        ("--to", "ann@[127.0.0.1]", "--via", "127.0.0.1:smtp"),
        ("--to", "no address"),
        ("--to", "ann@[127.0.0.1]", "--from", "no address"),
        (),
    ],
)
def test_wrong_usage(hub: Hub, arguments: tuple[str, ...]) -> None:
    done = hub.run("send", *arguments)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
