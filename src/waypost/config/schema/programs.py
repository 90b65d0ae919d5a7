"""Devices, and the programs and people that are told of mail: MQTT, webhooks, notifications."""

from __future__ import annotations

from waypost.config.readers import (
    choice_of,
    list_of,
    read_addresses,
    read_broker,
    read_count,
    read_flag,
    read_hook_url,
    read_hook_url_file,
    read_networks,
    read_notify_url,
    read_notify_urls_file,
    read_path,
    read_seconds,
    read_secret,
    read_secret_file,
    read_size_limit,
    read_template,
    read_text,
    read_topic_base,
    read_topic_prefix,
    read_type_glob,
)
from waypost.config.schema.key import REQUIRED, Key, Section, same_in_file
from waypost.delivery import notify
from waypost.delivery.webhook import BASE64, MAX_ATTACHED, NONE
from waypost.mqtt.settings import IMAGE_BYTES, RESET_AFTER_S, VERSIONS
from waypost.reading.event import MAX_TEXT
from waypost.routing.patterns import Glob

WEBHOOK = Section(
    "webhook",
    (
        Key(
            "url",
            read_hook_url,
            None,
            "a URL, http:// or https://",
            "Where events go. Redirects are not followed.",
        ),
        Key(
            "url_file",
            read_hook_url_file,
            None,
            "a file name",
            "The URL, in the first line of a file with mode 0600: for one that is a secret.",
        ),
        Key(
            "secret",
            read_secret,
            None,
            "a text",
            "What events are signed with. Absent: they are not signed.",
        ),
        Key(
            "secret_file",
            read_secret_file,
            None,
            "a file name",
            "The secret, in the first line of a file with mode 0600.",
        ),
        Key(
            "ca",
            read_path,
            None,
            "a file name",
            "Who may vouch for the server, as PEM. Absent: whom this system trusts.",
        ),
        Key(
            "attachments",
            choice_of(NONE, BASE64),
            NONE,
            '"none" or "base64"',
            '"base64": attachments go along, in the event. "none": their names and hashes do.',
        ),
        Key(
            "attachment_types",
            list_of(read_type_glob, may_be_empty=False),
            (Glob("*"),),
            'list of media types, as in "image/*"',
            "Which attachments go along.",
        ),
        Key(
            "max_attachment",
            read_size_limit,
            5_242_880,
            'octets, or as "5M"',
            "The largest attachment that goes along; all of one event have at most"
            f" {MAX_ATTACHED >> 20} MiB together.",
        ),
        Key(
            "max_text",
            read_count,
            MAX_TEXT,
            "a number",
            "Characters of the mail's text that go along.",
        ),
        Key(
            "networks",
            read_networks,
            (),
            "as networks.trusted",
            "Networks that are not of the Internet, and that a host given by name may be in."
            " A host given as an IP address needs no entry.",
        ),
        Key(
            "timeout_s",
            read_seconds,
            30.0,
            "seconds",
            "How long the server may take for one event.",
        ),
    ),
    "A [webhook](../how-to/webhooks-and-notifications.md): mail as JSON to a web server, for"
    " the target `webhook:NAME`.",
    is_named=True,
)

NOTIFY = Section(
    "notify",
    (
        Key(
            "urls",
            list_of(read_notify_url),
            (),
            "list of Apprise URLs",
            "Who is told, as in `ntfy://ntfy.example/alarms`.",
        ),
        Key(
            "urls_file",
            read_notify_urls_file,
            (),
            "a file name",
            "More of them, one a line, in a file with mode 0600; `#` begins a comment.",
        ),
        Key(
            "title",
            read_template,
            notify.TITLE,
            "a text with $fields",
            "The title; `$subject ($device)`, for example. Fields are those of the event.",
        ),
        Key("text", read_template, notify.TEXT, "a text with $fields", "The text."),
        Key(
            "picture",
            read_flag,
            True,
            "true or false",
            "true: the mail's first picture goes along, made smaller above"
            f" {notify.MAX_PICTURE >> 20} MiB.",
        ),
        Key(
            "max_text",
            read_count,
            notify.MAX_TEXT,
            "a number",
            "Characters of the text, the template included.",
        ),
    ),
    "[Notifications](../how-to/webhooks-and-notifications.md#notifications) by services that"
    " Apprise speaks to, for the target `notify:NAME`.",
    is_named=True,
)

MQTT = Section(
    "mqtt",
    (
        Key(
            "url",
            read_broker,
            None,
            "mqtt:// or mqtts://, a host and perhaps a port",
            "The broker. Absent: there is none, and mail for `mqtt:` targets waits.",
        ),
        Key(
            "base",
            read_topic_base,
            "waypost",
            "letters, digits, - and _",
            "The first level of all topics; another one for each hub at the same broker.",
        ),
        Key(
            "discovery",
            read_topic_prefix,
            "homeassistant",
            "a topic, or nothing",
            "Where Home Assistant looks for new devices. Empty: it is told nothing.",
        ),
        Key("username", read_text, None, "a text", "Who the hub logs in as."),
        Key("password", read_secret, None, "a text", "With which password."),
        same_in_file("password"),
        Key(
            "ca",
            read_path,
            None,
            "a file (PEM)",
            "Who may vouch for the broker (mqtts). Absent: whom this system trusts.",
        ),
        Key(
            "certificate",
            read_path,
            None,
            "a file (PEM)",
            "What the hub shows a broker that asks for a certificate.",
        ),
        Key(
            "key",
            read_path,
            None,
            "a file (PEM)",
            "Its key, without a password.",
        ),
        Key(
            "version",
            choice_of(*VERSIONS),
            VERSIONS[0],
            " or ".join(f'"{version}"' for version in VERSIONS),
            "Which MQTT is spoken.",
        ),
        Key(
            "retain",
            read_flag,
            True,
            "true or false",
            "The broker keeps states and pictures, for those who come later. Events are"
            " never kept.",
        ),
        Key(
            "reset_after_s",
            read_seconds,
            RESET_AFTER_S,
            "seconds",
            "How long after its last mail a kind of event goes from ON to OFF: devices do"
            " not mail that it is over.",
        ),
        Key(
            "image_bytes",
            read_size_limit,
            IMAGE_BYTES,
            'a size in octets, or as "5M"',
            "Larger pictures are not published.",
        ),
    ),
    "[MQTT and Home Assistant](../how-to/mqtt-and-home-assistant.md).",
)

DEVICE = Section(
    "device",
    (
        Key(
            "address",
            read_addresses,
            REQUIRED,
            "an IP address, or a list of them",
            "Where its mail comes from. Of several, each [proves senders"
            "](../how-to/prove-literal-senders.md) at the others.",
        ),
        Key("name", read_text, REQUIRED, "a text", "What it is called, in any script."),
        Key(
            "kind",
            read_text,
            None,
            "a text",
            'What it is, for people, as in "camera".',
        ),
    ),
    "A device, by name. Others are called by their address.",
    is_array=True,
)
