"""Names in UTF-8 that a trusted client uses without a word about it go on by SMTPUTF8."""

from __future__ import annotations

import pytest

from tests.devices.test_catalogue import Device
from tests.support.hub import Hub
from tests.support.scripted_peer import ScriptedPeer
from tests.support.toml import route


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
