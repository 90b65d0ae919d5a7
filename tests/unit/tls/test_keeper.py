"""Which certificates the hub shows, and when they are made anew."""

from __future__ import annotations

import contextlib
import datetime
import ssl
import threading
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from waypost.mail.address import IPAddress
from waypost.tls.authority import Authority, AuthorityError, Leaf, Subjects, subjects_of
from waypost.tls.keeper import CertificateFault, Keeper, Prepared
from waypost.tls.settings import Profile, TlsSettings

OWN = TlsSettings()
DAY = datetime.timedelta(days=1)


def subjects(*ips: str, name: str = "hub.example") -> Subjects:
    return Subjects(frozenset(map(ip_address, ips)), frozenset({name}))


HERE = subjects("192.168.1.5", "fd00::5")


class Clock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.now = datetime.datetime.now(datetime.UTC)

    def __call__(self) -> datetime.datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keeper(tmp_path: Path, clock: Clock) -> Keeper:
    return Keeper(tmp_path / "tls", clock=clock)


def files(prepared: Prepared) -> list[bytes]:
    """The certificates, as they lie there now."""
    return [certificate.read_bytes() for certificate, _ in prepared.pairs]


def given(directory: Path, stem: str = "given", *, is_rsa: bool = False) -> TlsSettings:
    """A certificate from elsewhere."""
    now = datetime.datetime.now(datetime.UTC)
    elsewhere = Authority.create(directory / f"ca-{stem}", HERE, now=now)
    return saved(directory, stem, elsewhere.issue(HERE, is_rsa=is_rsa, now=now))


def saved(directory: Path, stem: str, leaf: Leaf) -> TlsSettings:
    certificate, key = directory / f"{stem}.pem", directory / f"{stem}.key"
    certificate.write_bytes(leaf.certificate)
    key.write_bytes(leaf.key)
    return TlsSettings(certificate, key)


