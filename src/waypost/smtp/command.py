"""The grammar of SMTP commands (RFC 5321 §4.1), with the parameters of the extensions we offer.

Reads one command's argument into values, or raises CommandRefused with the reply to give. Knows
nothing of order or state (smtp/server) and nothing of who may do what (intake/acceptance).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

from waypost.errors import AddressError
from waypost.mail.address import ATEXT, MAX_LOCAL_PART, MAX_PATH, Address, render_local_part
from waypost.mail.envelope import Body, Notify, Ret
from waypost.mail.reply import NEEDS_SMTPUTF8, Reply
from waypost.smtp.quirks import NO_QUIRK, Quirk

# A path: quoted strings may hold "<", ">" and spaces, so they are skipped as units.
_PATH = re.compile(r'<((?:"(?:[^"\\]|\\.)*"|[^<>"])*)>')
_UNBRACKETED = re.compile(r"([^\s<>]+)")
# A source route "@one,@two:" (RFC 5321 §4.1.2 A-d-l); colons may stand inside a literal.
_HOST_IN_ROUTE = r"@(?:\[[^\]]*\]|[^,:\[\]@]+)"
_SOURCE_ROUTE = re.compile(rf"{_HOST_IN_ROUTE}(?:,{_HOST_IN_ROUTE})*:")
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9\-]*)(?:=([!-<>-~\u0080-\U0010ffff]+))?")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_HEXCHAR = re.compile(r"\+([0-9A-F]{2})")
# RFC 6533 §3: in ORCPT with type utf-8, characters may come as \x{HEX}.
_UNICODE_ESCAPE = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-]*")
_LOCAL_PART_ALONE = re.compile(rf"(?:{ATEXT}|\.)+")

# What a device's name for itself does not hold; who writes a quoted string means all of it.
_NOT_IN_NAME = re.compile(r'[@"\\]')

MAX_ENVID = 100  # RFC 3461 §4.4
MAX_ORCPT = 500  # RFC 3461 §4.2


class CommandRefused(Exception):
    """A command that cannot be read; `reply` is what to answer."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


def _refused(code: int, text: str, subject: int, detail: int) -> CommandRefused:
    return CommandRefused(Reply(code, text, (subject, detail)))


def split_path(argument: str, keyword: str, *, lenient: bool) -> tuple[str, str]:
    """``FROM:<path> parameters`` into the path without brackets, and the rest.

    Spaces after the colon are outside the grammar but common and harmless. A path without
    brackets is read for trusted clients only (`lenient`).
    """
    size = len(keyword)
    if argument[:size].upper() != keyword:
        raise _refused(501, f"Syntax: {keyword}<address>", 5, 4)
    rest = argument[size:].lstrip(" ")
    match = _PATH.match(rest)
    if match is None and lenient:
        match = _UNBRACKETED.match(rest)
    if match is None:
        raise _refused(501, f"Syntax: {keyword}<address>", 5, 4)
    if not lenient and rest[match.end() : match.end() + 1] not in ("", " "):
        raise _refused(501, "A space must stand before parameters", 5, 4)
    path = match[1]
    if path.startswith("@"):
        # RFC 5321 §4.1.1.3 and appendix C: source routes are parsed and ignored.
        route = _SOURCE_ROUTE.match(path)
        if route is not None:
            path = path[route.end() :]
    # Octets with the brackets, RFC 5321 §4.5.3.1.3.
    if len(path) + 2 > MAX_PATH or (not path.isascii() and len(path.encode()) + 2 > MAX_PATH):
        raise _refused(501, f"The path is longer than {MAX_PATH} octets", 1, 3)
    return path, rest[match.end() :]


def parse_address(path: str, status: tuple[int, int], *, lenient: bool) -> Address | str:
    """A Mailbox; or, as text, a local part without a domain.

    RFC 5321 §4.1.1.3 knows only <Postmaster> without a domain; trusted clients (`lenient`) may
    leave it out everywhere, as cron and many devices do.
    """
    try:
        return Address.parse(path)
    except AddressError as error:
        if path.lower() == "postmaster" or (
            lenient and _LOCAL_PART_ALONE.fullmatch(path) is not None and _fits(path)
        ):
            return path
        # The reason may quote the path; a reply line ends at 512 octets (RFC 5321 §4.5.3.1.5).
        text = f"{error.reason[:200]} ({error.section.replace('§', '')})"
        raise CommandRefused(Reply(501, text, status)) from None


def _fits(local_part: str) -> bool:
    return len(local_part.encode()) <= MAX_LOCAL_PART


