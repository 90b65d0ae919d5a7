"""Header fields to text: encoded words, parameters, correspondents, dates.

All of it liberal, in time that grows with the length only, and over octets: a stored mail may hold
raw octets of any charset. Addresses that must be right are `mail.header_address`'s business.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote_to_bytes

from waypost.reading.charset import decoded
from waypost.reading.transfer import unwrapped_base64
from waypost.reading.values import Correspondent

# Octets of a field that are decoded; RFC 5322 §2.1.1 has 998 for a line.
MAX_FIELD = 16_384
MAX_CHARACTERS = 1_000
MAX_CORRESPONDENTS = 100
_MAX_SEGMENTS = 100
_MAX_DATE = 100

_ENCODED_WORD = re.compile(r"=\?([^?\s]{1,64})\?([bBqQ])\?([^?]*)\?=")
_PARAMETER = re.compile(rb';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*+"?|[^;]*)', re.DOTALL)
_ESCAPED = re.compile(rb'\\(["\\])')
_CONTROLS = re.compile(r"[\0-\x1f\x7f-\x9f]+")
_PIECE = re.compile(
    r'"(?:[^"\\]|\\.)*+"?|<[^>]*+>?|\((?:[^()\\]|\\.)*+|\)|[,;]|[^"<(),;\\]+|\\.?', re.DOTALL
)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_GROUP = re.compile(r"^[^@\[:]*:\s*")
_MESSAGE_ID = re.compile(r"<[^<>\s]{1,998}>")


def text_of(value: bytes, hint: str = "") -> str:
    """An unstructured field, as one line of at most MAX_CHARACTERS."""
    return _line(with_words_decoded(decoded(value[:MAX_FIELD], hint=hint)))


def _line(text: str) -> str:
    return " ".join(_CONTROLS.sub(" ", text).split())[:MAX_CHARACTERS]


def with_words_decoded(text: str) -> str:
    """RFC 2047, also inside quotes and beside other text, where senders should not put it."""
    parts: list[str] = []
    octets = bytearray()  # of the same charset so far: a character may be cut by a word's end
    charset = ""
    at = 0
    for word in _ENCODED_WORD.finditer(text):
        between = text[at : word.start()]
        name = word[1].partition("*")[0]  # RFC 2231 §5: then comes a language
        if octets and (between.strip() or name.lower() != charset.lower()):
            parts.append(decoded(bytes(octets), charset))
            octets.clear()
        # White space between two encoded words is theirs (RFC 2047 §6.2).
        if between.strip() or not at:
            parts.append(between)
        charset = name
        octets += _word_octets(word[2], word[3])
        at = word.end()
    if octets:
        parts.append(decoded(bytes(octets), charset))
    parts.append(text[at:])
    return "".join(parts)


def _word_octets(encoding: str, letters: str) -> bytes:
    octets = letters.encode()
    if encoding in "bB":
        return unwrapped_base64(octets)[0]
    return binascii.a2b_qp(octets.replace(b" ", b"_"), header=True)


def parameters(value: bytes) -> tuple[str, dict[str, bytes]]:
    """What stands before the first semicolon, in lower case, and the parameters, raw.

    The first one of a name counts.
    """
    head = value.partition(b";")[0][:200].decode("latin-1").strip().lower()
    found: dict[str, bytes] = {}
    for match in _PARAMETER.finditer(value):
        raw = match[2].strip()
        if raw[:1] == b'"':
            # Only these two are escaped: device names hold "C:\picture.jpg".
            raw = _ESCAPED.sub(rb"\1", raw[1:].removesuffix(b'"'))
        found.setdefault(match[1].decode("latin-1").lower(), raw)
        if len(found) >= _MAX_SEGMENTS:
            break
    return head, found


def parameter_text(found: Mapping[str, bytes], name: str, hint: str = "") -> str:
    """One parameter, decoded (RFC 2231, or RFC 2047 where it should not be); empty: none."""
    segments = list(_segments(found, name))
    if not segments:
        return text_of(found.get(name, b""), hint)
    charset = ""
    octets = bytearray()
    for number, (raw, is_extended) in enumerate(segments):
        if is_extended and not number and raw.count(b"'") >= 2:
            named, _, raw = raw.split(b"'", 2)
            charset = named.decode("latin-1")
        octets += unquote_to_bytes(raw) if is_extended else raw
    return _line(decoded(bytes(octets[:MAX_FIELD]), charset, hint))


def _segments(found: Mapping[str, bytes], name: str) -> Iterator[tuple[bytes, bool]]:
    """Values of `name*` or of `name*0`, `name*1*` …, and whether each is percent-encoded."""
    if (raw := found.get(f"{name}*")) is not None:
        yield raw, True
        return
    for number in range(_MAX_SEGMENTS):
        if (raw := found.get(f"{name}*{number}*")) is not None:
            yield raw, True
        elif (raw := found.get(f"{name}*{number}")) is not None:
            yield raw, False
        else:
            return


def correspondents(value: bytes, hint: str = "") -> tuple[Correspondent, ...]:
    """Who stands in From or To, whatever the sender takes for a list of addresses."""
    found: list[Correspondent] = []
    words: list[str] = []
    comments: list[str] = []
    angle: str | None = None
    depth = 0
    text = decoded(value[:MAX_FIELD], hint=hint)
    for match in _PIECE.finditer(text):
        piece = match[0]
        if piece[0] == "(":
            depth += 1
            comments.append(_unquoted(piece[1:]))
        elif piece == ")":
            depth = max(0, depth - 1)
        elif depth:
            comments.append(piece)
        elif piece in (",", ";"):
            if (one := _correspondent(words, angle, comments)) is not None:
                found.append(one)
            words, comments, angle = [], [], None
            if len(found) == MAX_CORRESPONDENTS:
                return tuple(found)
        elif piece[0] == "<":
            angle = piece[1:].removesuffix(">")
        elif piece[0] == '"':
            words.append(_unquoted(piece[1:].removesuffix('"')))
        else:
            words.append(piece)
    if (one := _correspondent(words, angle, comments)) is not None:
        found.append(one)
    return tuple(found)


def _correspondent(
    words: list[str], angle: str | None, comments: list[str]
) -> Correspondent | None:
    plain = _line(with_words_decoded("".join(words)))
    comment = _line(with_words_decoded("".join(comments)))
    if angle is not None:
        one = Correspondent(plain or comment, _line(angle).replace(" ", ""))
    else:
        # A group's name stands before its first member (RFC 5322 §3.4).
        one = Correspondent(comment, _GROUP.sub("", plain))
    return one if any(one) else None


def _unquoted(text: str) -> str:
    return _QUOTED_PAIR.sub(r"\1", text)


def date_of(value: bytes) -> datetime | None:
    """A Date field; one without a zone is taken for UTC. None: nobody can say what it means."""
    try:
        at = parsedate_to_datetime(value[:_MAX_DATE].decode("latin-1").strip())
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        at.astimezone(UTC)  # near the year 1 or 9999 there is none
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return at


def message_id_of(value: bytes) -> str:
    """A Message-ID with its "<>", where it has them; a Content-ID is written the same way."""
    text = _line(decoded(value[:MAX_FIELD]))
    found = _MESSAGE_ID.search(text)
    return found[0] if found is not None else text
