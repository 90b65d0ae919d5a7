"""The hub's own authority: what it may speak for, what it issues, and how its files lie there."""

from __future__ import annotations

import datetime
import os
import re
import stat
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from waypost.tls.authority import (
    LEAF_DAYS,
    Authority,
    AuthorityError,
    Leaf,
    Subjects,
    is_due,
    subjects_of,
    write_public,
    write_secret,
)

NOW = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


def subjects(*texts: str) -> Subjects:
    """Addresses and names, told apart by their looks."""
    names = {text for text in texts if re.search(r"[g-z]", text)}
    return Subjects(frozenset(ip_address(ip) for ip in texts if ip not in names), frozenset(names))


OURS = subjects("192.168.1.5", "198.51.100.7", "2001:db8::7", "hub.example")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the authority lies; made by it."""
    return tmp_path / "data" / "tls"


@pytest.fixture
def authority(directory: Path) -> Authority:
    """One that speaks for OURS."""
    return Authority.create(directory, OURS, now=NOW)


def openssl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["openssl", *arguments], capture_output=True, text=True, timeout=20, check=False
    )


def judged(directory: Path, leaf: Leaf, *options: str, at: datetime.datetime = NOW) -> str:
    """What `openssl verify` says of a leaf."""
    path = directory / "leaf.pem"
    path.write_bytes(leaf.certificate)
    done = openssl(
        *("verify", "-x509_strict", "-purpose", "sslserver", *options),
        *("-attime", str(int(at.timestamp())), "-CAfile", str(directory / "ca.pem"), str(path)),
    )
    return done.stdout + done.stderr


def forged(directory: Path, *texts: str) -> Leaf:
    """A leaf that the authority would not have issued, made with its key."""
    key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    for path in (directory / "other", directory):
        path.mkdir(exist_ok=True)
    wide = Authority.create(directory / "other", subjects(*texts), now=NOW)
    root = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
    # Its issuer and signature are those of the narrow root, its wishes those of the wide one.
    leaf = wide.issue(subjects(*texts), is_rsa=False, now=NOW)
    wanted = x509.load_pem_x509_certificate(leaf.certificate)
    builder = (
        x509.CertificateBuilder()
        .subject_name(wanted.subject)
        .issuer_name(root.subject)
        .public_key(wanted.public_key())
        .serial_number(1)
        .not_valid_before(wanted.not_valid_before_utc)
        .not_valid_after(wanted.not_valid_after_utc)
    )
    for extension in wanted.extensions:
        value = extension.value
        if isinstance(value, x509.AuthorityKeyIdentifier):
            value = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
        builder = builder.add_extension(value, critical=extension.critical)
    signed = builder.sign(key, hashes.SHA256())
    return Leaf(signed.public_bytes(serialization.Encoding.PEM), leaf.key)


@pytest.mark.parametrize("is_rsa", [False, True])
def test_openssl_accepts_a_leaf_for_each_address_and_name(
    authority: Authority, directory: Path, is_rsa: bool
) -> None:
    leaf = authority.issue(OURS, is_rsa=is_rsa, now=NOW)
    for ip in OURS.ips:
        assert judged(directory, leaf, "-verify_ip", str(ip)).strip().endswith("OK")
    assert judged(directory, leaf, "-verify_hostname", "hub.example").strip().endswith("OK")
    assert "IP address mismatch" in judged(directory, leaf, "-verify_ip", "192.168.1.6")
    assert "hostname mismatch" in judged(directory, leaf, "-verify_hostname", "waypost.example")


def test_a_leaf_has_ip_sans_and_no_host_name_elsewhere(
    authority: Authority, directory: Path
) -> None:
    """RFC 5280 §4.2.1.6, and RFC 9525: the subject's name proves nothing."""
    leaf = authority.issue(OURS, is_rsa=False, now=NOW)
    path = directory / "leaf.pem"
    path.write_bytes(leaf.certificate)
    text = openssl("x509", "-in", str(path), "-noout", "-text").stdout
    found = re.search(r"Subject Alternative Name:[^\n]*\n([^\n]*)", text)
    assert found is not None
    assert sorted(found[1].split(", ")) == sorted(
        [
            "                DNS:hub.example",
            "IP Address:192.168.1.5",
            "IP Address:198.51.100.7",
            "IP Address:2001:DB8:0:0:0:0:0:7",
        ]
    )
    assert "CA:FALSE" in text
    assert "hub.example" not in openssl("x509", "-in", str(path), "-noout", "-subject").stdout


