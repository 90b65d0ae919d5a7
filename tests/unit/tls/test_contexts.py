"""What is spoken outward, whatever this system's OpenSSL would do by itself."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tests.support.certificates import Certificate
from waypost.errors import TemporaryError
from waypost.tls.contexts import client_context


@pytest.mark.parametrize("verifies", [True, False])
def test_versions_and_suites(verifies: bool) -> None:
    context = client_context(verifies=verifies, ca=None)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.check_hostname is verifies
    assert (context.verify_mode is ssl.CERT_REQUIRED) is verifies
    assert not context.hostname_checks_common_name
    names = {suite["name"] for suite in context.get_ciphers()}
    assert "ECDHE-ECDSA-AES128-GCM-SHA256" in names
    for suite in context.get_ciphers():
        assert suite["kea"] in ("kx-ecdhe", "kx-dhe", "kx-any"), suite
        assert suite["digest"] != "sha1", suite
        assert suite["auth"] != "auth-null", suite
        assert int(suite["strength_bits"]) >= 128, suite


def test_authorities(tmp_path: Path) -> None:
    one = Certificate(tmp_path, "one", is_authority=True)
    two = Certificate(tmp_path, "two", is_authority=True, issuer=one)
    assert len(client_context(verifies=True, ca=one.file).get_ca_certs()) == 1
    assert len(client_context(verifies=True, ca=(one.file, two.file)).get_ca_certs()) == 2
    # One below another is an anchor as good as any.
    assert client_context(verifies=True, ca=()).verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    with pytest.raises(TemporaryError, match=r"nowhere\.pem"):
        client_context(verifies=True, ca=tmp_path / "nowhere.pem")
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(TemporaryError, match=r"empty\.pem"):
        client_context(verifies=True, ca=tmp_path / "empty.pem")
