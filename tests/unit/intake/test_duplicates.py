"""Who is known again: fingerprints, their memory, and what looking costs."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.support.cost import least_cost
from tests.support.mail import wire
from waypost.devices.names import DeviceNames, DeviceSettings
from waypost.intake.duplicates import Duplicates
from waypost.mail.envelope import Arrival, QueueId
from waypost.mail.fingerprint import Fingerprint, has_dedupe

HEADER = (
    "Received: from a by b; Sun, 22 Nov 2026 16:00:00 +0000",
    "Date: Sun, 22 Nov 2026 16:00:00 +0000",
    "Message-ID: <1@cam>",
    "From: cam@[192.0.2.7]",
    "Subject: Motion",
)
PARTS = wire(
    *HEADER,
    'Content-Type: multipart/mixed; boundary="abc"',
    "",
    "--abc",
    "Content-Type: multipart/alternative;",
    '\tboundary="inner"',
    "",
    "--inner",
    "",
    "Somebody is there.",
    "--inner--",
    "--abc",
    "",
    "R0lGODlhAQABAAAAACw=",
    "--abc--",
)


def digest(content: bytes, size: int | None = None) -> bytes:
    """Of content that comes in pieces of `size` octets; None: at once."""
    fingerprint = Fingerprint()
    size = size or len(content)
    for start in range(0, len(content), size):
        fingerprint.update(content[start : start + size])
    return fingerprint.digest()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 40, 100])
def test_pieces_do_not_matter(size: int) -> None:
    for content in (PARTS, wire(*HEADER), wire("", "no header"), wire("Subject: x", "")):
        assert digest(content, size) == digest(content)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"16:00:00", b"17:13:01"),
        (b"<1@cam>", b"<2@cam>"),
        (b"abc", b"=another=="),
        (b"inner", b"outer-4711"),
    ],
)
def test_what_changes_from_one_sending_to_the_next(old: bytes, new: bytes) -> None:
    assert digest(PARTS.replace(old, new)) == digest(PARTS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Motion", b"Motion 2"),
        (b"cam@[192.0.2.7]", b"cam@[192.0.2.8]"),
        (b"Somebody", b"Nobody"),
        (b"R0lGOD", b"R0lGOE"),
        (b"is there.\r\n", b"is there.\r\n\r\n"),
    ],
)
def test_what_makes_another_mail(old: bytes, new: bytes) -> None:
    assert digest(PARTS.replace(old, new)) != digest(PARTS)


def test_a_line_without_an_end_takes_no_memory() -> None:
    fingerprint = Fingerprint()
    fingerprint.update(b"Subject: x\r\n\r\n")
    for _ in range(100):
        fingerprint.update(b"x" * 10_000)
        assert len(fingerprint._carry) <= 65_536
    assert fingerprint.digest() == digest(b"Subject: x\r\n\r\n" + b"x" * 1_000_000, 10_000)


def test_the_key_of_a_program() -> None:
    fingerprint = Fingerprint()
    fingerprint.update(wire("Subject: x", "X-Waypost-Dedupe: alarm-17", "", "text"))
    assert fingerprint.dedupe == b"alarm-17"
    assert has_dedupe(wire("X-Waypost-Dedupe: alarm-17", ""))
    assert not has_dedupe(PARTS)


def arrival(ip: str) -> Arrival:
    return Arrival("ESMTP", ip_address(ip), None, "", "smtp", trusted=True)


def test_devices_and_recipients_are_told_apart() -> None:
    addresses = (ip_address("192.0.2.7"), ip_address("2001:db8::7"))
    duplicates = Duplicates(lambda: DeviceNames([DeviceSettings(addresses, "door")]))
    key = duplicates.key_of(b"content", arrival("192.0.2.7"), ["a@b", "c@d"])
    assert duplicates.key_of(b"content", arrival("192.0.2.7"), ["c@d", "a@b"]) == key
    # By whichever of its addresses it comes.
    assert duplicates.key_of(b"content", arrival("2001:db8::7"), ["a@b", "c@d"]) == key
    assert duplicates.key_of(b"content", arrival("192.0.2.8"), ["a@b", "c@d"]) != key
    assert duplicates.key_of(b"content", arrival("192.0.2.7"), ["a@b"]) != key
    assert duplicates.key_of(b"another", arrival("192.0.2.7"), ["a@b", "c@d"]) != key


def test_memory_ends() -> None:
    duplicates = Duplicates(DeviceNames, max_mails=10)
    for number in range(20):
        duplicates.remember(b"%d" % number, QueueId(str(number)), 100.0)
    assert duplicates.original(b"9", 101.0, 60.0) is None
    assert duplicates.original(b"19", 159.0, 60.0) == "19"
    assert duplicates.original(b"19", 160.0, 60.0) is None
    assert duplicates.original(b"19", 99.0, 60.0) is None  # the clock was set back


def test_looking_costs_little_and_grows_with_the_size() -> None:
    """Against a copy of the octets, which every transport makes several times."""
    line = b"y" * 76 + b"\r\n"
    piece = line * 840
    header = wire(*HEADER, "")

    def run(pieces: int) -> None:
        fingerprint = Fingerprint()
        fingerprint.update(header)
        for _ in range(pieces):
            fingerprint.update(piece)
        fingerprint.digest()

    def one() -> None:
        run(50)

    def four() -> None:
        run(200)

    assert least_cost(four) / least_cost(one) < 8
