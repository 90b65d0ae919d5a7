"""Who was told what about which mail, and what became of it: the proof of a fault test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fault.mail import Copy
from waypost.mail.envelope import QueueId
from waypost.queue.history import History, Search

MAILBOX, RELAY = "mailbox", "relay"


@dataclass(slots=True)
class Sent:
    """One mail and what its client was told, over all attempts."""

    ident: str
    places: tuple[str, ...]  # where it is to arrive: MAILBOX, RELAY
    acknowledged: list[str] = field(default_factory=list)  # queue ids, one for each 250
    cut: int = 0  # attempts whose connection broke after the content had begun
    refused: list[str] = field(default_factory=list)  # the replies


@dataclass(slots=True)
class Ledger:
    """All of a test's mail."""

    sent: dict[str, Sent] = field(default_factory=dict)
    found: dict[str, dict[str, Counter[str]]] = field(
        default_factory=lambda: {MAILBOX: {}, RELAY: {}}
    )  # place -> ident -> queue id -> copies
    damaged: list[Copy] = field(default_factory=list)
    kills: list[tuple[float, float]] = field(default_factory=list)  # UTC; just before and after

    def open(self, ident: str, *places: str) -> Sent:
        """A new mail."""
        sent = self.sent[ident] = Sent(ident, places)
        return sent

    def collect(self, place: str, copies: Iterable[Copy]) -> None:
        """Mail that has arrived."""
        for copy in copies:
            if not copy.is_intact:
                self.damaged.append(copy)
                continue
            by_id = self.found[place].setdefault(copy.ident, Counter())
            by_id[copy.queue_id] += 1

    @property
    def acknowledged(self) -> int:
        """Replies of 250."""
        return sum(len(sent.acknowledged) for sent in self.sent.values())

    @property
    def extra_copies(self) -> int:
        """Copies beyond the first of each mail at each place."""
        return sum(
            sum(by_id.values()) - 1 for place in self.found.values() for by_id in place.values()
        )

    def lost(self) -> list[str]:
        """Mail that was acknowledged and has not arrived where it should."""
        return [
            f"{sent.ident} ({queue_id}) at {place}"
            for sent in self.sent.values()
            for queue_id in sent.acknowledged
            for place in sent.places
            if queue_id not in self.found[place].get(sent.ident, {})
        ]

    def unexpected(self) -> list[str]:
        """Copies nobody can explain: of mail never sent, sent elsewhere, or only refused."""
        return [
            f"{ident} at {place}"
            for place, arrived in self.found.items()
            for ident, by_id in arrived.items()
            if ident not in self.sent
            or place not in self.sent[ident].places
            or len(by_id) > len(self.sent[ident].acknowledged) + self.sent[ident].cut
        ]

    def unexplained_duplicates(self, data: Path) -> list[str]:
        """Copies of one queue id beyond one for each kill between its accept and its end."""
        history = History(data)
        problems = []
        for place, arrived in self.found.items():
            for ident, by_id in arrived.items():
                for queue_id, copies in by_id.items():
                    if copies > 1 and copies - 1 > self._kills_during(history, queue_id):
                        problems.append(f"{copies} copies of {ident} ({queue_id}) at {place}")
        return problems

    def _kills_during(self, history: History, queue_id: str) -> int:
        [entry] = history.find(Search(queue_id=QueueId(queue_id)))
        assert entry.finished_at is not None
        return sum(
            after >= entry.accepted_at and before <= entry.finished_at
            for before, after in self.kills
        )

    def problems(self, data: Path) -> list[str]:
        """All that may not be: mail lost or damaged, and copies without a kill that explains them.

        `data` is the data directory of the hub, for its trace.
        """
        return [
            *(f"lost: {what}" for what in self.lost()),
            *(f"damaged: {copy}" for copy in self.damaged),
            *(f"unexpected: {what}" for what in self.unexpected()),
            *self.unexplained_duplicates(data),
        ]