def test_the_root_is_constrained_and_signs_no_other_authority(directory: Path) -> None:
    Authority.create(directory, OURS, now=NOW)
    text = openssl("x509", "-in", str(directory / "ca.pem"), "-noout", "-text").stdout
    assert "X509v3 Name Constraints: critical" in text
    assert "CA:TRUE, pathlen:0" in text
    for permitted in ("IP:10.0.0.0/255.0.0.0", "IP:198.51.100.7/255.255.255.255"):
        assert permitted in text
    assert "Excluded" not in text


@pytest.mark.parametrize("subject", ["198.51.100.8", "2001:db8::8", "bank.example"])
def test_others_addresses_and_names_are_refused_by_us_and_by_openssl(
    authority: Authority, directory: Path, subject: str
) -> None:
    with pytest.raises(AuthorityError, match="speaks for private networks"):
        authority.issue(subjects(subject), is_rsa=False, now=NOW)
    assert "permitted subtree violation" in judged(directory, forged(directory, subject))


@pytest.mark.parametrize("subject", ["10.200.3.4", "fd12::1", "169.254.9.9", "fe80::1", "::1"])
def test_private_addresses_need_no_new_root(authority: Authority, subject: str) -> None:
    assert authority.issue(subjects(subject), is_rsa=False, now=NOW)


def test_names_below_a_permitted_one_are_allowed_and_look_alikes_are_not(
    authority: Authority,
) -> None:
    asked = subjects("printer.hub.example", "evilhub.example", "example", "hub.example.net")
    assert authority.allowed(asked) == subjects("printer.hub.example")


def test_a_root_without_names_speaks_for_no_name(directory: Path) -> None:
    """Without any dNSName among the constraints, all names would be permitted."""
    nameless = Authority.create(directory, subjects("10.0.0.1"), now=NOW)
    assert not nameless.allowed(subjects("bank.example"))
    assert "permitted subtree violation" in judged(directory, forged(directory, "bank.example"))


def test_nothing_to_stand_for_is_an_error(authority: Authority) -> None:
    with pytest.raises(AuthorityError, match="needs an address or a name"):
        authority.issue(Subjects(frozenset(), frozenset()), is_rsa=False, now=NOW)


def test_kinds_of_keys(authority: Authority) -> None:
    for is_rsa, kind in ((False, ec.EllipticCurvePrivateKey), (True, rsa.RSAPrivateKey)):
        leaf = authority.issue(OURS, is_rsa=is_rsa, now=NOW)
        key = serialization.load_pem_private_key(leaf.key, None)
        assert isinstance(key, kind)
        certificate = x509.load_pem_x509_certificate(leaf.certificate)
        assert certificate.public_key() == key.public_key()


def test_a_leaf_ends(authority: Authority, directory: Path) -> None:
    leaf = authority.issue(OURS, is_rsa=False, now=NOW, days=10)
    assert judged(directory, leaf, at=NOW + 9 * DAY).strip().endswith("OK")
    assert "certificate has expired" in judged(directory, leaf, at=NOW + 11 * DAY)
    # Clocks of devices are often behind.
    assert judged(directory, leaf, at=NOW - 1 * DAY).strip().endswith("OK")
    assert "not yet valid" in judged(directory, leaf, at=NOW - 3 * DAY)


