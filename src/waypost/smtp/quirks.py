"""What a trusted client was forgiven in a session: where devices leave RFC 5321, and we follow."""

from __future__ import annotations

from enum import IntFlag


class Quirk(IntFlag):
    """Set by the engine, and by whoever runs it, once for each kind. Values are kept on disk."""

    EMPTY_HELO = 1
    NO_BRACKETS = 2
    NO_DOMAIN = 4
    UNKNOWN_PARAMETER = 8
    BARE_LF = 16
    BARE_CR = 32
    CONTROLS = 64
    LINE_TOO_LONG = 128
    CONTENT_MENDED = 256
    NO_QUIT = 512
    TLS_HELLO = 1024
    RAW_OCTETS = 2048


NO_QUIRK = Quirk(0)

_WORDS = {
    Quirk.EMPTY_HELO: "HELO without a name",
    Quirk.NO_BRACKETS: "addresses without < >",
    Quirk.NO_DOMAIN: "addresses without a domain",
    Quirk.UNKNOWN_PARAMETER: "parameters nobody knows",
    Quirk.BARE_LF: "commands that end in a bare LF",
    Quirk.BARE_CR: "bare CR in commands",
    Quirk.CONTROLS: "control characters in commands",
    Quirk.LINE_TOO_LONG: "command lines that are too long",
    Quirk.CONTENT_MENDED: "bare CR or LF, or NUL, in content",
    Quirk.NO_QUIT: "ends without QUIT",
    Quirk.TLS_HELLO: "a TLS hello where none was expected",
    Quirk.RAW_OCTETS: "letters in commands that are not UTF-8",
}


def quirk_words(quirks: int) -> list[str]:
    """For people."""
    return [words for quirk, words in _WORDS.items() if quirks & quirk]
