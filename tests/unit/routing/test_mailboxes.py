"""Which mailbox a local part means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.routing.mailboxes import MailboxNames, MailboxSettings
from waypost.routing.targets import Target

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


# What belongs to a domain.

SCOPED = MailboxSettings(
    names=("Sales@shop.example", "sales@plant.example", "ann", "rest@depot.example"),
    aliases=(("info@shop.example", "Sales@shop.example"), ("boss", "ann")),
    catch_alls=(("depot.example", "rest@depot.example"),),
    lists=(("ops", "ops"), ("Team@shop.example", "team")),
)


@pytest.mark.parametrize(
    ("local_part", "scope", "target"),
    [
        ("sales", "shop.example", "mailbox:sales@shop.example"),
        ("SALES+x", "shop.example", "mailbox:sales@shop.example"),
        ("info", "shop.example", "mailbox:sales@shop.example"),
        ("info+x", "shop.example", "mailbox:sales@shop.example"),
        ("info", "plant.example", None),
        ("sales", "", None),
        ("ann", "shop.example", None),
        ("ann", "", "mailbox:ann"),
        ("boss", "", "mailbox:ann"),
        ("boss", "shop.example", None),
        ("postmaster", "shop.example", None),
        ("postmaster", "", "mailbox:postmaster"),
        ("team", "shop.example", "list:team"),
        ("team+x", "shop.example", "list:team"),
        ("team", "", None),
        ("team-bounces", "shop.example", "list:team:owner"),
        ("TEAM-Owner", "shop.example", "list:team:owner"),
        ("ops-bounces", "", "list:ops:owner"),
        # An id is no address: nobody reaches a mailbox of a domain by writing its id.
        ("sales@shop.example", "", None),
        ("sales@shop.example", "plant.example", None),
    ],
)
def test_scopes(local_part: str, scope: str, target: str | None) -> None:
    found = names(SCOPED).find(local_part, scope)
    assert (None if found is None else str(found)) == target


def test_catch_alls_belong_to_a_scope() -> None:
    assert names(SCOPED).catch_all("depot.example") == Target("mailbox", "rest@depot.example")
    assert names(SCOPED).catch_all("shop.example") is None
    assert names(SCOPED).catch_all() is None


def test_an_alias_wins_over_a_list_and_a_list_over_a_mailbox() -> None:
    both = MailboxSettings(
        names=("ops", "ann"), aliases=(("ops-owner", "ann"),), lists=(("ops", "ops"),)
    )
    assert str(names(both).find("ops")) == "list:ops"
    assert str(names(both).find("ops-owner")) == "mailbox:ann"
    assert str(names(both).find("ops-bounces")) == "list:ops:owner"
    # A list of that name is what it says, not the owner of another.
    nested = MailboxSettings(lists=(("ops-owner", "ops-owner"), ("ops", "ops")))
    assert str(names(nested).find("ops-owner")) == "list:ops-owner"


@pytest.mark.parametrize("local_part", ["ann", "Ann+x", "a@b", '"x', 'x"', 'a@b"', '"a"', ""])
@pytest.mark.parametrize("scope", ["", "plant.example"])
def test_an_id_read_from_a_disk_is_the_same_one(local_part: str, scope: str) -> None:
    """Mailboxes that mail has made are known again after a restart."""
    made = names(SCOPED).new(local_part, scope)
    if not local_part and not scope:
        assert made is None  # a target could not name it
        return
    assert made is not None
    restarted = names(SCOPED, made.argument)
    assert restarted.find(local_part, scope) == made


def test_named_takes_ids_addresses_and_names() -> None:
    mailboxes = names(SCOPED)
    for text, entry in (
        ("sales@shop.example", "sales@shop.example"),
        ("SALES@Shop.example", "sales@shop.example"),
        ("ann", "ann"),
        ("boss", "ann"),
        ("ann@whatever.example", "ann"),
    ):
        assert mailboxes.named(text) == entry


@given(st.text(max_size=20), st.sampled_from(["", "plant.example", "shop.example"]))
def test_nobody_crosses_from_one_scope_into_another(local_part: str, scope: str) -> None:
    found = names(SCOPED).find(local_part, scope)
    if found is not None and found.kind == "mailbox" and not found.argument.endswith('"'):
        assert found.argument.rpartition("@")[2 if "@" in found.argument else 1] == scope
