"""What a submitted message gets that lacks it (RFC 6409 §8)."""

from __future__ import annotations

from email import message_from_bytes

import pytest

from tests.support.cost import least_cost
from waypost.mail.address import Address, Domain
from waypost.mail.envelope import QueueId
from waypost.mail.message import header_fields
from waypost.mail.submission import authors_of, missing_fields

ANN = Address("ann", Domain("plant.example"))
WHOLE = b"Date: x\r\nMessage-ID: <y@z>\r\nFrom: <ann@plant.example>\r\n"


def added(head: bytes, sender: Address | None = ANN) -> dict[str, str]:
    """The fields that are added, by name."""
    fields = missing_fields(
        head + b"\r\nbody\r\nDate: of the body\r\n",
        queue_id=QueueId("0123456789abc"),
        at=0.0,
        host="hub.example",
        sender=sender,
        is_theirs=lambda address: address.local_part.startswith("ann"),
    )
    assert fields.count(b"\r\n") == len(fields.splitlines())
    return {str(name): str(value) for name, value in message_from_bytes(fields).items()}


def test_what_is_whole_stays_so() -> None:
    assert added(WHOLE) == {}
    assert added(WHOLE.lower().replace(b": ", b" :\r\n\t")) == {}


def test_date_and_message_id() -> None:
    assert added(b"From: ann@plant.example\r\n") == {
        "Date": "Thu, 01 Jan 1970 00:00:00 +0000",
        "Message-ID": "<0123456789abc@hub.example>",
    }
    assert added(b"From: ann@plant.example\r\ndAtE: x\r\n").keys() == {"Message-ID"}
    assert added(b"From: ann@plant.example\r\nmessage-id: x\r\n").keys() == {"Date"}


@pytest.mark.parametrize(
    "author",
    [
        "ann@plant.example",
        "Ann <ann@plant.example>",
        '"Boss <boss@plant.example>" <ann@plant.example>',
        "(boss@plant.example) ann@plant.example",
        "ann+cam\r\n <ann+cam@plant.example>",
    ],
)
def test_the_one_author_needs_no_sender(author: str) -> None:
    head = f"Date: x\r\nMessage-ID: x\r\nFrom: {author}\r\n".encode()
    assert added(head) == {}


@pytest.mark.parametrize(
    "froms",
    [
        [],
        [""],
        ["boss@plant.example"],
        # RFC 5322 §3.6.2: with several authors it must stand, whoever they are.
        ["boss@plant.example, ann@plant.example"],
        ["ann@plant.example, ann+x@plant.example"],
        # A second From is forbidden; readers show the first, or the last.
        ["boss@plant.example", "ann@plant.example"],
        ["ann@plant.example", "boss@plant.example"],
        ["<<<", "ann@plant.example"],
        ["Team: ann@plant.example, boss@plant.example;"],
        ["ann@plant.example <boss@plant.example>"],
        ["boss@plant.example " + "x" * 5_000],
        ["ann@plant.example, " + "(" * 5_000],
    ],
)
def test_anything_else_says_who_sent_it(froms: list[str]) -> None:
    head = "Date: x\r\nMessage-ID: x\r\n" + "".join(f"From: {value}\r\n" for value in froms)
    assert added(head.encode()) == {"Sender": "<ann@plant.example>"}
    # Nobody is logged in, or it has the null sender: nobody to name.
    assert added(head.encode(), sender=None) == {}
    assert added(head.encode() + b"Sender: x\r\n") == {}


def test_no_header_at_all() -> None:
    assert added(b"").keys() == {"Date", "Message-ID", "Sender"}


def test_authors() -> None:
    head = b"From: a@[192.0.2.1], B <b@x.example>\r\nFrom: (\r\nfrom: c@x.example\r\n\r\n"
    assert [str(author) for author in authors_of(head)] == [
        *("a@[192.0.2.1]", "b@x.example", "c@x.example")
    ]


def test_authors_without_end() -> None:
    """What is read has an end, for one field and for all of them."""
    field = b"From: a@[192.0.2.1]\r\n"
    assert 100 < len(authors_of(field * 3_000)) < 400
    assert authors_of(b"From: " + b"a@[192.0.2.1]," * 3_000 + b"\r\n") == []


def test_a_field_of_very_many_lines_takes_no_longer_than_as_many_fields() -> None:
    """Everybody waits for it: its lines are joined once."""
    count = 100_000
    many, one = (b"From: x\r\n" + line * count + b"\r\n" for line in (b"X: y\r\n", b" z\r\n"))
    assert len(header_fields(one)) == 1
    assert least_cost(lambda: header_fields(one)) < 3 * least_cost(lambda: header_fields(many))
