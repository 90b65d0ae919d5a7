"""`waypost route --message`: what it tells of a mail is what every target then really gets."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.hook_server import HookServer
from tests.support.hub import Hub
from tests.support.mail import accepted, message, submit, submit_content, wire
from tests.support.mosquitto import Mosquitto, json_of
from tests.support.toml import route
from tests.support.waiting import wait_until
from waypost.cli import main

from .conftest import StartHub, StartPeer

SENDER = "cam@[127.0.0.1]"
TO = "cam1@[127.0.0.1]"
DEVICE = "waypost/Gate-camera"
SECRET = "t0ken-in-the-path"
NAMED = '[[device]]\naddress = "127.0.0.1"\nname = "Gate camera"\nkind = "camera"\n'
WEB = '[http]\nurl = "http://192.168.1.10:2580/"\n'
_DATE = re.compile(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} [\d:]{8} \+0000")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HookServer]:
    with HookServer(tmp_path / "web") as started:
        yield started


@pytest.fixture
def broker() -> Iterator[Mosquitto]:
    with Mosquitto() as running:
        yield running


def photo(width: int, height: int) -> bytes:
    """A JPEG that does not compress."""
    octets = io.BytesIO()
    noise = Image.frombytes("RGB", (width, height), os.urandom(width * height * 3))
    noise.save(octets, "JPEG", quality=90)
    return octets.getvalue()


def camera_mail() -> bytes:
    """A picture, one that is too large, a file of another type; no Date, no Message-ID."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = SENDER, TO, "Motion at the Tür"
    mail.set_content("<b>Somebody</b> is $there, jö.\n", cte="8bit")
    mail.add_attachment(photo(700, 500), "image", "jpeg", filename="large.jpg")
    mail.add_attachment(photo(40, 30), "image", "jpeg", filename="small.jpg")
    mail.add_attachment(b"%PDF-1.4 page" * 99, "application", "pdf", filename="scan.pdf")
    return mail.as_bytes(policy=mail.policy.clone(linesep="\r\n"))


