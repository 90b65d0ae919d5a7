"""Names in UTF-8 that a trusted client uses without a word about it go on by SMTPUTF8."""

from __future__ import annotations

import pytest

from tests.devices.test_catalogue import Device
from tests.support.hub import Hub
from tests.support.mail import fields_of
from tests.support.scripted_peer import EXTENSIONS, ScriptedPeer
from tests.support.toml import route
from waypost.delivery.maildir import directory_name


@pytest.mark.parametrize(
    ("sender", "recipient", "needs_utf8"),
    [
        ("cam@camera.lan", "ann@plant.example", False),
        ("Einfahrt-Süd@camera.lan", "ann@plant.example", True),
        ("cam@camera.lan", "Küche@plant.example", True),
    ],
)
def test_the_next_host_is_told(
    tmp_path_factory: pytest.TempPathFactory, sender: str, recipient: str, needs_utf8: bool
) -> None:
    with ScriptedPeer() as peer:
        config = route(peer.target, match='recipient = "*@plant.example"')
        with Hub(tmp_path_factory.mktemp("onward"), config) as hub:
            device = Device(hub, "127.0.0.1")
            with device.socket:
                device.hears("220")
                for command in ("EHLO d", f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>"):
                    device.send([command.encode() + b"\r\n"])
                    device.hears("250")
                device.send([b"DATA\r\n"])
                device.hears("354")
                device.send([b"Subject: x\r\n\r\nx\r\n.\r\n"])
                device.hears("250 2.0.0 queued as")
            (mail,) = peer.wait_for_mails()
    assert mail.sender.startswith(f"FROM:<{sender}>")
    assert ("SMTPUTF8" in mail.sender) == needs_utf8
    assert mail.paths == [recipient]


@pytest.mark.parametrize(
    ("received", "sender"),
    [("", "FROM:<Einfahrt-Sud@camera.lan>"), ("Received: from a by b; now\r\n", None)],
    ids=["a device's own", "relayed"],
)
def test_a_relay_without_smtputf8_gets_a_name_in_ascii(
    tmp_path_factory: pytest.TempPathFactory, received: str, sender: str | None
) -> None:
    """Of a device, which would never see a report; a relay that passes such mail on gets one."""
    extensions = [one for one in EXTENSIONS if one != "SMTPUTF8"]
    with ScriptedPeer(extensions=extensions) as peer:
        config = route("relay:far", match='recipient = "*@plant.example"')
        config += f'[relay.far]\nhost = "127.0.0.1"\nport = {peer.port}\ntls = "none"\n'
        config += '[addresses]\ndomains = ["camera.lan"]\n'
        with Hub(tmp_path_factory.mktemp("ascii"), config) as hub:
            device = Device(hub, "127.0.0.1")
            with device.socket:
                device.hears("220")
                for command in (
                    "EHLO d",
                    "MAIL FROM:<Einfahrt-Süd@camera.lan>",
                    "RCPT TO:<ann@plant.example>",
                ):
                    device.send([command.encode("latin-1") + b"\r\n"])
                    device.hears("250")
                device.send([b"DATA\r\n"])
                device.hears("354")
                header = f"{received}From: Tür <Einfahrt-Süd@camera.lan>\r\nSubject: x\r\n"
                device.send([header.encode() + b"\r\nx\r\n.\r\n"])
                device.hears("250 2.0.0 queued as")
            if sender is None:
                (report,) = hub.wait_for_mail(directory_name("einfahrt-süd"))
                assert b"5.6.7" in report
                assert peer.mails == []
                return
            (mail,) = peer.wait_for_mails()
            hub.wait_for_log('changes="date message-id from charset reverse-path"')
    assert mail.sender.startswith(sender)
    assert "SMTPUTF8" not in mail.sender
    header = mail.content.partition(b"\r\n\r\n")[0]
    assert header.isascii()
    assert fields_of(mail.content, "from") == ["Tür <Einfahrt-Sud@camera.lan>"]
    assert fields_of(mail.content, "x-original-from") == ["Tür <Einfahrt-Süd@camera.lan>"]
    assert fields_of(mail.content, "reply-to") == []
