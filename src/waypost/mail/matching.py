"""When two addresses are taken for one, under a policy somebody chose (RFC 5321 §2.3.11).

Only the host of a mailbox knows what its local parts mean, so the keys made here are for comparing
and finding duplicates. They are never to be sent to.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from waypost.mail.address import Address, Domain, render_local_part


@dataclass(frozen=True, slots=True)
class Policy:
    """What makes no difference between two local parts."""

    folds_case: bool = False
    ignores_dots: bool = False
    subaddress: str = ""  # what begins a sub-address (RFC 5233), for example "+"; empty: none
    follows_providers: bool = False  # for the hosts of PROVIDERS their rules instead


EXACT = Policy()
FOLDED = Policy(folds_case=True)
LIKELY_SAME = Policy(folds_case=True, subaddress="+", follows_providers=True)


@dataclass(frozen=True, slots=True)
class Provider:
    """Rules a provider publishes for its own names."""

    policy: Policy
    same_as: str | None = None  # the name all mail of this one belongs to; None: its own


_PLUS = Policy(folds_case=True, subaddress="+")
_GMAIL = Policy(folds_case=True, ignores_dots=True, subaddress="+")
# Names of consumer mail only: hosted domains of the same providers set their own rules.
# Sources: support.google.com/mail/answer/7436150 and /22370; support.microsoft.com on aliases with
# "+"; support.apple.com on iCloud; fastmail.help on plus addressing; proton.me/support on aliases;
# help.yahoo.com on disposable addresses with "-".
PROVIDERS: dict[str, Provider] = {
    "gmail.com": Provider(_GMAIL),
    "googlemail.com": Provider(_GMAIL, same_as="gmail.com"),
    "outlook.com": Provider(_PLUS),
    "hotmail.com": Provider(_PLUS),
    "live.com": Provider(_PLUS),
    "icloud.com": Provider(_PLUS),
    "me.com": Provider(_PLUS, same_as="icloud.com"),
    "mac.com": Provider(_PLUS, same_as="icloud.com"),
    "fastmail.com": Provider(_PLUS),
    "fastmail.fm": Provider(_PLUS),
    "proton.me": Provider(_PLUS),
    "protonmail.com": Provider(_PLUS),
    "pm.me": Provider(_PLUS),
    "yahoo.com": Provider(Policy(folds_case=True, subaddress="-")),
    "ymail.com": Provider(Policy(folds_case=True, subaddress="-")),
}


def key(address: Address, policy: Policy = EXACT) -> str:
    """The same text for all addresses that `policy` takes for one. Not an address to send to."""
    domain = str(address.domain)
    if policy.follows_providers and isinstance(address.domain, Domain):
        provider = PROVIDERS.get(domain)
        if provider is not None:
            policy = provider.policy
            domain = provider.same_as or domain
    # Spellings that differ in composition only look the same to everybody (Unicode TR 15).
    local_part = unicodedata.normalize("NFC", address.local_part)
    if policy.folds_case:
        local_part = unicodedata.normalize("NFC", local_part.casefold())
    if policy.subaddress:
        # Postmaster+x is postmaster; "+x" alone has no mailbox before it and stays whole.
        local_part = local_part.partition(policy.subaddress)[0] or local_part
    if policy.ignores_dots:
        local_part = local_part.replace(".", "") or local_part
    return f"{render_local_part(local_part)}@{domain}"


def same(one: Address, other: Address, policy: Policy = EXACT) -> bool:
    """True when `policy` takes the two for one."""
    return key(one, policy) == key(other, policy)
