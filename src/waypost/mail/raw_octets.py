"""What a device means by octets above 127 that are no UTF-8, where nothing names their charset.

A guess, and always the same one: mailboxes of devices are named by it. Addresses and subjects are
too short for statistics. ASCII is never touched, so no guess can make or hide a bracket, an "@" or
a blank.
"""

from __future__ import annotations

import re

# Pairs of GB 2312: rows 16 to 55 hold the characters that nearly all Chinese texts are made of,
# rows 1 and 3 their punctuation and digits.
_PAIRS = re.compile(
    rb"(?=(?:..)*[\xb0-\xd7])(?:[\xa1\xa3\xb0-\xd6][\xa1-\xfe]|\xd7[\xa1-\xf9])+", re.DOTALL
)
# One pair within a word is two accented letters: DETEC\xc7\xc3O.
_WITHIN_A_WORD = re.compile(rb"[A-Za-z][\x80-\xff]{2}[A-Za-z]")
# Letters of windows-1251, yo among them. Three in a row are in no word of Latin letters.
_CYRILLIC = re.compile(rb"[\xc0-\xff\xa8\xb8]{3,}")
_HIGH = re.compile(rb"[\x80-\xff]+")


def charset_guessed(octets: bytes) -> str:
    """gb2312, windows-1251 or windows-1252, by what the octets look like."""
    runs = _HIGH.findall(octets)
    if all(_PAIRS.fullmatch(run) for run in runs) and _WITHIN_A_WORD.search(octets) is None:
        return "gb2312"
    if any(_CYRILLIC.fullmatch(run) for run in runs):
        return "windows-1251"
    return "windows-1252"


def text_of(octets: bytes) -> str:
    """UTF-8 where it is that, else as guessed."""
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return octets.decode(charset_guessed(octets), "replace")
