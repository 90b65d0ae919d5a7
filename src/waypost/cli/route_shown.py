"""A delivery as `waypost route --message` tells it to people."""

from __future__ import annotations

import json
from typing import Any

from waypost.cli.output import paint, printable, say
from waypost.mail.sizes import size_text

# Characters of a text or of an attachment's octets that people are shown of JSON.
_MAX_SHOWN = 120

Shown = dict[str, Any]


def say_delivery(one: Shown, indent: str = "") -> None:
    """A title, and a line for each thing to know."""
    recipients = ", ".join(map(printable, one["recipients"]))
    title = f"{one['target']} for {recipients}"
    say(indent + paint(title, "bold") + "  " + paint(f"({one['rule']})", "dim"))
    if "trouble" in one:
        colour = "yellow" if one["taken"] else "red"
        say(
            indent
            + paint(f"  {'but now' if one['taken'] else 'refused'}: ", colour)
            + printable(one["trouble"])
        )
    for line in _lines(one):
        say(f"{indent}  {printable(line)}")
    for member in one.get("members", []):
        say_delivery(member, indent + "  ")


def _lines(one: Shown) -> list[str]:
    """What is known, by the keys that are there."""
    lines: list[str] = []
    if "maildir" in one:
        lines.append(f"into {one['maildir']}{'' if one['exists'] else ', which will be made'}")
        lines.append(f"{size_text(one['size'])}, with {_names(one['added'])} added")
    if "hosts" in one:
        lines += _host_lines(one)
    if "broker" in one:
        lines.append(f"to {one['broker']}" + (f": {one['because']}" if "because" in one else ""))
        lines += [_message_line(message, one) for message in one["messages"]]
    for post in one.get("posts", []):
        signed = "signed" if one["is_signed"] else "not signed"
        lines.append(f"POST to {one['url']}, {signed}, Idempotency-Key {post['idempotency_key']}")
        lines.append(json.dumps(_abridged(post["json"]), ensure_ascii=False))
        lines += _attachment_lines(post["json"]["attachments"])
    if "services" in one:
        lines.append(f"by {', '.join(one['services'])}")
        for notification in one["notifications"]:
            lines.append(f"title: {notification['title']}")
            lines += [f"text: {line}" for line in notification["text"].split("\n")]
        lines += [_file_line(file) for file in one["files"]]
        lines += [_left_out_line(file) for file in one["left_out"]]
    if "reply" in one:
        lines.append(one["reply"])
    return lines


def _host_lines(one: Shown) -> list[str]:
    lines = [f"tries {', then '.join(one['hosts'])}"] if one["hosts"] else []
    lines.append(f"TLS: {one['tls']['level']} ({one['tls']['because']})")
    lines += [f"not tried: {why}" for why in one["forbidden"]]
    lines.append(f"sender {one['envelope_from']}, {size_text(one['size'])}")
    if one["changes"]:
        lines.append(f"changed: {', '.join(one['changes'])}")
    if one["changes_without_8bitmime"]:
        lines.append(f"without 8BITMIME there: {', '.join(one['changes_without_8bitmime'])}")
    lines += [f"{field['name']}: {field['value']}" for field in one["header"]]
    return lines


def _message_line(message: Shown, one: Shown) -> str:
    kept = ", kept" if message["retained"] else ""
    if "json" in message:
        return f"{message['topic']}{kept}: " + json.dumps(
            _abridged(message["json"]), ensure_ascii=False
        )
    if "payload" in message:
        return f"{message['topic']}{kept}: {message['payload']}"
    smaller = ", made smaller" if one["made_smaller"] else ""
    return f"{message['topic']}{kept}: {message['type']}, {size_text(message['size'])}{smaller}"


def _attachment_lines(attachments: list[Shown]) -> list[str]:
    lines = []
    for entry in attachments:
        if "left_out" in entry:
            lines.append(_left_out_line(entry))
        elif "data_base64" in entry:
            lines.append(_file_line(entry))
    return lines


def _file_line(file: Shown) -> str:
    smaller = ", made smaller" if file.get("made_smaller") else ""
    return f"goes along: {file['name']}, {file['type']}, {size_text(file['size'])}{smaller}"


def _left_out_line(file: Shown) -> str:
    about = f"{file['name']}, {file['type']}, {size_text(file['size'])}"
    return f"left out: {about}: {file['left_out']}"


def _names(fields: str) -> str:
    names = [line.partition(":")[0] for line in fields.splitlines() if line[:1] not in (" ", "\t")]
    return ", ".join(dict.fromkeys(names))


def _abridged(value: Any) -> Any:
    """Long texts cut."""
    if isinstance(value, dict):
        return {key: _abridged(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_abridged(entry) for entry in value]
    if isinstance(value, str) and len(value) > _MAX_SHOWN:
        return f"{value[:_MAX_SHOWN]}… ({len(value)} characters)"
    return value
