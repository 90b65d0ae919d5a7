"""sendmail: the drop-in for cron and scripts."""

from __future__ import annotations

import argparse
import getpass
import re
import sys
from email.utils import formataddr, formatdate, getaddresses, make_msgid

from waypost.cli.context import settings_of
from waypost.cli.output import EXIT_LATER, EXIT_NO, EXIT_USAGE, EXIT_YES, complain
from waypost.cli.submission import running_hub, submit
from waypost.errors import AddressError
from waypost.mail.address import Address, AddressLiteral, Domain, DomainPart
from waypost.mail.envelope import OutcomeKind
from waypost.mail.message import header_fields

_LINE_ENDS = re.compile(rb"\r\n|\r|\n")
_BCC = re.compile(rb"^bcc:.*\r\n(?:[ \t].*\r\n)*", re.IGNORECASE | re.MULTILINE)
_LONE_DOT = re.compile(rb"^\.\r?\n", re.MULTILINE)


def add_commands(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add this module's verbs."""
    sendmail = verbs.add_parser(
        "sendmail", parents=[common], help="take a message on stdin, as sendmail does"
    )
    sendmail.add_argument("recipients", nargs="*", metavar="ADDR")
    sendmail.add_argument(
        "-t", dest="from_header", action="store_true", help="recipients from To, Cc and Bcc"
    )
    sendmail.add_argument(
        "-i", "-oi", dest="dots", action="store_true", help="a line with one dot is no end"
    )
    sendmail.add_argument("-f", "-r", dest="sender", metavar="A", help="the envelope sender")
    sendmail.add_argument("-F", dest="full_name", default="", metavar="NAME", help="of the sender")
    for option, text in (("-B", "body type"), ("-o", "option"), ("-b", "mode; m, to send")):
        sendmail.add_argument(option, metavar="X", help=f"{text}: taken, and of no effect here")
    sendmail.set_defaults(run=_sendmail)


def _sendmail(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    octets = sys.stdin.buffer.read()
    if not parsed.dots:
        end = _LONE_DOT.search(octets)
        octets = octets if end is None else octets[: end.start()]
    content = _LINE_ENDS.sub(b"\r\n", octets)
    hub = running_hub(settings)
    domain: DomainPart = hub.host if settings.hostname is None else Domain(settings.hostname)
    try:
        recipients = [_address(text, domain) for text in parsed.recipients]
        if parsed.from_header:
            recipients += _from_header(content, domain)
        user = parsed.sender or getpass.getuser()
        sender = None if user == "<>" else _address(user.strip("<>"), domain)
    except AddressError as error:
        complain(str(error))
        return EXIT_USAGE
    if not recipients:
        complain("no recipients: name them, or use -t with a To, Cc or Bcc field")
        return EXIT_USAGE
    content = _completed(_without_bcc(content), sender, parsed.full_name, domain)
    outcomes = submit(settings, content, sender, recipients, hub)
    status = EXIT_YES
    for recipient, outcome in zip(recipients, outcomes, strict=True):
        if outcome.kind is not OutcomeKind.RELAYED:
            complain(f"{recipient}: {outcome.kind}: {outcome.reply}")
            status = EXIT_NO if outcome.kind is OutcomeKind.FAILED else status or EXIT_LATER
    return status


def _address(text: str, domain: DomainPart) -> Address:
    """An address; a bare name is one of this host's (cron mails "root")."""
    if "@" not in text:
        return Address.parse(f"{text}@{domain}")
    return Address.parse(text)


def _from_header(content: bytes, domain: DomainPart) -> list[Address]:
    values = [
        value.decode("utf-8", "replace")
        for name, value in header_fields(content)
        if name in ("to", "cc", "bcc")
    ]
    return [_address(address, domain) for _, address in getaddresses(values) if address]


def _without_bcc(content: bytes) -> bytes:
    head, blank, body = content.partition(b"\r\n\r\n")
    return _BCC.sub(b"", head + b"\r\n")[:-2] + blank + body if blank else content


def _completed(content: bytes, sender: Address | None, full_name: str, domain: DomainPart) -> bytes:
    """With From, Date and Message-ID, as sendmail adds them for a local user's mail."""
    names = {name for name, _ in header_fields(content)}
    added = ""
    if "from" not in names and sender is not None:
        added += f"From: {formataddr((full_name, str(sender)))}\r\n"
    if "date" not in names:
        added += f"Date: {formatdate(localtime=True)}\r\n"
    if "message-id" not in names:
        host = domain if isinstance(domain, AddressLiteral) else str(domain)
        added += f"Message-ID: {make_msgid(domain=str(host))}\r\n"
    if not names:
        added += "\r\n"
    return added.encode() + content
