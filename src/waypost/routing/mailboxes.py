"""The names of our mailboxes: which exist, and which one a local part means.

Where they lie on disk is delivery/maildir's matter.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

POSTMASTER = "postmaster"


@dataclass(frozen=True, slots=True)
class MailboxSettings:
    """[mailboxes] and [[mailbox]] of the configuration."""

    auto_create: bool = True  # for trusted clients only
    root: str = "mail"  # below the data directory, or absolute
    fold_case: bool = True
    subaddress: str = "+"  # empty: none
    names: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()  # (alias, mailbox)


class MailboxNames:
    """The live set of mailbox names."""

    def __init__(self, settings: MailboxSettings, existing: Iterable[str] = ()) -> None:
        self._settings = settings
        self._aliases = {self.fold(alias): self.fold(name) for alias, name in settings.aliases}
        self._names = {self.fold(name) for name in (*settings.names, *existing)}

    def resolve(self, local_part: str) -> str:
        """The mailbox a local part means, whether it exists or not.

        Aliases win over mailboxes; the part after the sub-address separator is dropped when the
        whole is neither.
        """
        name = self.fold(local_part)
        if name in self._aliases:
            return self._aliases[name]
        separator = self._settings.subaddress
        if separator and name not in self._names:
            base = name.partition(separator)[0]
            if base:
                return self._aliases.get(base, base)
        return name

    def exists(self, name: str) -> bool:
        """True for a resolved name that has a mailbox; postmaster always has (RFC 5321 §4.5.1)."""
        return name in self._names or name == POSTMASTER

    def add(self, name: str) -> None:
        """A mailbox was made."""
        self._names.add(name)

    def carry_over(self, other: MailboxNames) -> None:
        """Know what `other` knew to exist; for a new configuration of a running hub."""
        self._names |= other._names

    @property
    def may_create(self) -> bool:
        """True when a trusted client may make a mailbox by mailing it."""
        return self._settings.auto_create

    def fold(self, name: str) -> str:
        """The one form of a name's spellings."""
        # Look-alikes that differ in composition only are one (Unicode TR 15).
        name = unicodedata.normalize("NFC", name)
        folded = name.casefold()
        # RFC 5321 §4.5.1: postmaster has no case, whatever else has.
        return folded if self._settings.fold_case or folded == POSTMASTER else name
