"""Bodies without their largest attachments: what is left is as it was, what is not is named."""

from __future__ import annotations

import base64
import hashlib
import quopri
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.mail.fields import split
from waypost.mail.stripping import LeftOut, Stripping
from waypost.mail.walk import lines

LARGE, SMALL = bytes(range(256)) * 400, bytes(range(256)) * 20


def described(left_out: LeftOut) -> str:
    return f"left out: {left_out.size} {left_out.sha256} ü"


def part(kind: bytes, encoding: bytes, body: bytes, *more: bytes) -> bytes:
    fields = (b"Content-Type: " + kind, b"Content-Transfer-Encoding: " + encoding, *more)
    return b"--b-1\r\n" + b"\r\n".join(fields) + b"\r\n\r\n" + body + b"\r\n"


def in_base64(octets: bytes) -> bytes:
    return base64.encodebytes(octets).replace(b"\n", b"\r\n")


TEXT = part(b"text/plain", b"7bit", b"Somebody is at the gate." * 3)
MIXED = b"Subject: x\r\nContent-Type: multipart/mixed; boundary=b-1\r\n\r\n"


def stripped(message: bytes, surplus: int, size: int = 999) -> tuple[bytes, bool]:
    section = split(message, is_all=True)
    body = message[section.size + 2 :]
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    stripping = Stripping(section.fields, lines(pieces), surplus, described)
    octets = b"".join(stripping.encode(lines(pieces)))
    return (
        b"".join(one.octets for one in stripping.fields) + b"\r\n" + octets,
        stripping.is_enough,
    )


def parts_of(message: bytes) -> list[EmailMessage]:
    read = message_from_bytes(message, policy=policy.default)
    return [one for one in read.walk() if not one.is_multipart()]  # type: ignore[misc]


def said(octets: bytes) -> str:
    return f"left out: {len(octets)} {hashlib.sha256(octets).hexdigest()} ü"


@given(st.integers(1, 5_000))
def test_the_largest_goes_first(size: int) -> None:
    kept = part(b"image/png", b"base64", in_base64(SMALL))
    message = MIXED + TEXT + kept + part(b"video/mp4", b"base64", in_base64(LARGE)) + b"--b-1--\r\n"
    made, is_enough = stripped(message, 1_000, size)
    assert is_enough
    assert len(made) <= len(message) - 1_000
    assert made.startswith(MIXED + TEXT + kept)
    assert made.endswith(b"--b-1--\r\n")
    text = parts_of(made)[-1]
    assert text.get_content_type() == "text/plain"
    assert text.get_content() == said(LARGE) + "\r\n"


@pytest.mark.parametrize("surplus", [1, 100_000, 150_000])
def test_as_much_as_has_to(surplus: int) -> None:
    message = MIXED + TEXT
    message += b"".join(
        part(b"image/jpeg", b"base64", in_base64(LARGE[: 30_000 * number]), b"X-A: b")
        for number in (1, 3, 2)
    )
    message += b"--b-1--\r\n"
    made, is_enough = stripped(message, surplus)
    assert is_enough
    assert len(made) <= len(message) - surplus
    kinds = [one.get_content_type() for one in parts_of(made)]
    assert kinds.count("image/jpeg") == {1: 2, 100_000: 2, 150_000: 1}[surplus]
    assert made.count(b"X-A: b") == 3


def test_what_cannot_be_enough() -> None:
    long = part(b"text/plain", b"7bit", b"x" * 5_000)
    message = MIXED + long + part(b"image/jpeg", b"base64", in_base64(SMALL)) + b"--b-1--\r\n"
    assert stripped(message, 7_000)[1] is False


@given(st.binary(max_size=3_000), st.integers(1, 3_000), st.sampled_from(["q", "b", "8bit"]))
def test_it_is_known_by_what_it_was(octets: bytes, size: int, encoding: str) -> None:
    octets = octets.replace(b"\r", b"").replace(b"\n", b"\r\n") + b"= =3D \tx" * 100
    if encoding == "q":
        # The library writes LF alone at line ends.
        lf = octets.replace(b"\r\n", b"\n")
        body = quopri.encodestring(lf).replace(b"\n", b"\r\n")
        name = b"quoted-printable"
    elif encoding == "b":
        body, name = in_base64(octets).rstrip(), b"base64"
    else:
        body, name = octets, b"8bit"
    if b"\r\n--b-1" in b"\r\n" + body:
        return
    message = MIXED + part(b"x/y", name, body) + b"--b-1--\r\n"
    made, is_enough = stripped(message, 1, size)
    assert is_enough
    assert parts_of(made)[0].get_content() == said(octets) + "\r\n"


def test_a_message_that_is_a_picture() -> None:
    head = b"Subject: x\r\nContent-Type: image/jpeg\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    made, is_enough = stripped(head + in_base64(LARGE), 1_000)
    assert is_enough
    (text,) = parts_of(made)
    assert text["Subject"] == "x"
    assert text.get_content() == said(LARGE) + "\r\n"


def test_what_is_signed_inside_stays() -> None:
    inner = part(b"image/jpeg", b"base64", in_base64(LARGE)).replace(b"b-1", b"c-2")
    signed = b"Content-Type: multipart/signed; boundary=c-2\r\n\r\n" + inner + b"--c-2--\r\n"
    assert stripped(MIXED + b"--b-1\r\n" + signed + b"--b-1--\r\n", 1)[1] is False


@pytest.mark.parametrize(
    ("field", "goes"),
    [
        (b"X-A: b", False),
        (b"Content-Disposition: attachment", True),
        (b"Content-Disposition: inline; filename=a.log", True),
        (b"Content-Disposition: inline; filename*0*=a.log", True),
    ],
)
def test_a_text_stays_unless_it_is_a_file(field: bytes, goes: bool) -> None:
    message = MIXED + part(b"text/plain", b"7bit", b"x" * 900, field) + b"--b-1--\r\n"
    assert stripped(message, 1)[1] is goes
