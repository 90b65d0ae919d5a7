"""A stored mail to a `ReadMail`: which parts are its text, and which hang on it.

Pure and bounded, but not quick for every sender's mail: the hub has it done in another process
(reading/process).
"""

from __future__ import annotations

import hashlib
import re

from waypost.reading import names
from waypost.reading.charset import decoded
from waypost.reading.fields import (
    correspondents,
    date_of,
    message_id_of,
    parameter_text,
    text_of,
)
from waypost.reading.parts import PLAIN, Part, Walk
from waypost.reading.texts import flowed_text, html_text, plain_text
from waypost.reading.transfer import IDENTITY, UUENCODE, unwrapped, uuencoded_in
from waypost.reading.values import Attachment, Limits, ReadMail

HTML = "text/html"
_MESSAGES = ("message/rfc822", "message/global")
# Octets of a text that may become one character: of UTF-8, quoted-printable.
_OCTETS_PER_CHARACTER = 12
_META_CHARSET = re.compile(rb"<meta[^>]{1,200}?charset=[\"']?([\w-]{1,40})", re.IGNORECASE)
_NORMAL = Limits()


def read_mail(content: bytes, limits: Limits = _NORMAL) -> ReadMail:
    """What the mail says. What cannot be read is left out and named in `fault`."""
    return _Reading(content, limits).result()


