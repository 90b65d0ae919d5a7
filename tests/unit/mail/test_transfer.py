"""Bodies encoded for hosts with seven bits or short lines: every part decodes to what it was."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage, Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.mail.fields import MAX_LINE, split
from waypost.mail.transfer import Encoding, Scan
from waypost.mail.walk import NotPossible, lines

LONG = b"<html>" + b"abc =20 -- " * 400 + b"</html>"


def encoded(
    message: bytes, *, to_seven_bits: bool = True, from_binary: bool = False, size: int = 50
) -> bytes:
    """The whole message after encoding, read in pieces of `size`."""
    section = split(message, is_all=True)
    body = message[section.size + 2 :]
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    encoding = Encoding(
        section.fields, lines(pieces), to_seven_bits=to_seven_bits, from_binary=from_binary
    )
    octets = b"".join(encoding.encode(lines(pieces)))
    return b"".join(one.octets for one in encoding.fields) + b"\r\n" + octets


def leaves(message: bytes) -> list[tuple[str, bytes]]:
    """Every leaf's type and decoded octets, as the standard library reads them."""

    def of(part: Message) -> Iterator[tuple[str, bytes]]:
        if part.is_multipart():
            for inner in part.get_payload():
                assert isinstance(inner, Message)
                yield from of(inner)
        else:
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            yield part.get_content_type(), payload

    # The older policy, which keeps the octets of a body as they are.
    return list(of(message_from_bytes(message, policy=policy.compat32)))


def is_short(message: bytes) -> bool:
    return all(len(line) <= MAX_LINE for line in message.split(b"\r\n"))


