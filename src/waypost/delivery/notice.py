"""A mail as a notification: title and text from templates, and a picture. Values only."""

from __future__ import annotations

from typing import NamedTuple

from waypost.delivery.events import Event
from waypost.mail.template import Template

# What templates may name: keys of the event.
FIELDS = (
    *("id", "event_type", "device", "source_ip", "received", "subject", "text", "from", "to"),
    *("message_id", "severity", "tags", "url", "recipient", "more"),
)
MAX_TITLE = 250
# Formats that services show.
PICTURES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})


class Notice(NamedTuple):
    """What people are to see."""

    title: str
    text: str


def notice_of(
    event: Event,
    recipient: str,
    *,
    title: Template,
    text: Template,
    max_text: int,
    has_picture: bool,
    left_out: str = "",
) -> Notice:
    """The templates, filled in and cut to size; a text that came out empty says so.

    `left_out` is a last line, about attachments; it stays where the text is cut.
    """
    values = {name: event.json.get(name) for name in FIELDS} | {"recipient": recipient}
    if event.json["text_truncated"]:
        values["text"] = f"{values['text']}…"
    head = " ".join(title.fill(values).split())
    more = event.json.get("more")
    # The subject of a digest says so itself.
    if more and not head.startswith(f"{more} "):
        head = f"{_cut(head, MAX_TITLE - 20)} (+{more} more)"
    body = text.fill(values).strip()
    if not body and not has_picture:
        body = "(the mail has no text)"
    if left_out:
        body = f"{_cut(body, max(max_text - len(left_out) - 1, 0))}\n{left_out}".strip()
    return Notice(_cut(head, MAX_TITLE), _cut(body, max_text))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(most - 1, 0)] + "…"
