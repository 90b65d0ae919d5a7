"""Where mail goes: mailboxes, routes, lists."""

from __future__ import annotations

from waypost.config.readers import (
    choice_of,
    list_of,
    read_address,
    read_any_text,
    read_domain,
    read_flag,
    read_match,
    read_password_hash,
    read_password_hash_file,
    read_target,
    read_text,
)
from waypost.config.schema.key import REQUIRED, Key, Section, same_in_file
from waypost.config.storms import read_span, read_storm
from waypost.routing.patterns import AddressGlob

_DOMAIN = Key(
    "domain",
    read_domain,
    None,
    "a domain name of ours",
    "The domain it belongs to. Absent: it belongs to the hub, under all its names.",
)

MAILBOXES = Section(
    "mailboxes",
    (
        Key(
            "auto_create",
            read_flag,
            True,
            "true or false",
            "A trusted client makes a mailbox by mailing it.",
        ),
        Key("root", read_text, "mail", "a directory", "Where Maildirs lie, below data_dir."),
        Key(
            "case",
            choice_of("fold", "exact"),
            "fold",
            '"fold" or "exact"',
            "Whether Alerts@ and alerts@ are one mailbox.",
        ),
        Key(
            "subaddress",
            read_any_text,
            "+",
            "a text",
            "alerts+motion@ goes to alerts; empty: it does not.",
        ),
    ),
    "Mailboxes in general.",
)

MAILBOX = Section(
    "mailbox",
    (
        Key("name", read_text, REQUIRED, "a text", "The local part."),
        _DOMAIN,
        Key(
            "aliases",
            list_of(read_text),
            (),
            "list of local parts",
            "Other names of this mailbox.",
        ),
        Key(
            "catch_all",
            read_flag,
            False,
            "true or false",
            "true: it takes what no other mailbox, alias or list of its domain does.",
        ),
        Key(
            "password_hash",
            read_password_hash,
            None,
            "an Argon2 hash",
            "Its owner may [log in](../how-to/logins.md) by the mailbox's name; `waypost user"
            " hash` makes one. Absent: nobody may, unless `waypost user add` says otherwise.",
        ),
        same_in_file("password_hash", read_password_hash_file),
        Key(
            "senders",
            list_of(lambda value: AddressGlob(read_text(value))),
            (),
            "list of address patterns",
            "Senders that its owner may use besides the mailbox's own addresses.",
        ),
    ),
    "A mailbox that exists from the start.",
    is_array=True,
)

ROUTE = Section(
    "route",
    (
        Key("name", read_text, REQUIRED, "a text", "How logs and traces call it."),
        Key(
            "match",
            read_match,
            {},
            "table of recipient, sender, client, listener, login, helo, time, subject, header,"
            " larger_than, has_attachment",
            "All that are given must match. recipient, sender, login, helo and subject are patterns"
            " with * and ?, without case; client is a list of networks; listener a name; time one"
            ' or several as "22:00-06:00" or "mon-fri 08:00-17:00"; header a table of fields and'
            " patterns; larger_than a size; has_attachment true or false.",
        ),
        Key(
            "to",
            list_of(read_target, may_be_empty=False),
            REQUIRED,
            "list of targets",
            "mailbox:NAME or mailbox:NAME@DOMAIN, smtp:[IP]:PORT or smtp:NAME:PORT, lmtp:/PATH"
            " or lmtp:[IP]:PORT, relay:NAME, direct, list:NAME, mqtt:KIND, publish:TOPIC,"
            " discard,"
            " reject:X.Y.Z TEXT, webhook:NAME, notify:NAME."
            " Each is tried and retried on its own.",
        ),
        Key(
            "continue",
            read_flag,
            False,
            "true or false",
            "true: a copy beside the rest; later routes count too, and if none of them has"
            " the last word so does the usual way.",
        ),
        Key(
            "storm",
            read_storm,
            None,
            "table of messages, per_s and, if wanted, then",
            "[Storm control](../how-to/calm-a-storm.md): of one device at most `messages` in"
            " `per_s` seconds go to the targets at once; mailbox: and lmtp: get all, and"
            " one of them is needed beside. The rest goes when the time is over: with then ="
            ' "digest", the default, as one mail that lists it; "merge": the last of it, for'
            ' all; "drop": not at all. Mail that says failure by the words of'
            " `waypost device set` goes"
            " at once, up to `messages` more. Absent: all mail goes as it comes.",
        ),
        Key(
            "duplicates_s",
            read_span,
            None,
            "seconds",
            "The same mail of a trusted device for the same recipients, so soon after the first,"
            " is kept and marked `X-Waypost-Duplicate-Of`, and mqtt:, webhook: and notify: are"
            " not told again. Absent: nobody looks.",
        ),
    ),
    "Where mail goes, in order; the first that matches wins. Strangers reach routes only"
    " with recipients of ours.",
    is_array=True,
)

LIST = Section(
    "list",
    (
        Key(
            "members",
            list_of(read_address),
            REQUIRED,
            "list of addresses",
            "Who gets a copy: anywhere a route leads to, lists included.",
        ),
        _DOMAIN,
        Key(
            "owner",
            read_address,
            None,
            "an address",
            "Who gets what comes back from members. Absent: postmaster here.",
        ),
        Key(
            "strangers_may_post",
            read_flag,
            False,
            "true or false",
            "true: strangers may, where `networks.accept_from_strangers` lets them mail us.",
        ),
    ),
    "A list: `NAME@` an address of ours goes to all members.",
    is_named=True,
)
