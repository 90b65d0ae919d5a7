"""Fields, names, pictures, events, and files on the disk."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.support.mail import octets_of
from waypost.mail.envelope import Arrival, QueueId
from waypost.reading import wire
from waypost.reading.event import event_of
from waypost.reading.fields import (
    correspondents,
    date_of,
    parameter_text,
    parameters,
    text_of,
)
from waypost.reading.names import MAX_NAME_OCTETS, media_type, safe_name
from waypost.reading.pictures import MAX_PIXELS, thumbnail
from waypost.reading.read import read_mail
from waypost.reading.saving import save_new
from waypost.reading.texts import flowed_text
from waypost.reading.transfer import unwrapped
from waypost.reading.values import Attachment, Correspondent, ReadMail

DATA = Path(__file__).parents[2] / "data" / "device_mail"


# Fields.


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"plain  text\tof  a device", "plain text of a device"),
        (b"=?utf-8?Q?a_b?= =?utf-8?Q?c?=", "a bc"),
        (b"=?utf-8?Q?a?= x =?utf-8?Q?c?=", "a x c"),
        (b"=?gb2312?B?sag=?= =?gb2312?B?vq8=?=", "报警"),
        (b"=?utf-8?B?5oql6K0=?= =?utf-8?B?pg==?=", "报警"),  # cut within a character
        (b"=?utf-8*de?q?S=C3=BCd?=", "Süd"),
        (b"=?iso-8859-1?q?a?==?utf-8?q?b?=", "ab"),
        (b"no =?utf-8?x?a?= word", "no =?utf-8?x?a?= word"),
        (b"=?utf-8?q?with spaces?=", "with spaces"),
        (b"\x1b[31mred\x07", "[31mred"),
        (b"x" * 5_000, "x" * 1_000),
        ("Süd".encode(), "Süd"),
        (b"S\xfcdtor ge\xf6ffnet", "Südtor geöffnet"),
    ],
)
def test_text_of(value: bytes, text: str) -> None:
    assert text_of(value) == text


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"a@b", [("", "a@b")]),
        (b"root (Cron Daemon)", [("Cron Daemon", "root")]),
        (b'"Doe, J. (x)" <j@b>, k@b', [("Doe, J. (x)", "j@b"), ("", "k@b")]),
        (b"(a (nested) comment) <a@b>", [("a nested comment", "a@b")]),
        (b"undisclosed-recipients:;", []),
        (b"Team: a@b, c@d;", [("", "a@b"), ("", "c@d")]),
        (b"cam@[IPv6:2001:db8::1]", [("", "cam@[IPv6:2001:db8::1]")]),
        (b"<>", []),
        (b"=?utf-8?q?a=2Cb?= <a@b>", [("a,b", "a@b")]),
        (b'"=?utf-8?q?S=C3=BCd?=" <a@b>', [("Süd", "a@b")]),
        (b'"unclosed <a@b>', [("", "unclosed <a@b>")]),
        (b"<a@b", [("", "a@b")]),
        (b"(unclosed", [("unclosed", "")]),
        (b",;,", []),
        (b"a@b," * 500, [("", "a@b")] * 100),
    ],
)
def test_correspondents(value: bytes, found: list[tuple[str, str]]) -> None:
    assert correspondents(value) == tuple(Correspondent(*one) for one in found)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"attachment; filename=a.jpg", "a.jpg"),
        (b'attachment; filename="a;b.jpg"', "a;b.jpg"),
        (b'attachment; filename="C:\\dir\\a.jpg"', "C:\\dir\\a.jpg"),
        (b'attachment; filename="a\\"b.jpg"', 'a"b.jpg'),
        (b'attachment; filename="unclosed', "unclosed"),
        (b"attachment; filename*=utf-8'de'S%C3%BCd.jpg; filename=x", "Süd.jpg"),
        (b"attachment; filename*0=a; filename*1=b; filename*3=d", "ab"),
        (b"attachment; filename*0*=iso-8859-1''%FC; filename*1=%20", "ü%20"),
        (b"attachment; filename*=%zz", "%zz"),
        ("attachment; filename=Süd.jpg".encode(), "Süd.jpg"),
        (b'attachment; filename="=?utf-8?B?U8O8ZC5qcGc=?="', "Süd.jpg"),
        (b"attachment", ""),
    ],
)
def test_parameter_text(value: bytes, name: str) -> None:
    assert parameter_text(parameters(value)[1], "filename") == name


def test_dates() -> None:
    cet = timezone(timedelta(hours=1))
    assert date_of(b"Thu, 5 Mar 2026 22:00:01 +0100") == datetime(2026, 3, 5, 22, 0, 1, tzinfo=cet)
    # RFC 5322 §3.3: "-0000" says nothing of the zone.
    assert date_of(b"5 Mar 2026 22:00:01 -0000") == datetime(2026, 3, 5, 22, 0, 1, tzinfo=UTC)
    for none in (b"", b"today", b"Fri, 31 Dec 9999 23:59:59 -2359", b"32 Jan 2026 00:00 +0000"):
        assert date_of(none) is None


# Names and types.


@pytest.mark.parametrize(
    ("given_", "name"),
    [
        ("a.jpg", "a.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\tmp\\a.jpg", "a.jpg"),
        (".bashrc", "bashrc"),
        ("..", "part-3.jpg"),
        ("a/", "part-3.jpg"),
        ("", "part-3.jpg"),
        ("a\0b\r\n\x1b.jpg", "ab.jpg"),
        ("\u202egpj.exe", "gpj.exe"),
        ("ä" * 300 + ".jpg", "ä" * 98 + ".jpg"),
    ],
)
def test_safe_name(given_: str, name: str) -> None:
    assert safe_name(given_, "image/jpeg", 3) == name


@given(st.text())
def test_any_name_becomes_one_of_a_file(text: str) -> None:
    name = safe_name(text, "x/y", 1)
    assert name
    assert name.isprintable()
    assert not name.startswith(".")
    assert "/" not in name
    assert len(name.encode()) <= MAX_NAME_OCTETS


@pytest.mark.parametrize(
    ("named", "octets", "type_"),
    [
        ("application/octet-stream", b"\xff\xd8\xff\xe0", "image/jpeg"),
        ("image/png", b"\xff\xd8\xff\xe0", "image/jpeg"),
        ("image/x-own", b"?", "image/x-own"),
        ("jpeg", b"\xff\xd8\xff\xe0", "image/jpeg"),
        ("a/b\r\nc", b"", "application/octet-stream"),
        ("text/csv", b"%PDF-", "text/csv"),
        ("application/octet-stream", b"%PDF-1.4", "application/pdf"),
        ("application/octet-stream", b"\0\0\0\x18ftypmp42", "video/mp4"),
    ],
)
def test_media_type(named: str, octets: bytes, type_: str) -> None:
    assert media_type(named, octets) == type_


# Encodings.


@pytest.mark.parametrize(
    ("octets", "encoding", "found"),
    [
        (b"QUJD\r\nREVG", "base64", (b"ABCDEF", False)),
        (b"QUJ", "base64", (b"AB", False)),
        (b"QUJDR", "base64", (b"ABC", True)),
        (b"QU!JD", "base64", (b"ABC", True)),
        (b"QQ==\r\nad", "base64", (b"A", True)),
        (b"", "base64", (b"", False)),
        (b"a=C3=A4=\r\nb=zz", "quoted-printable", (b"a\xc3\xa4b=zz", False)),
        (b"begin 644 x\r\n#86)C\r\n`\r\nend\r\n", "uuencode", (b"abc", False)),
        (b"#86)C\r\nend\r\n", "uuencode", (b"abc", True)),
        (b"begin 644 x\r\n#86)C\r\n", "uuencode", (b"abc", True)),
        (b"=41", "", (b"=41", False)),
    ],
)
def test_unwrapped(octets: bytes, encoding: str, found: tuple[bytes, bool]) -> None:
    assert unwrapped(octets, encoding) == found


def test_flowed() -> None:
    # RFC 3676 §4.2 and §4.4: DelSp, quote depth, space-stuffing, the signature's line.
    assert flowed_text("a \nb", deletes_space=True) == "ab"
    assert flowed_text("> a \n>> b \n>> c\n> d", deletes_space=False) == "> a \n>> b c\n> d"
    assert flowed_text(" >no quote\n From x\n", deletes_space=False) == ">no quote\nFrom x\n"
    assert flowed_text("a \n-- \nb", deletes_space=False) == "a \n-- \nb"


# Pictures.


def picture(kind: str, size: tuple[int, int] = (320, 200), mode: str = "RGB") -> bytes:
    made = BytesIO()
    Image.new(mode, size).save(made, kind)
    return made.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_thumbnail(kind: str) -> None:
    made = thumbnail(picture(kind), 80)
    assert made is not None
    with Image.open(BytesIO(made)) as small:
        assert (small.format, small.size) == ("JPEG", (80, 50))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1"])
def test_thumbnail_of_other_modes(mode: str) -> None:
    assert thumbnail(picture("PNG", mode=mode), 80) is not None


def test_thumbnail_is_upright_and_says_nothing_of_the_place() -> None:
    content = (DATA / "phone_turned.eml").read_bytes()
    (attachment,) = read_mail(content).attachments
    made = thumbnail(octets_of(content, attachment), 48)
    assert made is not None
    with Image.open(BytesIO(made)) as small:
        assert small.size == (32, 48)
        assert not small.getexif()


@pytest.mark.parametrize(
    "octets",
    [b"", b"\xff\xd8\xff", b"GIF89a", b"%PDF-1.4", picture("TIFF"), picture("PNG")[:40]],
)
def test_no_picture_no_thumbnail(octets: bytes) -> None:
    assert thumbnail(octets, 80) is None


def test_half_a_picture_is_better_than_none() -> None:
    whole = BytesIO()
    Image.effect_noise((320, 200), 50).save(whole, "JPEG")
    octets = whole.getvalue()
    assert thumbnail(octets[: len(octets) // 2], 80) is not None


def test_a_picture_of_too_many_pixels_is_not_decoded() -> None:
    side = int(MAX_PIXELS**0.5) + 100
    assert thumbnail(picture("PNG", (side, side), "1"), 80) is None


# Events.

ARRIVAL = Arrival("ESMTP", ip_address("192.0.2.7"), ip_address("192.0.2.1"), "cam", "l", True)


def test_event_of() -> None:
    content = (DATA / "camera_nested.eml").read_bytes()
    event = event_of(
        read_mail(content),
        ARRIVAL,
        queue_id=QueueId("0ABC"),
        received_at=1_772_744_401.5,
        device="einfahrt",
        event_type="motion",
        severity="warning",
        tags=["garden"],
        url="https://hub.example/mail/0ABC",
    )
    assert json.loads(json.dumps(event)) == event
    attachments = event.pop("attachments")
    assert isinstance(attachments, list)
    assert [set(one) for one in attachments] == [{"name", "type", "size", "sha256", "url"}] * 2
    assert [one["url"][-11:] for one in attachments] == ["0ABC/part/1", "0ABC/part/2"]
    assert event == {
        "v": 1,
        "id": "0ABC",
        "event_type": "motion",
        "device": "einfahrt",
        "source_ip": "192.0.2.7",
        "received": "2026-03-05T21:00:01.500Z",
        "subject": "Bewegung Südtor",
        "text": "Bewegung am Südtor, Zone 3.\n",
        "text_truncated": False,
        "from": "cam7@[192.0.2.7]",
        "to": ["alerts@[192.0.2.1]", "second@example.org"],
        "message_id": "<x1@cam7>",
        "severity": "warning",
        "tags": ["garden"],
        "url": "https://hub.example/mail/0ABC",
        "more": None,
        "suppressed": [],
        "duplicate_of": None,
    }


def test_event_of_a_mail_that_says_little() -> None:
    event = event_of(
        ReadMail(text="x" * 20),
        ARRIVAL._replace(client_ip=None),
        queue_id=QueueId("0ABC"),
        received_at=0.0,
        device="d",
        event_type="mail",
        max_text=8,
    )
    assert (event["text"], event["text_truncated"]) == ("x" * 8, True)
    for key in ("source_ip", "from", "message_id", "severity", "url"):
        assert event[key] is None


# Files.


def test_saving_never_overwrites_or_follows(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    outside = tmp_path / "outside"
    (folder / "a.jpg").symlink_to(outside)
    assert save_new(folder, "a.jpg", b"1") == folder / "a (2).jpg"
    assert save_new(folder, "a.jpg", b"2") == folder / "a (3).jpg"
    assert save_new(folder, "b", b"3") == folder / "b"
    assert save_new(folder, "b", b"4") == folder / "b (2)"
    assert not outside.exists()
    assert (folder / "a (2).jpg").read_bytes() == b"1"
    assert os.stat(folder / "b").st_mode & 0o777 == 0o600


# What passes between the processes.


def test_a_mail_survives_the_wire() -> None:
    for path in DATA.glob("*.eml"):
        read = read_mail(path.read_bytes())
        assert wire.mail_of(wire.mail_octets(read)) == read


def test_requests_survive_the_wire() -> None:
    one = Attachment("a", "b/c", 1, "", True, "x", 2, 3, "base64")
    for request in (wire.OctetsRequest(one), wire.ThumbnailRequest(80)):
        assert wire.request_of(wire.request_frame(request)[wire.REQUEST_HEADER.size :]) == request


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        wire.mail_octets(ReadMail())[:-1],
        wire.mail_octets(ReadMail()).replace(b'"subject": ""', b'"subject": 1'),
        wire.mail_octets(ReadMail()).replace(b'"to": []', b'"to": [["a"]]'),
        wire.mail_octets(ReadMail()).replace(b'"attachments": []', b'"attachments": [[1]]'),
        wire.mail_octets(ReadMail()).replace(b'"date": null', b'"date": "now"'),
    ],
)
def test_an_answer_that_is_none(octets: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        wire.mail_of(octets)
