"""New messages, read again by the standard library."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage

from hypothesis import given
from hypothesis import strategies as st

from waypost.mail.address import Address
from waypost.mail.composing import AttachedFile, compose, in_field

ANN = Address.parse("ann@[192.0.2.1]")
BOB = Address.parse("bob@example.com")


def read(content: bytes) -> EmailMessage:
    return message_from_bytes(content, policy=policy.default)


def test_a_text_with_files() -> None:
    files = [
        AttachedFile("Tür 1.jpg", "image/jpeg", b"\xff\xd8\r\n.\r\n"),
        AttachedFile("b.eml", "message/rfc822", b"no message"),
        AttachedFile("a\r\nX: y", "text/html\r\nX: y", b"<b>"),
    ]
    content = compose(
        sender=ANN, to=[BOB], subject="Grüße", text="Hallo\n", html="<p>Hallo", attachments=files
    )
    message = read(content)
    assert message["From"] == str(ANN)
    assert message["To"] == str(BOB)
    assert message["Subject"] == "Grüße"
    assert message["X"] is None
    found = [(p.get_filename(), p.get_content_type()) for p in message.iter_attachments()]
    assert found == [
        ("Tür 1.jpg", "image/jpeg"),
        ("b.eml", "application/octet-stream"),
        ("a X: y", "application/octet-stream"),
    ]
    octets = [part.get_payload(decode=True) for part in message.iter_attachments()]
    assert octets == [file.octets for file in files]
    html = message.get_body(("html",))
    assert html is not None
    assert html.get_content().strip() == "<p>Hallo"


@given(
    subject=st.text(st.characters(), max_size=200),
    text=st.text(st.characters(), max_size=500),
    value=st.text(st.characters(), max_size=200),
)
def test_nothing_that_is_put_in_makes_a_field_or_an_end(
    subject: str, text: str, value: str
) -> None:
    content = compose(sender=ANN, to=[BOB], subject=subject, text=text, fields=[("X-Key", value)])
    assert b"\n" not in content.replace(b"\r\n", b"")
    assert b"\r" not in content.replace(b"\r\n", b"")
    assert b"\0" not in content
    assert max(map(len, content.split(b"\r\n"))) <= 998
    message = read(content)
    assert set(message.keys()) <= {
        *("From", "To", "Subject", "X-Key"),
        *("MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
    }
    assert str(message["To"]) == str(BOB)


def test_names_beyond_ascii() -> None:
    content = compose(sender=ANN, to=[Address.parse("jürgen@example.com")], subject="ü", text="ü")
    assert "To: jürgen@example.com\r\n".encode() in content
    assert compose(sender=None, to=[BOB], subject="", text="").count(b"From:") == 0


def test_a_field_is_one_line() -> None:
    assert in_field(" a\r\nb\0\x85\u2028c\ud800 ") == "a b c"