def write(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "mail.eml"
    path.write_bytes(content)
    return str(path)


def explained(hub: Hub, file: str, *arguments: str) -> dict[str, Any]:
    (told,) = hub.json("route", "--message", file, "--helo", "client.test", *arguments)
    return told


def by_target(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["target"]: one for one in told["deliveries"]}


def config(server: HookServer, broker: Mosquitto) -> str:
    rules = 'attachments = "base64"\nattachment_types = ["image/*"]\nmax_attachment = "20K"\n'
    return (
        NAMED
        + WEB
        + f'[mqtt]\nurl = "mqtt://127.0.0.1:{broker.port}"\nmax_attachment = "20K"\n'
        + f'[webhook.plc]\nurl = "{server.url("/200/" + SECRET)}"\nsecret = "x{SECRET}"\n'
        + f"{rules}picture_px = 80\n"
        + f'[notify.phones]\nurls = ["json://user:{SECRET}@127.0.0.1:{server.port}/200/phones"]\n'
        + 'title = "$subject ($device)"\nmax_attachment = "20K"\npicture_px = 64\n'
        + route(
            *("mailbox:alerts", "mqtt:motion", "webhook:plc", "notify:phones"),
            match='subject = "*motion*", has_attachment = true, helo = "client.*"',
        )
    )


def test_what_is_told_is_what_arrives(
    start_hub: StartHub, server: HookServer, broker: Mosquitto, tmp_path: Path
) -> None:
    content = camera_mail()
    hub = start_hub(config(server, broker))
    file = write(tmp_path, content.replace(b"\r\n", b"\n"))
    with broker.listener(f"{DEVICE}/#") as listener:
        told = explained(hub, file)
        done = hub.run("route", "--message", file, "--helo", "client.test")
        assert done.returncode == 0, done.stderr
        # Nothing was sent, and no secret is told.
        assert server.connections() == 0
        assert hub.json("queue", "list") == []
        assert hub.mailbox("alerts") == []
        assert not listener.got()
        assert SECRET not in json.dumps(told)
        assert SECRET.encode() not in done.stdout
        with hub.smtp() as smtp:
            accepted(smtp, f"MAIL FROM:<{SENDER}> BODY=8BITMIME")
            accepted(smtp, f"RCPT TO:<{TO}>")
            queue_id = submit_content(smtp, content)
        listener.wait_for(f"{DEVICE}/event")
        heard = {one.topic: one for one in listener.got()}
    assert told["accepted"] is True
    assert (told["sender"], told["sender_from"], told["recipients_from"]) == (SENDER, "From", "To")
    assert told["device"] == {"slug": "Gate-camera", "name": "Gate camera", "kind": "camera"}
    shown = by_target(told)
    told_id = shown["webhook:plc"]["posts"][0]["json"]["id"]

    def same(value: Any) -> Any:
        """Less what differs from one mail to the next."""
        text = json.dumps(value).replace(told_id, queue_id)
        return json.loads(re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "(time)", text))

    [request] = server.wait_for(1, f"/200/{SECRET}")
    [post] = shown["webhook:plc"]["posts"]
    assert same(request.json) == same(post["json"])
    assert request.headers["idempotency-key"] == same(post["idempotency_key"])
    assert shown["webhook:plc"]["is_signed"] is ("x-waypost-signature" in request.headers) is True
    assert shown["webhook:plc"]["url"] == f"http://127.0.0.1:{server.port}"
    large, small, scan = request.json["attachments"]
    with Image.open(io.BytesIO(base64.b64decode(large["data_base64"]))) as made:
        assert (made.size, large["made_smaller"]) == ((80, 57), True)
    assert "made_smaller" not in small
    assert "types" in scan["left_out"]
    assert scan["url"] == f"http://192.168.1.10:2580/message/{queue_id}/part/3"
    assert request.json["url"] == f"http://192.168.1.10:2580/message/{queue_id}"

    for one in shown["mqtt:motion"]["messages"]:
        payload = heard.pop(one["topic"]).payload
        if "json" in one:
            assert same(json_of(payload)) == same(one["json"])
        elif "size" in one:
            assert (len(payload), one["type"]) == (one["size"], "image/jpeg")
        else:
            assert payload.decode() == one["payload"]
    assert heard == {}
    assert shown["mqtt:motion"]["made_smaller"] is True

    [notified] = server.wait_for(1, "/200/phones")
    [notification] = shown["notify:phones"]["notifications"]
    assert notified.json["title"] == notification["title"] == "Motion at the Tür (Gate camera)"
    assert notified.json["message"] == same(notification["text"])
    assert "2 attachments left out: small.jpg" in notification["text"]
    assert f"see http://192.168.1.10:2580/message/{told_id}" in notification["text"]
    assert shown["notify:phones"]["services"] == ["JSON"]
    [file_told] = shown["notify:phones"]["files"]
    [file_sent] = notified.json["attachments"]
    assert (file_sent["filename"], file_sent["mimetype"]) == (file_told["name"], file_told["type"])
    assert len(base64.b64decode(file_sent["base64"])) == file_told["size"]

    [stored] = hub.wait_for_mail("alerts")
    added = shown["mailbox:alerts"]["added"].replace(told_id, queue_id).encode()
    assert _DATE.sub("", stored.decode()) == _DATE.sub("", (added + content).decode())
    assert shown["mailbox:alerts"]["size"] == len(stored)
    assert shown["mailbox:alerts"]["maildir"] == str(hub.data / "mail/alerts")


def test_people_are_told_the_same(
    start_hub: StartHub, server: HookServer, broker: Mosquitto, tmp_path: Path
) -> None:
    hub = start_hub(config(server, broker))
    done = hub.run("route", "--message", "-", "--helo", "client.test", stdin=camera_mail())
    said = done.stdout.decode()
    for words in (
        "device: Gate camera, camera",
        f"into {hub.data}/mail/alerts, which will be made",
        "waypost/Gate-camera/motion, kept: ON",
        "waypost/Gate-camera/image, kept: image/jpeg, ",
        f"POST to http://127.0.0.1:{server.port}, signed, Idempotency-Key",
        "goes along: large.jpg, image/jpeg, ",
        "left out: scan.pdf, application/pdf, 1.3 KiB: not one of the types",
        "by JSON",
        "title: Motion at the Tür (Gate camera)",
    ):
        assert words in said
    assert "characters)" in said  # of base64
    assert max(map(len, said.splitlines())) < 2_500


