"""What a mail says: mails as devices send them, broken ones, and the standard library's view."""

from __future__ import annotations

import email.policy
import hashlib
import sys
import tomllib
from collections.abc import Callable
from email import message_from_bytes
from email.message import EmailMessage, Message
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.mail import octets_of
from waypost.reading.read import read_mail
from waypost.reading.values import Attachment, Limits

DATA = Path(__file__).parents[2] / "data" / "device_mail"
EXPECTED: dict[str, dict[str, Any]] = tomllib.loads((DATA / "expected.toml").read_text("utf-8"))


def mail(*lines: str | bytes) -> bytes:
    return b"".join(
        (line if isinstance(line, bytes) else line.encode()) + b"\r\n" for line in lines
    )


def part(*lines: str | bytes) -> bytes:
    """A mail whose only part has these lines for header and body."""
    return mail("Subject: s", "MIME-Version: 1.0", *lines)


# Mails of devices.


def test_every_mail_of_the_folder_is_expected() -> None:
    assert {path.stem for path in DATA.glob("*.eml")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"], ids=["crlf", "lf"])
def test_device_mail(name: str, line_end: bytes) -> None:
    content = (DATA / f"{name}.eml").read_bytes().replace(b"\r\n", line_end)
    read = read_mail(content)
    expected = EXPECTED[name]
    assert read.subject == expected["subject"]
    assert [list(one) for one in read.from_] == expected["from"]
    assert [list(one) for one in read.to] == expected["to"]
    assert read.date == expected.get("date")
    assert read.message_id == expected.get("message_id", "")
    assert read.text == expected["text"]
    assert not read.text_truncated
    assert read.fault == expected.get("fault")
    found = [
        {"name": one.name, "type": one.type, "is_inline": one.is_inline} for one in read.attachments
    ]
    wanted = expected.get("attachments", [])
    assert found == [{key: one[key] for key in ("name", "type", "is_inline")} for one in wanted]
    for attachment, one in zip(read.attachments, wanted, strict=True):
        octets = octets_of(content, attachment)
        assert attachment.size == len(octets)
        assert attachment.sha256 == hashlib.sha256(octets).hexdigest()
        if line_end == b"\r\n" or attachment.encoding:
            assert (attachment.size, attachment.sha256) == (one["size"], one["sha256"])


def test_html_is_given_as_it_was_sent() -> None:
    read = read_mail((DATA / "nvr_html_only.eml").read_bytes())
    assert "<script>alert(1)</script>" in read.html
    assert "alert" not in read.text
    assert "tracker" not in read.text


# Texts.


@pytest.mark.parametrize(
    ("charset", "codec", "text"),
    [
        ("utf-8", "utf-8", "Küche 30 °C"),
        ("us-ascii", "utf-8", "Küche"),
        ("us-ascii", "cp1252", "Tür zur Küche geöffnet"),
        ("iso-8859-1", "cp1252", "5 €"),
        ("utf-8", "cp1252", "Bewegung an Kamera Küche erkannt"),
        ("gb2312", "gb18030", "前門 移动"),
        ("x-unknown", "utf-8", "Süd"),
        ("shift_jis", "cp932", "動体検知"),
        ("idna", "utf-8", "Süd"),
        ("rot13", "utf-8", "Süd"),
        ("../../etc", "utf-8", "Süd"),
    ],
)
def test_charsets(charset: str, codec: str, text: str) -> None:
    content = part(f"Content-Type: text/plain; charset={charset}", "", text.encode(codec))
    assert read_mail(content).text.strip("\n") == text


def test_half_a_surrogate_pair_never_comes_out() -> None:
    read = read_mail(part("Content-Type: text/plain; charset=utf-7", "", "a +2AA- b"))
    read.text.encode()


def test_plain_and_html_side_by_side_are_both_text() -> None:
    read = read_mail(
        part(
            "Content-Type: multipart/mixed; boundary=b",
            "",
            "--b",
            "Content-Type: text/html",
            "",
            "<b>Motion</b>",
            "--b",
            "",
            "sent through a gateway",
            "--b--",
        )
    )
    assert read.text == "Motion\n\nsent through a gateway\n"
    assert read.html == "<b>Motion</b>"
    assert not read.attachments


def test_text_that_has_a_file_name_is_text_if_there_is_no_other() -> None:
    content = part('Content-Type: text/plain; name="alarm.txt"', "", "Alarm")
    read = read_mail(content)
    assert read.text == "Alarm\n"
    assert not read.attachments
    read = read_mail(part("Content-Type: text/html; name=a.html", "", "<b>Alarm</b>"))
    assert (read.text, read.html, read.attachments) == ("Alarm\n", "<b>Alarm</b>\n", ())
    content = part(
        "Content-Type: text/plain", "Content-Disposition: attachment; filename=a.log", "", "x"
    )
    assert read_mail(content).text == ""
    assert [one.name for one in read_mail(content).attachments] == ["a.log"]


def test_text_is_bounded() -> None:
    content = part("Content-Type: text/plain", "", "ä" * 500)
    read = read_mail(content, Limits(text=100))
    assert (read.text, read.text_truncated) == ("ä" * 100, True)
    assert not read_mail(content, Limits(text=501)).text_truncated
    # Of what needs many octets for each character, not all is looked at.
    quoted = part("Content-Transfer-Encoding: quoted-printable", "", "=\r\n" * 10_000 + "end")
    assert read_mail(quoted, Limits(text=100)).text_truncated


def test_html_is_bounded() -> None:
    content = part("Content-Type: text/html", "", "<p>a</p>" * 1_000)
    read = read_mail(content, Limits(html=80))
    assert read.html == "<p>a</p>" * 10
    assert read.text.split() == ["a"] * 10
    assert read.text_truncated
    none = read_mail(content, Limits(html=0))
    assert (none.html, none.text) == ("", "")


# Faults.


def nested(levels: int) -> bytes:
    opened = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level)
        for level in range(levels)
    )
    closed = b"".join(b"--b%d--\r\n" % level for level in reversed(range(levels)))
    return b"Subject: s\r\n" + opened + b"\r\ninner\r\n" + closed


