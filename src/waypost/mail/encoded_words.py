"""Octets above 127 in header fields, made into what every host can carry (RFC 2047, RFC 2231).

What a device sends raw is kept octet for octet inside the encoding: valid UTF-8 is called that,
anything else what the message says of its text, else what it looks like.
"""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Iterator
from urllib.parse import quote_from_bytes

from waypost.mail.raw_octets import charset_guessed

FALLBACK = "windows-1252"
# RFC 2047 §2: 75 characters for an encoded word; what is left of them for the text.
_MAX_WORD = 75

# Fields whose body is not free text: an encoded word may stand in a phrase or a comment only.
ADDRESS_FIELDS = frozenset(
    f"{prefix}{name}"
    for name in ("from", "sender", "reply-to", "to", "cc", "bcc")
    for prefix in ("", "resent-")
)
PARAMETER_FIELDS = frozenset(("content-type", "content-disposition"))
# Machines read these; nothing in them can be encoded.
_OTHER_STRUCTURED = frozenset(
    (
        *("date", "resent-date", "message-id", "resent-message-id", "in-reply-to", "references"),
        *("received", "return-path", "mime-version", "content-transfer-encoding", "content-id"),
        *("dkim-signature", "authentication-results", "auto-submitted", "list-id", "list-post"),
        *("list-unsubscribe", "list-help", "list-archive", "delivered-to"),
    )
)

_ENCODED_WORD = re.compile(rb"=\?[!-~]+?\?[bBqQ]\?[!->@-~]*\?=")
# What is believed of a declared charset: those with octets above 127 that headers were written in.
_CHARSET = re.compile(
    r"iso-8859-\d{1,2}|windows-125\d|koi8-[ru]|gb2312|gbk|gb18030|big5|shift_jis|euc-(?:jp|kr)"
)
# What an address field is made of, beside quoted strings and what stands in angle brackets.
_WORDS = re.compile(rb'[^\s"<>(),:;@]+(?:[ \t]+[^\s"<>(),:;@]+)*|\s+|.', re.DOTALL)
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ANGLE = re.compile(rb"<[^>]*>")
_PARAMETER = re.compile(
    rb';[ \t]*([!#$&+\-.^_`|~0-9A-Za-z]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))'
)


def charset_of(octets: bytes, declared: str | None) -> str:
    """What raw octets are taken for; `declared` by the message, None: it says nothing."""
    names = ["utf-8"]
    if declared is not None and _CHARSET.fullmatch(declared) is not None:
        names.append(declared)
    for name in (*names, charset_guessed(octets)):
        with contextlib.suppress(UnicodeError, LookupError):
            octets.decode(name)
            return name
    return FALLBACK


def encoded(key: str, body: bytes, declared: str | None) -> bytes:
    """A field body without octets above 127, as far as its field can do without them.

    `key` is the field's name in lower case; the body is unfolded.
    """
    if body.isascii() or key in _OTHER_STRUCTURED:
        return body
    charset = charset_of(body, declared)
    if key in ADDRESS_FIELDS:
        return _encoded_phrases(body, charset)
    if key in PARAMETER_FIELDS:
        return _encoded_parameters(body, charset)
    return _encoded_text(body, charset)


def _encoded_text(body: bytes, charset: str) -> bytes:
    """Free text: from the first word that needs it to the last one, the rest as it is."""
    words = re.split(rb"([ \t]+)", body)  # words at even places, blanks between
    needy = [at for at in range(0, len(words), 2) if not words[at].isascii()]
    first, last = needy[0], needy[-1]
    # White space between two encoded words is not shown (RFC 2047 §6.2): those that touch what is
    # made here go into it, and the blanks between with them.
    while first and _ENCODED_WORD.fullmatch(words[first - 2]):
        first -= 2
    while last + 2 < len(words) and _ENCODED_WORD.fullmatch(words[last + 2]):
        last += 2
    pieces: list[bytes] = []
    run = b""
    for at in range(first, last + 1):
        if at % 2 == 0 and _ENCODED_WORD.fullmatch(words[at]):
            if run.strip(b" \t"):
                pieces.append(encoded_words(run, charset))
            pieces.append(words[at])
            run = b""
        else:
            run += words[at]
    if run.strip(b" \t"):
        pieces.append(encoded_words(run, charset))
    return b"".join(words[:first]) + b" ".join(pieces) + b"".join(words[last + 1 :])


def _encoded_phrases(body: bytes, charset: str) -> bytes:
    """An address field: words and quoted strings, but never an address itself."""
    tokens = list(_tokens(body))
    text = b""
    ends_encoded = False
    for at, token in enumerate(tokens):
        is_address = token[:1] == b"<" or b"@" in (
            *tokens[max(at - 1, 0) : at],
            *tokens[at + 1 : at + 2],
        )
        is_encoded = not token.isascii() and not is_address
        if is_encoded:
            quoted = token[:1] == b'"' and len(token) > 1
            words = re.sub(rb"\\(.)", rb"\1", token[1:-1]) if quoted else token
            token = encoded_words(words, charset)
        # An encoded word stands by itself (RFC 2047 §5).
        if (is_encoded and text[-1:] not in (b"", b" ", b"\t", b"(")) or (
            ends_encoded and token[:1] not in (b" ", b"\t", b")")
        ):
            text += b" "
        text += token
        ends_encoded = is_encoded
    return text


def _tokens(body: bytes) -> Iterator[bytes]:
    """The body in pieces. Where one search for an end has failed, none is made again: the time it
    takes grows with the length only.
    """
    at = 0
    enders = {b'"': _QUOTED, b"<": _ANGLE}
    while at < len(body):
        mark = body[at : at + 1]
        found = None
        if mark in enders:
            found = enders[mark].match(body, at)
            if found is None:
                del enders[mark]
        if found is None:
            found = _WORDS.match(body, at)
        assert found is not None
        yield found[0]
        at = found.end()


def _encoded_parameters(body: bytes, charset: str) -> bytes:
    """Parameters by RFC 2231, which readers of file names know."""

    def encode(found: re.Match[bytes]) -> bytes:
        if found[0].isascii():
            return found[0]
        value = found[3] if found[3] is not None else re.sub(rb"\\(.)", rb"\1", found[2])
        return b"; " + found[1] + b"*=" + f"{charset}''{quote_from_bytes(value, safe='')}".encode()

    return _PARAMETER.sub(encode, body)


def encoded_words(octets: bytes, charset: str) -> bytes:
    """Text as encoded words with a blank between (RFC 2047 §2); no character is split."""
    room = (_MAX_WORD - len(f"=?{charset}?B??=")) // 4 * 3
    words = []
    for piece in _pieces(octets, charset, room):
        text = base64.b64encode(piece).decode("ascii")
        words.append(f"=?{charset}?B?{text}?=".encode("ascii"))
    return b" ".join(words)


def _pieces(octets: bytes, charset: str, room: int) -> list[bytes]:
    if charset == FALLBACK:
        return [octets[at : at + room] for at in range(0, len(octets), room)]
    pieces = [b""]
    text = octets.decode(charset)
    for character in text:
        piece = character.encode(charset)
        if len(pieces[-1]) + len(piece) > room:
            pieces.append(b"")
        pieces[-1] += piece
    if b"".join(pieces) != octets:  # a charset with states, or with two spellings
        return [octets[at : at + room] for at in range(0, len(octets), room)]
    return pieces