class _Reading:
    def __init__(self, content: bytes, limits: Limits) -> None:
        self._content = content[: limits.octets]
        self._limits = limits
        walk = Walk(self._content, limits)
        self._fields = walk.fields
        self._faults = walk.faults
        self._is_whole = len(content) <= limits.octets
        if not self._is_whole:
            self._faults.append(f"it is longer than {limits.octets} octets")
        self._parts = _outermost(walk.parts)
        self._hint = self._charset_named()
        self._html = ""
        self._is_cut = False  # not all of the text was looked at
        self._attachments: list[Attachment] = []

    def result(self) -> ReadMail:
        body = self._body()
        chosen = {part.start for part in body}
        texts = [self._text(part) for part in body]
        for part in self._parts:
            # Both forms of an alternative are the text: nobody wants the other one as a file.
            if part.start not in chosen and not _is_text(part):
                self._attach(part)
        text = "\n".join(text.rstrip("\n") + "\n" for text in texts if text.strip())
        most = self._limits.text
        self._attachments.sort(key=lambda attachment: attachment.start)
        return ReadMail(
            subject=text_of(self._first("subject"), self._hint),
            from_=correspondents(self._first("from") or self._first("sender"), self._hint),
            to=correspondents(b", ".join(self._fields.get("to", [])[:10]), self._hint),
            date=date_of(self._first("date")),
            message_id=message_id_of(self._first("message-id")),
            text=text[:most],
            text_truncated=self._is_cut or len(text) > most,
            html=self._html[: self._limits.html],
            attachments=tuple(self._attachments),
            fault="; ".join(self._faults) or None,
        )

    def _first(self, name: str) -> bytes:
        return self._fields.get(name, [b""])[0]

    def _charset_named(self) -> str:
        """A charset that some text names: raw octets elsewhere will be of the same."""
        for part in self._parts:
            if part.type in (PLAIN, HTML) and (charset := _charset(part, b"")):
                return charset
        return ""

    # The text.

    def _body(self) -> list[Part]:
        """The parts that are the mail's text, in order."""
        texts = [part for part in self._parts if _is_text(part)]
        if not texts:
            # A device may give its only text a file name.
            named = [part for part in self._parts if part.type in (PLAIN, HTML)]
            texts = [part for part in named if not _is_file(part)][:1]
        for part in texts:
            if part.type == HTML:
                self._html = self._raw_text(part, self._limits.html)
                break
        chosen: list[Part] = []
        groups: dict[int | None, list[Part]] = {}
        for part in texts:
            groups.setdefault(part.alternative, []).append(part)
        for alternative, members in groups.items():
            plain = [part for part in members if part.type != HTML and not self._is_blank(part)]
            html = [part for part in members if part.type == HTML]
            chosen += plain + html if alternative is None else plain or html
        return sorted(chosen, key=lambda part: part.start)

    def _is_blank(self, part: Part) -> bool:
        # Recorders send an empty plain text beside the HTML.
        return part.end - part.start < 200 and not self._raw_text(part, 200).strip()

    def _raw_text(self, part: Part, most: int) -> str:
        """A text part, decoded, of about `most` characters and one more if there are any."""
        octets = self._content[part.start : part.end]
        most_octets = (most + 1) * _OCTETS_PER_CHARACTER
        if len(octets) > most_octets:
            # Between two lines: no character and no encoded octet is cut.
            octets = octets[:most_octets]
            octets = octets[: octets.rfind(b"\n") + 1] or octets
            self._is_cut = True
        octets, is_damaged = unwrapped(octets, part.encoding)
        if is_damaged:
            self._damaged("the text")
        return plain_text(decoded(octets, _charset(part, octets), self._hint))

    def _text(self, part: Part) -> str:
        if part.type == HTML:
            html = self._raw_text(part, self._limits.html)
            self._is_cut |= len(html) > self._limits.html
            return html_text(html[: self._limits.html])
        if part.encoding == IDENTITY and (found := self._without_files(part)) is not None:
            return found
        text = self._raw_text(part, self._limits.text)
        format_ = parameter_text(part.parameters, "format").lower()
        if format_ == "flowed":
            deletes_space = parameter_text(part.parameters, "delsp").lower() == "yes"
            return flowed_text(text, deletes_space=deletes_space)
        return text

    def _without_files(self, part: Part) -> str | None:
        """The text between uuencoded files, which are attached; None: it holds none."""
        octets = self._content[part.start : part.end]
        files = uuencoded_in(octets, self._limits.parts)
        if not files:
            return None
        kept: list[bytes] = []
        at = 0
        for file in files:
            kept.append(octets[at : file.start])
            at = file.end
            span = part._replace(
                start=part.start + file.start,
                end=part.start + file.end,
                encoding=UUENCODE,
                type=names.UNKNOWN,
                fields={},
                parameters={"name": file.name},
            )
            self._attach(span)
        kept.append(octets[at:].lstrip(b"\r\n"))
        rest = b"".join(kept)
        most = (self._limits.text + 1) * _OCTETS_PER_CHARACTER
        self._is_cut |= len(rest) > most
        return plain_text(decoded(rest[:most], _charset(part, b""), self._hint))

    # What hangs on it.

    def _attach(self, part: Part) -> None:
        if part.end == len(self._content) and not self._is_whole:
            return  # its size and hash would be those of a piece; the fault was told
        octets, is_damaged = unwrapped(self._content[part.start : part.end], part.encoding)
        number = len(self._attachments) + 1
        type_ = names.media_type(part.type, octets[:64])
        name = names.safe_name(part.name(self._hint), type_, number)
        if is_damaged:
            self._damaged(f"attachment {number}")
        content_id = message_id_of(part.first("content-id")).strip("<>")
        disposition = part.disposition[0]
        self._attachments.append(
            Attachment(
                name=name,
                type=type_,
                size=len(octets),
                sha256=hashlib.sha256(octets).hexdigest(),
                is_inline=disposition == "inline" or (not disposition and bool(content_id)),
                content_id=content_id,
                start=part.start,
                end=part.end,
                encoding=part.encoding,
            )
        )

    def _damaged(self, what: str) -> None:
        words = f"the encoding of {what} is damaged"
        if words not in self._faults:
            self._faults.append(words)


def _outermost(parts: list[Part]) -> list[Part]:
    """The parts of the mail; of the one within, if there is nothing but a mail within a mail."""
    own = [part for part in parts if part.type not in _MESSAGES and part.start < part.end]
    level = min((part.within for part in own), default=0)
    return [part for part in parts if part.within == level]


def _charset(part: Part, octets: bytes) -> str:
    """The charset a text names, in its header or, as HTML, in itself; empty: none."""
    raw = part.parameters.get("charset", b"")
    if not raw and part.type == HTML and (meta := _META_CHARSET.search(octets[:2_048])):
        raw = meta[1]
    return raw[:64].decode("latin-1")


def _is_file(part: Part) -> bool:
    return part.disposition[0] == "attachment"


def _is_text(part: Part) -> bool:
    """Text to be read where it stands: neither attached nor with a name."""
    return part.type in (PLAIN, HTML, "text") and not _is_file(part) and not part.name("")