MANY_PARTS = part(
    "Content-Type: multipart/mixed; boundary=b", "", b"--b\r\n\r\nhello\r\n" * 10_000 + b"--b--"
)


@pytest.mark.parametrize(
    ("content", "fault", "text"),
    [
        (nested(100), None, "inner\n"),
        (nested(101), "more than 100 levels", ""),
        (nested(3_000), "more than 100 levels", ""),
        (b"Subject: s\r\n" + b"Content-Type: message/rfc822\r\n\r\n" * 500, "levels", ""),
        (MANY_PARTS, "more than 1000 parts", "hello\n" + "\nhello\n" * 999),
        (mail("Subject: s", "X-Long: " + "x" * 300_000, "", "hi"), "a header is longer", "hi\n"),
        (mail("Subject: s", b"X: x" + b"\r\n y" * 99_999, "", "hi"), "a header is longer", "hi\n"),
        (mail("Subject: s", b"X: x\r\n" * 10_000, "hi"), "more than 1000 fields", "hi\n"),
        (
            part(f"Content-Type: multipart/mixed; boundary={'b' * 65_536}", "", "hi"),
            "a boundary is longer than 998 octets",
            "hi\n",
        ),
        (mail("Subject: s", "From: " + "(" * 20_000, "", "hi"), None, "hi\n"),
        (mail("Subject: s", "To: " + "=?utf-8?q?=C3?= " * 9_999, "", "hi"), None, "hi\n"),
        (part("Content-Type: multipart/mixed", "", "hi"), "has no boundary", "hi\n"),
        (
            part("Content-Type: multipart/mixed; boundary=b", "", "hi"),
            "none of its delimiters",
            "hi\n",
        ),
        (
            part("Content-Transfer-Encoding: base64", "", "QWxhcm0=", "sent by gateway"),
            "the encoding of the text is damaged",
            "Alarm\n",
        ),
        (
            part("Content-Type: multipart/mixed; boundary=b", "", "--\r\n" * 300_000),
            "hyphens",
            None,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "",
)
def test_what_is_too_much_is_told_and_the_rest_is_read(
    content: bytes, fault: str | None, text: str | None
) -> None:
    read = read_mail(content)
    assert read.subject == "s"
    assert fault in (read.fault or "") if fault is not None else read.fault is None
    assert text is None or read.text == text


def test_a_mail_longer_than_the_limit() -> None:
    content = (DATA / "camera_nested.eml").read_bytes()
    read = read_mail(content, Limits(octets=len(content) - 200))
    assert read.text == EXPECTED["camera_nested"]["text"]
    assert "longer than" in (read.fault or "")
    # The hash of half a picture would be taken for the picture's.
    assert [one.name for one in read.attachments] == ["snap.jpg"]


def test_a_bare_cr_makes_no_field() -> None:
    read = read_mail(b"Subject: a\rFrom: evil@x\r\n\r\nhi\r\n")
    assert read.from_ == ()


def test_the_inner_multipart_may_use_the_outer_boundary() -> None:
    read = read_mail(
        part(
            "Content-Type: multipart/mixed; boundary=b",
            "",
            "--b",
            "Content-Type: multipart/alternative; boundary=b",
            "",
            "--b",
            "",
            "text",
            "--b--",
        )
    )
    assert read.text == "text\n"


# Whatever comes.

_PIECES = st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"\r\n\r\n",
        b"--b\r\n",
        b"--b--\r\n",
        b"--c\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n",
        b"Content-Type: multipart/alternative; boundary=c\r\n",
        b"Content-Type: message/rfc822\r\n",
        b"Content-Type: text/html\r\n",
        b"Content-Type: text/plain; format=flowed; charset=utf-7\r\n",
        b"Content-Transfer-Encoding: base64\r\n",
        b"Content-Transfer-Encoding: quoted-printable\r\n",
        b"Content-Transfer-Encoding: x-uuencode\r\n",
        b"Content-Disposition: attachment; filename*0*=utf-8''%ff; filename*1=..\r\n",
        b"Subject: =?utf-8?b?w6Q?= =?utf-7?q?+2AA-?=\r\n",
        b'From: "a\\" (b (c <d>, e:;\r\n',
        b"Date: Fri, 31 Dec 9999 23:59:59 -2359\r\n",
        b"begin 644 a/b\r\n#86)C\r\nend\r\n",
        b"<table><tr><td style='margin-top:9em'>",
        b"> quoted \r\n",
    ]
)
_JUNK = st.lists(_PIECES | st.binary(max_size=40), max_size=60).map(b"".join)
# Lines of Python run for each octet, and besides; a quadratic walk runs many times that.
STEPS_PER_OCTET = 60
STEPS_BESIDES = 20_000


