"""mailbox list, show, export: read the Maildirs."""

from __future__ import annotations

import argparse
import email.policy
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import EmailMessage
from pathlib import Path

from waypost.app import mailbox_root
from waypost.cli.context import settings_of
from waypost.cli.output import (
    EXIT_NO,
    EXIT_YES,
    complain,
    iso_time,
    local_time,
    paint,
    printable,
    say,
    say_json,
    size_text,
    table,
)
from waypost.delivery.maildir import directory_name, mailbox_names
from waypost.mail.message import header_fields
from waypost.routing.mailboxes import MailboxNames

_HEAD_BYTES = 65_536
# Decoding encoded words takes quadratic time in the standard library: only so much of a field.
_FIELD_BYTES = 1_000
# `show` hands the message to the standard library's parser; larger ones are shown raw.
_PARSED_BYTES = 4_194_304


@dataclass(frozen=True, slots=True)
class _Stored:
    """One message of a Maildir."""

    path: Path
    at: float
    size: int
    is_new: bool
    fields: dict[str, str]

    def field(self, name: str) -> str:
        return self.fields.get(name, "")


def add_commands(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add this module's verbs."""
    mailbox = verbs.add_parser("mailbox", help="read the mail that was delivered here")
    actions = mailbox.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", parents=[common], help="the mailboxes, or one's messages")
    listing.add_argument("mailbox", nargs="?", metavar="MAILBOX")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    listing.set_defaults(run=_list)
    show = actions.add_parser("show", parents=[common], help="one message")
    show.add_argument("mailbox", metavar="MAILBOX")
    show.add_argument(
        "number", nargs="?", type=int, default=1, metavar="N", help="1 is the newest (default)"
    )
    show.add_argument("--raw", action="store_true", help="octets as they are stored")
    show.add_argument("--json", action="store_true", help="as JSON")
    show.set_defaults(run=_show)
    export = actions.add_parser("export", parents=[common], help="all messages as mbox, to stdout")
    export.add_argument("mailbox", metavar="MAILBOX")
    export.set_defaults(run=_export)


def _list(parsed: argparse.Namespace) -> int:
    root = mailbox_root(settings_of(parsed))
    if parsed.mailbox is not None:
        return _list_messages(parsed)
    rows = []
    for name in mailbox_names(root):
        messages = list(_messages(root / directory_name(name)))
        unseen = sum(message.is_new for message in messages)
        newest = max((message.at for message in messages), default=None)
        if parsed.json:
            say_json(
                {
                    "mailbox": name,
                    "messages": len(messages),
                    "new": unseen,
                    "newest_at": iso_time(newest),
                }
            )
        rows.append((printable(name), str(len(messages)), str(unseen), local_time(newest)))
    if not parsed.json:
        if rows:
            table(rows, ("MAILBOX", "MESSAGES", "NEW", "NEWEST"))
        else:
            say(f"No mailbox yet in {root}.")
    return EXIT_YES


def _list_messages(parsed: argparse.Namespace) -> int:
    messages = _open(parsed)
    if messages is None:
        return EXIT_NO
    rows = []
    for number, message in enumerate(messages, 1):
        if parsed.json:
            say_json({"number": number, **_as_json(message)})
        rows.append(
            (
                str(number),
                local_time(message.at),
                "new" if message.is_new else "",
                size_text(message.size),
                printable(message.field("from"))[:40],
                printable(message.field("subject"))[:60],
            )
        )
    if not parsed.json:
        table(rows, ("N", "DELIVERED", "", "SIZE", "FROM", "SUBJECT"))
    return EXIT_YES


def _show(parsed: argparse.Namespace) -> int:
    messages = _open(parsed)
    if messages is None:
        return EXIT_NO
    if not 1 <= parsed.number <= len(messages):
        complain(
            f"mailbox {parsed.mailbox} has {len(messages)} messages, no number {parsed.number}"
        )
        return EXIT_NO
    message = messages[parsed.number - 1]
    octets = message.path.read_bytes()
    if parsed.raw:
        sys.stdout.flush()
        sys.stdout.buffer.write(octets)
        return EXIT_YES
    if parsed.json:
        say_json({**_as_json(message), "text": _text_of(octets), "path": message.path})
        return EXIT_YES
    for name in ("return-path", "delivered-to", "from", "to", "date", "subject"):
        if name in message.fields:
            say(f"{paint(name.title() + ':', 'bold')} {printable(message.field(name))}")
    say()
    for line in _text_of(octets).splitlines():
        say(printable(line.replace("\t", "    ")))
    return EXIT_YES


def _export(parsed: argparse.Namespace) -> int:
    messages = _open(parsed)
    if messages is None:
        return EXIT_NO
    sys.stdout.flush()
    output = sys.stdout.buffer
    for message in reversed(messages):
        output.write(b"From waypost " + _asctime(message.at) + b"\n")
        for line in message.path.read_bytes().replace(b"\r\n", b"\n").splitlines(keepends=True):
            # mboxrd: any line of ">"s and "From " gets one more, so that it can be undone.
            output.write(b">" + line if line.lstrip(b">").startswith(b"From ") else line)
        output.write(b"\n")
    return EXIT_YES


def _open(parsed: argparse.Namespace) -> list[_Stored] | None:
    """The mailbox's messages, newest first; None: there is no such mailbox, and it was said."""
    settings = settings_of(parsed)
    root = mailbox_root(settings)
    name = MailboxNames(settings.mailboxes, mailbox_names(root)).named(parsed.mailbox)
    directory = root / directory_name(name)
    if not (directory / "new").is_dir():
        complain(f"there is no mailbox {parsed.mailbox}; see: waypost mailbox list")
        return None
    return sorted(_messages(directory), key=lambda message: message.at, reverse=True)


def _messages(directory: Path) -> Iterator[_Stored]:
    for part in ("new", "cur"):
        for path in (directory / part).iterdir():
            try:
                state = path.stat()
                with path.open("rb") as file:
                    head = file.read(_HEAD_BYTES)
            except FileNotFoundError:
                continue  # a mail program moved it just now
            fields: dict[str, str] = {}
            for name, value in header_fields(head):
                fields.setdefault(name, _decoded(value))
            yield _Stored(path, state.st_mtime, state.st_size, part == "new", fields)


def _decoded(value: bytes) -> str:
    text = value[:_FIELD_BYTES].decode("utf-8", "replace")
    try:
        return str(make_header(decode_header(text)))
    except (ValueError, LookupError):
        return text


def _text_of(octets: bytes) -> str:
    """The text a person would read; what cannot be parsed is shown as it is."""
    if len(octets) <= _PARSED_BYTES:
        try:
            message = message_from_bytes(octets, policy=email.policy.default)
            assert isinstance(message, EmailMessage)
            body = message.get_body(preferencelist=("plain", "html"))
            text = "" if body is None else str(body.get_content())
            for part in message.iter_attachments():
                text += f"\n[attachment: {part.get_filename() or part.get_content_type()}]"
            return text
        except (ValueError, LookupError, RecursionError, AttributeError, TypeError):
            pass  # mail is whatever anybody sent
    return octets.partition(b"\r\n\r\n")[2].decode("utf-8", "replace")


def _as_json(message: _Stored) -> dict[str, object]:
    return {
        "delivered_at": iso_time(message.at),
        "new": message.is_new,
        "size": message.size,
        **{
            name.replace("-", "_"): message.field(name)
            for name in (
                "return-path",
                "delivered-to",
                "from",
                "to",
                "date",
                "subject",
                "message-id",
            )
        },
    }


def _asctime(at: float) -> bytes:
    import time

    return time.asctime(time.gmtime(at)).encode()
