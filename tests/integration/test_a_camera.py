"""One mail of a camera, with a picture: kept, published, posted, told and forwarded."""

from __future__ import annotations

import base64
import signal
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.support.hook_server import HookServer
from tests.support.mail import parsed, submit
from tests.support.mosquitto import Mosquitto, json_of
from tests.support.postfix import Postfix
from tests.support.toml import retry, route
from tests.support.waiting import wait_until

from .conftest import StartHub

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 40 + b"\xff\xd9"
TARGETS = ("mailbox:alerts", "mqtt:motion", "webhook:plc", "notify:phones", "relay:out")


@pytest.fixture
def postfix() -> Iterator[Postfix]:
    with Postfix(domains=("far.example",), mailboxes=("me",)) as running:
        yield running


@pytest.fixture
def broker() -> Iterator[Mosquitto]:
    with Mosquitto() as running:
        yield running


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HookServer]:
    with HookServer(tmp_path / "web") as running:
        yield running


def motion() -> bytes:
    mail = EmailMessage()
    mail["From"] = "cam@[127.0.0.1]"
    mail["To"] = "me@far.example"
    mail["Subject"] = "Motion at the door"
    mail.set_content("Somebody is there.\n")
    mail.add_attachment(JPEG, maintype="image", subtype="jpeg", filename="door.jpg")
    return mail.as_bytes(policy=mail.policy.clone(linesep="\r\n"))


def test_one_mail_goes_everywhere(
    start_hub: StartHub, postfix: Postfix, broker: Mosquitto, server: HookServer
) -> None:
    hub = start_hub(
        route(*TARGETS, match='recipient = "me@far.example"')
        + f'[mqtt]\nurl = "mqtt://127.0.0.1:{broker.port}"\nreset_after_s = 8\n'
        f'[webhook.plc]\nurl = "{server.url("/200/plc")}"\nsecret = "s"\nattachments = "base64"\n'
        f'[notify.phones]\nurls = ["json://127.0.0.1:{server.port}/200/phones"]\n'
        f'[relay.out]\nhost = "[127.0.0.1]"\nport = {postfix.port}\ntls = "none"\n'
        + retry(0.3, max_s=0.5)
    )
    assert hub.run("device", "set", "127.0.0.1", "--name", "front-door").returncode == 0
    broker.kill()
    with hub.smtp() as smtp:
        queue_id = submit(smtp, "me@far.example", sender="cam@[127.0.0.1]", content=motion())

    # All but the broker have it.
    (stored,) = hub.wait_for_mail("alerts")
    assert parsed(stored)["subject"] == "Motion at the door"
    (posted,) = server.wait_for(1, "/200/plc")
    assert (posted.json["id"], posted.json["subject"]) == (queue_id, "Motion at the door")
    assert base64.b64decode(posted.json["attachments"][0]["data_base64"]) == JPEG
    (told,) = server.wait_for(1, "/200/phones")
    assert base64.b64decode(told.json["attachments"][0]["base64"]) == JPEG
    new = postfix.mailbox("me") / "new"
    (copy,) = wait_until(lambda: list(new.iterdir()) if new.exists() else [], postfix.log_text)
    (picture,) = parsed(copy.read_bytes()).iter_attachments()
    assert picture.get_content() == JPEG

    def waiting() -> list[str]:
        (entry,) = hub.json("trace", "--id", queue_id)
        return [one["target"] for one in entry["recipients"] if one["outcome"] is None]

    wait_until(lambda: waiting() == ["mqtt:motion"], hub.log_text)
    # The broker keeps no events: whoever wants them has to be there before the hub is.
    hub.send_signal(signal.SIGSTOP)
    broker.start()
    with broker.listener("waypost/#") as listener:
        hub.send_signal(signal.SIGCONT)
        (event,) = listener.wait_for("waypost/front-door/event")
        assert json_of(event.payload)["id"] == queue_id
        assert [got.payload for got in listener.got("waypost/front-door/image")] == [JPEG]
        listener.wait_for("waypost/front-door/motion", 2)
        states = [got.payload for got in listener.got("waypost/front-door/motion")]
        assert states == [b"ON", b"OFF"]
    wait_until(lambda: waiting() == [], hub.log_text)
    (entry,) = hub.json("trace", "--id", queue_id)
    assert {one["target"] for one in entry["recipients"]} == set(TARGETS)
    assert {one["outcome"] for one in entry["recipients"]} == {"delivered", "relayed"}
