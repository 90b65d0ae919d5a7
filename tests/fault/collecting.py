"""What has arrived, wherever it was sent."""

from __future__ import annotations

from tests.fault.ledger import MAILBOX, RELAY, Ledger
from tests.fault.mail import take_copies
from tests.fault.sink import Sink
from tests.support.hub import Hub


def collect(hub: Hub, sink: Sink, ledger: Ledger) -> None:
    """Take what has arrived."""
    ledger.collect(MAILBOX, take_copies(hub.data / "mail"))
    ledger.collect(RELAY, sink.take_copies())
