"""What a device means by octets in a command that are no UTF-8.

A guess, and always the same one: the mailboxes of devices are named by it. It looks at a few octets
only, which is too little for statistics. ASCII is never touched, so no guess can make or hide a
bracket, an "@" or a blank.
"""

from __future__ import annotations

import re

# GB 2312 rows 16 to 55 hold the characters that nearly all Chinese names are made of.
_COMMON_HANZI = re.compile(rb"(?:[\xb0-\xd7][\xa1-\xfe])+")
# Letters of windows-1251, yo among them. Three in a row are no word of a language in Latin letters.
_CYRILLIC = re.compile(rb"[\xc0-\xff\xa8\xb8]{3,}")
_HIGH = re.compile(rb"[\x80-\xff]+")


def text_of(octets: bytes) -> str:
    """UTF-8 where it is that; else GB 2312, windows-1251 or windows-1252, by what it looks like."""
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        runs = _HIGH.findall(octets)
    if all(_COMMON_HANZI.fullmatch(run) for run in runs):
        return octets.decode("gb2312", "replace")
    if any(_CYRILLIC.fullmatch(run) for run in runs):
        return octets.decode("cp1251", "replace")
    return octets.decode("cp1252", "replace")
