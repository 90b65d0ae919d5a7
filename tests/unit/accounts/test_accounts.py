"""Who may log in: names, passwords, and what tells nobody which of them exist."""

from __future__ import annotations

import pytest
from argon2.exceptions import VerificationError

from waypost.accounts import passwords
from waypost.accounts.accounts import Account, Accounts, folded
from waypost.accounts.passwords import (
    check_hash,
    hash_password,
    nobodys_hash,
    scram_keys,
    verify_password,
)
from waypost.mail.address import Address
from waypost.routing.patterns import AddressGlob
from waypost.smtp.auth import Secret

PASSWORD = Secret("pässword")
HASH = Secret(hash_password(PASSWORD))
KEYS = scram_keys(PASSWORD)


def accounts(*names: str, scram: bool = False) -> Accounts:
    return Accounts(Account(name, HASH, scram=KEYS if scram else None) for name in names)


def name_of(account: Account | None) -> str | None:
    return None if account is None else account.name


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("cam1", "cam1"),
        ("CAM1", "cam1"),
        ("cam1@anything", "cam1"),
        ("cam1@", "cam1"),
        ("cam1@a@b", None),
        ("@cam1", None),
        ("", None),
        ("@", None),
        ("ann@plant.example", "Ann@plant.example"),
        ("ann@plant.example@more", "Ann@plant.example"),
        ("ann", None),
        ("ann@other.example", None),
        ("jürgen", "jürgen"),
        ("ju\u0308rgen", "jürgen"),
        ("JÜRGEN", "jürgen"),
    ],
)
def test_names(said: str, found: str | None) -> None:
    assert name_of(accounts("cam1", "Ann@plant.example", "jürgen").find(said)) == found


def test_of_two_with_one_name_the_first_counts() -> None:
    first, second = Account("ann", HASH), Account("ANN")
    assert Accounts([first, second]).find("ann") is first
    assert len(Accounts([first, second])) == 1


def test_folding_is_done_once() -> None:
    for text in ("Straße", "STRASSE", "\u1fd3", "\u0390", "\u212a", "İ"):
        assert folded(folded(text)) == folded(text)


def test_passwords() -> None:
    all_of = accounts("ann")
    assert name_of(all_of.verify("ann", PASSWORD)) == "ann"
    assert name_of(all_of.verify("ANN@x", PASSWORD)) == "ann"
    assert all_of.verify("ann", Secret("wrong")) is None
    assert all_of.verify("bob", PASSWORD) is None
    assert Accounts([Account("ann")]).verify("ann", PASSWORD) is None  # by token only
    assert Accounts().verify("", Secret("")) is None


def test_every_claim_is_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """One check of a hash, with the same costs, whoever the name belongs to."""
    checked: list[str] = []

    def verify(self: object, kept: str, password: str) -> bool:
        checked.append(kept)
        return True

    monkeypatch.setattr(passwords.PasswordHasher, "verify", verify)
    for all_of, name in (
        (accounts("ann"), "ann"),
        (accounts("ann"), "bob"),
        (Accounts([Account("ann")]), "ann"),
    ):
        checked.clear()
        all_of.verify(name, PASSWORD)
        assert len(checked) == 1
        assert checked[0].rpartition("$")[0].rpartition("$")[0] == "$argon2id$v=19$m=19456,t=2,p=1"


def test_a_hash_of_nobody_fits_nothing() -> None:
    assert nobodys_hash() == nobodys_hash()
    for guess in ("", "x", PASSWORD.revealed):
        assert not verify_password(nobodys_hash(), Secret(guess))


def test_lack_of_memory_is_no_wrong_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gave the right password must not be told that it is wrong."""

    def verify(self: object, kept: str, password: str) -> bool:
        raise VerificationError("Memory allocation error")

    monkeypatch.setattr(passwords.PasswordHasher, "verify", verify)
    with pytest.raises(VerificationError):
        accounts("ann").verify("ann", PASSWORD)


def test_hashes_as_given() -> None:
    assert check_hash(HASH.revealed) == HASH.revealed
    for text in ("", "secret", "$2b$12$abc", "$argon2id$v=19$m=1", "{SSHA}abc"):
        with pytest.raises(ValueError, match="waypost user hash"):
            check_hash(text)


def test_a_password_that_scram_cannot_take() -> None:
    with pytest.raises(ValueError, match="SCRAM"):
        scram_keys(Secret("a\tb"))


# Keys for SCRAM.


def test_keys_of_somebody() -> None:
    all_of = accounts("ann", scram=True)
    assert all_of.has_scram
    for name in ("ann", "ANN", "ann@phone"):
        assert all_of.keys_of(name) == KEYS


def test_keys_of_nobody_look_the_same() -> None:
    all_of = Accounts([Account("ann", HASH, scram=KEYS), Account("bob", HASH)])
    seen = set()
    for name in ("nobody", "bob", "somebody"):
        made = all_of.keys_of(name)
        assert made.iterations == KEYS.iterations
        assert [len(part) for part in made[:3]] == [len(part) for part in KEYS[:3]]
        seen.add(made)
        # Asked again, in another spelling, or with a domain: as for a name that exists.
        assert all_of.keys_of(name.upper()) == made
        assert all_of.keys_of(f"{name}@phone") == made
    assert len(seen) == 3


def test_keys_of_nobody_outlast_reload_and_restart() -> None:
    """Else whoever asks twice knows which names are real."""
    before = Accounts([Account("ann", HASH, scram=KEYS)])
    after = Accounts(
        [Account("ann", HASH, scram=KEYS), Account("new", HASH, scram=scram_keys(PASSWORD))]
    )
    assert before.keys_of("nobody") == after.keys_of("nobody")


def test_without_keys_there_is_no_scram() -> None:
    assert not accounts("ann").has_scram
    assert accounts("ann").keys_of("ann") != Accounts().keys_of("ann")


# Senders.


@pytest.mark.parametrize(
    ("sender", "may"),
    [
        ("ann@plant.example", True),
        ("ANN@Plant.example", True),
        ("ann+x@plant.example", False),  # that is for its mailbox to say
        ("bob@plant.example", False),
        ("scan7@plant.example", True),
        ("cam@[192.168.1.7]", True),
        ("cam@[IPv6:::ffff:192.168.1.7]", True),
        ("cam@[192.168.2.7]", False),
        ('"x@plant.example"@evil.example', False),
        ('"scan@plant.example"@evil.example', False),
    ],
)
def test_senders(sender: str, may: bool) -> None:
    patterns = (AddressGlob("scan?@plant.example"), AddressGlob("*@[192.168.1.0/24]"))
    account = Account("ann@plant.example", HASH, patterns)
    assert account.may_use(Address.parse(sender)) is may


def test_an_account_shows_no_secret() -> None:
    shown = repr(Account("ann", HASH, scram=KEYS))
    assert "argon2" not in shown
    assert repr(KEYS.stored_key) not in shown
