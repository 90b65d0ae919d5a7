"""Texts of parts as people read them: plain, flowed, or laid out from HTML."""

from __future__ import annotations

import re

from inscriptis import get_text

_LINE_BREAK = re.compile(r"\r\n?|\n")
_MANY_BLANK = re.compile(r"\n{4,}")
_QUOTES = re.compile(r">*")


def plain_text(text: str) -> str:
    """Lines that end in "\\n"."""
    return _LINE_BREAK.sub("\n", text.replace("\0", ""))


def flowed_text(text: str, *, deletes_space: bool) -> str:
    """format=flowed (RFC 3676 §4): lines that were broken for sending become one."""
    lines: list[str] = []
    paragraph: list[str] = []
    depth = 0
    for line in text.split("\n"):
        quotes = _QUOTES.match(line)
        assert quotes is not None
        marks = quotes[0]
        body = line[len(marks) :].removeprefix(" ")  # space-stuffing
        if paragraph and (len(marks) != depth or body == "-- "):
            lines.append("".join(paragraph))  # a flowed line before another depth ends there
            paragraph = []
        if not paragraph:
            depth = len(marks)
            if marks:
                paragraph.append(marks + " ")
        is_flowed = body.endswith(" ") and body != "-- "
        paragraph.append(body[:-1] if is_flowed and deletes_space else body)
        if not is_flowed:
            lines.append("".join(paragraph))
            paragraph = []
    if paragraph:
        lines.append("".join(paragraph))
    return "\n".join(lines)


def html_text(html: str) -> str:
    """What a browser would show, in lines and columns."""
    laid_out = "\n".join(line.rstrip() for line in get_text(html).split("\n"))
    return _MANY_BLANK.sub("\n\n\n", plain_text(laid_out)).strip("\n")
