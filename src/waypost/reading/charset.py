"""Octets to text: by the charset that is named, else by a guess."""

from __future__ import annotations

import codecs
import re

# Devices name the older set and send the newer one; browsers read them so too (WHATWG Encoding).
_SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "iso8859-9": "cp1254",
    "tis-620": "cp874",
}
# No charsets of mail, or quadratic to decode (idna, punycode).
_REFUSED = {"idna", "punycode", "unicode_escape", "raw-unicode-escape", "undefined"}
_NAME = re.compile(r"[A-Za-z0-9._:+-]{1,40}")
# So many octets are shown to the library that guesses.
_GUESSED_BYTES = 16_384


def codec_of(charset: str) -> str | None:
    """Python's name for a charset; None: unknown, or none that says anything (us-ascii)."""
    if _NAME.fullmatch(charset) is None:
        return None
    try:
        # By a decoding, since lookup() alone also knows codecs that give no text.
        b"a".decode(charset, "replace")
        name = codecs.lookup(charset).name
    except (LookupError, UnicodeError):
        return None
    return None if name in _REFUSED or name == "ascii" else _SUPERSETS.get(name, name)


def decoded(octets: bytes, charset: str = "", hint: str = "") -> str:
    """The text of `octets`, with U+FFFD for what cannot be read; never a lone surrogate.

    `charset` is what the sender names, empty: nothing. `hint`: a charset named elsewhere in the
    mail, for raw octets.
    """
    named = codec_of(charset)
    for codec in (named, "utf-8", codec_of(hint)):
        if codec is not None and (text := _strictly(octets, codec)) is not None:
            return text
    if named is None or named == "utf-8":
        named = _guessed(octets)
    return _whole(octets.decode(named, "replace"))


def _strictly(octets: bytes, codec: str) -> str | None:
    try:
        return _whole(octets.decode(codec))
    except UnicodeError:
        return None


def _whole(text: str) -> str:
    # UTF-7 can spell one half of a surrogate pair.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _guessed(octets: bytes) -> str:
    import chardet  # here: its tables take longer to load than most commands to run

    head = octets[:_GUESSED_BYTES]
    era = chardet.EncodingEra.MODERN_WEB
    name = chardet.detect(head, encoding_era=era)["encoding"]
    return codec_of(name or "") or "cp1252"
