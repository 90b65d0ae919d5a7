"""Passwords as they are kept: Argon2id (RFC 9106), and keys for SCRAM-SHA-256 where wanted."""

from __future__ import annotations

import secrets
from functools import cache

from argon2 import PasswordHasher, Type, extract_parameters
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from waypost.accounts.accounts import SCRAM_ITERATIONS, SCRAM_SALT_OCTETS
from waypost.smtp.auth import Secret
from waypost.smtp.sasl import ScramKeys

# OWASP's second choice, which a small board can afford for each of the checks that run at once.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1, type=Type.ID)


@cache
def nobodys_hash() -> str:
    """A hash of a password nobody has: a check against it takes as long as any, and fails."""
    return _HASHER.hash(secrets.token_hex())


def hash_password(password: Secret) -> str:
    """An Argon2id hash in PHC form. Takes tens of milliseconds."""
    return _HASHER.hash(password.revealed)


def verify_password(password_hash: str, password: Secret) -> bool:
    """True when the hash is of this password. Takes as long as making one.

    Raises VerificationError for what tells nothing of the password, as memory that is lacking.
    """
    try:
        return _HASHER.verify(password_hash, password.revealed)
    except (VerifyMismatchError, InvalidHashError):
        return False


def scram_keys(password: Secret) -> ScramKeys:
    """New keys of a password (RFC 5802 §3). Raises ValueError for one that SCRAM cannot take."""
    # Asked for by few, and the library takes a while to load.
    from scramp import ScramException, ScramMechanism

    salt = secrets.token_bytes(SCRAM_SALT_OCTETS)
    try:
        made = ScramMechanism("SCRAM-SHA-256").make_auth_info(
            password.revealed, SCRAM_ITERATIONS, salt
        )
    except ScramException as error:
        raise ValueError(f"SCRAM takes no such password: {error.args[0]}") from None
    return ScramKeys(*made)


def check_hash(text: str) -> str:
    """A hash as it was given. Raises ValueError for what is no Argon2 hash."""
    try:
        extract_parameters(text)
    except InvalidHashError:
        raise ValueError(
            "expected an Argon2 hash in PHC form; `waypost user hash` makes one"
        ) from None
    return text
