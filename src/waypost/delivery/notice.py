"""A mail as a notification: title and text from templates, and a picture. Values only.

Templates are `string.Template`s, as users of mailrise know them: `$subject` is replaced by a text,
and nothing in a template, or in what a mail puts into one, is ever run.
"""

from __future__ import annotations

from string import Template
from typing import NamedTuple

from waypost.delivery.events import Event

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


def checked_template(text: str) -> str:
    """The same text. Raises ValueError when it is none of ours."""
    template = Template(text)
    if not template.is_valid():
        raise ValueError(f"{text!r}: a $ that stands for itself is written $$")
    unknown = [name for name in template.get_identifiers() if name not in FIELDS]
    if unknown:
        raise ValueError(f"unknown: ${', $'.join(unknown)}; known: ${', $'.join(FIELDS)}")
    return text


def notice_of(
    event: Event,
    recipient: str,
    *,
    title: str,
    text: str,
    max_text: int,
    has_picture: bool,
    left_out: str = "",
) -> Notice:
    """The templates, filled in and cut to size; a text that came out empty says so.

    `left_out` is a last line, about attachments; it stays where the text is cut.
    """
    values = {name: _words(event.json.get(name)) for name in FIELDS} | {"recipient": recipient}
    if event.json["text_truncated"]:
        values["text"] += "…"
    head = " ".join(Template(title).substitute(values).split())
    more = event.json.get("more")
    # The subject of a digest says so itself.
    if more and not head.startswith(f"{more} "):
        head = f"{_cut(head, MAX_TITLE - 20)} (+{more} more)"
    body = Template(text).substitute(values).strip()
    if not body and not has_picture:
        body = "(the mail has no text)"
    if left_out:
        body = f"{_cut(body, max(max_text - len(left_out) - 1, 0))}\n{left_out}".strip()
    return Notice(_cut(head, MAX_TITLE), _cut(body, max_text))


def _words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(most - 1, 0)] + "…"
