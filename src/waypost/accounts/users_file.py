"""The users file: accounts that `waypost user` adds and removes, in `users.json` below data_dir."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from waypost.accounts.accounts import Account
from waypost.durable import write_secret
from waypost.errors import WaypostError
from waypost.routing.patterns import AddressGlob
from waypost.smtp.auth import Secret
from waypost.smtp.sasl import ScramKeys

USERS_FILE = "users.json"


class UsersFault(WaypostError):
    """The users file cannot be read, or is not what it should be."""


def read_users(path: Path) -> list[Account]:
    """The accounts of a users file; none where there is no file. Raises UsersFault; blocks."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UsersFault(f"{path} cannot be read: {error}") from error
    # argon2 takes a while to load, and most hubs have no such file.
    from waypost.accounts.passwords import check_hash

    try:
        return [_account(entry, check_hash) for entry in json.loads(text)["users"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        # The texts of these quote what they did not expect: a hash must not get into a log.
        kind = type(error).__name__
        raise UsersFault(f"{path} is not a users file ({kind}); put back a copy of it") from None


def write_users(path: Path, accounts: Iterable[Account]) -> None:
    """Replace a users file, durably. Raises OSError; blocks."""
    users = [_entry(account) for account in accounts]
    write_secret(path, json.dumps({"users": users}, indent=1).encode() + b"\n")


def _account(entry: dict[str, Any], check_hash: Callable[[str], str]) -> Account:
    scram = entry.get("scram")
    return Account(
        str(entry["name"]),
        Secret(check_hash(entry["password"])),
        tuple(AddressGlob(str(pattern)) for pattern in entry["senders"]),
        None
        if scram is None
        else ScramKeys(
            b64decode(scram["salt"]),
            b64decode(scram["stored_key"]),
            b64decode(scram["server_key"]),
            int(scram["iterations"]),
        ),
    )


def _entry(account: Account) -> dict[str, Any]:
    scram = account.scram
    return {
        "name": account.name,
        "password": None if account.password_hash is None else account.password_hash.revealed,
        "senders": list(map(str, account.senders)),
        "scram": None
        if scram is None
        else {
            **{
                key: b64encode(getattr(scram, key)).decode()
                for key in ("salt", "stored_key", "server_key")
            },
            "iterations": scram.iterations,
        },
    }
