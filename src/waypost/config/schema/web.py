"""The HTTP port, and what comes in by it: tokens of programs, webhooks of others."""

from __future__ import annotations

from waypost.config.readers import choice_of, list_of, read_networks, read_text, read_web_url
from waypost.config.schema.key import Key, Section, same_in_file
from waypost.config.web import (
    read_hook_template,
    read_http_bind,
    read_http_host,
    read_mailbox_or_address,
    read_token,
    read_token_file,
)
from waypost.routing.patterns import AddressGlob
from waypost.web.settings import DEFAULT_BIND, GITHUB, MIN_SECRET, SUBJECT, TEXT, WAYPOST

_NETWORKS = Key(
    "networks",
    read_networks,
    None,
    "as networks.trusted",
    "Who may use it. Absent: networks.trusted.",
)
_TOKEN = Key(
    "token",
    read_token,
    None,
    f"a text of at least {MIN_SECRET} characters",
    "What its sender shows, in `Authorization: Bearer TOKEN` or `X-Waypost-Token: TOKEN`.",
)

HTTP = Section(
    "http",
    (
        Key(
            "bind",
            list_of(read_http_bind),
            DEFAULT_BIND,
            "list of address:port or [v6]:port",
            "Where it listens. Empty: nowhere. There is no TLS here: for other hosts put a proxy"
            " before it that has it, or a network you trust.",
        ),
        Key(
            "hosts",
            list_of(read_http_host),
            (),
            "list of host names",
            "Names by which it may be asked, besides `hostname`, `localhost` and every address. A"
            " proxy's name belongs here. Others are refused (DNS rebinding).",
        ),
        Key(
            "url",
            read_web_url,
            None,
            "a URL, http:// or https://",
            "Where people read this hub's mail in a browser, as in `http://192.168.1.10:2580`:"
            " events and notifications link to mails and attachments there. Absent: they have no"
            " links. This version has no such page itself.",
        ),
    ),
    "The HTTP port: [mail from programs](../how-to/post-to-mail.md), and health.",
)

API_TOKEN = Section(
    "api_token",
    (
        _TOKEN,
        same_in_file("token", read_token_file),
        Key(
            "senders",
            list_of(lambda value: AddressGlob(read_text(value))),
            (),
            "list of address patterns",
            "Which senders it may name. Empty: any.",
        ),
        _NETWORKS,
    ),
    "Who may [send](../how-to/post-to-mail.md#mail-in-json) by `POST /api/v1/send`. NAME is the"
    " sender's local part where a request names none.",
    is_named=True,
)

INBOUND = Section(
    "inbound",
    (
        _TOKEN,
        same_in_file("token", read_token_file),
        Key(
            "secret",
            read_token,
            None,
            f"a text of at least {MIN_SECRET} characters",
            "For senders that sign instead: what they sign with.",
        ),
        same_in_file("secret", read_token_file),
        Key(
            "signature",
            choice_of(WAYPOST, GITHUB),
            WAYPOST,
            f'"{WAYPOST}" or "{GITHUB}"',
            f'How they sign. "{WAYPOST}": as `[webhook.NAME] secret` of a hub does, with the time.'
            f' "{GITHUB}": `X-Hub-Signature-256`, which has none, so a copy of a request is'
            " good again.",
        ),
        Key(
            "from",
            read_mailbox_or_address,
            None,
            "an address, or a local part of ours",
            "The sender. Absent: NAME, as an address of ours.",
        ),
        Key(
            "to",
            list_of(read_mailbox_or_address),
            (),
            "list of addresses, or of mailboxes of ours",
            "Who gets the mail.",
        ),
        Key(
            "route",
            read_text,
            None,
            "the name of a [[route]]",
            "Whose targets get it, instead of `to`.",
        ),
        Key(
            "subject",
            read_hook_template,
            SUBJECT,
            "a text with $fields",
            "The subject, as `Door ${json.alarm.name}`. `${json.a.b}` and `${form.a}` are places"
            " in what was posted, `$payload` is all of it, `$hook` is NAME, `$client` who posted.",
        ),
        Key("text", read_hook_template, TEXT, "a text with $fields", "The text."),
        _NETWORKS,
    ),
    "A [hook](../how-to/post-to-mail.md#webhooks-of-other-programs): what is posted to `/hook/NAME`"
    " becomes mail. It has a token, or a secret.",
    is_named=True,
)
