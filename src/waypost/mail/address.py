"""Addresses as values: mailbox, domain, address literal (RFC 5321 §4.1.2, §4.1.3; RFC 6531 §3.3).

Owns parsing, comparing and rendering of envelope addresses. Does not know which addresses are
ours (routing/table) nor where mail for them goes (routing/hops).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache, total_ordering
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import idna

from waypost.errors import AddressError

IPAddress = IPv4Address | IPv6Address

# Sizes in octets, RFC 5321 §4.5.3.1.
MAX_LOCAL_PART = 64
MAX_DOMAIN = 255
MAX_PATH = 256
# RFC 1035 §2.3.4.
MAX_LABEL = 63

# RFC 6531 §3.3; surrogates have no UTF-8 form (RFC 3629 §3).
NON_ASCII = r"\u0080-\ud7ff\ue000-\U0010ffff"
# atext of RFC 5322 §3.2.3 with that.
ATEXT = rf"[A-Za-z0-9!#$%&'*+\-/=?^_`{{|}}~{NON_ASCII}]"
_DOT_STRING = re.compile(rf"{ATEXT}+(?:\.{ATEXT}+)*")
# qtextSMTP and quoted-pairSMTP; controls, and so CR, LF and NUL, are outside.
_QUOTED_STRING = re.compile(rf'"((?:[ !#-\[\]-~{NON_ASCII}]|\\[ -~])*)"')
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_NEEDS_BACKSLASH = re.compile(r'(["\\])')
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?"
_GROUPS = re.compile(r"(?:[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){0,7})?")
# RFC 5952 §4.2.2: one group of zeros alone is not shortened.
_ZERO_RUNS = re.compile(r"\b0(?::0)+\b")
_LABEL_TEXT = re.compile(_LABEL)
_NOT_IN_LABEL = re.compile(r"[^A-Za-z0-9\-]")
_ASCII_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PLAIN = re.compile(
    r"(?=[^@]{1,64}@)([A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+(?:\.[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+)*)"
    r"@([A-Za-z0-9.\-]+)"
)
_SNUM = r"(?:0|[1-9][0-9]{0,2})"
_IPV4 = re.compile(rf"{_SNUM}(?:\.{_SNUM}){{3}}")
_IPV4_LIKE = re.compile(r"[0-9]+(?:\.[0-9]+){3}")
_STANDARDIZED_TAG = re.compile(r"[A-Za-z0-9\-]*[A-Za-z0-9]")
_DCONTENT = re.compile(r"[!-Z^-~]+")

_LITERAL_SECTION = "RFC 5321 §4.1.3"


def as_value(ip: IPAddress) -> IPAddress:
    """The address a v4-mapped IPv6 address stands for (RFC 4291 §2.5.5.2); any other, itself.

    Peers on a dual-stack socket and senders of ``[IPv6:::ffff:192.0.2.1]`` mean the IPv4 host,
    so both forms are one value from here on.
    """
    if ip.version == 6 and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    return ip


@lru_cache(maxsize=4096)
def ip_text(ip: IPAddress) -> str:
    """The text of an IP address, made once for each client."""
    return str(ip)


def parse_ipv4(text: str, offset: int = 0) -> IPv4Address:
    """Dotted quad, exactly; raises AddressError.

    The grammar allows leading zeros, but software disagrees whether 010 is eight or ten, so they
    are refused as ambiguous.
    """
    if _IPV4.fullmatch(text) is None:
        code = "literal.bad_ipv4"
        if _IPV4_LIKE.fullmatch(text) is not None and re.search(r"(?:^|\.)0[0-9]", text):
            code = "literal.ambiguous_octet"
            reason = "leading zeros in an IPv4 address are ambiguous"
        elif re.fullmatch(r"[0-9.]+/[0-9]*", text) is not None:
            code = "literal.prefix_length"
            reason = "an address literal names one host, not a network"
        else:
            reason = "not an IPv4 address: four numbers from 0 to 255 with dots between"
        raise AddressError(reason, code=code, offset=offset, section=_LITERAL_SECTION)
    try:
        return IPv4Address(text)
    except ValueError:
        raise AddressError(
            "a number of the IPv4 address is above 255",
            code="literal.bad_ipv4",
            offset=offset,
            section=_LITERAL_SECTION,
        ) from None


def parse_ipv6(text: str, offset: int = 0) -> IPv6Address:
    """IPv6-addr of RFC 5321 §4.1.3; raises AddressError.

    Narrower than `ipaddress`: no zone id, and ``::`` must stand for two groups or more
    (the grammar's "at most 6 other groups").
    """
    if "%" in text:
        raise AddressError(
            "a zone id has no meaning outside this host",
            code="literal.zone_id",
            offset=offset + text.index("%"),
            section=_LITERAL_SECTION,
        )
    if "/" in text:
        raise AddressError(
            "an address literal names one host, not a network",
            code="literal.prefix_length",
            offset=offset + text.index("/"),
            section=_LITERAL_SECTION,
        )
    plain = _plain_ipv6(text)
    if plain is not None:
        return plain
    head, dots, _ = text.rpartition(":")
    if dots and "." in text[len(head) :]:
        parse_ipv4(text[len(head) + 1 :], offset + len(head) + 1)
    if "::" in text:
        groups = sum(2 if "." in group else 1 for group in text.split(":") if group)
        if groups > 6:
            raise AddressError(
                '"::" must stand for at least two groups of zeros',
                code="literal.bad_ipv6",
                offset=offset + text.index("::"),
                section=_LITERAL_SECTION,
            )
    try:
        return IPv6Address(text)
    except ValueError as error:
        raise AddressError(
            f"not an IPv6 address: {error}",
            code="literal.bad_ipv6",
            offset=offset,
            section=_LITERAL_SECTION,
        ) from None


def _plain_ipv6(text: str) -> IPv6Address | None:
    """What nearly everybody writes, in a third of the time; None: see `parse_ipv6`."""
    head, gap, tail = text.partition("::")
    before = head.split(":") if head else []
    after = tail.split(":") if tail else []
    zeros = 8 - len(before) - len(after)
    if zeros < 2 if gap else zeros:
        return None
    if _GROUPS.fullmatch(head) is None or _GROUPS.fullmatch(tail) is None:
        return None
    value = 0
    for group in (*before, *["0"] * zeros, *after):
        value = value << 16 | int(group, 16)
    return IPv6Address(value)


def ipv6_text(ip: IPv6Address) -> str:
    """The one form of RFC 5952: lower case, the longest run of zeros (the first of them) short."""
    digits = f"{int(ip):032x}"
    text = ":".join(f"{int(digits[at : at + 4], 16):x}" for at in range(0, 32, 4))
    longest = max(_ZERO_RUNS.finditer(text), key=lambda run: len(run[0]), default=None)
    if longest is None:
        return text
    return f"{text[: longest.start()].rstrip(':')}::{text[longest.end() :].lstrip(':')}"


@dataclass(frozen=True, slots=True, order=True)
class Domain:
    """A domain name, kept as lower-case A-labels (RFC 5890); compared without case."""

    ascii: str

    @classmethod
    def parse(cls, text: str, offset: int = 0) -> Domain:
        """Read a name as in RFC 5321 §4.1.2; U-labels are mapped by UTS 46 and IDNA 2008.

        Raises AddressError.
        """
        return _parse_domain(text, offset)

    @property
    def unicode(self) -> str:
        """The name with U-labels, for people."""
        try:
            return idna.decode(self.ascii)
        except idna.IDNAError:
            return self.ascii

    def as_ip(self) -> IPv4Address | None:
        """The IPv4 address a bare ``192.0.2.1`` looks like; None: it is an ordinary name.

        By the grammar such a text is a name. Whether it is read as an address is a setting
        (`addresses.bare_ip`), so it is asked for and never assumed.
        """
        return IPv4Address(self.ascii) if _is_ipv4(self.ascii) else None

    def __str__(self) -> str:
        return self.ascii


@lru_cache(maxsize=4096)
def _is_ipv4(text: str) -> bool:
    try:
        parse_ipv4(text)
    except AddressError:
        return False
    return True


@lru_cache(maxsize=4096)
def _parse_domain(text: str, offset: int) -> Domain:
    is_mapped = not text.isascii()
    if is_mapped:
        try:
            text = idna.encode(text, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError) as error:
            raise AddressError(
                f"not an internationalised domain name: {error}",
                code="dns.idna_invalid",
                offset=offset,
                section="RFC 5891 §4",
            ) from None
        if _IPV4_LIKE.fullmatch(text) is not None:
            # Full-width digits are mapped to ASCII; an address is spelt in one way only.
            raise AddressError("not a domain name", offset=offset)
    if len(text) > MAX_DOMAIN:
        raise AddressError(
            f"the domain is longer than {MAX_DOMAIN} octets",
            code="syntax.too_long_domain",
            offset=offset,
            section="RFC 5321 §4.5.3.1.2",
        )
    if _ASCII_DOMAIN.fullmatch(text) is None:
        fault = _no_domain(text, offset)
        if is_mapped:
            fault.offset = offset  # where in the mapped name says nothing of the name as written
        raise fault
    return Domain(text.lower())


def _no_domain(text: str, offset: int) -> AddressError:
    """What is wrong with a text that is no name."""
    if not text:
        return AddressError("the domain is missing", code="syntax.no_domain", offset=offset)
    for label in text.split("."):
        if not label:
            code = "syntax.dot_double"
            if text.startswith("."):
                code = "syntax.dot_start"
            elif text.endswith(".") and ".." not in text:
                code = "syntax.dot_end"
            return AddressError("a label of the domain is empty", code=code, offset=offset)
        if _LABEL_TEXT.fullmatch(label) is None:
            if len(label) > MAX_LABEL and _LABEL_TEXT.fullmatch(label[:1] + label[-1:]) is not None:
                return AddressError(
                    f"a label of the domain is longer than {MAX_LABEL} octets",
                    code="syntax.too_long_label",
                    offset=offset,
                    section="RFC 1035 §2.3.4",
                )
            wrong = _NOT_IN_LABEL.search(label)
            at = wrong.start() if wrong is not None else 0
            return AddressError(
                "a label is made of letters, digits and inner hyphens", offset=offset + at
            )
        offset += len(label) + 1
    return AddressError("not a domain name", offset=offset)


@dataclass(frozen=True, slots=True, order=True)
class AddressLiteral:
    """``[192.0.2.1]`` or ``[IPv6:2001:db8::1]``; equal when the addresses are equal as values."""

    ip: IPAddress
    _text: str | None = field(default=None, init=False, repr=False, compare=False)  # None: not yet

    def __post_init__(self) -> None:
        if self.ip.version == 6:
            object.__setattr__(self, "ip", as_value(self.ip))

    def __str__(self) -> str:
        text = self._text
        if text is None:
            ip = self.ip
            # Python's own text of an IPv6 address differs between versions.
            text = f"[{ip}]" if ip.version == 4 else f"[IPv6:{ipv6_text(ip)}]"
            object.__setattr__(self, "_text", text)
        return text


@lru_cache(maxsize=4096)
def literal_of(ip: IPAddress) -> AddressLiteral:
    """The literal of an address, made once for each."""
    return AddressLiteral(ip)


@dataclass(frozen=True, slots=True, order=True)
class GeneralLiteral:
    """``[tag:text]`` with a tag other than IPv6: valid syntax, never routable."""

    tag: str
    text: str

    def __str__(self) -> str:
        return f"[{self.tag}:{self.text}]"


DomainPart = Domain | AddressLiteral | GeneralLiteral


@lru_cache(maxsize=4096)
def parse_literal(text: str, offset: int = 0) -> AddressLiteral | GeneralLiteral:
    """Read an address literal, brackets included (RFC 5321 §4.1.3); raises AddressError."""
    if len(text) < 2 or text[0] != "[" or text[-1] != "]":
        raise AddressError(
            "an address literal stands in brackets",
            code="literal.trailing_text" if "]" in text else "syntax.unclosed_literal",
            offset=offset,
            section=_LITERAL_SECTION,
        )
    if len(text) > MAX_DOMAIN:
        raise AddressError(
            f"the literal is longer than {MAX_DOMAIN} octets",
            code="syntax.too_long_domain",
            offset=offset,
            section="RFC 5321 §4.5.3.1.2",
        )
    inner = text[1:-1]
    tag, colon, rest = inner.partition(":")
    if not colon:
        return AddressLiteral(parse_ipv4(inner, offset + 1))
    if tag.lower() == "ipv6":
        return AddressLiteral(parse_ipv6(rest, offset + len(tag) + 2))
    try:
        IPv6Address(inner.partition("%")[0])
    except ValueError:
        pass
    else:
        raise AddressError(
            f"an IPv6 literal needs its tag: [IPv6:{inner}]",
            code="literal.untagged_ipv6",
            offset=offset + 1,
            section=_LITERAL_SECTION,
        )
    if _STANDARDIZED_TAG.fullmatch(tag) is None or _DCONTENT.fullmatch(rest) is None:
        raise AddressError(
            "not an address literal",
            code="literal.bad_general",
            offset=offset + 1,
            section=_LITERAL_SECTION,
        )
    return GeneralLiteral(tag, rest)


def parse_domain_part(text: str, offset: int = 0) -> DomainPart:
    """Read what may stand after the ``@``: a name or a literal; raises AddressError."""
    if text.startswith("["):
        return parse_literal(text, offset)
    return _parse_domain(text, offset)


@total_ordering
@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox (RFC 5321 §4.1.2): decoded local part, and domain or literal.

    Equal when the local parts are exactly equal and the domains are equal without case or, for
    literals, as addresses. Folding the local part is a mailbox's matter, not an address's.
    """

    local_part: str  # decoded: without quotes and backslashes
    domain: DomainPart
    # The rendered form, made when it is first asked for and kept: an address is written out many
    # times for each message.
    _text: str | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read a Mailbox; raises AddressError with the offset of the fault and, where there is
        one, the text that was probably meant.
        """
        try:
            return parse_exactly(text)
        except AddressError as error:
            from waypost.mail.correction import suggest  # which reads addresses itself

            error.suggestion = suggest(text)
            raise

    @property
    def is_ascii(self) -> bool:
        """True when no part needs SMTPUTF8 (domains are kept as A-labels)."""
        return self.local_part.isascii()

    def __lt__(self, other: Address) -> bool:
        """By domain, then by local part: mail for one host stands together."""
        return (str(self.domain), self.local_part) < (str(other.domain), other.local_part)

    def __str__(self) -> str:
        text = self._text
        if text is None:
            text = f"{render_local_part(self.local_part)}@{self.domain}"
            object.__setattr__(self, "_text", text)
        return text

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:
        """For pydantic, where it is installed: a field of this type takes texts and addresses."""
        from pydantic_core import core_schema

        text = core_schema.no_info_after_validator_function(cls.parse, core_schema.str_schema())
        return core_schema.json_or_python_schema(
            json_schema=text,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), text]),
            serialization=core_schema.to_string_ser_schema(),
        )


# Devices send from and to the same few addresses all day.
@lru_cache(maxsize=8192)
def parse_exactly(text: str) -> Address:
    """`Address.parse` without a thought for what may have been meant instead."""
    # Nearly all addresses are a dot-string at a name; the octets before the "@" are its size.
    plain = _PLAIN.fullmatch(text)
    if plain is not None:
        return Address(plain[1], _parse_domain(plain[2], plain.start(2)))
    quoted = _QUOTED_STRING.match(text)
    if quoted is not None:
        local_part = _QUOTED_PAIR.sub(r"\1", quoted[1])
        at = quoted.end()
    else:
        dot_string = _DOT_STRING.match(text)
        if dot_string is None:
            raise _no_local_part(text)
        local_part = dot_string[0]
        at = dot_string.end()
    if text[at : at + 1] != "@":
        if at == len(text):
            raise AddressError('"@" and a domain are missing', code="syntax.no_at", offset=at)
        raise _bad_local_part(text, at)
    # Octets are counted as sent, quotes included (RFC 5321 §4.5.3.1.1; RFC 6531 §3.3: UTF-8).
    if at > MAX_LOCAL_PART or (not text.isascii() and len(text[:at].encode()) > MAX_LOCAL_PART):
        raise AddressError(
            f"the local part is longer than {MAX_LOCAL_PART} octets",
            code="syntax.too_long_local",
            section="RFC 5321 §4.5.3.1.1",
        )
    return Address(local_part, parse_domain_part(text[at + 1 :], at + 1))


def _no_local_part(text: str) -> AddressError:
    if text.startswith('"'):
        return AddressError("the quoted string has no end", code="syntax.unclosed_quote")
    if text.startswith("."):
        return AddressError("the local part starts with a dot", code="syntax.dot_start")
    if not text or text.startswith("@"):
        return AddressError("an address starts with a local part", code="syntax.local_empty")
    return AddressError("this character cannot stand in the local part")


def _bad_local_part(text: str, at: int) -> AddressError:
    if text[at] == ".":
        if text[at + 1 : at + 2] == "@":
            return AddressError("the local part ends with a dot", code="syntax.dot_end", offset=at)
        if text[at + 1 : at + 2] == ".":
            return AddressError(
                "the local part has two dots in a row", code="syntax.dot_double", offset=at + 1
            )
    return AddressError("this character cannot stand in the local part", offset=at)


def render_local_part(local_part: str) -> str:
    """As a Dot-string where it is one, else quoted (RFC 5321 §4.1.2)."""
    if _DOT_STRING.fullmatch(local_part) is not None:
        return local_part
    return quoted_string(local_part)


def quoted_string(text: str) -> str:
    """`text` between quotation marks (RFC 5322 §3.2.4)."""
    return '"' + _NEEDS_BACKSLASH.sub(r"\\\1", text) + '"'