LINE = st.one_of(
    st.binary(max_size=40).map(lambda raw: raw.translate(None, b"\r\n\0")),
    st.sampled_from([b"--", b"--x", b".", b"From me", b"=", b"=3D", b"ends in a blank ", b"\t"]),
    st.integers(900, 2_200).map(lambda size: b"-" * size),
    st.integers(900, 2_200).map(lambda size: b"a=\xff" * (size // 3)),
)
TEXT = st.lists(LINE, max_size=8).map(lambda texts: b"".join(text + b"\r\n" for text in texts))


@given(TEXT, st.integers(1, 3_000), st.booleans())
def test_a_single_text(body: bytes, size: int, to_seven_bits: bool) -> None:
    message = b"Content-Type: text/html; charset=x\r\n\r\n" + body
    made = encoded(message, to_seven_bits=to_seven_bits, size=size)
    assert leaves(made) == leaves(message)
    assert is_short(made)
    assert made.isascii() or not to_seven_bits
    assert encoded(made, to_seven_bits=to_seven_bits) == made


@given(st.lists(TEXT, min_size=1, max_size=4), st.integers(1, 3_000))
def test_parts(bodies: list[bytes], size: int) -> None:
    message = (
        b'Content-Type: multipart/mixed; boundary="b-1"\r\nContent-Transfer-Encoding: 8bit\r\n'
    )
    message += b"\r\nA preamble\r\n"
    for body in bodies:
        message += b"--b-1\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        message += body + b"\r\n"
    message += b"--b-1--\r\nAn epilogue\r\n"
    made = encoded(message, size=size)
    assert leaves(made) == leaves(message)
    assert is_short(made)
    assert made.isascii()
    assert b"8bit" not in made
    assert made.endswith(b"--b-1--\r\nAn epilogue\r\n")


def test_what_has_no_mime_header_gets_one() -> None:
    made = encoded(b"Subject: x\r\n\r\nK\xc3\xbcche\r\n")
    read = message_from_bytes(made, policy=policy.default)
    assert isinstance(read, EmailMessage)
    assert read.get_content() == "Küche\r\n"
    assert read["MIME-Version"] == "1.0"
    assert "unknown-8bit" in encoded(b"Subject: x\r\n\r\nK\xfcche\r\n").decode()


def test_only_what_needs_it_is_encoded() -> None:
    message = (
        b'Content-Type: multipart/mixed; boundary="o"\r\n\r\n'
        b'--o\r\nContent-Type: multipart/alternative; boundary="i"\r\n\r\n'
        b"--i\r\nContent-Type: text/plain\r\n\r\nshort  \r\n"
        b"--i\r\nContent-Type: text/html\r\n\r\n" + LONG + b"\r\n"
        b"--i--\r\n\r\n"
        b"--o\r\nContent-Type: image/jpeg\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + b"QUJD"
        * 1_000
        + b"\r\n--o\r\nContent-Type: message/rfc822\r\n\r\n"
        b"Subject: inner\r\n\r\n" + LONG + b"\r\n--o--\r\n"
    )
    made = encoded(message, to_seven_bits=False)
    assert leaves(made) == leaves(message)
    assert is_short(made)
    assert b"--i\r\nContent-Type: text/plain\r\n\r\nshort  \r\n--i\r\n" in made
    assert made.count(b"quoted-printable") == 2


def test_quoted_printable_with_long_lines_gets_soft_breaks() -> None:
    body = b"Gr=C3=BC=C3=9Fe " * 200 + b"=\r\nand on\xff\r\n"
    message = b"Content-Transfer-Encoding: Quoted-Printable\r\n\r\n" + body
    made = encoded(message)
    assert leaves(made) == leaves(message)
    assert is_short(made)
    assert made.isascii()


PGP = (
    b'Content-Type: multipart/mixed; boundary="o"\r\n\r\n'
    b'--o\r\nContent-Type: multipart/signed; boundary="i"\r\n\r\n'
    b"--i\r\nContent-Type: text/plain\r\n\r\n%s\r\n"
    b"--i\r\nContent-Type: application/pgp-signature\r\n\r\nx\r\n--i--\r\n"
    b"--o\r\nContent-Type: text/plain\r\n\r\n%s\r\n--o--\r\n"
)


def test_what_is_signed_inside_is_not_touched() -> None:
    with pytest.raises(NotPossible):
        encoded(PGP % (b"\xfc", b"plain"))
    made = encoded(PGP % (b"s" * 2_000, b"\xfc"))
    assert b"s" * 2_000 in made
    assert b"=FC" in made
    assert made.count(b"quoted-printable") == 1


@pytest.mark.parametrize(
    "message",
    [
        b"Content-Type: multipart/mixed\r\n\r\n\xfc\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n\xfc\r\n--b\r\n\r\nx\r\n--b--\r\n",
        b"Content-Transfer-Encoding: base64\r\n\r\n\xfc\r\n",
        b"Content-Transfer-Encoding: x-uuencode\r\n\r\n\xfc\r\n",
        b"Content-Type: message/partial\r\n\r\n\xfc\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + b"x: y\r\n" * 20_000,
    ],
)
def test_what_cannot_be_done(message: bytes) -> None:
    with pytest.raises(NotPossible):
        encoded(message)


def test_names_of_attachments_go_with_seven_bits_too() -> None:
    message = (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
        b'Content-Disposition: attachment; filename="T\xc3\xbcr.jpg"\r\n\r\nx\r\n--b--\r\n'
    )
    made = encoded(message)
    assert made.isascii()
    (part,) = message_from_bytes(made, policy=policy.default).iter_parts()
    assert part.get_filename() == "Tür.jpg"


@given(
    st.lists(st.integers(0, 1_100).map(lambda size: b"a" * size + b"\r\n"), max_size=8),
    st.integers(1, 3_000),
    st.booleans(),
)
def test_scanning(texts: list[bytes], size: int, ends: bool) -> None:
    body = b"".join(texts) + (b"" if ends else b"tail")
    scan = Scan()
    for at in range(0, len(body), size):
        scan.see(body[at : at + size])
    assert scan.is_too_long == any(len(text) > MAX_LINE + 2 for text in texts)
    assert not scan.is_eight_bit


@given(TEXT, st.integers(1, 200))
def test_lines_are_the_octets(body: bytes, size: int) -> None:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    assert b"".join(line.octets for line in lines(pieces)) == body


def test_a_broken_line_does_not_become_a_boundary() -> None:
    message = (
        b"Content-Type: multipart/mixed; boundary=b-1\r\n\r\n"
        + b"--b-1\r\nContent-Type: text/plain\r\n\r\n\xfc\r\n"
        + b"a" * 75
        + b"--b-1\r\n"
        + b"a" * 75
        + b"--b-1--\r\nend\r\n--b-1--\r\n"
    )
    made = encoded(message)
    assert leaves(made) == leaves(message)
    assert len(leaves(made)) == 1


BINARY = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([b"\r", b"\n", b"\r\n", b"\0", b"\r\r\n", b"--b-1", b"\n--b-1\n", b"."]),
        st.integers(900, 2_200).map(lambda size: b"\xff" * size),
    ),
    max_size=8,
).map(b"".join)