def _parse_sender(path: str, *, lenient: bool) -> Address | str:
    """A reverse-path; of a device it may be put together from its name and a domain it was given.

    The name may have spaces, and no quotes; the domain may be none, or what no domain can be, and
    then the name stands alone. A recipient is typed by somebody, who can be told.
    """
    if not lenient:
        return parse_address(path, (1, 7), lenient=False)
    local_part, at, domain = path.rpartition("@")
    if not at:
        local_part, domain = path, ""
    is_name = local_part.isprintable() and not _NOT_IN_NAME.search(local_part) and _fits(local_part)
    if not local_part or not is_name:
        return parse_address(path, (1, 7), lenient=True)
    try:
        return Address.parse(f"{render_local_part(local_part)}@{domain}")
    except AddressError:
        if domain.startswith("["):
            return parse_address(path, (1, 7), lenient=True)
        return local_part


def split_parameters(text: str) -> dict[str, str | None]:
    """``KEY=VALUE`` words into a dictionary with upper-case keys; raises on a repeated key."""
    parameters: dict[str, str | None] = {}
    for word in filter(None, text.replace("\t", " ").split(" ")):
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise _refused(501, "A parameter cannot be read", 5, 4)
        key = match[1].upper()
        if key in parameters:
            raise _refused(501, f"{key} is given twice", 5, 4)
        parameters[key] = match[2]
    return parameters


def decode_xtext(text: str, key: str) -> str:
    """Undo xtext (RFC 3461 §4); the result is printable ASCII or refused."""
    if _XTEXT.fullmatch(text) is None:
        raise _refused(501, f"{key} is not xtext", 5, 4)
    decoded = _HEXCHAR.sub(lambda match: chr(int(match[1], 16)), text)
    if not decoded.isascii() or not decoded.isprintable():
        raise _refused(501, f"{key} holds a character that cannot be reported", 5, 4)
    return decoded


def encode_xtext(text: str) -> str:
    """As xtext (RFC 3461 §4)."""
    return "".join(
        character
        if "!" <= character <= "~" and character not in "+="
        else "".join(f"+{octet:02X}" for octet in character.encode())
        for character in text
    )


def encode_original_recipient(original: str) -> str:
    """``type;address`` as ORCPT= wants it, in ASCII (RFC 3461 §4.2, RFC 6533 §3)."""
    kind, _, address = original.partition(";")
    if kind.lower() != "utf-8":
        return f"{kind};{encode_xtext(address)}"
    return f"{kind};" + "".join(
        character
        if "!" <= character <= "~" and character not in "+=\\"
        else f"\\x{{{ord(character):02X}}}"
        for character in address
    )


class MailRequested(NamedTuple):
    """MAIL; wants an answer."""

    reverse_path: Address | str | None  # str: a local part without a domain; None: <>
    body: Body | None = None
    smtputf8: bool = False
    envid: str | None = None
    ret: Ret | None = None
    size: int | None = None  # octets announced; None: not announced
    requiretls: bool = False
    quirks: Quirk = NO_QUIRK


class RcptRequested(NamedTuple):
    """RCPT; wants an answer."""

    forward_path: Address | str  # str: a local part without a domain
    notify: Notify | None = None
    original_recipient: str | None = None
    quirks: Quirk = NO_QUIRK


# The same few senders and recipients come all day, so what has been read is kept for a while.
_KEPT_COMMANDS = 4096


@lru_cache(maxsize=_KEPT_COMMANDS)
def parse_mail(argument: str, *, lenient: bool) -> MailRequested:
    """The argument of MAIL (RFC 5321 §4.1.1.2)."""
    path, rest = split_path(argument, "FROM:", lenient=lenient)
    reverse_path = _parse_sender(path, lenient=lenient) if path else None
    fields: dict[str, Any] = {}
    for key, value in split_parameters(rest).items():
        if key == "SIZE":
            fields["size"] = parse_size(value)
        elif key == "BODY":
            fields["body"] = parse_body(value)
        elif key == "SMTPUTF8" and value is None:
            fields["smtputf8"] = True
        elif key == "RET":
            fields["ret"] = parse_ret(value)
        elif key == "ENVID":
            fields["envid"] = parse_envid(value)
        elif key == "REQUIRETLS":
            if value is not None:  # RFC 8689 §2
                raise _refused(501, "REQUIRETLS takes no value", 5, 4)
            fields["requiretls"] = True
        elif not lenient:
            raise _unknown(key)
        else:
            fields["quirks"] = Quirk.UNKNOWN_PARAMETER
    fields["quirks"] = fields.get("quirks", NO_QUIRK) | _path_quirks(argument[5:], reverse_path)
    if lenient and not path.isascii():
        fields["smtputf8"] = True  # it cannot be meant otherwise
    request = MailRequested(reverse_path, **fields)
    if not request.smtputf8 and not path.isascii():
        raise CommandRefused(NEEDS_SMTPUTF8)
    return request


