"""The transport of ``webhook`` targets: the event as JSON, by POST, signed.

One request for each recipient, under a key that stays the same however often it is tried. Nothing
of the URL but host and port gets into a log or a report: the rest may be a secret.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from waypost.delivery.attachments import BASE64, NONE, AttachmentRules, attached
from waypost.delivery.events import EventReader
from waypost.delivery.transport import DeliveryJob, deferred, failed
from waypost.dns.resolver import Resolver
from waypost.errors import ConnectForbidden, PeerUnreachable, TemporaryError
from waypost.http.client import HttpClient, HttpFailed, HttpResponse, NoConnection, ResponseTooBig
from waypost.http.url import Url
from waypost.mail.address import Domain
from waypost.mail.envelope import Outcome, OutcomeKind, QueuedRecipient
from waypost.mail.message import QueuedMessage
from waypost.mail.reply import Reply
from waypost.net.gate import Gate, Origin
from waypost.net.networks import Networks
from waypost.observe import Log
from waypost.reading.event import MAX_TEXT
from waypost.routing.targets import Target
from waypost.smtp.auth import Secret

# Requests of one webhook at once.
WINDOW = 4
# More of a response is not of interest.
MAX_RESPONSE_BYTES = 65_536
# Characters of what a server says that are passed on.
MAX_WORDS = 120

# Mail made by HTTP says in this field by which hook, and behind how many others; an event of it
# says so too.
HOOKS_FIELD = "X-Waypost-HTTP"
HOOKS_HEADER = "X-Waypost-Hooks"
_HOOKS = re.compile(r"; hooks=([0-9]{1,4})")

PHRASES = {status.value: status.phrase for status in HTTPStatus}
# RFC 9110 §15.5.9, RFC 8470 §5.2, RFC 6585 §4: come back later.
_LATER = frozenset({408, 425, 429})
# Pieces of a URL's path and query that may be a secret; shorter ones are words or numbers.
_SECRET_LENGTH = 4


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """One [webhook.NAME]."""

    name: str
    url: Secret  # one that `Url.parse` has taken
    secret: Secret | None = None  # None: events are not signed
    ca: Path | None = None  # None: whom this system trusts
    attachments: str = NONE
    rules: AttachmentRules = field(default_factory=AttachmentRules)
    max_text: int = MAX_TEXT
    networks: tuple[str, ...] = ()
    timeout_s: float = 30.0


class Post(NamedTuple):
    """One request's event, for one recipient."""

    key: str  # Idempotency-Key: the same at every attempt
    values: dict[str, Any]


async def posts(
    events: EventReader,
    settings: WebhookSettings,
    message: QueuedMessage,
    recipients: Sequence[QueuedRecipient],
) -> list[Post]:
    """What is posted for each recipient; nothing is sent here. Raises TemporaryError."""
    event = await events.read(message, settings.max_text)
    values = event.json
    if settings.attachments == BASE64:
        values = {**values, "attachments": await attached(events, message, event, settings.rules)}
    return [
        Post(
            f"{message.queue_id}-{recipient.number}",
            {**values, "recipient": str(recipient.recipient.forward_path)},
        )
        for recipient in recipients
    ]


class _Hook:
    """One webhook with its client."""

    def __init__(self, settings: WebhookSettings, gate: Gate, resolver: Resolver) -> None:
        self.settings = settings
        self.url = Url.parse(settings.url.revealed, allows_clear=True)
        # An address the operator wrote is meant; where a name leads, others may decide.
        origin = Origin.NAMED if isinstance(self.url.host, Domain) else Origin.OPERATOR
        self.client = HttpClient(gate, resolver, origin)


