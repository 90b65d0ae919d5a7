"""Mail as notifications: templates, cuts, the picture; and what failures come to."""

from __future__ import annotations

import pytest

from tests.contract.mail import arrival
from waypost.delivery.attachments import left_out_line
from waypost.delivery.events import Event
from waypost.delivery.notice import FIELDS, MAX_TITLE, notice_of
from waypost.delivery.notifier import Told
from waypost.delivery.notify import refusal
from waypost.mail.envelope import QueueId
from waypost.mail.template import Template
from waypost.reading.event import event_of
from waypost.reading.values import Attachment, Correspondent, ReadMail


def event(mail: ReadMail, max_text: int = 4_000) -> Event:
    made = event_of(
        mail,
        arrival(),
        queue_id=QueueId("0123456789abc"),
        received_at=0.0,
        device="cam",
        event_type="mail",
        max_text=max_text,
    )
    return Event(mail, made)


def filled(mail: ReadMail, template: str, max_text: int = 100, **options: bool) -> str:
    has_picture = options.get("has_picture", False)
    made = notice_of(
        *(event(mail, max_text), "bob@x.test"),
        title=Template(""),
        text=Template.parse(template, FIELDS),
        max_text=max_text,
        has_picture=has_picture,
    )
    return made.text


def test_every_field_has_its_place() -> None:
    assert set(FIELDS) - {"recipient"} == set(event(ReadMail()).json) - {
        *("v", "text_truncated", "attachments", "suppressed", "duplicate_of")
    }
    mail = ReadMail(
        subject="S", from_=(Correspondent("", "a@b"),), to=(Correspondent("", "c"),) * 2, text="T\n"
    )
    template = "$subject|$from|$to|$device|$text|$recipient|$severity|${id}x|$$"
    assert filled(mail, template) == "S|a@b|c, c|cam|T\n|bob@x.test||0123456789abcx|$"


def test_what_a_mail_says_is_never_a_template() -> None:
    hostile = "$text ${id} {0.__class__} {{7*7}} %s"
    assert filled(ReadMail(subject=hostile, text="x"), "$subject") == hostile


@pytest.mark.parametrize("text", ["$body", "$", "cost: 5$", "${subject.x}", "$subject $Nope"])
def test_templates_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"known: \$id|is written \$\$|nothing below"):
        Template.parse(text, FIELDS)


def test_texts_are_cut_and_say_so() -> None:
    assert filled(ReadMail(text="x" * 50), "$text", max_text=10) == "x" * 9 + "…"
    assert filled(ReadMail(text="abc", text_truncated=True), "$text") == "abc…"
    long = ReadMail(subject="a\n b " + "x" * 500)
    made = notice_of(
        event(long),
        "b@c",
        title=Template("$subject"),
        text=Template("t"),
        max_text=9,
        has_picture=False,
    )
    assert made.title.startswith("a b xxx")
    assert len(made.title) == MAX_TITLE


def test_a_mail_without_text_says_so_unless_it_has_a_picture() -> None:
    assert filled(ReadMail(), "$text") == "(the mail has no text)"
    assert filled(ReadMail(), "$text", has_picture=True) == ""


def test_the_line_about_attachments_stays_where_the_text_is_cut() -> None:
    line = left_out_line([attached("scan.pdf", 9_437_184)], None)
    assert line == "1 attachment left out: scan.pdf 9.0 MiB"
    made = notice_of(
        *(event(ReadMail(text="x" * 500)), "b@c"),
        title=Template(""),
        text=Template("$text"),
        max_text=60,
        has_picture=False,
        left_out=line,
    )
    assert len(made.text) == 60
    assert made.text.endswith(f"x…\n{line}")


def test_many_attachments_left_out_are_one_line_with_a_link() -> None:
    line = left_out_line([attached(f"{n}.bin", n) for n in range(1, 6)], "http://hub/message/x")
    assert line == (
        "5 attachments left out: 1.bin 1 B, 2.bin 2 B, 3.bin 3 B, and 2 more; see"
        " http://hub/message/x"
    )
    assert left_out_line([], "http://hub/message/x") == ""


def attached(name: str, size: int) -> Attachment:
    return Attachment(name, "application/pdf", size, "", False, "", 0, 1, "")


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (Told(False, "ntfy", status=401, why="HTTP 401"), "451 4.7.0"),
        (Told(False, "ntfy", status=404, why="HTTP 404"), "451 4.7.0"),
        (Told(False, "ntfy", status=429, why="HTTP 429"), "451 4.4.5"),
        (Told(False, "ntfy", status=503, why="HTTP 503"), "451 4.4.5"),
        (Told(False, "ntfy", why="no connection"), "451 4.4.1"),
        (Told(False, is_known=False, why="no URL"), "451 4.3.5"),
    ],
)
def test_failures_are_told_apart(told: Told, code: str) -> None:
    reply = refusal("phones", [(2, told)])
    assert str(reply).startswith(f"{code} notify phones: URL 2")
    assert told.why in reply.text
    assert ("is wrong" in reply.text) == (code in ("451 4.7.0", "451 4.3.5"))


def test_many_failures_are_one_line() -> None:
    reply = refusal("phones", [(n, Told(False, "ntfy", why="away")) for n in range(1, 9)])
    assert reply.text.count("away") == 3
    assert reply.text.endswith("and 5 more")


def test_a_mail_for_others_says_so() -> None:
    """The last of many; the subject of a digest has the number itself."""
    one = event(ReadMail(subject="Motion"))

    def title(**more: object) -> str:
        changed = Event(one.mail, one.json | more)
        return notice_of(
            *(changed, "a@b"),
            title=Template("$subject"),
            text=Template("$text"),
            max_text=100,
            has_picture=False,
        ).title

    assert title() == "Motion"
    assert title(more=94) == "Motion (+94 more)"
    assert title(more=94, subject="94 more from door") == "94 more from door"
    assert len(title(more=94, subject="x" * 300)) <= MAX_TITLE