def steps_of(work: Callable[[], object]) -> int:
    """How many lines of waypost.reading run."""
    steps = 0

    def local(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal steps
        steps += event == "line"
        return local

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        return local if "/waypost/reading/" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return steps


@given(_JUNK)
def test_any_octets_give_a_mail_in_few_steps(content: bytes) -> None:
    steps = steps_of(lambda: read_mail(content))
    assert steps <= STEPS_BESIDES + STEPS_PER_OCTET * len(content)
    read = read_mail(content)
    str(read).encode()  # no half surrogate pairs
    for attachment in read.attachments:
        octets = octets_of(content, attachment)
        assert hashlib.sha256(octets).hexdigest() == attachment.sha256
        assert attachment.name
        assert "/" not in attachment.name


@pytest.mark.parametrize(
    "piece",
    [
        b"--b\r\n",
        b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
        b"Content-Type: message/rfc822\r\n\r\n",
        b"begin 644 x\r\n#86)C\r\n",
        b"; a=b",
        b"(",
        b"=?utf-8?q?a?= ",
        b"> a \r\n",
    ],
)
@pytest.mark.parametrize("head", [b"Content-Type: multipart/mixed; boundary=b\r\n\r\n", b"To: "])
def test_twice_the_octets_take_twice_the_steps(head: bytes, piece: bytes) -> None:
    once = steps_of(lambda: read_mail(head + piece * 400))
    twice = steps_of(lambda: read_mail(head + piece * 800))
    assert twice <= 2.2 * once + 1_000


# Beside the standard library, on mail as it should be.

_TEXT = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), min_size=1, max_size=60
).filter(lambda text: text.strip() != "")
_FILES = st.lists(
    st.tuples(
        st.from_regex(r"[a-zA-Z0-9äöü][a-zA-Z0-9äöü ]{0,60}\.[a-z]{3}", fullmatch=True),
        st.binary(max_size=300),
    ),
    max_size=3,
)


@given(
    text=st.lists(_TEXT, min_size=1, max_size=5).map("\n".join),
    subject=_TEXT.map(lambda text: " ".join(text.split())).filter(bool),
    files=_FILES,
    has_html=st.booleans(),
    cte=st.sampled_from(["base64", "quoted-printable", "8bit"]),
)
def test_as_the_standard_library_reads_it(
    text: str, subject: str, files: list[tuple[str, bytes]], has_html: bool, cte: str
) -> None:
    made = EmailMessage(policy=email.policy.SMTP)
    made["Subject"] = subject
    made["From"] = "Kamera Süd <cam@[192.0.2.7]>"
    made.set_content(text, cte=cte)
    if has_html:
        made.add_alternative("<p>other</p>", subtype="html")
    for name, octets in files:
        made.add_attachment(octets, maintype="application", subtype="x-test", filename=name)
    content = made.as_bytes()
    theirs = message_from_bytes(content, policy=email.policy.default)
    assert isinstance(theirs, EmailMessage)
    ours = read_mail(content)
    assert ours.fault is None
    assert ours.from_ == (("Kamera Süd", "cam@[192.0.2.7]"),)
    assert ours.subject.split() == str(theirs["subject"]).split()
    body = theirs.get_body(("plain",))
    assert isinstance(body, EmailMessage)
    assert ours.text.rstrip("\n") == body.get_content().replace("\r\n", "\n").rstrip("\n")
    attached: list[Message] = list(theirs.iter_attachments())
    assert [(one.name, one.type, octets_of(content, one)) for one in ours.attachments] == [
        (
            " ".join(str(one.get_filename()).split()),
            one.get_content_type(),
            one.get_payload(decode=True),
        )
        for one in attached
    ]


@pytest.mark.parametrize("attachment", [Attachment("a", "b/c", 0, "", False, "", 5, 2, "base64")])
def test_a_span_that_is_none_gives_nothing(attachment: Attachment) -> None:
    assert octets_of(b"QUJD" * 5, attachment) == b""