@lru_cache(maxsize=_KEPT_COMMANDS)
def parse_rcpt(argument: str, *, lenient: bool, smtputf8: bool) -> RcptRequested:
    """The argument of RCPT (RFC 5321 §4.1.1.3)."""
    path, rest = split_path(argument, "TO:", lenient=lenient)
    forward_path = parse_address(path, (1, 3), lenient=lenient)
    if not smtputf8 and not lenient and not path.isascii():
        raise CommandRefused(NEEDS_SMTPUTF8)
    fields: dict[str, Any] = {}
    for key, value in split_parameters(rest).items():
        if key == "NOTIFY":
            fields["notify"] = parse_notify(value)
        elif key == "ORCPT":
            fields["original_recipient"] = parse_orcpt(value, smtputf8=smtputf8)
        elif not lenient:
            raise _unknown(key)
        else:
            fields["quirks"] = Quirk.UNKNOWN_PARAMETER
    fields["quirks"] = fields.get("quirks", NO_QUIRK) | _path_quirks(argument[3:], forward_path)
    return RcptRequested(forward_path, **fields)


def _path_quirks(rest: str, path: Address | str | None) -> Quirk:
    """What was forgiven of a path; `rest` is what stood behind FROM: or TO:."""
    quirks = NO_QUIRK if _PATH.match(rest.lstrip(" ")) is not None else Quirk.NO_BRACKETS
    # RFC 5321 §4.1.1.3: Postmaster alone needs no domain.
    if isinstance(path, str) and path.lower() != "postmaster":
        quirks |= Quirk.NO_DOMAIN
    return quirks


def _unknown(key: str) -> CommandRefused:
    return _refused(555, f"Parameter {key[:40]} is not known here", 5, 4)


def parse_body(value: str | None) -> Body:
    """The value of BODY= (RFC 6152, RFC 3030)."""
    try:
        return Body((value or "").upper())
    except ValueError:
        raise _refused(501, "BODY is 7BIT, 8BITMIME or BINARYMIME", 5, 4) from None


def parse_size(value: str | None) -> int:
    """The value of SIZE= in octets (RFC 1870)."""
    if value is None or not value.isascii() or not value.isdigit() or len(value) > 20:
        raise _refused(501, "SIZE is a number of octets", 5, 4)
    return int(value)


def parse_ret(value: str | None) -> Ret:
    """The value of RET= (RFC 3461 §4.3)."""
    try:
        return Ret((value or "").upper())
    except ValueError:
        raise _refused(501, "RET is FULL or HDRS", 5, 4) from None


def parse_envid(value: str | None) -> str:
    """The value of ENVID=, decoded (RFC 3461 §4.4)."""
    if not value or len(value) > MAX_ENVID:
        raise _refused(501, f"ENVID is xtext of 1 to {MAX_ENVID} characters", 5, 4)
    return decode_xtext(value, "ENVID")


def parse_notify(value: str | None) -> Notify:
    """The value of NOTIFY= (RFC 3461 §4.1): NEVER alone, or a list of the others."""
    words = (value or "").upper().split(",")
    if words == ["NEVER"]:
        return Notify.NEVER
    notify = Notify.NEVER
    for word in words:
        if word not in ("SUCCESS", "FAILURE", "DELAY"):
            raise _refused(501, "NOTIFY is NEVER, or a list of SUCCESS, FAILURE, DELAY", 5, 4)
        notify |= Notify[word]
    return notify


def parse_orcpt(value: str | None, *, smtputf8: bool) -> str:
    """The value of ORCPT= as ``type;address``, decoded (RFC 3461 §4.2, RFC 6533 §3)."""
    kind, semicolon, encoded = (value or "").partition(";")
    if (
        not semicolon
        or not encoded
        or _ADDRESS_TYPE.fullmatch(kind) is None
        or len(value or "") > MAX_ORCPT
    ):
        raise _refused(501, "ORCPT is type;address", 5, 4)
    if kind.lower() != "utf-8":
        return f"{kind};{decode_xtext(encoded, 'ORCPT')}"
    if not encoded.isascii() and not smtputf8:
        raise CommandRefused(NEEDS_SMTPUTF8)
    # Some put xtext around it.
    encoded = _HEXCHAR.sub(lambda match: chr(int(match[1], 16)), encoded)
    decoded = _UNICODE_ESCAPE.sub(_unicode_character, encoded)
    if not decoded.isprintable():
        raise _refused(501, "ORCPT holds a character that cannot be reported", 5, 4)
    return f"{kind};{decoded}"


def _unicode_character(match: re.Match[str]) -> str:
    number = int(match[1], 16)
    if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        raise _refused(501, "ORCPT holds a number that is no character", 5, 4)
    return chr(number)


def parse_chunk(argument: str) -> tuple[int, bool] | None:
    """``SIZE [LAST]`` of BDAT (RFC 3030 §2).

    None: it cannot be read, and so neither can what follows.
    """
    words = argument.split()
    if not 1 <= len(words) <= 2 or not words[0].isascii() or not words[0].isdigit():
        return None
    if len(words[0]) > 20 or (len(words) == 2 and words[1].upper() != "LAST"):
        return None
    return int(words[0]), len(words) == 2