def test_what_a_relay_gets(start_hub: StartHub, start_peer: StartPeer, tmp_path: Path) -> None:
    peer = start_peer(extensions=("8BITMIME",))
    relay = (
        f'[relay.far]\nhost = "127.0.0.1"\nport = {peer.port}\ntls = "none"\n'
        'rewrite_from = "me@gmail.example"\n'
    )
    hub = start_hub(relay + route("relay:far", match='recipient = "*@far.example"'))
    content = camera_mail()
    file = write(tmp_path, content)
    [shown] = explained(hub, file, "ann@far.example")["deliveries"]
    assert peer.mails == []
    assert shown["hosts"] == [f"[127.0.0.1]:{peer.port}"]
    assert {"date", "message-id", "from", "reply-to"} <= set(shown["changes"])
    assert shown["changes_without_8bitmime"] == ["quoted-printable"]
    with hub.smtp() as smtp:
        accepted(smtp, f"MAIL FROM:<{SENDER}> BODY=8BITMIME")
        accepted(smtp, "RCPT TO:<ann@far.example>")
        submit_content(smtp, content)
    [got] = peer.wait_for_mails()
    assert shown["envelope_from"] in got.sender
    assert shown["size"] == len(got.content)
    header = got.content.partition(b"\r\n\r\n")[0].decode().lower()
    for field in shown["header"]:
        if field["name"] not in ("date", "message-id"):
            assert f"{field['name']}: {field['value']}".lower() in header
    small = start_hub(relay + "max_message = 1000\n" + route("relay:far", match='sender = "*"'))
    told = explained(small, file, "ann@far.example")
    assert told["deliveries"][0]["trouble"].startswith("552 5.3.4")
    assert small.run("route", "--message", file, "ann@far.example").returncode == 1


def test_members_of_a_list_and_who_is_refused(start_hub: StartHub, tmp_path: Path) -> None:
    hub = start_hub(
        '[list.ops]\nmembers = ["bob@[127.0.0.1]", "ops@[127.0.0.1]"]\n'
        "[limits]\nmessage_bytes = 100000\n"
        + route("list:ops", name="all", match='recipient = "all@*"')
        + route("reject:5.7.1 not today", name="no", match='recipient = "no@*", subject = "*"')
    )
    file = write(tmp_path, message("x"))
    told = explained(hub, file, "all@[127.0.0.1]", "no@[127.0.0.1]")
    assert [one["reply"] for one in told["recipients"]] == [None, "550 5.7.1 not today"]
    members = by_target(told)["list:ops"]["members"]
    assert [one["target"] for one in members] == ["mailbox:bob", "list:ops"]
    assert "List-Id: <ops." in members[0]["added"]
    assert members[1]["reply"].startswith("554 5.4.6")  # it would go round
    assert by_target(told)["reject:5.7.1 not today"]["taken"] is False
    for recipient, content, reply in (
        ("no@[127.0.0.1]", message("x"), "550 5.7.1 not today"),
        ("x@[8.8.8.8]", message("x"), "550 5.7.1"),
        ("all@[127.0.0.1]", message("x", *["y" * 900] * 200), "552 5.3.4"),
        ("all@[127.0.0.1]", wire(*["Received: x"] * 60, "", "x"), "554 5.4.6"),
    ):
        done = hub.run(
            *("route", recipient, "--json", "--message"), write(tmp_path, content), "--from", "<>"
        )
        assert done.returncode == 1
        told = json.loads(done.stdout)
        assert told["reply"].startswith(reply)
        assert told["deliveries"] == []


def test_usage(start_hub: StartHub, tmp_path: Path) -> None:
    hub = start_hub()
    file = write(tmp_path, wire("From: <a@[127.0.0.1]>", "", "x"))
    for arguments, words in (
        (("--message", file), b"names no recipient"),
        (("--message", file, "a@b@c"), b"RFC 5321"),
        ((), b"name one recipient"),
        (("a@b.example", "c@d.example"), b"name one recipient"),
        (("--message", file, "x", "--client", "nobody"), b"not an IP address"),
    ):
        done = hub.run("route", *arguments)
        assert done.returncode == 2
        assert words in done.stderr
    assert hub.run("route", "x", "--message", str(tmp_path / "none")).returncode == 1
    wrong = hub.run("route", "--message", "-", stdin=wire("To: a@-b-", "", "x"))
    assert wrong.returncode == 2
    assert b"To names no address" in wrong.stderr
    for fields, named in (
        (["To: root, Ann <ann@[127.0.0.1]>", "Bcc: root"], ["root@[127.0.0.1]", "ann@[127.0.0.1]"]),
        (["To: undisclosed-recipients:;", "Cc: c@[127.0.0.1]"], ["c@[127.0.0.1]"]),
    ):
        told = explained(hub, write(tmp_path, wire(*fields, "", "x")))
        assert [one["recipient"] for one in told["recipients"]] == named


