"""user: accounts that may log in, in the users file of a hub."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import sys
from dataclasses import replace
from pathlib import Path

from waypost.accounts.accounts import Account, folded
from waypost.accounts.users_file import USERS_FILE, read_users, write_users
from waypost.cli.context import settings_of
from waypost.cli.output import EXIT_NO, EXIT_USAGE, EXIT_YES, complain, say, say_json, table
from waypost.config.settings import Settings
from waypost.control import ask_hub
from waypost.durable import locked_directory
from waypost.errors import HubUnreachable, WaypostError
from waypost.routing.patterns import AddressGlob
from waypost.smtp.auth import Secret
from waypost.smtp.sasl import MAX_NAME


def add_commands(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add this module's verbs."""
    user = verbs.add_parser("user", help="accounts that may log in to send mail")
    actions = user.add_subparsers(dest="action", metavar="ACTION", required=True)
    password = argparse.ArgumentParser(add_help=False)
    password.add_argument(
        "--password-file",
        type=Path,
        metavar="FILE",
        help="take the password from the first line of FILE, - for standard input (default: ask)",
    )
    scram = argparse.ArgumentParser(add_help=False)
    scram.add_argument(
        "--scram",
        action="store_true",
        help="also keep keys for SCRAM-SHA-256, so that the password need never be sent",
    )
    add = actions.add_parser("add", parents=[common, password, scram], help="add an account")
    add.add_argument("name", metavar="NAME", help="the name of a mailbox, or any other")
    add.add_argument(
        "--sender",
        metavar="PATTERN",
        action="append",
        default=[],
        type=_pattern,
        help="senders it may use besides the addresses of its mailbox, as *@[192.168.1.0/24]",
    )
    add.set_defaults(run=_add)
    change = actions.add_parser(
        "password", parents=[common, password, scram], help="give an account another password"
    )
    change.add_argument("name", metavar="NAME")
    change.set_defaults(run=_password)
    remove = actions.add_parser("remove", parents=[common], help="remove an account")
    remove.add_argument("name", metavar="NAME")
    remove.set_defaults(run=_remove)
    listing = actions.add_parser("list", parents=[common], help="list accounts")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    listing.set_defaults(run=_list)
    hashing = actions.add_parser(
        "hash", parents=[password], help="print the hash of a password, for password_hash"
    )
    hashing.set_defaults(run=_hash)


def _pattern(text: str) -> AddressGlob:
    try:
        return AddressGlob(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    users = read_users(settings.data_dir / USERS_FILE)
    if not parsed.name.isprintable() or not 0 < len(parsed.name.encode()) <= MAX_NAME:
        complain("a name is 1 to 255 octets of printable text")
        return EXIT_USAGE
    if _find([*settings.accounts, *users], parsed.name) is not None:
        complain(f"there is an account {parsed.name!r} already")
        return EXIT_NO
    account = _with_password(Account(parsed.name, senders=tuple(parsed.sender)), parsed)
    _keep(settings, account.name, account)
    say(f"Account {parsed.name} was added.")
    return EXIT_YES


def _password(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    users = read_users(settings.data_dir / USERS_FILE)
    account = _find(users, parsed.name)
    if account is None:
        return _unknown(settings, parsed.name)
    _keep(settings, account.name, _with_password(account, parsed))
    say(f"Account {account.name} has a new password.")
    return EXIT_YES


def _remove(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    users = read_users(settings.data_dir / USERS_FILE)
    account = _find(users, parsed.name)
    if account is None:
        return _unknown(settings, parsed.name)
    _keep(settings, account.name, None)
    say(f"Account {account.name} was removed.")
    return EXIT_YES


def _list(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    rows = [(account, "configuration") for account in settings.accounts]
    rows += [(account, USERS_FILE) for account in read_users(settings.data_dir / USERS_FILE)]
    if parsed.json:
        for account, place in rows:
            say_json(
                {
                    "name": account.name,
                    "senders": list(map(str, account.senders)),
                    "scram": account.scram is not None,
                    "place": place,
                }
            )
    elif rows:
        table(
            [
                (
                    account.name,
                    "yes" if account.scram is not None else "no",
                    place,
                    ", ".join(map(str, account.senders)),
                )
                for account, place in rows
            ],
            ("name", "SCRAM", "from", "senders"),
        )
    else:
        say("There are no accounts. Add one with: waypost user add NAME")
    return EXIT_YES if rows else EXIT_NO


def _hash(parsed: argparse.Namespace) -> int:
    from waypost.accounts.passwords import hash_password

    say(hash_password(_asked_password(parsed)))
    return EXIT_YES


def _unknown(settings: Settings, name: str) -> int:
    if _find(settings.accounts, name) is not None:
        complain(f"{name!r} is an account of the configuration; change it there")
    else:
        complain(f"there is no account {name!r}; see: waypost user list")
    return EXIT_NO


def _find(accounts: tuple[Account, ...] | list[Account], name: str) -> Account | None:
    return next((entry for entry in accounts if folded(entry.name) == folded(name)), None)


def _with_password(account: Account, parsed: argparse.Namespace) -> Account:
    from waypost.accounts.passwords import hash_password, scram_keys

    password = _asked_password(parsed)
    try:
        scram = scram_keys(password) if parsed.scram else None
    except ValueError as error:
        raise WaypostError(f"{error}; choose another, or leave out --scram") from None
    return replace(account, password_hash=Secret(hash_password(password)), scram=scram)


def _asked_password(parsed: argparse.Namespace) -> Secret:
    """The password from where the user said, twice from a terminal. Raises WaypostError."""
    file: Path | None = parsed.password_file
    if file is None and not sys.stdin.isatty():
        raise WaypostError("there is no terminal to ask at; use --password-file FILE, or -")
    if file is None:
        text = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != text:
            raise WaypostError("the two differ; nothing was changed")
    else:
        octets = sys.stdin.buffer.readline() if str(file) == "-" else file.read_bytes()
        try:
            text = octets.partition(b"\n")[0].rstrip(b"\r").decode("utf-8")
        except UnicodeDecodeError:
            raise WaypostError("the password is not in UTF-8") from None
    if not 0 < len(text.encode()) <= MAX_NAME:
        raise WaypostError(f"a password has 1 to {MAX_NAME} octets")
    return Secret(text)


def _keep(settings: Settings, name: str, account: Account | None) -> None:
    """Put an account in the place of the one with its name, if there is any; None: remove that."""
    path = settings.data_dir / USERS_FILE
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked_directory(settings.data_dir):
        # Read again: somebody else may have changed another meanwhile.
        users: dict[str, Account] = {}
        for user in read_users(path):
            users.setdefault(folded(user.name), user)
        if account is None:
            users.pop(folded(name), None)
        else:
            users[folded(name)] = account
        write_users(path, users.values())
    with contextlib.suppress(HubUnreachable):  # it reads them when it starts
        ask_hub(settings.data_dir, "users")
