"""Devices as a hub sees them: by themselves, by name, with what they say and what they do not."""

from __future__ import annotations

import base64
import re
import smtplib
import socket
import time
from collections.abc import Iterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub import Hub
from tests.support.ports import free_port
from tests.support.waiting import wait_until

PASSWORD = "correct horse"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub(tmp_path, '[addresses]\nown = ["127.0.0.1"]\n') as running:
        yield running


def send(
    hub: Hub, client: str, content: str = "Subject: motion\r\n\r\nseen\r\n", to: str = "alerts"
) -> None:
    with hub.smtp(source_address=(client, 0)) as session:
        session.sendmail("cam@x.example", [f"{to}@[127.0.0.1]"], content)


def raw(hub: Hub, octets: bytes, client: str = "127.0.0.1") -> bytes:
    """Say all of it, and hear all there is until the hub closes or waits."""
    heard = b""
    with socket.create_connection((hub.host, hub.port), 20, source_address=(client, 0)) as peer:
        peer.recv(1_000)
        peer.sendall(octets)
        peer.settimeout(1.0)
        try:
            while more := peer.recv(65_536):
                heard += more
        except TimeoutError:
            pass
    return heard


def devices(hub: Hub) -> dict[str, dict[str, Any]]:
    return {row["ip"]: row for row in hub.json("device", "list")}


def subjects(hub: Hub, mailbox: str, count: int) -> list[str]:
    mails = [mail.replace(b"\r", b"") for mail in hub.wait_for_mail(mailbox, count)]
    return [
        line.decode().removeprefix("Subject: ")
        for mail in mails
        for line in mail.partition(b"\n\n")[0].split(b"\n")
        if line.startswith(b"Subject: ")
    ]


def dialogue(hub: Hub, device: str) -> list[tuple[str, str]]:
    (shown,) = hub.json("device", "show", device, "--dialogue")
    return [(line["who"], line["text"]) for line in shown["lines"]]


def test_they_appear_by_themselves_and_outlast_a_restart(hub: Hub) -> None:
    for client in ("127.0.0.2", "127.0.0.3", "127.0.0.2"):
        send(hub, client, f"Subject: from {client}\r\n\r\n")
    found = devices(hub)
    assert set(found) == {"127.0.0.2", "127.0.0.3"}
    camera = found["127.0.0.2"]
    assert (camera["messages"], camera["sessions"]) == (2, 2)
    assert camera["subject"] == "from 127.0.0.2"
    assert (camera["sender"], camera["helo"], camera["tls"]) == (
        *("cam@x.example", "client.test", None),
    )
    assert camera["first_at"] <= camera["mail_at"] <= camera["last_at"]
    assert camera["quirks"] == []
    named = hub.run("device", "set", "127.0.0.2", "--name", "front-door", "--kind", "camera")
    assert named.returncode == 0
    hub.kill()
    hub.start()
    again = devices(hub)["127.0.0.2"]
    assert (again["name"], again["kind"], again["messages"]) == ("front-door", "camera", 2)
    send(hub, "127.0.0.2")
    hub.stop()
    assert devices(hub)["127.0.0.2"]["messages"] == 3  # without a hub, from the file
    assert hub.run("device", "set", "FRONT-DOOR", "--kind", "none").returncode == 0
    assert hub.run("device", "forget", "127.0.0.3").returncode == 0
    hub.start()
    found = devices(hub)
    assert set(found) == {"127.0.0.2"}
    assert found["127.0.0.2"]["kind"] is None
    text = hub.run("device", "show", "front-door").stdout.decode()
    assert "127.0.0.2" in text
    assert "cam@x.example" in text


def test_what_they_are_forgiven_and_how_they_encrypt(hub: Hub) -> None:
    raw(
        hub,
        b"HELO\r\nMAIL FROM: root X=1\nRCPT TO:<alerts@[127.0.0.1]>\r\nDATA\r\na\nb\r\n.\r\n",
        "127.0.0.4",
    )
    deadline = time.monotonic() + 20
    while "ends without QUIT" not in devices(hub)["127.0.0.4"]["quirks"]:
        assert time.monotonic() < deadline
    assert devices(hub)["127.0.0.4"]["quirks"] == [
        "HELO without a name",
        "addresses without < >",
        "addresses without a domain",
        "parameters nobody knows",
        "commands that end in a bare LF",
        "bare CR or LF, or NUL, in content",
        "ends without QUIT",
    ]
    for _ in range(2):
        raw(hub, b"HELO K\xfcche\r\nMAIL FROM:<K\xfcche@cam.lan>\r\nQUIT\r\n", "127.0.0.6")
    wait_until(lambda: devices(hub)["127.0.0.6"]["quirks"], hub.log_text)
    assert devices(hub)["127.0.0.6"]["quirks"] == ["letters in commands that are not UTF-8"]
    assert len(re.findall(r" device-quirk client=127\.0\.0\.6 ", hub.log_text())) == 1
    with hub.smtp(source_address=("127.0.0.5", 0)) as session:
        session.starttls()
        session.sendmail("cam@x.example", ["alerts@[127.0.0.1]"], "Subject: x\r\n\r\n")
    found = devices(hub)["127.0.0.5"]
    assert found["tls"].startswith("TLSv1.")
    assert found["protocol"] == "ESMTPS"
    assert found["quirks"] == []
    assert ("-", found["tls"]) in dialogue(hub, "127.0.0.5")


