"""Messages of MQTT as the mail they ask for, and the answers to requests. Values only."""

from __future__ import annotations

import contextlib
import json
from hashlib import sha256
from typing import Any

from waypost.intake.requests import RequestRefused, SendRequest, read_json, read_request
from waypost.mail.reply import Reply
from waypost.mqtt.inbound import ForRoute, Purpose, Request
from waypost.mqtt.message import Received

# In mail that was made of a message: it is not published again (delivery/mqtt), or it would go
# round.
FIELD = "X-Waypost-MQTT"
# What a request's "transaction" may have, as JSON: it goes back to others than who sent it.
MAX_TRANSACTION = 4_096

_MAX_SUBJECT = 200
# Levels of a topic that templates know, and octets of a payload that is looked at as JSON.
_MAX_LEVELS = 32
_MAX_JSON = 1 << 20


def request_of(purpose: Purpose, received: Received) -> SendRequest:
    """The mail a message asks for. Raises RequestRefused. Slow for large ones."""
    topic, payload = received.topic, received.payload
    if isinstance(purpose, Request):
        return read_request(payload)
    text = payload.decode("utf-8", "replace")
    if isinstance(purpose, ForRoute):
        first = text.partition("\n")[0].strip()
        is_subject = first.isprintable() and 0 < len(first) <= _MAX_SUBJECT
        return SendRequest(
            route=purpose.name, subject=first if is_subject else f"Message on {topic}", text=text
        )
    values = _values(topic, text, payload)
    try:
        return SendRequest(
            to=tuple(map(str, purpose.to)),
            route=purpose.route,
            sender=None if purpose.sender is None else str(purpose.sender),
            subject=purpose.subject.fill(values),
            text=purpose.text.fill(values),
        )
    except RecursionError:  # of JSON that is put into a text again
        raise RequestRefused("its JSON is too deep") from None


def mark_of(received: Received) -> str:
    """What the field says: the same when the broker sends a message again, and the topic."""
    topic = received.topic.encode("utf-8", "replace")
    found = sha256(topic + b"\0" + received.payload).hexdigest()[:16]
    return f"{found}-{received.packet_id} ({received.topic[:_MAX_SUBJECT]})"


def answer_to(reply: Reply, transaction: object) -> bytes:
    """What whoever sent a request is told."""
    answer: dict[str, Any]
    if reply.is_positive:
        answer = {"status": "ok", "id": reply.text.removeprefix("queued as ")}
    else:
        answer = {
            "status": "error",
            "error": reply.text,
            "code": reply.code,
            "enhanced": reply.enhanced,
        }
    try:
        # JSON has no NaN, though Python reads it.
        told = json.dumps(transaction, allow_nan=False)
    except (ValueError, RecursionError):
        told = ""
    if transaction is not None and 0 < len(told) <= MAX_TRANSACTION:
        answer["transaction"] = transaction
    return json.dumps(answer).encode()


def _values(topic: str, text: str, payload: bytes) -> dict[str, object]:
    """What templates of [[mqtt.subscribe]] may name."""
    values: dict[str, object] = {"topic": topic, "payload": text}
    for number, level in enumerate(topic.split("/", _MAX_LEVELS)[:_MAX_LEVELS]):
        values[f"topic.{number}"] = level
    # What is a text, or JSON that is too large, has no values: templates find them empty.
    if len(payload) <= _MAX_JSON:
        with contextlib.suppress(RequestRefused):
            values["json"] = read_json(payload)
    return values
