"""mailbox list, show, export: read the Maildirs."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

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
    reason_of,
    say,
    say_json,
    table,
)
from waypost.delivery.maildir import directory_name, mailbox_names
from waypost.mail.message import header_fields
from waypost.mail.sizes import size_text
from waypost.reading.fields import text_of
from waypost.reading.process import Reader
from waypost.reading.saving import save_new
from waypost.reading.values import Attachment, Limits
from waypost.routing.mailboxes import MailboxNames

_HEAD_BYTES = 65_536
_SHOWN = Limits(text=2_000_000)


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
    show.add_argument(
        "--attachments",
        type=Path,
        metavar="DIR",
        help="save its attachments in this directory; nothing there is overwritten",
    )
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
    if parsed.raw:
        sys.stdout.flush()
        sys.stdout.buffer.write(message.path.read_bytes())
        return EXIT_YES
    with Reader(_SHOWN) as reader, message.path.open("rb") as content:
        mail = reader.read(content)
        try:
            saved = [
                _save(reader, content, attachment, parsed.attachments)
                for attachment in mail.attachments
            ]
        except OSError as error:
            complain(f"the attachments cannot be saved: {reason_of(error)}")
            return EXIT_NO
    if parsed.json:
        say_json(
            {
                **_as_json(message),
                "text": mail.text,
                "text_truncated": mail.text_truncated,
                "attachments": [
                    {
                        "name": one.name,
                        "type": one.type,
                        "size": one.size,
                        "sha256": one.sha256,
                        "saved_as": path,
                    }
                    for one, path in zip(mail.attachments, saved, strict=True)
                ],
                "fault": mail.fault,
                "path": message.path,
            }
        )
        return EXIT_YES
    for name in ("return-path", "delivered-to", "from", "to", "date", "subject"):
        if name in message.fields:
            say(f"{paint(name.title() + ':', 'bold')} {printable(message.field(name))}")
    say()
    for line in mail.text.splitlines():
        say(printable(line.replace("\t", "    ")))
    if mail.text_truncated:
        say("[the rest of the text is left out; --raw shows all]")
    for one, path in zip(mail.attachments, saved, strict=True):
        where = one.name if path is None else str(path)
        say(f"[attachment: {printable(where)}, {one.type}, {size_text(one.size)}]")
    if mail.fault is not None:
        say(f"[not all can be read: {printable(mail.fault)}]")
    return EXIT_YES


def _save(
    reader: Reader, content: BinaryIO, attachment: Attachment, directory: Path | None
) -> Path | None:
    """Where an attachment lies now; None: it was not to be saved. Raises OSError."""
    if directory is None:
        return None
    octets = reader.octets(content, attachment)
    if octets is None:
        raise OSError(errno.EIO, "it cannot be decoded", attachment.name)
    directory.mkdir(parents=True, exist_ok=True)
    return save_new(directory, attachment.name, octets)


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
                fields.setdefault(name, text_of(value))
            yield _Stored(path, state.st_mtime, state.st_size, part == "new", fields)


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
