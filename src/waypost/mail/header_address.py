"""Addresses as header fields and people write them (RFC 5322 §3.4, RFC 6532 §3.2).

Reads mailboxes with display names, groups, lists, comments, folding, quoted local parts, source
routes and the obsolete forms of RFC 5322 §4.4, in one pass without backtracking. What can be sent
to comes out as an `Address` of the envelope; whatever else the text held comes out beside it.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from waypost.errors import AddressError
from waypost.mail.address import (
    ATEXT,
    MAX_LOCAL_PART,
    MAX_PATH,
    NON_ASCII,
    Address,
    Domain,
    parse_domain_part,
    quoted_string,
)
from waypost.mail.correction import suggest

if TYPE_CHECKING:
    from email.headerregistry import Address as HeaderAddress

# Longer texts are no address of anybody's; RFC 5322 §2.1.1 has 998 for a line.
MAX_TEXT = 1_000_000
# Encoded words in longer names stay as they are: the library's search for them is quadratic.
MAX_ENCODED_NAME = 2_000

# obs-NO-WS-CTL (RFC 5322 §4.1).
_OBSOLETE = r"\x01-\x08\x0b\x0c\x0e-\x1f\x7f"
_ATOM = re.compile(rf"{ATEXT}+")
# FWS, and obs-FWS with more than one fold (RFC 5322 §3.2.2, §4.2).
_FOLDING = re.compile(r"(?:[ \t]|\r\n(?=[ \t]))+")
_PLAIN_FOLDING = re.compile(r"[ \t]*(?:\r\n[ \t]+)?")
_QTEXT = re.compile(rf"[!#-\[\]-~{NON_ASCII}]+")
_CTEXT = re.compile(rf"[!-'*-\[\]-~{NON_ASCII}]+")
_DTEXT = re.compile(rf"[!-Z^-~{NON_ASCII}]+")
_OBSOLETE_TEXT = re.compile(rf"[{_OBSOLETE}]+")
_PAIR = re.compile(rf"\\(?:[ \t!-~{NON_ASCII}]|[\0\r\n{_OBSOLETE}])")
# Neither in qtextSMTP nor in quoted-pairSMTP (RFC 5321 §4.1.2).
_CONTROL = re.compile(r"[\0-\x1f\x7f]")

_ADDR_SPEC = "RFC 5322 §3.4.1"
_TOKENS = "RFC 5322 §3.2"
_LISTS = "RFC 5322 §3.4"
_UNCLOSED_QUOTE = ("syntax.unclosed_quote", "the quoted string has no end", f"{_TOKENS}.4")
_UNCLOSED_COMMENT = ("syntax.unclosed_comment", "the comment has no end", f"{_TOKENS}.2")
_UNCLOSED_LITERAL = ("syntax.unclosed_literal", 'a "]" is missing', _ADDR_SPEC)


@dataclass(frozen=True, slots=True)
class Levels:
    """Which grammars a text as it was written belongs to."""

    rfc5321: bool  # SMTP can carry it as it stands, in ASCII
    rfc5322: bool  # a header field may be written so today, in ASCII
    rfc6531: bool  # SMTP can carry it where SMTPUTF8 is offered; true for all of rfc5321
    obsolete: bool  # it uses a form that RFC 5322 §4 says must not be written any more


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One mailbox of a header field (RFC 5322 §3.4).

    `address` is what can be sent to; None: no mail system can carry it, and `fault` says why.
    """

    address: Address | None
    fault: AddressError | None
    local_part: str  # decoded: without quotes, backslashes, comments and folds
    domain: str  # as written, without comments and folds
    display_name: str | None  # decoded (RFC 2047); None: there is none
    comments: tuple[str, ...]
    route: tuple[Domain, ...]  # the hosts of a source route, which nobody follows (RFC 5321 §C)
    levels: Levels

    def as_header_address(self) -> HeaderAddress:
        """For `email.message`: ``message["To"] = mailbox.as_header_address()``.

        Raises AddressError where `address` is None.
        """
        if self.address is None:
            assert self.fault is not None
            raise self.fault
        # Slow to import, and most programs never come here.
        from email.headerregistry import Address as HeaderAddress

        address = self.address
        return HeaderAddress(self.display_name or "", address.local_part, str(address.domain))

    def __str__(self) -> str:
        """Rendered for a header field: the display name quoted where it has to be."""
        spec = f"{self.local_part}@{self.domain}" if self.address is None else str(self.address)
        if self.display_name is None:
            return spec
        return f"{render_phrase(self.display_name)} <{spec}>"


