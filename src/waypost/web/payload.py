"""What is posted to a hook, as templates use it: JSON, a form, or a text."""

from __future__ import annotations

import json
import re
from typing import NamedTuple
from urllib.parse import parse_qsl

from waypost.intake.requests import RequestRefused, read_json
from waypost.web.message import Request, refused

FORM = "application/x-www-form-urlencoded"
MAX_FORM_FIELDS = 1_000

_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s;"]*)', re.IGNORECASE)
# Others are slow, or no charsets at all.
_CHARSETS = {"": "utf-8", "utf-8": "utf-8", "us-ascii": "utf-8", "iso-8859-1": "latin-1"}


class Payload(NamedTuple):
    """What was posted."""

    text: str  # for people: JSON with one value a line
    json: object = None  # None: it is none
    form: dict[str, str] | None = None  # None: it is none


def charset_of(request: Request) -> str:
    """The charset of a text that can be taken. Raises Refused for anything else."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise refused(415, "send it as it is, without Content-Encoding")
    kind = request.media_type
    is_text = kind.startswith("text/") or kind.endswith(("json", "xml")) or kind in ("", FORM)
    if not is_text and kind != "application/octet-stream":
        raise refused(415, f"expected JSON, a form ({FORM}) or a text")
    named = _CHARSET.search(request.headers.get("content-type", ""))
    charset = _CHARSETS.get("" if named is None else named[1].lower())
    if charset is None:
        raise refused(415, "expected UTF-8")
    return charset


def read_payload(kind: str, charset: str, octets: bytes) -> Payload:
    """Read a body of this media type. Raises Refused. Slow for large ones."""
    if kind == FORM:
        return _form(octets.decode(charset, "replace"))
    try:
        value = read_json(octets.removeprefix(b"\xef\xbb\xbf"))
        # Without ASCII's escapes: it is for people.
        return Payload(json.dumps(value, indent=2, ensure_ascii=False), value)
    except RequestRefused as error:
        if kind.endswith("json"):
            raise refused(400, str(error)) from None
    except RecursionError:
        if kind.endswith("json"):
            raise refused(400, "the JSON goes too deep") from None
    return Payload(octets.decode(charset, "replace"))


def _form(text: str) -> Payload:
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, errors="replace", max_num_fields=MAX_FORM_FIELDS
        )
    except ValueError:
        raise refused(400, f"a form has at most {MAX_FORM_FIELDS} fields") from None
    lines = "".join(f"{name}: {value}\n" for name, value in pairs)
    return Payload(lines, form=dict(pairs))
