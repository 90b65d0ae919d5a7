"""The header section of a message on its way out: repaired for hosts that are strict, and written
in the name of the account that sends it.

Pure: fields in, fields out, and what was done. Nothing goes: a field that is replaced stays by
another name (X-Original-…). What a DKIM signature covers (RFC 6376 §3.5) is left as it is, but for
From where the account's name is demanded, and then it is said.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from email.utils import parsedate_tz
from functools import lru_cache
from typing import NamedTuple

from waypost.errors import AddressError
from waypost.mail.address import Address, DomainPart, render_local_part
from waypost.mail.encoded_words import (
    FALLBACK,
    charset_of,
    encoded,
    encoded_words,
)
from waypost.mail.fields import Field, field, folded, is_too_long, parameter
from waypost.mail.header_address import Mailbox, parse_address_list, render_phrase
from waypost.mail.message import date_field_value

# What was done, in words for the log and the trace.
SIGNATURE_BROKEN = "signature-broken"  # a DKIM signature holds no more, and was renamed
SIGNER_DIFFERS = "signer-differs"  # S/MIME or OpenPGP: From is not who signed any more

# No mail is older than RFC 822: a clock that nobody has set says 1970.
_FIRST_YEAR = 1982
_MAX_DATE = 200
_MAX_NAME = 200
# Longer ones are no From of anybody's, and are replaced.
_MAX_FROM = 20_000

_SIGNED_TYPES = (
    *(b"multipart/signed", b"multipart/encrypted"),
    *(b"application/pkcs7-mime", b"application/x-pkcs7-mime"),
)
_NOT_IN_ASCII_NAME = re.compile(r"[^A-Za-z0-9_.]+|\.{2,}")
_ANGLE = re.compile(r"<([^<>]*)>")
_COMMENT = re.compile(r"\(([^()]*)\)")


class Circumstances(NamedTuple):
    """What of a message its fields can be made from."""

    queue_id: str
    accepted_at: float
    host: str  # what this hub is called: a name or a literal
    reverse_path: Address | None  # None: <>
    domain: DomainPart  # of the device, where its From lacks one
    # It came from the device itself, which knows nothing of SMTPUTF8: nobody else has had it.
    is_device_s_own: bool = False


class Rewritten(NamedTuple):
    """Fields to send, and what was done to them."""

    fields: list[Field]
    changes: list[str]


def is_signed(fields: Sequence[Field]) -> bool:
    """Whether a signature over the body would notice a change of it."""
    return any(
        one.key == "dkim-signature" or (one.key == "content-type" and is_signed_type(one.body))
        for one in fields
    )


def is_signed_type(content_type: bytes) -> bool:
    """Whether a body of this Content-Type is signed or encrypted as it stands."""
    return content_type.partition(b";")[0].strip().lower() in _SIGNED_TYPES


def rewritten(
    fields: Sequence[Field],
    known: Circumstances,
    *,
    rewrite_from: Address | None,
    may_be_utf8: bool,
) -> Rewritten:
    """The fields to send. `rewrite_from` None: From stays who it is.

    `may_be_utf8`: the next host takes UTF-8 in header fields (RFC 6532), and the message needs it.
    """
    out = list(fields)
    changes: list[str] = []
    covered = _covered(out)
    declared = _declared(out)
    if "date" not in covered:
        _mend_date(out, known, changes)
    if "message-id" not in covered:
        _mend_message_id(out, known, changes)
    if "from" not in covered or rewrite_from is not None:
        _mend_from(out, known, declared, rewrite_from, changes, may_be_utf8=may_be_utf8)
    if SIGNATURE_BROKEN in changes:
        covered = frozenset()
    for at, one in enumerate(out):
        if one.key not in covered:
            out[at] = mended_octets(one, declared, changes, may_be_utf8=may_be_utf8)
    return Rewritten(out, list(dict.fromkeys(changes)))


def _covered(fields: Sequence[Field]) -> frozenset[str]:
    """The names of fields that a DKIM signature stands for, and its own."""
    names: set[str] = set()
    for one in fields:
        if one.key == "dkim-signature":
            names.add("dkim-signature")
            found = re.search(rb"(?:^|;)[ \t]*h[ \t]*=([^;]*)", one.body)
            if found is not None:
                listed = found[1].decode("ascii", "replace").lower().split(":")
                names.update(name.strip() for name in listed)
    return frozenset(names)


def _declared(fields: Sequence[Field]) -> str | None:
    """The charset the message says its text is in; None: it says none."""
    for one in fields:
        if one.key == "content-type":
            value = parameter(one.body, b"charset")
            return None if value is None else value.decode("ascii", "replace").lower()
    return None


def _first(fields: Sequence[Field], key: str) -> int | None:
    return next((at for at, one in enumerate(fields) if one.key == key), None)


def _mend_date(fields: list[Field], known: Circumstances, changes: list[str]) -> None:
    """The time of acceptance where the device has no clock (RFC 5322 §3.6.1)."""
    at = _first(fields, "date")
    if at is not None and _is_date(fields[at].body):
        return
    changes.append("date")
    made = field(b"Date", date_field_value(known.accepted_at).encode())
    if at is None:
        fields.append(made)
    else:
        fields[at : at + 1] = [made, fields[at].renamed(b"X-Original-Date")]


def _is_date(body: bytes) -> bool:
    if len(body) > _MAX_DATE:
        return False
    try:
        date = parsedate_tz(body.decode("ascii", "replace"))
    except (ValueError, IndexError, TypeError, OverflowError):  # the library's, on odd texts
        return False
    return date is not None and date[0] >= _FIRST_YEAR


def _mend_message_id(fields: list[Field], known: Circumstances, changes: list[str]) -> None:
    at = _first(fields, "message-id")
    if at is not None and fields[at].body:
        return
    changes.append("message-id")
    # The same in every attempt and at every relay, so that copies are known as such.
    made = field(b"Message-ID", f"<{known.queue_id}@{known.host}>".encode())
    if at is None:
        fields.append(made)
    else:
        fields[at] = made


def _mend_from(
    fields: list[Field],
    known: Circumstances,
    declared: str | None,
    rewrite_from: Address | None,
    changes: list[str],
    *,
    may_be_utf8: bool,
) -> None:
    """An author whom every host understands (RFC 5322 §3.6.2), and whom the relay knows."""
    places = [at for at, one in enumerate(fields) if one.key == "from"]
    originals = [fields[at] for at in places]
    authors = _authors(originals[0].body, declared) if originals else None
    is_sound = authors is not None and len(originals) == 1
    if authors is None:
        body = originals[0].body if originals else b""
        name, address = _salvaged(_text(body, declared), known)
    else:
        assert authors[0].address is not None
        name, address = authors[0].display_name, authors[0].address
    if rewrite_from is None and known.is_device_s_own and not may_be_utf8:
        rewrite_from = None if address.is_ascii else in_ascii(address)
    is_foreign = rewrite_from is not None and address != rewrite_from
    if is_sound and not is_foreign:
        return
    changes.append("from")
    mended = field(b"From", _mailbox(name, address)) if authors is None else originals[0]
    replacement = mended
    if is_foreign:
        assert rewrite_from is not None
        replacement = field(b"From", _mailbox(name or str(address), rewrite_from))
    for at in places:
        fields[at] = fields[at].renamed(b"X-Original-From")
    first = places[0] if places else len(fields)
    if replacement is mended and authors is not None:
        fields[first] = replacement
    else:
        fields.insert(first, replacement)
    if is_foreign:
        # Answers go to the device, as they would have; unless its address cannot be said.
        is_sayable = address.is_ascii or may_be_utf8
        if is_sayable and not any(one.key == "reply-to" and one.body for one in fields):
            fields.insert(first + 1, mended.renamed(b"Reply-To"))
            changes.append("reply-to")
        _take_out_signers(fields, changes)


def in_ascii(address: Address) -> Address:
    """The nearest address that needs no SMTPUTF8 (RFC 6531)."""
    plain = unicodedata.normalize("NFKD", address.local_part).encode("ascii", "ignore").decode()
    return Address(_NOT_IN_ASCII_NAME.sub("-", plain).strip("-.") or "device", address.domain)


def _take_out_signers(fields: list[Field], changes: list[str]) -> None:
    """Who else spoke for the old From does not speak for the new one."""
    for at, one in enumerate(fields):
        if one.key == "sender":
            fields[at] = one.renamed(b"X-Original-Sender")
            changes.append("sender")
        elif one.key == "dkim-signature":
            # From is always covered (RFC 6376 §5.4): one that fails is worse than none to some.
            fields[at] = one.renamed(b"X-Original-DKIM-Signature")
            changes.append(SIGNATURE_BROKEN)
        elif one.key == "content-type" and is_signed_type(one.body):
            changes.append(SIGNER_DIFFERS)


# A device writes the same From all day.
@lru_cache(maxsize=128)
def _authors(body: bytes, declared: str | None) -> tuple[Mailbox, ...] | None:
    """The mailboxes of a From field; None: it is not one that others could read."""
    if len(body) > _MAX_FROM:
        return None
    try:
        found = parse_address_list(_text(body, declared))
    except AddressError:
        return None
    mailboxes = tuple(one for one in found if isinstance(one, Mailbox) and one.address is not None)
    return mailboxes if len(mailboxes) == len(found) else None


def _text(body: bytes, declared: str | None) -> str:
    charset = charset_of(body[:_MAX_FROM], declared)
    return body[:_MAX_FROM].decode(charset, "replace" if charset == FALLBACK else "strict")


def _salvaged(text: str, known: Circumstances) -> tuple[str | None, Address]:
    """What can be saved of a From nobody understands: "root (Cron Daemon)", "cam@", "Camera 1"."""
    angle = _ANGLE.search(text)
    comment = _COMMENT.search(text)
    if angle is not None:
        spec, name = angle[1], text[: angle.start()]
    elif comment is not None:
        spec, name = text[: comment.start()], comment[1]
    else:
        spec, name = text, ""
    name = " ".join(_printable(name).replace('"', " ").split())[:_MAX_NAME]
    words = spec.split()
    local_part, _, domain = (words[0] if len(words) == 1 else "").partition("@")
    for candidate in (domain, str(known.domain)):
        if not local_part or not candidate:
            continue
        try:
            return name or None, Address.parse(f"{render_local_part(local_part)}@{candidate}")
        except AddressError:
            continue
    said = " ".join(_printable(spec).replace('"', " ").split())[:_MAX_NAME]
    address = known.reverse_path or Address("postmaster", known.domain)
    return name or said or None, address


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else " " for one in text)


def _mailbox(name: str | None, address: Address) -> bytes:
    """A mailbox in a field of its own; in ASCII unless the address is not."""
    name = " ".join(_printable(name or "").split())[:_MAX_NAME]
    if not name:
        return f"<{address}>".encode()
    if name.isascii():
        return f"{render_phrase(name)} <{address}>".encode()
    words = encoded_words(name.encode("utf-8", "replace"), "utf-8")
    return words + f" <{address}>".encode()


def mended_octets(
    one: Field, declared: str | None, changes: list[str], *, may_be_utf8: bool
) -> Field:
    """A field within ASCII and within line limits, as far as it can be."""
    octets = one.octets
    if not octets.isascii() and not (may_be_utf8 and charset_of(octets, None) == "utf-8"):
        body = encoded(one.key, one.body, declared)
        if body != one.body:
            changes.append("charset")
            # RFC 2047 §2: a line with encoded words has at most 76 characters.
            octets = one.name + b": " + body.replace(b"?= =?", b"?=\r\n =?") + b"\r\n"
    if is_too_long(octets):
        changes.append("folding")
        octets = folded(octets)
        if is_too_long(octets):
            octets = _in_words(one) or octets
    return one if octets is one.octets else Field(one.name, octets)


def _in_words(one: Field) -> bytes | None:
    """A text without a blank, far too long for a line; None: machines read it as it is."""
    if one.key in ("subject", "comments") or one.key.startswith("x-"):
        words = encoded_words(one.body, charset_of(one.body, None))
        return one.name + b": " + words.replace(b"?= =?", b"?=\r\n =?") + b"\r\n"
    return None
