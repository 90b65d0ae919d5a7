"""Accounts: what somebody may log in with, and which senders are theirs then."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

from waypost.mail.address import Address
from waypost.routing.patterns import AddressGlob
from waypost.smtp.auth import Secret
from waypost.smtp.sasl import ScramKeys

# PBKDF2 is all that guards SCRAM's keys, and the client has to compute it at every login.
SCRAM_ITERATIONS = 65_536
SCRAM_SALT_OCTETS = 16


@dataclass(frozen=True, slots=True)
class Account:
    """One account; its mailbox, where there is one, has the same name."""

    name: str
    password_hash: Secret | None = None  # Argon2, PHC form; None: by token only
    senders: tuple[AddressGlob, ...] = ()  # besides the addresses of its mailbox
    scram: ScramKeys | None = field(default=None, repr=False)  # None: not by SCRAM

    def may_use(self, sender: Address) -> bool:
        """True for its own name as an address, and for what `senders` says."""
        is_own_name = folded(str(sender)) == folded(self.name)
        return is_own_name or any(pattern.matches(sender) for pattern in self.senders)


class Accounts:
    """All accounts of a hub."""

    def __init__(self, accounts: Iterable[Account] = ()) -> None:
        """Of two with one name the first counts."""
        self._by_name: dict[str, Account] = {}
        for account in accounts:
            self._by_name.setdefault(folded(account.name), account)
        keys = [account.scram for account in self._by_name.values() if account.scram is not None]
        self.has_scram = bool(keys)
        # What is made up for nobody's names has to survive a restart, as real keys do.
        self._secret = keys[0].server_key if keys else secrets.token_bytes(32)

    def __len__(self) -> int:
        return len(self._by_name)

    def find(self, name: str) -> Account | None:
        """The account of a login name; None: there is none.

        "@" and what follows may be added to any, as some devices take nothing else for a name.
        """
        key = folded(name)
        return self._by_name.get(key) or self._by_name.get(key.rpartition("@")[0])

    def verify(self, name: str, password: Secret) -> Account | None:
        """The account, if the password is its own. Blocks, as long for one that does not exist."""
        # argon2 takes a while to load, and most commands never check a password.
        from waypost.accounts.passwords import nobodys_hash, verify_password

        account = self.find(name)
        kept = None if account is None else account.password_hash
        is_right = verify_password(nobodys_hash() if kept is None else kept.revealed, password)
        return account if is_right else None

    def keys_of(self, name: str) -> ScramKeys:
        """Keys for SCRAM; for a name without any, some that stay the same and fit no password."""
        account = self.find(name)
        if account is not None and account.scram is not None:
            return account.scram
        key = folded(name)
        # With "@" and more behind it a name has the same keys, as it would if it were somebody's.
        key = key.rpartition("@")[0] or key
        made = hmac.digest(self._secret, key.encode(), hashlib.sha256)
        return ScramKeys(made[:SCRAM_SALT_OCTETS], made, made[::-1], SCRAM_ITERATIONS)


def folded(name: str) -> str:
    """The one form of a name's spellings."""
    return unicodedata.normalize("NFC", name).casefold()
