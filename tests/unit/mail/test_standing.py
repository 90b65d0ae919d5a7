"""What a mail stands for, as trace fields say it."""

from __future__ import annotations

from waypost.mail.address import Address
from waypost.mail.digest import digest_content
from waypost.mail.envelope import QueueId
from waypost.mail.message import decoded_fields, header_fields
from waypost.mail.standing import (
    MAX_NAMED,
    Standing,
    Suppressed,
    duplicate_field,
    is_duplicate,
    more_fields,
    standing_of,
)

RECEIVED = b"Received: from a by b\r\n\twith SMTP id 0abc; now\r\n"


def test_more() -> None:
    named = [
        Suppressed(QueueId("0abc"), 0.25, 'Tür "Süd"\r\nX-Waypost-More: 9'),
        Suppressed(QueueId("0abd"), 1.0, "\U0001f600" * 500),
        Suppressed(QueueId("0abe"), 2.0, "\udcff"),
    ]
    fields = more_fields(17, named * MAX_NAMED)
    assert fields.isascii()
    assert max(map(len, fields.split(b"\r\n"))) <= 998
    standing = standing_of(fields + RECEIVED)
    assert (standing.more, standing.duplicate_of) == (17, None)
    assert len(standing.suppressed) == MAX_NAMED
    assert standing.suppressed[0] == {
        "id": "0abc",
        "received": "1970-01-01T00:00:00.250Z",
        "subject": 'Tür "Süd"\r\nX-Waypost-More: 9',
    }
    assert len(standing.suppressed[1]["subject"]) == 70


def test_duplicates() -> None:
    prepend = RECEIVED + duplicate_field(QueueId("0abc"))
    assert is_duplicate(prepend)
    assert standing_of(prepend) == Standing(duplicate_of="0abc")
    assert not is_duplicate(RECEIVED)
    assert standing_of(RECEIVED) == Standing()


def test_the_content_of_a_digest() -> None:
    to = Address.parse("tür@[192.0.2.1]")
    content = digest_content(
        queue_id=QueueId("0abc"),
        sender=Address.parse("postmaster@[192.0.2.1]"),
        to=to,
        date="Sun, 22 Nov 2026 16:00:00 +0000",
        subject="17 more from Türkamera am Südtor mit einem sehr langen Namen, in 5 minutes",
        text="One\n" + "ü" * 3_000,
    )
    assert b"\r\n.\r\n" not in content
    assert content.replace(b"\r\n", b"").count(b"\n") == 0
    assert max(map(len, content.split(b"\r\n"))) <= 78
    fields = dict(decoded_fields(content))
    assert fields["subject"].startswith("17 more from Türkamera am Südtor mit")
    assert fields["to"] == f"<{to}>"
    assert [name for name, _ in header_fields(content)].count("subject") == 1
