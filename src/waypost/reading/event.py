"""The event that a mail becomes for programs: one flat object, whichever way it is sent.

Keys are only ever added, never renamed or given another meaning; `v` would change otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from waypost.mail.address import ip_text
from waypost.mail.envelope import Arrival, QueueId
from waypost.reading.values import ReadMail

VERSION = 1
# Characters; MQTT clients on small devices have buffers of a few KiB.
MAX_TEXT = 4_000


def page_of(web_url: str, queue_id: QueueId) -> str:
    """Where the web page at this URL shows a mail; its parts are below."""
    return f"{web_url.rstrip('/')}/message/{queue_id}"


def event_of(
    mail: ReadMail,
    arrival: Arrival,
    *,
    queue_id: QueueId,
    received_at: float,
    device: str,
    event_type: str,
    severity: str | None = None,
    tags: Sequence[str] = (),
    url: str | None = None,
    max_text: int = MAX_TEXT,
    more: int | None = None,
    suppressed: Sequence[Mapping[str, object]] = (),
    duplicate_of: str | None = None,
) -> dict[str, Any]:
    """The event as JSON has it. `received_at`, not the mail's Date, is the time: clocks of
    devices are wrong. `url`: where a person reads the mail; None: nowhere. `more`: how many others
    that were held back it stands for, and `suppressed` the first of them; None: it stands for
    itself. `duplicate_of`: the id under which the same mail was here before; None: it was not.
    """
    received = datetime.fromtimestamp(received_at, UTC).isoformat(timespec="milliseconds")
    return {
        "v": VERSION,
        "id": queue_id,
        "event_type": event_type,
        "device": device,
        "source_ip": None if arrival.client_ip is None else ip_text(arrival.client_ip),
        "received": received.replace("+00:00", "Z"),
        "subject": mail.subject,
        "text": mail.text[:max_text],
        "text_truncated": mail.text_truncated or len(mail.text) > max_text,
        "from": mail.from_[0].address if mail.from_ else None,
        "to": [one.address for one in mail.to],
        "message_id": mail.message_id or None,
        "severity": severity,
        "tags": list(tags),
        "attachments": [
            {
                "name": one.name,
                "type": one.type,
                "size": one.size,
                "sha256": one.sha256,
                "url": None if url is None else f"{url}/part/{number}",
            }
            for number, one in enumerate(mail.attachments, 1)
        ],
        "url": url,
        "more": more,
        "suppressed": list(suppressed),
        "duplicate_of": duplicate_of,
    }
