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

TEXT = wire(
    "From: cam@[127.0.0.1]",
    "To: alerts@[127.0.0.1]",
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


@pytest.fixture
def hub(shared_hub: Hub) -> Hub:
    """The hub that all these programs send to."""
    return shared_hub


@pytest.fixture
def literal(request: pytest.FixtureRequest) -> str:
    """An address of it that no other test uses."""
    return f"{request.function.__name__}@[127.0.0.1]"


def arrived(hub: Hub, literal: str) -> bytes:
    """The one message there, as it was sent."""
    (stored,) = hub.wait_for_mail(literal.partition("@")[0])
    return content_of(stored)


def test_swaks(hub: Hub, literal: str) -> None:
    server = f"127.0.0.1:{hub.port}"
    said = run("swaks", "--server", server, "--helo", "cam.test", "--to", literal)
    assert "queued as" in said
    assert parsed(arrived(hub, literal))["to"] == literal


def test_swaks_pipelined(hub: Hub, literal: str) -> None:
    server = f"127.0.0.1:{hub.port}"
    run("swaks", "--server", server, "--helo", "cam.test", "--to", literal, "--pipeline")
    assert b"This is a test mailing" in arrived(hub, literal)


def test_smtplib(hub: Hub, literal: str) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "cam@[127.0.0.1]", literal, "motion"
    message.set_content("Somebody is at the door.")
    with hub.smtp() as smtp:
        assert smtp.send_message(message) == {}
    received = parsed(arrived(hub, literal))
    assert received["subject"] == "motion"
    assert received.get_content().splitlines() == ["Somebody is at the door."]


def test_smtplib_sendmail_keeps_every_octet(hub: Hub, literal: str) -> None:
    with hub.smtp() as smtp:
        assert smtp.sendmail("cam@[127.0.0.1]", [literal], TEXT) == {}
    assert arrived(hub, literal) == TEXT


def test_curl(hub: Hub, literal: str, tmp_path: Path) -> None:
    (tmp_path / "mail").write_bytes(TEXT)
    run(
        *("curl", "--silent", "--show-error", f"smtp://127.0.0.1:{hub.port}"),
        *("--mail-from", "cam@[127.0.0.1]", "--mail-rcpt", literal),
        *("--upload-file", str(tmp_path / "mail")),
    )
    assert arrived(hub, literal) == TEXT


def test_msmtp(hub: Hub, literal: str) -> None:
    run(
        *("msmtp", "--host=127.0.0.1", f"--port={hub.port}", "--auth=off", "--tls=off"),
        *("--from=cam@[127.0.0.1]", literal),
        stdin=TEXT.replace(b"\r\n", b"\n"),
    )
    assert arrived(hub, literal).endswith(TEXT.partition(b"\r\n\r\n")[2])


def test_smtp_source(hub: Hub, literal: str) -> None:
    run(
        *("smtp-source", "-s", "5", "-m", "40", "-l", "2000"),
        *("-f", "cam@[127.0.0.1]", "-t", literal, f"inet:127.0.0.1:{hub.port}"),
    )
    assert len(hub.wait_for_mail(literal.partition("@")[0], 40)) == 40


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


def test_files_are_the_owners_alone(hub: Hub, literal: str) -> None:
    with hub.smtp() as smtp:
        smtp.sendmail("", [literal], TEXT)
        smtp.sendmail("", [literal], TEXT + b"x" * 100_000 + b"\r\n")
    hub.wait_for_mail(literal.partition("@")[0], 2)
    for directory, _, files in os.walk(hub.data):
        assert os.stat(directory).st_mode & 0o777 == 0o700, directory
        for name in files:
            if name.endswith(".pem"):
                continue  # certificates, for everybody who gets that far
            assert (Path(directory) / name).stat().st_mode & 0o077 == 0, name


@pytest.mark.parametrize("recipient", ["bare@127.0.0.1", "nowhere", "<angle@[127.0.0.1]>"])
def test_what_devices_write_for_a_literal(hub: Hub, recipient: str) -> None:
    with hub.smtp() as smtp:
        smtp.sendmail("cam", [recipient], TEXT)
    assert arrived(hub, recipient.strip("<>")) == TEXT
