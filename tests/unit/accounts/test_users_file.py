"""The users file: private, whole at any time, and never taken for what it is not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from waypost import durable
from waypost.accounts.accounts import Account
from waypost.accounts.passwords import hash_password, scram_keys
from waypost.accounts.users_file import UsersFault, read_users, write_users
from waypost.routing.patterns import AddressGlob
from waypost.smtp.auth import Secret

HASH = hash_password(Secret("secret"))
ACCOUNTS = [
    Account("cam1", Secret(HASH)),
    Account(
        "jürgen", Secret(HASH), (AddressGlob("*@[192.168.1.0/24]"),), scram_keys(Secret("secret"))
    ),
]


def shape(accounts: list[Account]) -> list[object]:
    return [
        (entry.name, entry.password_hash, list(map(str, entry.senders)), entry.scram)
        for entry in accounts
    ]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    assert read_users(path) == []
    write_users(path, ACCOUNTS)
    assert shape(read_users(path)) == shape(ACCOUNTS)
    assert os.listdir(tmp_path) == ["users.json"]


def test_it_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    path.touch()
    path.chmod(0o666)
    old = os.umask(0)
    try:
        write_users(path, ACCOUNTS)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600


def test_root_writes_for_whoever_owns_the_directory(tmp_path: Path) -> None:
    """Or the hub could not read what an operator wrote."""
    if os.geteuid() != 0:
        pytest.skip("only root writes for others")
    os.chown(tmp_path, 65_534, 65_534)
    write_users(tmp_path / "users.json", ACCOUNTS)
    status = (tmp_path / "users.json").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (65_534, 65_534, 0o600)


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("theirs")
    for name in ("users.json", ".users.json.new"):
        (tmp_path / name).symlink_to(other)
    write_users(tmp_path / "users.json", ACCOUNTS)
    assert other.read_text() == "theirs"
    assert not (tmp_path / "users.json").is_symlink()
    assert len(read_users(tmp_path / "users.json")) == 2


def test_a_write_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "users.json"
    write_users(path, ACCOUNTS)
    before = path.read_bytes()

    def fail(descriptor: int, octets: bytes) -> None:
        os.write(descriptor, octets[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "write_all", fail)
    with pytest.raises(OSError, match="No space"):
        write_users(path, ACCOUNTS[:1])
    assert path.read_bytes() == before
    monkeypatch.undo()
    write_users(path, ACCOUNTS[:1])  # what lies there of the other is no hindrance
    assert len(read_users(path)) == 1


GOOD = {"name": "a", "password": HASH, "senders": [], "scram": None}
SCRAM = {"salt": "AAAA", "stored_key": "AAAA", "server_key": "AAAA", "iterations": 65536}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '"users"',
        "{}",
        '{"users": 1}',
        '{"users": null}',
        '{"users": ["a"]}',
        '{"users": {"a": 1}}',
        '{"users": [null]}',
        '{"users": [{}]}',
        *(json.dumps({"users": [{**GOOD, **wrong}]}) for wrong in (
            {"password": None},
            {"password": "in clear"},
            {"password": 5},
            {"senders": None},
            {"senders": ["*@[1.2.3.4/99]"]},
            {"scram": "x"},
            {"scram": {}},
            {"scram": {**SCRAM, "salt": 5}},
            {"scram": {**SCRAM, "salt": "A"}},
            {"scram": {**SCRAM, "iterations": None}},
        )),
    ],
)  # fmt: skip
def test_a_broken_file_is_a_fault_that_shows_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "users.json"
    path.write_text(content)
    with pytest.raises(UsersFault) as caught:
        read_users(path)
    assert str(path) in str(caught.value)
    assert "argon2" not in str(caught.value)
    assert "in clear" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsersFault):
        read_users(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UsersFault):
        read_users(path)
