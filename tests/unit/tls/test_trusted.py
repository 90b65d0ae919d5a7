"""Authorities of other sites: what is one, and how it is kept."""

from __future__ import annotations

import datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from waypost.tls.authority import Authority, AuthorityError, Subjects
from waypost.tls.policy import Scope
from waypost.tls.trusted import forget, read_authority, trust, trusted_files

NOW = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC)
HERE = Subjects(frozenset({ip_address("10.0.0.1")}), frozenset())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "theirs", HERE, now=NOW)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def test_pem_and_der(authority: Authority, tmp_path: Path) -> None:
    pem = (tmp_path / "theirs" / "ca.pem").read_bytes()
    assert read_authority(pem) == authority.certificate
    assert read_authority(b"Some words before it\n" + pem) == authority.certificate
    assert read_authority(der(authority.certificate)) == authority.certificate


def test_what_vouches_for_nobody(authority: Authority, tmp_path: Path) -> None:
    leaf = authority.issue(HERE, is_rsa=False, now=NOW)
    first = x509.load_pem_x509_certificate(leaf.certificate)
    for octets, why in (
        (b"", "no certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificate"),
        ((tmp_path / "theirs" / "ca.key").read_bytes(), "certificate"),
        (der(first), "of a host"),
        (leaf.certificate, "2 certificates"),
    ):
        with pytest.raises(AuthorityError, match=why):
            read_authority(octets)


def test_taken_again_and_forgotten(authority: Authority, tmp_path: Path) -> None:
    directory = tmp_path / "tls" / "trusted"
    assert trusted_files(directory) == []
    trust(directory, authority.certificate, Scope(["10.0.0.0/8"]))
    trust(directory, authority.certificate, Scope(["10.0.0.0/8", "*.plant.example"]))
    (entry,) = trusted_files(directory)
    assert entry.authority.scope == Scope(["10.0.0.0/8", "*.plant.example"])
    assert entry.certificate == authority.certificate
    forget(directory, entry)
    assert trusted_files(directory) == []


def test_a_file_that_was_changed_is_named(authority: Authority, tmp_path: Path) -> None:
    kept = trust(tmp_path, authority.certificate, Scope(["10.0.0.0/8"])).authority.certificate
    octets = kept.read_bytes()
    for changed in (octets.partition(b"\n")[2], octets.replace(b"/8", b"/99"), b"For: any\n"):
        kept.write_bytes(changed)
        with pytest.raises(AuthorityError, match=kept.name):
            trusted_files(tmp_path)