def test_the_dialogue_of_the_last_session_without_content(hub: Hub) -> None:
    send(hub, "127.0.0.2", "Subject: first\r\n\r\n")
    send(hub, "127.0.0.2", "Subject: x\r\n\r\nprivate matter\r\n")
    lines = dialogue(hub, "127.0.0.2")
    heard = [text for who, text in lines if who == "C"]
    assert heard == [
        "ehlo client.test",
        "mail FROM:<cam@x.example> size=30",
        "rcpt TO:<alerts@[127.0.0.1]>",
        "data",
        "QUIT",
    ]
    assert ("-", "content, 30 octets") in lines
    assert "private" not in repr(lines)
    assert lines[-1][1].startswith("221")
    text = hub.run("device", "show", "127.0.0.2", "--dialogue").stdout.decode()
    assert "C  rcpt TO:<alerts@[127.0.0.1]>" in text
    assert hub.run("device", "show", "127.0.0.9", "--dialogue").returncode == 1


@pytest.mark.parametrize("is_taken", [True, False])
def test_passwords_are_in_no_dialogue(tmp_path: Path, is_taken: bool) -> None:
    """A login that any device may make here, and one that is refused and goes on regardless."""
    port = free_port()
    any_login = 'any_login = ["loopback"]' if is_taken else ""
    listener = f'[[listener]]\nname = "smtp"\nbind = ["127.0.0.1:{port}"]\n{any_login}\n'
    both = base64.b64encode(b"\0cam\0" + PASSWORD.encode())
    secrets = (base64.b64encode(b"cam"), base64.b64encode(PASSWORD.encode()), both)
    with Hub(tmp_path, listener=listener, port=port) as hub:
        logins = (
            b"AUTH PLAIN " + both,
            b"AUTH PLAIN\r\n" + both,
            b"AUTH LOGIN\r\n" + secrets[0] + b"\r\n" + secrets[1],
            b"auth login " + secrets[0] + b"\r\n" + secrets[1],
            b" AUTH  PLAIN " + both,
        )
        for login in logins:
            answer = raw(hub, b"EHLO cam\r\n" + login + b"\r\nQUIT\r\n", "127.0.0.2")
            assert (b"\r\n235 " in answer) is is_taken
            lines = dialogue(hub, "127.0.0.2")
            said = repr(lines)
            for secret in (*secrets, PASSWORD.encode()):
                assert secret.decode() not in said, lines
            assert any("AUTH" in text.upper() for who, text in lines if who == "C")
        assert PASSWORD not in hub.log_text()
        assert both.decode() not in hub.log_text()


def test_silence_is_told_once_and_so_is_the_end_of_it(hub: Hub) -> None:
    send(hub, "127.0.0.2")
    arguments = ("--name", "front-door", "--expect", "2s", "--alarm", "mailbox:ops")
    assert hub.run("device", "set", "127.0.0.2", *arguments).returncode == 0
    (silent,) = subjects(hub, "ops", 1)
    assert silent.startswith("front-door has been silent since ")
    assert devices(hub)["127.0.0.2"]["is_silent"]
    # Nor does a restart tell it again, or forget that it is silent.
    hub.stop()
    hub.start()
    time.sleep(4)
    assert hub.run("device", "set", "front-door", "--quiet", "none").returncode == 0
    assert len(hub.mailbox("ops")) == 1
    send(hub, "127.0.0.2")
    assert "front-door is back" in subjects(hub, "ops", 2)


def test_words_of_failure_raise_an_alarm_at_once(hub: Hub) -> None:
    wanted = ("--name", "nas", "--failure", "failed", "--failure", "no space", "--success", "done")
    assert hub.run("device", "set", "127.0.0.3", *wanted).returncode == 0
    send(hub, "127.0.0.3", "Subject: all done\r\n\r\n")
    html = "<p>1 done, 2 fail<b>ed</b></p>"
    send(
        hub,
        "127.0.0.3",
        f"Subject: Backup\r\nMIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n{html}\r\n",
    )
    assert subjects(hub, "postmaster", 1) == ["nas says failure"]
    assert devices(hub)["127.0.0.3"]["is_failing"]
    # Large mail is read in full, and a device without words is not read at all.
    assert (
        hub.run("device", "set", "127.0.0.4", "--name", "big", "--failure", "boom").returncode == 0
    )
    filler = ("x" * 70 + "\r\n") * 1_000
    send(hub, "127.0.0.4", f"Subject: log\r\n\r\n{filler}BOOM\r\n")
    send(hub, "127.0.0.5", "Subject: failed\r\n\r\n")
    assert sorted(subjects(hub, "postmaster", 2)) == ["big says failure", "nas says failure"]
    hub.stop()
    assert hub.log_text().count(" device-mail ") == 3
    assert hub.log_text().count("says=failure") == 2


