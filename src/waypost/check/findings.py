"""Facts about an address, and which of them decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from waypost.check.reasons import REASONS
from waypost.check.verdict import Reason


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about an address."""

    code: str  # of REASONS
    text: str  # what exactly was found
    at: int | None = None  # offset in the input; None: it is about no place in it
    is_forced: bool = False  # by a sandbox address: it decides

    @property
    def reason(self) -> Reason:
        """What its code means."""
        return REASONS[self.code]


def weigh(findings: Sequence[Finding]) -> Finding:
    """The finding that decides: the worst of those that decide anything.

    Those that say only "well so far" decide where nothing else does, and the last of them knows
    most. Raises ValueError where none decides.
    """
    for finding in findings:
        if finding.is_forced:
            return finding
    deciding = [finding for finding in findings if finding.reason.verdict is not None]
    if not deciding:
        raise ValueError("nothing that was found decides anything")
    final = [finding for finding in deciding if not finding.reason.is_provisional]
    return max(final, key=_score) if final else deciding[-1]


def _score(finding: Finding) -> int:
    verdict = finding.reason.verdict
    assert verdict is not None
    return verdict.score
