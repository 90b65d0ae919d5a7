"""Mail that programs ask for in JSON, whichever way it comes: over MQTT, over HTTP."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, NamedTuple

from waypost.errors import WaypostError
from waypost.mail.composing import AttachedFile

# More recipients or files than anybody asks for at once.
MAX_RECIPIENTS = 1_000
MAX_ATTACHMENTS = 100
MAX_KEY = 200
PRIORITIES = ("low", "normal", "high")

_KEYS = (
    *("to", "route", "from", "subject", "text", "html", "attachments"),
    *("priority", "dedupe_key", "transaction"),
)
# Each value is an object of its own in memory, and "[]," takes three octets on the way.
_MAX_VALUES = 2_000_000
_BEFORE_VALUES = (b",", b"[", b"{")

_BLANKS = re.compile(r"\s+")


class RequestRefused(WaypostError):
    """A request that cannot be read; says why, for whoever wrote it."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.transaction: object = None  # of the request, as far as it could be read


class SendRequest(NamedTuple):
    """What a program asks to be sent."""

    to: tuple[str, ...] = ()  # forward-paths as they were written; empty: `route` says
    route: str | None = None  # the name of the [[route]] whose targets get it; None: `to` says
    sender: str | None = None  # None: the program did not say
    subject: str = ""
    text: str = ""
    html: str | None = None  # the text, as HTML too
    attachments: tuple[AttachedFile, ...] = ()
    priority: str | None = None  # one of PRIORITIES
    dedupe_key: str | None = None  # the same in two requests: they are one
    transaction: object = None  # goes back with the answer


def read_request(octets: bytes) -> SendRequest:
    """Read a request. Raises RequestRefused. Slow for large ones.

    ``{"to":["a@[192.0.2.1]"],"subject":"…","text":"…"}``; "to" may be one address, or the name of
    a route, which "route" names too; also "from", "html", "priority", "dedupe_key", "transaction"
    and "attachments": ``[{"name":"a.jpg","type":"image/jpeg","data_base64":"…"}]``.
    """
    values = read_json(octets)
    if not isinstance(values, dict):
        raise RequestRefused("expected a JSON object")
    transaction = values.get("transaction")
    try:
        return _request(values)
    except RequestRefused as refused:
        refused.transaction = transaction
        raise


def read_json(octets: bytes) -> Any:
    """Any value of JSON in UTF-8. Raises RequestRefused."""
    if sum(map(octets.count, _BEFORE_VALUES)) > _MAX_VALUES:
        raise RequestRefused("expected JSON of fewer values")
    try:
        return json.loads(octets.decode("utf-8"))
    except UnicodeDecodeError:
        raise RequestRefused("expected JSON in UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise RequestRefused(f"expected JSON: {error}") from None


def _request(values: dict[str, Any]) -> SendRequest:
    for key in values:
        if key not in _KEYS:
            raise RequestRefused(f"unknown key {key[:50]!r}; known: {', '.join(_KEYS)}")
    to, route = _where_to(values)
    text, html = _text(values, "text"), _text(values, "html")
    priority = _text(values, "priority")
    if priority is not None and priority not in PRIORITIES:
        raise RequestRefused(f'"priority" is one of {", ".join(PRIORITIES)}')
    dedupe_key = _text(values, "dedupe_key")
    if dedupe_key is not None and not 0 < len(dedupe_key) <= MAX_KEY:
        raise RequestRefused(f'"dedupe_key" has at most {MAX_KEY} characters, and one at least')
    attachments = values.get("attachments") or []
    if not isinstance(attachments, list):
        raise RequestRefused('"attachments" is a list')
    if len(attachments) > MAX_ATTACHMENTS:
        raise RequestRefused(f"there are more than {MAX_ATTACHMENTS} attachments")
    return SendRequest(
        to=to,
        route=route,
        sender=_text(values, "from"),
        subject=_text(values, "subject") or "",
        text=text or "",
        html=html,
        attachments=tuple(map(_attachment, attachments)),
        priority=priority,
        dedupe_key=dedupe_key,
        transaction=values.get("transaction"),
    )


def _where_to(values: dict[str, Any]) -> tuple[tuple[str, ...], str | None]:
    to, route = values.get("to"), _text(values, "route")
    if isinstance(to, str):
        if "@" not in to and route is None:
            to, route = None, to
        else:
            to = [to]
    if to is None:
        to = []
    if not isinstance(to, list) or not all(isinstance(one, str) for one in to):
        raise RequestRefused('"to" is a list of addresses, or the name of a route')
    if bool(to) == bool(route):
        raise RequestRefused('either "to" or "route" says where it goes')
    if len(to) > MAX_RECIPIENTS:
        raise RequestRefused(f"there are more than {MAX_RECIPIENTS} recipients")
    return tuple(to), route


def _text(values: dict[str, Any], key: str) -> str | None:
    value = values.get(key)
    if value is None or isinstance(value, str):
        return value
    raise RequestRefused(f'"{key}" is a text')


def _attachment(value: object) -> AttachedFile:
    if not isinstance(value, dict) or set(value) - {"name", "type", "data_base64"}:
        raise RequestRefused('an attachment has "name", "type" and "data_base64"')
    name, data = _text(value, "name"), _text(value, "data_base64")
    if not name or data is None:
        raise RequestRefused('an attachment needs "name" and "data_base64"')
    try:
        # Lines, as many encoders write them, are no fault.
        octets = base64.b64decode(_BLANKS.sub("", data), validate=True)
    except (binascii.Error, ValueError):
        raise RequestRefused(f'"data_base64" of {name[:50]!r} is not base64') from None
    return AttachedFile(name, _text(value, "type") or "application/octet-stream", octets)