@pytest.mark.parametrize(
    ("days", "due"), [(-5, True), (0, False), (200, False), (300, True), (500, True)]
)
def test_is_due(authority: Authority, days: int, due: bool) -> None:
    """With a third of its life left, and where the clock went back to before it began."""
    leaf = authority.issue(OURS, is_rsa=False, now=NOW, days=LEAF_DAYS)
    certificate = x509.load_pem_x509_certificate(leaf.certificate)
    assert is_due(certificate, now=NOW + days * DAY) is due


def test_subjects_of(authority: Authority) -> None:
    leaf = authority.issue(OURS, is_rsa=False, now=NOW)
    assert subjects_of(x509.load_pem_x509_certificate(leaf.certificate)) == OURS
    assert not subjects_of(authority.certificate)


def test_it_is_found_again(authority: Authority, directory: Path) -> None:
    again = Authority.load(directory)
    assert again is not None
    assert again.certificate == authority.certificate
    assert again.permitted() == authority.permitted()
    assert "198.51.100.7/32" in again.permitted()


def test_no_authority_is_none(tmp_path: Path) -> None:
    assert Authority.load(tmp_path) is None
    assert Authority.load(tmp_path / "nowhere") is None


def test_keys_are_for_their_owner_only(authority: Authority, directory: Path) -> None:
    before = os.umask(0)
    try:
        write_secret(directory / "leaf.key", b"secret")
        write_public(directory / "leaf.pem", b"public")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert modes == {"ca.key": 0o600, "ca.pem": 0o644, "leaf.key": 0o600, "leaf.pem": 0o644}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_no_file_laid_out_beforehand_gets_a_key(tmp_path: Path) -> None:
    """`waypost tls issue` may write where others may, too: a link, or a file they hold open."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"precious")
    (tmp_path / ".a.key.new").symlink_to(elsewhere)
    (tmp_path / "a.key").symlink_to(elsewhere)
    write_secret(tmp_path / "a.key", b"secret")
    assert elsewhere.read_bytes() == b"precious"
    assert (tmp_path / "a.key").read_bytes() == b"secret"
    assert not (tmp_path / "a.key").is_symlink()
    with (tmp_path / ".b.key.new").open("w+b") as held_open:
        write_secret(tmp_path / "b.key", b"secret")
        assert held_open.read() == b""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.key", "b.key", "elsewhere"]


def test_no_key_is_ever_shown(authority: Authority, directory: Path) -> None:
    key = (directory / "ca.key").read_text().splitlines()[1]
    assert key not in repr(authority)
    assert key not in str(authority)
    leaf = authority.issue(OURS, is_rsa=False, now=NOW)
    assert leaf.key.decode().splitlines()[1] not in repr(leaf)


def encrypted(key: bytes) -> bytes:
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


def test_damaged_files_are_named(authority: Authority, directory: Path) -> None:
    certificate, key = (directory / "ca.pem").read_bytes(), (directory / "ca.key").read_bytes()
    leaf = authority.issue(OURS, is_rsa=False, now=NOW)
    rsa_key = authority.issue(OURS, is_rsa=True, now=NOW).key
    cases: list[tuple[bytes, bytes, str]] = [
        (certificate[: len(certificate) // 2], key, "cannot be read"),
        (b"", key, "cannot be read"),
        (certificate, b"", "cannot be read"),
        (certificate, key[:-40], "cannot be read"),
        (certificate, encrypted(key), "encrypted"),
        (certificate, rsa_key, "no ECDSA key"),
        (certificate, leaf.key, "not the key of ca.pem"),
        (leaf.certificate, leaf.key, "no name constraints"),
    ]
    for damaged_certificate, damaged_key, words in cases:
        (directory / "ca.pem").write_bytes(damaged_certificate)
        (directory / "ca.key").write_bytes(damaged_key)
        with pytest.raises(AuthorityError, match=words) as caught:
            Authority.load(directory)
        assert str(directory) in str(caught.value)