def mime(*lines: str, charset: str = "utf-8") -> bytes:
    return "\r\n".join(lines).encode(charset)


JAPANESE = "玄関で動きを検知しました。"
CHINESE = "报警：移动侦测"
NESTED = mime(
    "Content-Type: multipart/mixed; boundary=a",
    "",
    "--a",
    "Content-Type: multipart/related; boundary=b",
    "",
    "--b",
    "Content-Type: multipart/alternative; boundary=c",
    "",
    "--c",
    "Content-Type: text/plain; charset=utf-8",
    "",
    "  ",
    "--c",
    "Content-Type: text/html; charset=utf-8",
    "Content-Transfer-Encoding: quoted-printable",
    "",
    "<p>Zone&nbsp;3<br>am S=C3=BCdtor</p><script>no()</script>",
    "--c--",
    "--b--",
    "--a",
    "Content-Type: application/ms-tnef; name=winmail.dat",
    "Content-Transfer-Encoding: base64",
    "",
    "eJ8+Ig==",
    "--a--",
    "",
)


@pytest.mark.parametrize(
    ("content", "text", "attachments"),
    [
        (NESTED, "Zone 3\nam Südtor\n", ["winmail.dat"]),
        (
            mime(
                "Content-Type: text/html; charset=utf-8",
                "Content-Transfer-Encoding: base64",
                "",
                base64.b64encode(
                    "<h1>Tür</h1><ul><li>offen</ul><a href=http://x/>mehr</a>".encode()
                ).decode(),
            ),
            "Tür\n\n  * offen\nmehr\n",
            [],
        ),
        (
            mime(
                "Content-Type: text/plain; charset=iso-2022-jp", "", JAPANESE, charset="iso2022_jp"
            ),
            f"{JAPANESE}\n",
            [],
        ),
        (
            mime("Content-Type: text/plain; charset=GBK", "", CHINESE, charset="gbk"),
            f"{CHINESE}\n",
            [],
        ),
        (
            mime("Content-Type: text/html", "", f"<meta charset=gb2312>{CHINESE}", charset="gbk"),
            f"{CHINESE}\n",
            [],
        ),
    ],
    ids=["nested", "html", "iso-2022-jp", "gbk", "gb2312 in html"],
)
def test_texts_are_read_whatever_wraps_them(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    text: str,
    attachments: list[str],
) -> None:
    file = tmp_path / "waypost.toml"
    file.write_text(
        f'data_dir = "{tmp_path / "data"}"\n[webhook.plc]\nurl = "http://10.0.0.1/"\n'
        + route("webhook:plc")
    )
    head = b"From: <a@[127.0.0.1]>\r\nMIME-Version: 1.0\r\n"
    path = write(tmp_path, head + content)
    status = main(["route", "--message", path, "x", "--config", str(file), "--json"])
    told = json.loads(capsys.readouterr().out)
    [post] = told["deliveries"][0]["posts"]
    assert post["json"]["text"] == text
    assert [one["name"] for one in post["json"]["attachments"]] == attachments
    assert status == 0


def test_large_mail_is_told_and_leaves_nothing_behind(start_hub: StartHub, tmp_path: Path) -> None:
    hub = start_hub(WEB + route("mailbox:big", "discard", match='larger_than = "1M"'))
    content = message("x", *["y" * 900] * 2_000)
    shown = by_target(explained(hub, write(tmp_path, content), TO))
    assert list(shown) == ["mailbox:big", "discard"]
    assert shown["discard"]["reply"].startswith("250")
    with hub.smtp() as smtp:
        submit(smtp, TO, content=content)
    [stored] = hub.wait_for_mail("big")
    assert len(stored) == shown["mailbox:big"]["size"]
    wait_until(lambda: hub.json("queue", "list") == [])