@dataclass(frozen=True, slots=True)
class Group:
    """A named group of mailboxes, perhaps of none (RFC 5322 §3.4)."""

    display_name: str
    mailboxes: tuple[Mailbox, ...]

    def __str__(self) -> str:
        """Rendered for a header field."""
        return f"{render_phrase(self.display_name)}: {', '.join(map(str, self.mailboxes))};"


def parse_mailbox(text: str) -> Mailbox:
    """Read one addr-spec or name-addr. Raises AddressError, with a suggestion if there is one."""
    reader = _Reader(text)
    try:
        mailbox = reader.mailbox_or_group(groups=False)
        reader.expect_end()
    except AddressError as error:
        error.suggestion = suggest(text)
        raise
    assert isinstance(mailbox, Mailbox)
    if mailbox.fault is not None:
        mailbox.fault.suggestion = suggest(text)
    return mailbox


def parse_address_list(text: str) -> tuple[Mailbox | Group, ...]:
    """Read a list of mailboxes and groups, as of a To field. Raises AddressError."""
    return _Reader(text).address_list()


def render_phrase(text: str) -> str:
    """A display name as a phrase: as it is where it is made of atoms, else quoted."""
    words = text.split(" ")
    if all(_ATOM.fullmatch(word) is not None for word in words) and "=?" not in text:
        return text
    return quoted_string(text)


@dataclass(slots=True)
class _Word:
    """An atom, a quoted string or a dot, with what stood around it."""

    text: str  # decoded
    kind: str  # "atom", "quoted" or "."
    start: int
    end: int