class WebhookTransport:
    """Posts events."""

    def __init__(
        self, events: EventReader, *, gate_of: Callable[[Networks], Gate], log: Log
    ) -> None:
        """`gate_of` makes a gate for names that may lead into these networks."""
        self._events = events
        self._gate_of = gate_of
        self._log = log
        self._hooks: dict[str, _Hook] = {}

    def configure(self, webhooks: Sequence[WebhookSettings], resolver: Resolver) -> None:
        """From now on these, and names by this resolver."""
        self._hooks = {
            settings.name: _Hook(settings, self._gate_of(Networks(settings.networks)), resolver)
            for settings in webhooks
        }

    def destination(self, target: Target, recipient: QueuedRecipient) -> str:
        """See Transport."""
        return str(target)

    def window(self) -> int:
        """See Transport."""
        return WINDOW

    async def deliver(self, job: DeliveryJob) -> list[Outcome]:
        """See Transport."""
        name = job.target.argument
        hook = self._hooks.get(name)
        if hook is None:
            reply = deferred(f"no [webhook.{name}] is configured any more", (3, 5))
            return [_outcome(reply)] * len(job.recipients)
        said = await self._events.values(job.message, HOOKS_FIELD.lower())
        passed = _HOOKS.search("".join(said[:1]))
        outcomes: list[Outcome] = []
        for post in await posts(self._events, hook.settings, job.message, job.recipients):
            body = await asyncio.to_thread(_encoded, post.values)
            try:
                outcome = await self._posted(hook, post.key, passed[1] if passed else None, body)
            except ConnectForbidden as error:
                self._log.event("forbidden", id=job.message.queue_id, to=job.target, why=error)
                text = f"webhook {name} leads to where it may not; the hub's log says more"
                outcome = _outcome(deferred(text, (7, 1)))
            except TemporaryError as error:
                # Without the URL's path, which the error has in front.
                why = str(error).removeprefix(f"{hook.url}: ")
                text = f"webhook {name} ({hook.url.authority}): {why}"
                if not outcomes:
                    if not isinstance(error, HttpFailed):
                        raise
                    is_away = isinstance(error, NoConnection)
                    raise PeerUnreachable(text, never_connected=is_away) from error
                outcome = _outcome(deferred(text, error.status))
            outcomes.append(outcome)
            if outcome.kind is OutcomeKind.DEFERRED:
                # The others would fare no better now.
                outcomes += [outcome] * (len(job.recipients) - len(outcomes))
                break
        return outcomes

    async def _posted(self, hook: _Hook, key: str, passed: str | None, body: bytes) -> Outcome:
        """What one request came to. Raises as `HttpClient.fetch`.

        `passed`: how many hooks the mail has come through; None: it was no hook's.
        """
        settings = hook.settings
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": key,
            "X-Waypost-Timestamp": timestamp,
        }
        if passed is not None:
            headers[HOOKS_HEADER] = passed
        if settings.secret is not None:
            headers["X-Waypost-Signature"] = signature(settings.secret, timestamp, body)
        try:
            response = await hook.client.fetch(
                *("POST", hook.url),
                headers=headers,
                body=body,
                ca=settings.ca,
                allows_clear=True,
                limit_bytes=MAX_RESPONSE_BYTES,
                timeout_s=settings.timeout_s,
            )
        except ResponseTooBig as error:
            response = HttpResponse(error.code, {}, b"")
        return judged(settings.name, response, hook.url)


def signature(secret: Secret, timestamp: str, body: bytes) -> str:
    """What proves that an event is from here, and of that second."""
    signed = timestamp.encode("ascii") + b"." + body
    return "v1=" + hmac.new(secret.revealed.encode(), signed, hashlib.sha256).hexdigest()


def judged(name: str, response: HttpResponse, url: Url) -> Outcome:
    """What a response means for the event (RFC 9110 §15)."""
    status = response.status
    text = f"webhook {name}: HTTP {status} {PHRASES.get(status, '')}".rstrip()
    if 200 <= status < 300:
        return _outcome(Reply(250, text, (0, 0)))
    if 300 <= status < 400:
        return _outcome(failed(f"{text}: redirects are not followed", (4, 4)))
    words = _said(response, url)
    if words:
        text += f": {words}"
    if status in _LATER or status >= 500:
        return _outcome(deferred(text, (4, 5)))._replace(wait_s=_wait_s(response))
    return _outcome(failed(text))


def _outcome(reply: Reply) -> Outcome:
    return Outcome.of(reply, success=OutcomeKind.DELIVERED)


def _encoded(values: dict[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode("ascii")


def _said(response: HttpResponse, url: Url) -> str:
    """The first words of a response that can be shown, less what the URL may hold of secrets."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("text/plain", "application/json", "application/problem+json"):
        return ""
    text = " ".join(response.body[: 8 * MAX_WORDS].decode("utf-8", "replace").split())
    for piece in re.split(r"[/?&=;]", url.target):
        if len(piece) >= _SECRET_LENGTH:
            text = text.replace(unquote(piece), "***").replace(piece, "***")
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text[:MAX_WORDS])


def _wait_s(response: HttpResponse) -> float:
    """Retry-After in seconds (RFC 9110 §10.2.3); 0: there is none that can be read."""
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
