"""Which mailbox a local part means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.routing.mailboxes import MailboxNames, MailboxSettings

SETTINGS = MailboxSettings(
    names=("alerts", "Ann", "jürgen", "a+b"),
    aliases=(("root", "alerts"), ("Boss", "Ann"), ("cam+7", "alerts")),
)


def names(settings: MailboxSettings = SETTINGS, *existing: str) -> MailboxNames:
    return MailboxNames(settings, existing)


@pytest.mark.parametrize(
    ("local_part", "mailbox"),
    [
        ("alerts", "alerts"),
        ("ALERTS", "alerts"),
        ("ann", "ann"),
        ("root", "alerts"),
        ("ROOT", "alerts"),
        ("boss", "ann"),
        # Sub-addresses, unless the whole is a mailbox or an alias.
        ("alerts+motion", "alerts"),
        ("alerts+a+b", "alerts"),
        ("root+x", "alerts"),
        ("a+b", "a+b"),
        ("cam+7", "alerts"),
        ("cam+8", "cam"),
        ("+x", "+x"),
        ("alerts+", "alerts"),
        # Never rewritten (RFC 5321 §3.6.1 leaves them to the final host, which we are).
        ("a%b", "a%b"),
        ("b!a", "b!a"),
        ("a@b", '"a@b"'),
        ("nobody", "nobody"),
    ],
)
def test_folded_names(local_part: str, mailbox: str) -> None:
    assert names().resolve(local_part) == mailbox


def test_exact_names() -> None:
    exact = names(MailboxSettings(fold_case=False, names=("Ann",), aliases=(("Boss", "Ann"),)))
    assert exact.resolve("Ann") == "Ann"
    assert exact.resolve("Boss") == "Ann"
    assert exact.exists("Ann")
    assert not exact.exists(exact.resolve("ann"))
    assert not exact.exists(exact.resolve("boss"))


@pytest.mark.parametrize("fold_case", [True, False])
@pytest.mark.parametrize("local_part", ["postmaster", "Postmaster", "POSTMASTER"])
def test_postmaster_is_there_in_any_case(fold_case: bool, local_part: str) -> None:
    """RFC 5321 §4.5.1: reserved, and compared without case whatever else is exact."""
    mailboxes = names(MailboxSettings(fold_case=fold_case))
    assert mailboxes.exists(mailboxes.resolve(local_part))
    aliased = names(MailboxSettings(fold_case=fold_case, aliases=(("postmaster", "alerts"),)))
    assert aliased.resolve(local_part) == "alerts"


def test_composed_and_decomposed_letters_are_one() -> None:
    assert names().resolve("ju\u0308rgen") == names().resolve("j\u00fcrgen")
    assert names().exists(names().resolve("JU\u0308RGEN"))


def test_sub_addresses_may_be_off_or_other() -> None:
    assert names(MailboxSettings(subaddress="")).resolve("a+b") == "a+b"
    assert names(MailboxSettings(subaddress="-")).resolve("a-b") == "a"
    assert names(MailboxSettings(subaddress="-")).resolve("a+b") == "a+b"


def test_the_set_is_live() -> None:
    mailboxes = names(SETTINGS, "old")
    assert mailboxes.exists("old")
    assert not mailboxes.exists("new")
    mailboxes.add("new")
    assert mailboxes.exists("new")
    later = names()
    later.carry_over(mailboxes)
    assert later.exists("new")
    assert later.exists("old")


@given(st.text(max_size=30))
def test_any_local_part_means_one_mailbox(local_part: str) -> None:
    name = names().resolve(local_part)
    assert names().resolve(local_part) == name
    assert isinstance(names().exists(name), bool)
