"""What HeaderFilter takes out of a header section, and that it takes nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.mail.header_filter import MAX_HELD, HeaderFilter

OURS = ("hub.example", "[192.168.1.20]")


def is_ours(name: str) -> bool:
    return name.lower() in OURS


def filtered(content: bytes, *pieces: int, bcc: bool = True) -> bytes:
    """What passes of a content that comes in pieces of these sizes, the last again and again."""
    header_filter = HeaderFilter(is_ours, without_bcc=bcc)
    passed = b""
    sizes = list(pieces) or [len(content) or 1]
    while content:
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        passed += header_filter.feed(content[:size])
        content = content[size:]
    return passed + header_filter.end()


def header(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode()


BODY = header("", "Bcc: in the body", "Authentication-Results: hub.example; auth=pass", "", " x")
KEPT = header("From: ann@plant.example", "Subject: Bcc: and", " more", "X-Bcc: y", "Bccx: z")
BCC = header("Bcc: a@b.example,", "\tc@d.example", " ", "RESENT-BCC : e@f.example", "bcc:")
FORGED = header(
    "Authentication-Results: hub.example;",
    "\tx-literal=pass smtp.mailfrom=cam@[192.168.1.50]",
    'AUTHENTICATION-RESULTS\t: "[192.168.1.20]"; auth=pass',
)
FOREIGN = header("Authentication-Results: other.example;", " spf=pass", "authentication-results:")


@pytest.mark.parametrize(
    "head",
    [KEPT + BCC + FORGED, BCC + KEPT + FORGED, FORGED + BCC + KEPT, BCC + FORGED, b"", BCC, FORGED],
)
@pytest.mark.parametrize("body", [BODY, b"", b"\r\n"])
def test_every_split_point(head: bytes, body: bytes) -> None:
    content = head + FOREIGN + body
    expected = (KEPT if KEPT in head else b"") + FOREIGN + body
    for at in range(1, len(content)):
        assert filtered(content, at, len(content)) == expected, at
    assert filtered(content, 1) == expected
    assert filtered(content) == expected


def test_bcc_stays_where_mail_only_passes() -> None:
    content = KEPT + BCC + FORGED + BODY
    for size in (1, 7, len(content)):
        assert filtered(content, size, bcc=False) == KEPT + BCC + BODY


@pytest.mark.parametrize(
    "value",
    [
        " hub.example; auth=pass",
        "hub.example;auth=pass",
        " HUB.Example ; none",
        " hub.example 1; none",
        " hub.example(comment); none",
        " (a comment) hub.example; none",
        " (a (nested (comment)) here)\t(another) hub.example; none",
        r" (a \) paren \( or \\ so) hub.example; none",
        ' "hub.example"; none',
        r' "hub\.exam\ple"; none',
        ' "[192.168.1.20]"; none',
        " [192.168.1.20]; none",
        "\r\n\thub.example;\r\n\tnone",
        "\r\n (folded\r\n comment)\r\n hub.example; none",
        ' "hub.\r\n\texample"; none',
        " hub.example",
        "   \t  hub.example;",
    ],
)
def test_every_spelling_of_our_name_goes(value: str) -> None:
    content = header("A: b", f"Authentication-Results:{value}", "C: d", "", "body")
    # An authserv-id that is folded within its quotes holds the white space.
    gone = "hub.\r\n\t" not in value
    expected = header("A: b", "C: d", "", "body") if gone else content
    for size in (1, 5, len(content)):
        assert filtered(content, size) == expected


@pytest.mark.parametrize(
    "value",
    [
        " other.example; auth=pass smtp.auth=hub.example",
        " nothub.example; none",
        " hub.example.org; none",
        ' "hub.example; none',
        " (hub.example; none",
        " (hub.example) other.example; none",
        "",
        ";",
        " ;hub.example",
    ],
)
def test_those_of_others_stay(value: str) -> None:
    content = header("A: b", f"Authentication-Results:{value}", "", "body")
    for size in (1, 5, len(content)):
        assert filtered(content, size) == content


@pytest.mark.parametrize("size", [1_000, 65_536, 200_000])
@pytest.mark.parametrize("before", ["X: ", "Authentication-Results: other.example; ", " ", "X"])
def test_a_line_of_any_length_hides_nothing_behind_it(before: str, size: int) -> None:
    """However the octets come, what follows a long line is looked at."""
    forged = FORGED + BCC
    long = before.encode() + b"y" * 100_000 + b"\r\n"
    content = long + forged + KEPT + BODY
    expected = (b"" if before.startswith("Auth") else long) + KEPT + BODY
    assert filtered(content, size) == expected


@pytest.mark.parametrize("name", ["Authentication-Results", "Bcc"])
def test_neither_does_white_space_before_the_colon(name: str) -> None:
    content = name.encode() + b" " * 70_000 + b": hub.example; none\r\n" + KEPT + BODY
    for size in (100, 65_537, len(content)):
        assert filtered(content, size) == KEPT + BODY


@pytest.mark.parametrize("filler", [b" ", b"(", b"(x)", b"\r\n "])
def test_nor_what_comes_before_our_name(filler: bytes) -> None:
    count = MAX_HELD // len(filler) + 10
    end = b")" * count if filler == b"(" else b""
    field = b"Authentication-Results:" + filler * count + end + b" hub.example; none\r\n"
    for size in (100, 4_096, len(field)):
        assert filtered(field + KEPT + BODY, size) == KEPT + BODY


def test_a_line_feed_alone_hides_nothing() -> None:
    """In BINARYMIME such a line comes through, and a reader of the mailbox may end it there."""
    content = b"A: b\nBcc: x\nAuthentication-Results: hub.example; none\r\n" + KEPT + BODY
    for size in (1, 5, len(content)):
        assert filtered(content, size) == b"A: b\n" + KEPT + BODY


def test_a_field_of_a_million_lines_is_not_kept() -> None:
    header_filter = HeaderFilter(is_ours, without_bcc=True)
    header_filter.feed(b"Authentication-Results: other.example;\r\n")
    for _ in range(100):
        header_filter.feed(b" x\r\n" * 10_000)
        assert sum(map(len, header_filter._field)) + len(header_filter._held) <= MAX_HELD
    assert header_filter.feed(KEPT + BODY) == KEPT + BODY


names = st.sampled_from(
    [b"Bcc", b"bCC ", b"Resent-Bcc", b"Authentication-Results", b"X", b"Subject", b"To", b"Bccc"]
)
values = st.text('ab "\\();:.@', max_size=12).map(str.encode)
fields = st.tuples(names, st.lists(values, min_size=1, max_size=3)).map(
    lambda field: field[0] + b":" + b"\r\n ".join(field[1]) + b"\r\n"
)


@given(
    st.lists(fields, max_size=8), st.binary(max_size=60), st.lists(st.integers(1, 30), min_size=1)
)
def test_all_other_bytes_pass_in_order(head: list[bytes], body: bytes, sizes: list[int]) -> None:
    """None of these fields is ours: those of Bcc go, whole, and nothing else."""
    content = b"".join(head) + b"\r\n" + body
    expected = b"".join(
        field
        for field in head
        if field.partition(b":")[0].strip().lower() not in (b"bcc", b"resent-bcc")
    )
    assert filtered(content, *sizes) == expected + b"\r\n" + body
    assert filtered(content, *sizes, bcc=False) == content


@given(st.binary(max_size=300), st.lists(st.integers(1, 50), min_size=1))
def test_octets_of_any_kind(octets: bytes, sizes: list[int]) -> None:
    """Whatever it is: the same however it comes, and what passes is in it, in order."""
    content = octets + b"\r\n"
    passed = filtered(content, *sizes)
    assert passed == filtered(content)
    rest = iter(content)
    assert all(octet in rest for octet in passed)


@given(st.lists(st.sampled_from([
    b"Bcc:", b"Authentication-Results:", b"hub.example", b"\r\n", b"\n", b"\r", b" ", b"x", b"(",
    b")", b'"', b"\\", b";", b"X:",
]), max_size=40), st.lists(st.integers(1, 20), min_size=1))  # fmt: skip
def test_pieces_of_what_matters(parts: list[bytes], sizes: list[int]) -> None:
    content = b"".join(parts) + b"\r\n"
    assert filtered(content, *sizes) == filtered(content) == filtered(content, 1)