class _Reader:
    """Reads from left to right; everything it notices about the current mailbox is kept."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_TEXT:
            raise AddressError("longer than any address", code="syntax.too_long_path")
        self._text = text
        self._at = 0
        self._begin()

    def _begin(self) -> None:
        self._comments: list[str] = []
        self._is_obsolete = False
        self._is_only_5322 = False  # comments, folds, display names: not for the envelope

    # Lists, groups, mailboxes.

    def address_list(self) -> tuple[Mailbox | Group, ...]:
        found: list[Mailbox | Group] = []
        while True:
            self._skip_to_next()
            if self._at == len(self._text):
                break
            found.append(self.mailbox_or_group(groups=True))
            self._cfws()
            if self._at < len(self._text) and self._peek() != ",":
                self._refuse("syntax.bad_char", "a comma is missing between addresses", _LISTS)
        if not found:
            raise AddressError("there is no address", code="syntax.no_at", section=_LISTS)
        return tuple(found)

    def _skip_to_next(self) -> None:
        # obs-addr-list: commas with nothing between (RFC 5322 §4.4).
        while True:
            self._cfws()
            if self._peek() != ",":
                return
            self._at += 1

    def mailbox_or_group(self, *, groups: bool) -> Mailbox | Group:
        self._begin()
        start = self._at
        words = self._words()
        mark = self._peek()
        if mark == "@":
            return self._mailbox(words, None, ())
        if mark == "<":
            name = self._phrase(words) if words else None
            return self._angle(name)
        if mark == ":" and groups:
            if not words:
                self._refuse("syntax.bad_char", "a group needs a name", _LISTS)
            return self._group(self._phrase(words))
        if self._at == len(self._text) or mark in ",;":
            if not words and self._at == start:
                self._refuse("syntax.local_empty", "there is no address", _ADDR_SPEC)
            self._refuse("syntax.no_at", '"@" and a domain are missing', _ADDR_SPEC)
        return self._refuse_character()

    def _group(self, name: str) -> Group:
        self._at += 1
        mailboxes: list[Mailbox] = []
        while True:
            self._skip_to_next()
            mark = self._peek()
            if mark == ";":
                self._at += 1
                return Group(name, tuple(mailboxes))
            if not mark:
                self._refuse("syntax.bad_char", "a group ends with a semicolon", _LISTS)
            mailbox = self.mailbox_or_group(groups=False)
            assert isinstance(mailbox, Mailbox)
            mailboxes.append(mailbox)
            self._cfws()
            if self._peek() not in (",", ";"):
                self._refuse("syntax.bad_char", "a comma is missing between addresses", _LISTS)

    def _angle(self, name: str | None) -> Mailbox:
        self._at += 1
        self._is_only_5322 = True
        self._cfws()
        route = self._route() if self._peek() in ("@", ",") else ()
        words = self._words()
        if self._peek() != "@":
            if not words:
                self._refuse("syntax.local_empty", "the local part is missing", _ADDR_SPEC)
            self._refuse_if_not_end_of_word()
            self._refuse("syntax.no_at", '"@" and a domain are missing', _ADDR_SPEC)
        mailbox = self._mailbox(words, name, route)
        if self._peek() != ">":
            self._refuse("syntax.bad_char", 'a ">" is missing', _LISTS)
        self._at += 1
        self._cfws()
        return mailbox

    def _route(self) -> tuple[Domain, ...]:
        # obs-route (RFC 5322 §4.4); the same text as A-d-l of RFC 5321 §4.1.2.
        self._is_obsolete = True
        hosts: list[Domain] = []
        while True:
            self._cfws()
            mark = self._peek()
            if mark == ",":
                self._at += 1
            elif mark == ":" and hosts:
                self._at += 1
                return tuple(hosts)
            elif mark == "@":
                self._at += 1
                start = self._at
                domain = parse_domain_part(self._domain(), start)
                if not isinstance(domain, Domain):
                    self._refuse("syntax.bad_char", "a route names hosts", "RFC 5322 §4.4")
                hosts.append(domain)
            else:
                self._refuse("syntax.bad_char", 'a route ends with ":"', "RFC 5322 §4.4")

    def _mailbox(self, words: list[_Word], name: str | None, route: tuple[Domain, ...]) -> Mailbox:
        before = self._local_part(words)
        written = self._text[before : words[-1].end]
        if len(written) > MAX_LOCAL_PART or len(written.encode()) > MAX_LOCAL_PART:
            self._is_only_5322 = True  # too long as it stands; without backslashes it may fit
        local_part = "".join(word.text for word in words)
        self._at += 1
        start = self._at
        domain = self._domain()
        address: Address | None = None
        fault: AddressError | None = None
        try:
            address = _transmittable(local_part, before, domain, start)
        except AddressError as error:
            fault = error
        is_ascii = local_part.isascii() and domain.isascii()
        is_plain = not self._is_only_5322 and not self._is_obsolete and address is not None
        return Mailbox(
            address=address,
            fault=fault,
            local_part=local_part,
            domain=domain,
            display_name=name,
            comments=tuple(self._comments),
            route=route,
            levels=Levels(
                rfc5321=is_plain and is_ascii,
                rfc5322=is_ascii and not self._is_obsolete,
                rfc6531=is_plain,
                obsolete=self._is_obsolete,
            ),
        )

    def _local_part(self, words: list[_Word]) -> int:
        """Judge the words before an "@"; gives the offset of the first of them."""
        if not words:
            self._refuse("syntax.local_empty", "the local part is missing", _ADDR_SPEC)
        if words[0].kind == ".":
            self._refuse_dot("syntax.dot_start", "starts with a dot", words[0].start)
        if words[-1].kind == ".":
            self._refuse_dot("syntax.dot_end", "ends with a dot", words[-1].start)
        for one, other in itertools.pairwise(words):
            if one.kind == "." == other.kind:
                self._refuse_dot("syntax.dot_double", "has two dots in a row", other.start)
            if one.kind != "." != other.kind:
                raise AddressError(
                    "a space or a quoted string cannot stand within a local part",
                    offset=other.start,
                    section=_ADDR_SPEC,
                    code="syntax.bad_char",
                )
            if one.end != other.start:
                self._is_obsolete = True  # comments or spaces around dots (RFC 5322 §4.4)
        if len(words) > 1 and any(word.kind == "quoted" for word in words):
            self._is_obsolete = True
        return words[0].start

    def _refuse_dot(self, code: str, what: str, at: int) -> NoReturn:
        raise AddressError(f"the local part {what}", offset=at, section=_ADDR_SPEC, code=code)

    # Words.

    def _words(self) -> list[_Word]:
        """Atoms, quoted strings and dots, up to anything else."""
        words: list[_Word] = []
        text = self._text
        self._cfws()
        while True:
            at = self._at
            mark = text[at : at + 1]
            if mark == '"':
                decoded = self._quoted_string()
                words.append(_Word(decoded, "quoted", at, self._at))
            elif mark == ".":
                self._at += 1
                words.append(_Word(".", ".", at, self._at))
            else:
                atom = _ATOM.match(text, at)
                if atom is None:
                    return words
                self._at = atom.end()
                words.append(_Word(atom[0], "atom", at, self._at))
            self._cfws()

    def _phrase(self, words: list[_Word]) -> str:
        # A dot in a phrase is obs-phrase, and everywhere: "John Q. Public" (RFC 5322 §4.1).
        if words[0].kind == ".":
            self._refuse_dot("syntax.bad_char", "starts with a dot", words[0].start)
        parts: list[str] = []
        end = words[0].start
        for word in words:
            if word.start > end:
                parts.append(" ")
            parts.append(word.text)
            end = word.end
            if word.kind == ".":
                self._is_obsolete = True
        phrase = "".join(parts)
        if "=?" in phrase and len(phrase) <= MAX_ENCODED_NAME:
            from email.header import decode_header, make_header  # as above

            try:
                return str(make_header(decode_header(phrase)))
            except (ValueError, LookupError):
                return phrase  # an encoded word that is none, or of an unknown charset
        return phrase

    def _quoted_string(self) -> str:
        start = self._at
        parts: list[str] = []
        self._at += 1
        while True:
            if self._peek() == '"':
                self._at += 1
                return "".join(parts)
            parts.append(self._inside(_QTEXT, start, _UNCLOSED_QUOTE))

    def _inside(self, plain: re.Pattern[str], start: int, unclosed: tuple[str, str, str]) -> str:
        """One run of a quoted string, comment or literal that began at `start`, decoded.

        `unclosed`: code, reason and section of the refusal where the text ends instead.
        """
        text, at = self._text, self._at
        if (run := plain.match(text, at) or _OBSOLETE_TEXT.match(text, at)) is not None:
            self._note_obsolete(run[0])
            self._at = run.end()
            return run[0]
        if (pair := _PAIR.match(text, at)) is not None:
            return self._pair(pair)
        if (folding := _FOLDING.match(text, at)) is not None:
            return self._fold(folding)
        if at >= len(text):
            self._at = start
            self._refuse(*unclosed)
        return self._refuse_character()

    def _pair(self, pair: re.Match[str]) -> str:
        self._at = pair.end()
        if not pair[0].isascii():
            self._is_only_5322 = True  # RFC 6531 §3.3 leaves quoted-pairSMTP in ASCII
        self._note_obsolete(pair[0][1:])
        return pair[0][1:]

    def _fold(self, folding: re.Match[str]) -> str:
        """White space with the line breaks of folds taken out (RFC 5322 §2.2.3)."""
        self._at = folding.end()
        if "\r\n" in folding[0]:
            self._is_only_5322 = True
            if _PLAIN_FOLDING.fullmatch(folding[0]) is None:
                self._is_obsolete = True
        return folding[0].replace("\r\n", "")

    def _note_obsolete(self, text: str) -> None:
        if _OBSOLETE_TEXT.search(text) is not None or "\0" in text or "\r" in text or "\n" in text:
            self._is_obsolete = True

    # Comments and folding white space.

    def _cfws(self) -> None:
        text = self._text
        while True:
            folding = _FOLDING.match(text, self._at)
            if folding is not None:
                self._is_only_5322 = True
                self._fold(folding)
            elif self._peek() == "(":
                self._is_only_5322 = True
                self._comments.append(self._comment())
            else:
                return

    def _comment(self) -> str:
        start = self._at
        depth = 0
        parts: list[str] = []
        while True:
            mark = self._peek()
            if mark == "(":
                depth += 1
                self._at += 1
                if depth > 1:
                    parts.append(mark)
            elif mark == ")":
                depth -= 1
                self._at += 1
                if not depth:
                    return "".join(parts)
                parts.append(mark)
            else:
                parts.append(self._inside(_CTEXT, start, _UNCLOSED_COMMENT))

    # Domains.

    def _domain(self) -> str:
        """The domain, without comments and folds around it or, obsolete, within."""
        self._cfws()
        if self._peek() == "[":
            literal = self._literal()
            self._cfws()
            return literal
        parts: list[str] = []
        start = self._at
        is_label_next = True
        end = start
        while True:
            at = self._at
            if self._peek() == ".":
                if is_label_next:
                    code = "syntax.dot_double" if parts else "syntax.dot_start"
                    self._refuse(code, "a dot stands where a label should", _ADDR_SPEC)
                self._at += 1
                parts.append(".")
                is_label_next = True
            elif is_label_next and (atom := _ATOM.match(self._text, at)) is not None:
                self._at = atom.end()
                parts.append(atom[0])
                is_label_next = False
            else:
                break
            if parts and at != end:
                self._is_obsolete = True
            end = self._at
            self._cfws()
        if not parts:
            if self._at == len(self._text) or self._peek() in ",;>":
                self._refuse("syntax.no_domain", "the domain is missing", _ADDR_SPEC)
            self._refuse_character()
        if is_label_next:
            raise AddressError(
                "the domain ends with a dot",
                offset=end - 1,
                section=_ADDR_SPEC,
                code="syntax.dot_end",
            )
        return "".join(parts)

    def _literal(self) -> str:
        start = self._at
        parts: list[str] = []
        self._at += 1
        while True:
            if self._peek() == "]":
                self._at += 1
                return f"[{''.join(parts).strip()}]"
            if self._peek() == "\\":
                self._is_obsolete = True  # obs-dtext (RFC 5322 §4.4)
            elif self._peek().isspace():
                self._is_only_5322 = True
            parts.append(self._inside(_DTEXT, start, _UNCLOSED_LITERAL))

    # Ends and refusals.

    def expect_end(self) -> None:
        """Raise AddressError unless all was read."""
        self._cfws()
        if self._at < len(self._text):
            self._refuse_character()

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _refuse_if_not_end_of_word(self) -> None:
        if self._at < len(self._text) and self._peek() not in ",;>":
            self._refuse_character()

    def _refuse_character(self) -> NoReturn:
        character = self._peek()
        name = repr(character) if character.isprintable() else f"U+{ord(character):04X}"
        self._refuse("syntax.bad_char", f"{name} cannot stand here", _TOKENS + ".3")

    def _refuse(self, code: str, reason: str, section: str) -> NoReturn:
        raise AddressError(reason, offset=self._at, section=section, code=code)


def _transmittable(local_part: str, start: int, domain: str, domain_start: int) -> Address:
    """The address of the envelope; raises AddressError when SMTP has no form for it."""
    if _CONTROL.search(local_part) is not None:
        raise AddressError(
            "the local part holds a control character",
            offset=start,
            section="RFC 5321 §4.1.2",
            code="syntax.not_5321_only_5322",
        )
    address = Address(local_part, parse_domain_part(domain, domain_start))
    size = len(str(address).encode())
    if size - len(str(address.domain)) - 1 > MAX_LOCAL_PART:
        raise AddressError(
            f"the local part is longer than {MAX_LOCAL_PART} octets",
            offset=start,
            section="RFC 5321 §4.5.3.1.1",
            code="syntax.too_long_local",
        )
    if size > MAX_PATH - 2:
        raise AddressError(
            f"the address is longer than {MAX_PATH - 2} octets",
            offset=start,
            section="RFC 5321 §4.5.3.1.3",
            code="syntax.too_long_path",
        )
    return address
