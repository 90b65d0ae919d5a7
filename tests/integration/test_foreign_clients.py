"""Programs that people already have send to a hub nobody has configured."""

from __future__ import annotations

import os
import smtplib
import subprocess
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.support.hub import Hub
from tests.support.mail import content_of, parsed, wire
from tests.support.netns import Namespace

from .conftest import StartHub

LITERAL = "alerts@[127.0.0.1]"
TEXT = wire(
    "From: cam@[127.0.0.1]",
    f"To: {LITERAL}",
    "Subject: motion",
    "",
    "Somebody is at the door.",
    ".a line with a dot",
    "..",
)


def run(*command: str, stdin: bytes = b"") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=30, check=False)
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, said
    return said


def arrived(hub: Hub, mailbox: str = "alerts") -> bytes:
    """The one message there, as it was sent."""
    (stored,) = hub.wait_for_mail(mailbox)
    return content_of(stored)


def test_swaks(hub: Hub) -> None:
    server = f"127.0.0.1:{hub.port}"
    said = run("swaks", "--server", server, "--helo", "cam.test", "--to", LITERAL)
    assert "queued as" in said
    assert parsed(arrived(hub))["to"] == LITERAL


def test_swaks_pipelined(hub: Hub) -> None:
    server = f"127.0.0.1:{hub.port}"
    run("swaks", "--server", server, "--helo", "cam.test", "--to", LITERAL, "--pipeline")
    assert b"This is a test mailing" in arrived(hub)


def test_smtplib(hub: Hub) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "cam@[127.0.0.1]", LITERAL, "motion"
    message.set_content("Somebody is at the door.")
    with hub.smtp() as smtp:
        assert smtp.send_message(message) == {}
    received = parsed(arrived(hub))
    assert received["subject"] == "motion"
    assert received.get_content().splitlines() == ["Somebody is at the door."]


def test_smtplib_sendmail_keeps_every_octet(hub: Hub) -> None:
    with hub.smtp() as smtp:
        assert smtp.sendmail("cam@[127.0.0.1]", [LITERAL], TEXT) == {}
    assert arrived(hub) == TEXT


def test_curl(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "mail").write_bytes(TEXT)
    run(
        *("curl", "--silent", "--show-error", f"smtp://127.0.0.1:{hub.port}"),
        *("--mail-from", "cam@[127.0.0.1]", "--mail-rcpt", LITERAL),
        *("--upload-file", str(tmp_path / "mail")),
    )
    assert arrived(hub) == TEXT


def test_msmtp(hub: Hub) -> None:
    run(
        *("msmtp", "--host=127.0.0.1", f"--port={hub.port}", "--auth=off", "--tls=off"),
        *("--from=cam@[127.0.0.1]", LITERAL),
        stdin=TEXT.replace(b"\r\n", b"\n"),
    )
    assert arrived(hub).endswith(TEXT.partition(b"\r\n\r\n")[2])


def test_smtp_source(hub: Hub) -> None:
    run(
        *("smtp-source", "-s", "5", "-m", "40", "-l", "2000"),
        *("-f", "cam@[127.0.0.1]", "-t", LITERAL, f"inet:127.0.0.1:{hub.port}"),
    )
    assert len(hub.wait_for_mail("alerts", 40)) == 40


def test_all_of_it_without_any_configuration(
    hosts: tuple[Namespace, Namespace], start_hub: StartHub
) -> None:
    # A host of its own, so that the default ports are free: 2525 and 2587, both families.
    here, _ = hosts
    hub = start_hub(listener="", namespace=here.name, port=2525)
    for host, port, literal in (
        ("127.0.0.1", 2525, "[127.0.0.1]"),
        ("::1", 2525, "[IPv6:::1]"),
        ("10.9.0.1", 2587, "[10.9.0.1]"),
        ("fd00:9::1", 2587, "[IPv6:fd00:9::1]"),
    ):
        with here.entered():
            smtp = smtplib.SMTP(host, port, timeout=20)
        with smtp:
            # It calls itself by the literal of the address connected to.
            assert smtp.ehlo()[1].decode().splitlines()[0] == literal
            smtp.sendmail("", [f"alerts@{literal}"], TEXT)
    assert len(hub.wait_for_mail("alerts", 4)) == 4
    assert sorted(path.name for path in (hub.data / "mail" / "alerts").iterdir()) == [
        "cur",
        "new",
        "tmp",
    ]


def test_files_are_the_owners_alone(hub: Hub) -> None:
    with hub.smtp() as smtp:
        smtp.sendmail("", [LITERAL], TEXT)
        smtp.sendmail("", [LITERAL], TEXT + b"x" * 100_000 + b"\r\n")
    hub.wait_for_mail("alerts", 2)
    for directory, _, files in os.walk(hub.data):
        assert os.stat(directory).st_mode & 0o777 == 0o700, directory
        for name in files:
            assert (Path(directory) / name).stat().st_mode & 0o077 == 0, name


@pytest.mark.parametrize("recipient", ["alerts@127.0.0.1", "alerts", "<alerts@[127.0.0.1]>"])
def test_what_devices_write_for_a_literal(hub: Hub, recipient: str) -> None:
    with hub.smtp() as smtp:
        smtp.sendmail("cam", [recipient], TEXT)
    assert arrived(hub) == TEXT