def is_canonical(message: bytes) -> bool:
    return not set(message.replace(b"\r\n", b"")) & set(b"\r\n\0")


@given(
    st.lists(
        st.tuples(st.sampled_from([b"image/jpeg", b"text/plain", b"application/x"]), BINARY),
        min_size=1,
        max_size=3,
    ),
    st.integers(1, 3_000),
    st.booleans(),
)
def test_binary_parts(parts: list[tuple[bytes, bytes]], size: int, to_seven_bits: bool) -> None:
    """Every octet is there again (RFC 3030 §3), in parts of parts too."""
    message = b'Content-Type: multipart/mixed; boundary="o"\r\n'
    message += b"Content-Transfer-Encoding: binary\r\n\r\n"
    message += b'--o\r\nContent-Type: multipart/related; boundary="b-1"\r\n'
    message += b"Content-Transfer-Encoding: binary\r\n\r\n"
    for kind, octets in parts:
        message += b"--b-1\r\nContent-Type: " + kind
        message += b"\r\nContent-Transfer-Encoding: binary\r\n\r\n" + octets + b"\r\n"
    message += b"--b-1--\r\n\r\n--o--\r\n"
    if b"\r\n--b-1" in b"".join(b"\r\n" + octets for _, octets in parts):
        return  # a boundary that the sender should not have chosen
    made = encoded(message, to_seven_bits=to_seven_bits, from_binary=True, size=size)
    assert is_canonical(made)
    assert is_short(made)
    assert made.isascii() or not to_seven_bits
    assert b"binary" not in made
    # Read by the library, bare line ends within a body would become others: not in base64.
    assert [octets for _, octets in leaves(made)] == [octets for _, octets in parts]


@given(BINARY, st.integers(1, 3_000))
def test_a_message_that_is_a_picture(octets: bytes, size: int) -> None:
    head = b"Content-Type: image/jpeg\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    made = encoded(head + octets, from_binary=True, size=size)
    assert is_canonical(made)
    assert leaves(made)[0][1] == octets


@pytest.mark.parametrize(
    "message",
    [
        b"Subject: a\nb\r\n\r\n\0",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n\0\r\n--b\r\n\r\nx\r\n--b--\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX: \0\r\n\r\nx\r\n--b--\r\n",
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\na\nb\r\n",
        b"Content-Type: message/partial\r\n\r\na\nb\r\n",
        PGP % (b"a\nb", b"x"),
    ],
)
def test_binary_that_must_not_be_touched(message: bytes) -> None:
    with pytest.raises(NotPossible):
        encoded(message, from_binary=True)


@given(BINARY, st.integers(1, 3_000))
def test_scanning_for_binary(body: bytes, size: int) -> None:
    scan = Scan(may_be_binary=True)
    for at in range(0, len(body), size):
        scan.see(body[at : at + size])
    # A CR at the very end may have its LF in what follows: nothing does.
    assert scan.is_binary == (not is_canonical(body.removesuffix(b"\r")))