def shown(
    keeper: Keeper, *, ciphers: str | None = None, profile: Profile = Profile.MODERN
) -> x509.Certificate:
    """What a client of TLS 1.2 is shown; `ciphers` as in "ECDHE+aRSA"."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    if ciphers is not None:
        client.set_ciphers(ciphers)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_side = keeper.context(profile).wrap_bio(there, back, server_side=True)
    client_side = client.wrap_bio(back, there)
    for side in (client_side, server_side) * 3:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    certificate = client_side.getpeercert(binary_form=True)
    assert certificate is not None
    return x509.load_der_x509_certificate(certificate)


def test_the_first_time_makes_an_authority_and_two_leaves(keeper: Keeper, tmp_path: Path) -> None:
    prepared = keeper.prepare(OWN, HERE)
    assert prepared.trouble is None
    assert [certificate.name for certificate, _ in prepared.pairs] == [
        "hub-ecdsa.pem",
        "hub-rsa.pem",
    ]
    keeper.load(prepared)
    assert subjects_of(shown(keeper)) == HERE
    for profile in Profile:
        for ciphers, kind in (("ECDHE+aECDSA", "ecdsa"), ("ECDHE+aRSA", "rsa")):
            pem = (tmp_path / "tls" / f"hub-{kind}.pem").read_bytes()
            expected = x509.load_pem_x509_certificate(pem)
            assert shown(keeper, ciphers=ciphers, profile=profile) == expected


def test_nothing_is_made_anew_without_need(keeper: Keeper, clock: Clock) -> None:
    before = files(keeper.prepare(OWN, HERE))
    clock.now += 100 * DAY
    assert files(keeper.prepare(OWN, HERE)) == before


def test_new_when_addresses_or_names_change(keeper: Keeper) -> None:
    before = files(keeper.prepare(OWN, HERE))
    moved = subjects("192.168.1.6")
    prepared = keeper.prepare(OWN, moved)
    assert not set(files(prepared)) & set(before)
    keeper.load(prepared)
    assert subjects_of(shown(keeper)) == moved


def test_new_when_old_and_when_the_clock_went_back(keeper: Keeper, clock: Clock) -> None:
    first = files(keeper.prepare(OWN, HERE))
    clock.now += 300 * DAY
    second = files(keeper.prepare(OWN, HERE))
    clock.now -= 300 * DAY
    third = files(keeper.prepare(OWN, HERE))
    assert len({*first, *second, *third}) == 6


def test_new_when_the_authority_is_another(keeper: Keeper, tmp_path: Path, clock: Clock) -> None:
    before = files(keeper.prepare(OWN, HERE))
    Authority.create(tmp_path / "tls", HERE, now=clock.now)
    assert not set(files(keeper.prepare(OWN, HERE))) & set(before)


@pytest.mark.parametrize("damage", ["gone", "empty", "another's"])
@pytest.mark.parametrize("suffix", ["pem", "key"])
def test_damaged_leaves_are_made_anew(
    keeper: Keeper, tmp_path: Path, suffix: str, damage: str
) -> None:
    """A power cut between two files must not keep the hub from starting."""
    keeper.prepare(OWN, HERE)
    path = tmp_path / "tls" / f"hub-ecdsa.{suffix}"
    if damage == "gone":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        elsewhere = given(tmp_path)
        assert elsewhere.certificate is not None
        path.write_bytes(elsewhere.certificate.with_suffix(f".{suffix}").read_bytes())
    keeper.load(keeper.prepare(OWN, HERE))
    assert subjects_of(shown(keeper)) == HERE


def test_a_damaged_authority_is_not_replaced_silently(keeper: Keeper, tmp_path: Path) -> None:
    """Devices trust it: the operator has to know."""
    keeper.prepare(OWN, HERE)
    (tmp_path / "tls" / "ca.key").write_bytes(b"")
    with pytest.raises(AuthorityError, match=r"ca\.key"):
        keeper.prepare(OWN, HERE)


def test_what_the_authority_may_not_speak_for_is_left_out_and_said(keeper: Keeper) -> None:
    keeper.prepare(OWN, HERE)
    prepared = keeper.prepare(OWN, subjects("192.168.1.5", "198.51.100.9", name="new.example"))
    assert prepared.trouble is not None
    for words in ("198.51.100.9", "new.example", "waypost tls init --force"):
        assert words in prepared.trouble
    keeper.load(prepared)
    assert subjects_of(shown(keeper)) == Subjects(
        frozenset({ip_address("192.168.1.5")}), frozenset()
    )


@pytest.mark.parametrize("is_rsa", [False, True])
def test_a_given_certificate_is_the_only_one_shown(
    keeper: Keeper, tmp_path: Path, is_rsa: bool
) -> None:
    """Also after one of ours with a key of the other kind."""
    keeper.load(keeper.prepare(OWN, HERE))
    settings = given(tmp_path, is_rsa=is_rsa)
    assert settings.certificate is not None
    keeper.load(keeper.prepare(settings, HERE))
    expected = x509.load_pem_x509_certificate(settings.certificate.read_bytes())
    for profile in Profile:
        assert shown(keeper, profile=profile) == expected


def test_no_authority_is_made_for_a_given_certificate(keeper: Keeper, tmp_path: Path) -> None:
    keeper.load(keeper.prepare(given(tmp_path), HERE))
    assert not (tmp_path / "tls").exists()


def bad_pairs(directory: Path) -> dict[str, TlsSettings]:
    """Certificates and keys that cannot be used, by a word of what is said."""
    fine, other = given(directory, "fine"), given(directory, "other")
    assert fine.certificate is not None
    assert fine.key is not None
    empty, locked = directory / "empty", directory / "locked"
    empty.write_bytes(b"")
    key = serialization.load_pem_private_key(fine.key.read_bytes(), None)
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    return {
        "MISMATCH": TlsSettings(fine.certificate, other.key),
        "passphrase": TlsSettings(fine.certificate, locked),
        "empty": TlsSettings(fine.certificate, empty),
        "empty with": TlsSettings(empty, fine.key),
        "No such file": TlsSettings(directory / "nowhere.pem", fine.key),
        "nowhere.key": TlsSettings(fine.certificate, directory / "nowhere.key"),
    }


def test_a_bad_pair_is_a_fault_in_words_and_changes_nothing(keeper: Keeper, tmp_path: Path) -> None:
    good = given(tmp_path, "good")
    keeper.load(keeper.prepare(good, HERE))
    before = shown(keeper)
    for words, settings in bad_pairs(tmp_path).items():
        prepared = keeper.prepare(settings, HERE)
        with pytest.raises(CertificateFault, match=words) as caught:
            keeper.load(prepared)
        assert str(settings.key) in str(caught.value)
        # The second of two being bad, the first must not be shown either.
        assert good.certificate is not None
        assert good.key is not None
        fresh = keeper.prepare(given(tmp_path, "fresh", is_rsa=True), HERE)
        with pytest.raises(CertificateFault):
            keeper.load(Prepared(fresh.pairs + prepared.pairs, None))
        for profile in Profile:
            assert shown(keeper, profile=profile) == before


def test_a_session_keeps_its_context(keeper: Keeper, tmp_path: Path) -> None:
    keeper.load(keeper.prepare(OWN, HERE))
    before = keeper.context(Profile.MODERN)
    keeper.load(keeper.prepare(given(tmp_path), HERE))
    assert keeper.context(Profile.MODERN) is not before


def test_only_one_prepares_at_a_time(keeper: Keeper) -> None:
    """A reload and a change of addresses may come together."""
    wishes = [subjects(f"192.168.1.{number}") for number in range(8)]
    faults: list[BaseException] = []

    def prepare(wanted: Subjects) -> None:
        try:
            keeper.prepare(OWN, wanted)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=prepare, args=(wanted,)) for wanted in wishes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    keeper.load(keeper.prepare(OWN, wishes[0]))


def test_profiles(keeper: Keeper) -> None:
    modern, legacy = keeper.context(Profile.MODERN), keeper.context(Profile.LEGACY)
    assert modern.minimum_version is ssl.TLSVersion.TLSv1_2
    assert legacy.minimum_version is ssl.TLSVersion.MINIMUM_SUPPORTED
    assert legacy.options & ssl.OP_NO_SSLv3
    for context in (modern, legacy):
        assert context.options & ssl.OP_NO_RENEGOTIATION


# Beside ours, a public one.


@pytest.mark.parametrize(
    ("local", "client", "name", "is_public"),
    [
        ("203.0.113.1", "198.51.100.9", None, True),
        ("203.0.113.1", "192.168.1.9", None, True),  # a device that was told the outer address
        ("192.168.1.5", "192.168.1.9", None, False),
        ("192.168.1.5", "198.51.100.9", None, True),  # through NAT
        ("100.64.0.5", "100.64.0.9", None, False),
        ("203.0.113.2", "198.51.100.9", None, False),  # another of ours, which ours stands for
        ("192.168.1.5", "192.168.1.9", "MAIL.plant.example", True),
        ("192.168.1.5", "192.168.1.9", "hub.example", False),
        (None, None, None, False),
    ],
)
@pytest.mark.parametrize("profile", Profile)
def test_a_public_certificate_is_for_those_from_outside(
    keeper: Keeper,
    tmp_path: Path,
    profile: Profile,
    local: str | None,
    client: str | None,
    name: str | None,
    is_public: bool,
) -> None:
    keeper.load(keeper.prepare(OWN, HERE))
    public = saved_public(tmp_path, "203.0.113.1")
    keeper.show_public(public)
    addresses = [None if each is None else ip_address(each) for each in (local, client)]
    assert (
        certificate_for(keeper, profile, *addresses, name) == public_octets(public)
    ) is is_public
    keeper.show_public(None)
    assert certificate_for(keeper, profile, *addresses, name) != public_octets(public)


def test_a_public_certificate_for_a_name_only_is_for_all_from_outside(
    keeper: Keeper, tmp_path: Path
) -> None:
    keeper.load(keeper.prepare(OWN, HERE))
    public = saved_public(tmp_path)
    keeper.show_public(public)
    ours, outside, inside = map(ip_address, ("203.0.113.2", "198.51.100.9", "10.0.0.9"))
    found = certificate_for(keeper, Profile.MODERN, ours, outside, None)
    assert found == public_octets(public)
    found = certificate_for(keeper, Profile.MODERN, ours, inside, None)
    assert found != public_octets(public)


def test_a_public_certificate_that_cannot_be_read_changes_nothing(
    keeper: Keeper, tmp_path: Path
) -> None:
    keeper.load(keeper.prepare(OWN, HERE))
    public = saved_public(tmp_path, "203.0.113.1")
    keeper.show_public(public)
    bad = tmp_path / "bad.pem"
    bad.write_text("nothing")
    with pytest.raises(CertificateFault, match=r"bad\.pem"):
        keeper.show_public(bad)
    local, client = ip_address("203.0.113.1"), ip_address("198.51.100.9")
    found = certificate_for(keeper, Profile.MODERN, local, client, None)
    assert found == public_octets(public)


def saved_public(directory: Path, *ips: str) -> Path:
    """A certificate of some other authority, with its key in front."""
    now = datetime.datetime.now(datetime.UTC)
    there = subjects(*ips, name="mail.plant.example")
    leaf = Authority.create(directory / "public", there, now=now).issue(
        there, is_rsa=False, now=now
    )
    file = directory / "public.pem"
    file.write_bytes(leaf.key + leaf.certificate)
    return file


def public_octets(file: Path) -> bytes:
    certificate = x509.load_pem_x509_certificates(file.read_bytes())[0]
    return certificate.public_bytes(serialization.Encoding.DER)


def certificate_for(
    keeper: Keeper,
    profile: Profile,
    local: IPAddress | None,
    client: IPAddress | None,
    name: str | None,
) -> bytes:
    """What a client between these addresses is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = context.wrap_bio(back, there, server_hostname=name)
    answering = keeper.context(profile, local, client).wrap_bio(there, back, server_side=True)
    for _ in range(4):
        for side in (asking, answering):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    octets = asking.getpeercert(binary_form=True)
    assert octets is not None
    return octets
