"""The names of our mailboxes and lists: which exist, and which one a local part means.

Each belongs to a domain or to the hub. An id is the name, with "@domain" behind it where it belongs
to one. Where mailboxes lie on disk is delivery/maildir's matter.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from waypost.mail.address import render_local_part
from waypost.routing.targets import BOUNCES, OWNER, Target

POSTMASTER = "postmaster"
# The scope of what belongs to the hub itself; any other scope is a domain in ASCII.
HUB = ""


@dataclass(frozen=True, slots=True)
class MailboxSettings:
    """[mailboxes], [[mailbox]] and the names of [list.*]; all names are ids."""

    auto_create: bool = True  # for trusted clients only
    root: str = "mail"  # below the data directory, or absolute
    fold_case: bool = True
    subaddress: str = "+"  # empty: none
    names: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()  # (alias, mailbox)
    catch_alls: tuple[tuple[str, str], ...] = ()  # (scope, mailbox)
    lists: tuple[tuple[str, str], ...] = ()  # (id, list)


def id_of(name: str, scope: str) -> str:
    """The id of a name that belongs to a scope."""
    return f"{name}@{scope}" if scope else name


class MailboxNames:
    """The live set of mailboxes, beside the aliases and lists of the configuration."""

    def __init__(self, settings: MailboxSettings, existing: Iterable[str] = ()) -> None:
        self._settings = settings
        self._configured: dict[str, Target] = {}  # lists and aliases
        for entry, name in settings.lists:
            local_part, at, scope = self._fold_id(entry).partition("@")
            for suffix in (BOUNCES, f"-{OWNER}"):
                owner = Target("list", f"{name}:{OWNER}")
                self._configured.setdefault(f"{local_part}{suffix}{at}{scope}", owner)
            self._configured[self._fold_id(entry)] = Target("list", name)
        for alias, to in settings.aliases:
            self._configured[self._fold_id(alias)] = Target("mailbox", self._fold_id(to))
        self._catch_alls = {
            scope: Target("mailbox", self._fold_id(name)) for scope, name in settings.catch_alls
        }
        self._names: dict[str, Target] = {}
        self._scopes = {_scope_of(entry) for entry in self._configured}  # in which there is any
        for name in (POSTMASTER, *settings.names, *existing):
            self.add(self._fold_id(name))

    def find(self, local_part: str, scope: str = HUB) -> Target | None:
        """What a local part means among those that belong to a scope; None: nothing.

        Aliases win over lists, lists over mailboxes; the part after the sub-address separator is
        dropped when the whole is none of them. Postmaster always exists (RFC 5321 §4.5.1).
        """
        if scope not in self._scopes:
            return None
        name = self.fold(local_part)
        found = self._entry(id_of(name, scope))
        if found is None and (base := self._base(name)) != name:
            found = self._entry(id_of(base, scope))
        return found

    def _entry(self, entry: str) -> Target | None:
        return self._configured.get(entry) or self._names.get(entry)

    def resolve(self, local_part: str, scope: str = HUB) -> str:
        """The id of the mailbox a local part means, whether it exists or not."""
        found = self.find(local_part, scope)
        if found is not None and found.kind == "mailbox":
            return found.argument
        return id_of(self._base(self.fold(local_part)), scope)

    def named(self, text: str) -> str:
        """The id of the mailbox an operator means by a name, an address or an id."""
        entry = self._fold_id(text)
        if self.exists(entry):
            return entry
        local_part = text if text.endswith('"') else text.rpartition("@")[0] or text
        return self.resolve(local_part)  # one of the hub, under whatever name of it

    def catch_all(self, scope: str = HUB) -> Target | None:
        """The mailbox that takes what no other of the scope does; None: there is none."""
        return self._catch_alls.get(scope)

    def new(self, local_part: str, scope: str = HUB) -> Target | None:
        """The mailbox a trusted client makes by mailing it; None: it may not."""
        entry = self.resolve(local_part, scope)
        # No target can name the mailbox of ""@ (RFC 5321 allows that): mail for it would wait.
        return Target("mailbox", entry) if entry and self._settings.auto_create else None

    def exists(self, entry: str) -> bool:
        """True for the id of a mailbox."""
        return entry in self._names

    def add(self, entry: str) -> None:
        """A mailbox was made."""
        self._names[entry] = Target("mailbox", entry)
        self._scopes.add(_scope_of(entry))

    def carry_over(self, other: MailboxNames) -> None:
        """Know what `other` knew to exist; for a new configuration of a running hub."""
        for entry in other._names:
            self.add(entry)

    def fold(self, name: str) -> str:
        """The one form of a name's spellings."""
        # Look-alikes that differ in composition only are one (Unicode TR 15).
        name = unicodedata.normalize("NFC", name)
        if "@" in name:
            name = render_local_part(name)  # in quotes, so that it is nobody's name@domain
        folded = name.casefold()
        # RFC 5321 §4.5.1: postmaster has no case, whatever else has.
        return folded if self._settings.fold_case or folded == POSTMASTER else name

    def mailbox_of(self, target: Target) -> Target:
        """The mailbox an address of that name reaches, however a rule spells it."""
        return Target("mailbox", self._fold_id(target.argument))

    def detail_of(self, local_part: str, name: str) -> str | None:
        """The sub-address of a name, as it is written; empty: it has none. None: the local part is
        no spelling of the name.
        """
        base, _, detail = local_part.partition(self._settings.subaddress)
        return detail if self.fold(base) == self.fold(name) else None

    def _base(self, name: str) -> str:
        separator = self._settings.subaddress
        return (name.partition(separator)[0] or name) if separator else name

    def _fold_id(self, entry: str) -> str:
        name, at, scope = entry.rpartition("@")
        if not at or entry.endswith('"'):
            # A name alone, perhaps in quotes already, as a directory says it.
            return entry if entry.startswith('"') else self.fold(entry)
        # Quotes, too, as a directory says them: "a@b"@plant.example.
        return id_of(name if name.startswith('"') else self.fold(name), scope.lower())


def _scope_of(entry: str) -> str:
    """The scope of an id; a name in quotes may hold an @ of its own."""
    return HUB if entry.endswith('"') else entry.rpartition("@")[2] if "@" in entry else HUB
