"""What an attachment is called and what it is: safe names, media types, magic octets."""

from __future__ import annotations

import mimetypes
import re
import unicodedata

# The longest name of a file on Linux, less room for a number.
MAX_NAME_OCTETS = 200
UNKNOWN = "application/octet-stream"

_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,100}")
_MAGIC = [
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"BM....\0\0\0\0", re.DOTALL), "image/bmp"),
    (re.compile(rb"II\*\0|MM\0\*"), "image/tiff"),
    (re.compile(rb"%PDF-"), "application/pdf"),
    (re.compile(rb"RIFF....AVI ", re.DOTALL), "video/x-msvideo"),
    (re.compile(rb"....ftyp", re.DOTALL), "video/mp4"),
]
_EXTENSIONS = {"message/rfc822": ".eml", "message/global": ".eml", "image/jpeg": ".jpg"}


def media_type(named: str, octets: bytes) -> str:
    """The type in lower case; of the octets' beginning where it says nothing or a picture's.

    Cameras send pictures as application/octet-stream, or name the wrong format.
    """
    if _TYPE.fullmatch(named) is None:
        named = UNKNOWN
    if named == UNKNOWN or named.startswith("image/"):
        for magic, found in _MAGIC:
            if magic.match(octets) is not None:
                return found
    return named


def safe_name(given: str, type_: str, number: int) -> str:
    """A name for display and for a file: no path, controls or leading dot, never empty.

    Characters that turn the direction of writing go too: they make "gpj.exe" of "exe.jpg".
    """
    last = re.split(r"[/\\]", given)[-1]
    kept = "".join(one for one in last if unicodedata.category(one)[0] not in "C")
    name = " ".join(kept.split()).lstrip(". ")
    if not name:
        extension = _EXTENSIONS.get(type_) or mimetypes.guess_extension(type_) or ".bin"
        return f"part-{number}{extension}"
    stem, dot, extension = name.rpartition(".")
    if not dot or len(extension) > 10:
        stem, dot, extension = name, "", ""
    room = MAX_NAME_OCTETS - len((dot + extension).encode())
    return stem.encode()[:room].decode("utf-8", "ignore") + dot + extension
