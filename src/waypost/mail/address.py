"""Addresses as values: mailbox, domain, address literal (RFC 5321 §4.1.2, §4.1.3; RFC 6531 §3.3).

Owns parsing, comparing and rendering of envelope addresses. Does not know which addresses are
ours (routing/table) nor where mail for them goes (routing/hops).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

import idna

from waypost.errors import AddressError

IPAddress = IPv4Address | IPv6Address

# Sizes in octets, RFC 5321 §4.5.3.1.
MAX_LOCAL_PART = 64
MAX_DOMAIN = 255
MAX_PATH = 256

# RFC 6531 §3.3; surrogates have no UTF-8 form (RFC 3629 §3).
_NON_ASCII = r"\u0080-\ud7ff\ue000-\U0010ffff"
_ATEXT = rf"[A-Za-z0-9!#$%&'*+\-/=?^_`{{|}}~{_NON_ASCII}]"
_DOT_STRING = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*")
# qtextSMTP and quoted-pairSMTP; controls, and so CR, LF and NUL, are outside.
_QUOTED_STRING = re.compile(rf'"((?:[ !#-\[\]-~{_NON_ASCII}]|\\[ -~])*)"')
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_NEEDS_BACKSLASH = re.compile(r'(["\\])')
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?"
_ASCII_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
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


def parse_ipv4(text: str, offset: int = 0) -> IPv4Address:
    """Dotted quad, exactly; raises AddressError.

    The grammar allows leading zeros, but software disagrees whether 010 is eight or ten, so they
    are refused as ambiguous.
    """
    if _IPV4.fullmatch(text) is None:
        if _IPV4_LIKE.fullmatch(text) is not None and re.search(r"(?:^|\.)0[0-9]", text):
            reason = "leading zeros in an IPv4 address are ambiguous"
        else:
            reason = "not an IPv4 address: four numbers from 0 to 255 with dots between"
        raise AddressError(reason, offset=offset, section=_LITERAL_SECTION)
    try:
        return IPv4Address(text)
    except ValueError:
        raise AddressError(
            "a number of the IPv4 address is above 255", offset=offset, section=_LITERAL_SECTION
        ) from None


def parse_ipv6(text: str, offset: int = 0) -> IPv6Address:
    """IPv6-addr of RFC 5321 §4.1.3; raises AddressError.

    Narrower than `ipaddress`: no zone id, and ``::`` must stand for two groups or more
    (the grammar's "at most 6 other groups").
    """
    if "%" in text:
        raise AddressError(
            "a zone id has no meaning outside this host", offset=offset, section=_LITERAL_SECTION
        )
    head, dots, _ = text.rpartition(":")
    if dots and "." in text[len(head) :]:
        parse_ipv4(text[len(head) + 1 :], offset + len(head) + 1)
    if "::" in text:
        groups = sum(2 if "." in group else 1 for group in text.split(":") if group)
        if groups > 6:
            raise AddressError(
                '"::" must stand for at least two groups of zeros',
                offset=offset + text.index("::"),
                section=_LITERAL_SECTION,
            )
    try:
        return IPv6Address(text)
    except ValueError as error:
        raise AddressError(
            f"not an IPv6 address: {error}", offset=offset, section=_LITERAL_SECTION
        ) from None


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
    if not text.isascii():
        try:
            text = idna.encode(text, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError) as error:
            raise AddressError(
                f"not an internationalised domain name: {error}",
                offset=offset,
                section="RFC 5891 §4",
            ) from None
        if _IPV4_LIKE.fullmatch(text) is not None:
            # Full-width digits are mapped to ASCII; an address is spelt in one way only.
            raise AddressError("not a domain name", offset=offset)
    if len(text) > MAX_DOMAIN:
        raise AddressError(
            f"the domain is longer than {MAX_DOMAIN} octets",
            offset=offset,
            section="RFC 5321 §4.5.3.1.2",
        )
    if _ASCII_DOMAIN.fullmatch(text) is None:
        raise AddressError("not a domain name", offset=offset)
    return Domain(text.lower())


@dataclass(frozen=True, slots=True, order=True)
class AddressLiteral:
    """``[192.0.2.1]`` or ``[IPv6:2001:db8::1]``; equal when the addresses are equal as values."""

    ip: IPAddress
    _text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ip = as_value(self.ip)
        object.__setattr__(self, "ip", ip)
        # str() of an IPv6Address is the RFC 5952 form, and v4-mapped ones are IPv4 by now.
        object.__setattr__(self, "_text", f"[{ip}]" if ip.version == 4 else f"[IPv6:{ip}]")

    def __str__(self) -> str:
        return self._text


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
            "an address literal stands in brackets", offset=offset, section=_LITERAL_SECTION
        )
    if len(text) > MAX_DOMAIN:
        raise AddressError(
            f"the literal is longer than {MAX_DOMAIN} octets",
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
            offset=offset + 1,
            section=_LITERAL_SECTION,
        )
    if _STANDARDIZED_TAG.fullmatch(tag) is None or _DCONTENT.fullmatch(rest) is None:
        raise AddressError("not an address literal", offset=offset + 1, section=_LITERAL_SECTION)
    return GeneralLiteral(tag, rest)


def parse_domain_part(text: str, offset: int = 0) -> DomainPart:
    """Read what may stand after the ``@``: a name or a literal; raises AddressError."""
    if text.startswith("["):
        return parse_literal(text, offset)
    return _parse_domain(text, offset)


@dataclass(frozen=True, slots=True, order=False)
class Address:
    """A mailbox (RFC 5321 §4.1.2): decoded local part, and domain or literal.

    Equal when the local parts are exactly equal and the domains are equal without case or, for
    literals, as addresses. Folding the local part is a mailbox's matter, not an address's.
    """

    local_part: str  # decoded: without quotes and backslashes
    domain: DomainPart
    # The rendered form, made once: an address is written out many times for each message.
    _text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_text", f"{render_local_part(self.local_part)}@{self.domain}")

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read a Mailbox; raises AddressError with the offset of the fault."""
        return _parse_address(text)

    @property
    def is_ascii(self) -> bool:
        """True when no part needs SMTPUTF8 (domains are kept as A-labels)."""
        return self.local_part.isascii()

    def __str__(self) -> str:
        return self._text


# Devices send from and to the same few addresses all day.
@lru_cache(maxsize=8192)
def _parse_address(text: str) -> Address:
    quoted = _QUOTED_STRING.match(text)
    if quoted is not None:
        local_part = _QUOTED_PAIR.sub(r"\1", quoted[1])
        at = quoted.end()
    else:
        plain = _DOT_STRING.match(text)
        if plain is None:
            raise AddressError("an address starts with a local part")
        local_part = plain[0]
        at = plain.end()
    if text[at : at + 1] != "@":
        if at == len(text):
            raise AddressError('"@" and a domain are missing', offset=at)
        raise AddressError("this character cannot stand in the local part", offset=at)
    # Octets are counted as sent, quotes included (RFC 5321 §4.5.3.1.1; RFC 6531 §3.3: UTF-8).
    if at > MAX_LOCAL_PART or (not text.isascii() and len(text[:at].encode()) > MAX_LOCAL_PART):
        raise AddressError(
            f"the local part is longer than {MAX_LOCAL_PART} octets",
            section="RFC 5321 §4.5.3.1.1",
        )
    return Address(local_part, parse_domain_part(text[at + 1 :], at + 1))


def render_local_part(local_part: str) -> str:
    """As a Dot-string where it is one, else quoted (RFC 5321 §4.1.2)."""
    if _DOT_STRING.fullmatch(local_part) is not None:
        return local_part
    return '"' + _NEEDS_BACKSLASH.sub(r"\\\1", local_part) + '"'