def test_its_mailbox_takes_what_has_none(hub: Hub) -> None:
    send(hub, "127.0.0.2", to="alerts")
    hub.wait_for_mail("alerts")
    assert hub.run("device", "set", "127.0.0.2", "--mailbox", "Front").returncode == 0
    send(hub, "127.0.0.2", to="anything")
    send(hub, "127.0.0.2", to="alerts")
    send(hub, "127.0.0.3", to="other")
    hub.wait_for_mail("front")
    hub.wait_for_mail("alerts", 2)
    hub.wait_for_mail("other")
    assert hub.mailbox("anything") == []
    route = hub.run("route", "anything@[127.0.0.1]", "--client", "127.0.0.2").stdout.decode()
    assert "the mailbox of the device at 127.0.0.2 is 'Front'" in route
    assert "accepted: mailbox:front" in route
    # Some forms want a name with a dot behind the "@".
    with hub.smtp(source_address=("127.0.0.2", 0)) as session:
        session.sendmail("cam@x.example", ["any@camera.lan"], "Subject: misaddressed\r\n\r\n")
    hub.wait_for_mail("front", 2)
    elsewhere = hub.run("route", "anything@[127.0.0.1]", "--client", "127.0.0.3").stdout.decode()
    assert "accepted: mailbox:anything" in elsewhere


def test_any_text_is_a_name(tmp_path: Path) -> None:
    """Of the configuration, or set; in lists, for commands, and in the mail of alarms."""
    named = '[[device]]\naddress = "127.0.0.2"\nname = "Front Door"\nkind = "camera"\n'
    with Hub(tmp_path, named) as hub:
        assert hub.run("device", "set", "127.0.0.1", "--name", "front-door").returncode == 1
        done = hub.run("device", "set", "127.0.0.1", "--name", "Tür / Höhe", "--expect", "1s")
        assert done.returncode == 0, done.stderr
        send(hub, "127.0.0.2", to="log")
        listed = {row["name"]: row["kind"] for row in hub.json("device", "list")}
        assert listed == {"Front Door": "camera", "Tür / Höhe": None}
        shown = hub.run("device", "show", "front door").stdout.decode()
        assert "127.0.0.2" in shown
        assert "Tür / Höhe" in hub.run("device", "list").stdout.decode()
        [alarm] = hub.wait_for_mail("postmaster")
        mail = message_from_bytes(alarm, policy=policy.default)
        assert mail["Subject"] == "Tür / Höhe has never sent mail"
        assert "waypost device show 'Tür / Höhe' --dialogue" in mail.get_content()


def test_what_cannot_be_set_is_refused(hub: Hub) -> None:
    """The same with a hub and without."""
    send(hub, "127.0.0.2")
    assert hub.run("device", "set", "127.0.0.3", "--name", "taken").returncode == 0
    for _ in range(2):
        for arguments, said, status in (
            (("127.0.0.2", "--alarm", "pigeon:1"), "no target", 2),
            (("127.0.0.2", "--name", "a\tb"), "expected a text", 2),
            (("127.0.0.2", "--name", "127 0 0 3"), "IP address", 2),
            (("127.0.0.2", "--command-topic", "a/#"), "one of: text", 2),
            (("127.0.0.2", "--expect", "soon"), "span of time", 2),
            (("127.0.0.2", "--mailbox", ""), "mailbox '': expected a text", 2),
            (("127.0.0.2",), "nothing to set", 2),
            (("127.0.0.2", "--name", "Taken"), "has the name", 1),
            (("nobody", "--name", "x"), "no device 'nobody'", 1),
        ):
            done = hub.run("device", "set", *arguments)
            assert done.returncode == status
            assert said in done.stderr.decode()
        hub.stop()
    assert hub.run("device", "show", "127.0.0.2", "--dialogue").returncode == 75


def test_a_damaged_file_stops_no_mail(hub: Hub) -> None:
    send(hub, "127.0.0.2")
    hub.stop()
    (hub.data / "devices.db").write_bytes(b"damaged" * 1_000)
    hub.start()
    hub.wait_for_log("devices-trouble")
    send(hub, "127.0.0.2")
    hub.wait_for_mail("alerts", 2)
    assert devices(hub)["127.0.0.2"]["messages"] == 1
    refused = hub.run("device", "set", "127.0.0.2", "--name", "x")
    assert refused.returncode == 1
    assert "devices.db" in refused.stderr.decode()


def test_strangers_are_no_devices(tmp_path: Path) -> None:
    with Hub(tmp_path, '[networks]\ntrusted = ["127.0.0.1/32"]\n') as hub:
        with pytest.raises(smtplib.SMTPException):
            send(hub, "127.0.0.2")
        assert devices(hub) == {}
