"""Devices, and the programs and people that are told of mail: MQTT, webhooks, notifications."""

from __future__ import annotations

from waypost.config.readers import (
    choice_of,
    list_of,
    read_address,
    read_addresses,
    read_broker,
    read_count,
    read_device_name,
    read_flag,
    read_hook_url,
    read_hook_url_file,
    read_mailbox_label,
    read_networks,
    read_notify_url,
    read_notify_urls_file,
    read_path,
    read_pixels,
    read_publication,
    read_qos,
    read_seconds,
    read_secret,
    read_secret_file,
    read_size_limit,
    read_template,
    read_text,
    read_topic_base,
    read_topic_filter,
    read_topic_prefix,
    read_topic_template,
    read_type_glob,
)
from waypost.config.schema.key import REQUIRED, Key, Section, same_in_file
from waypost.delivery import notify
from waypost.delivery.attachments import (
    BASE64,
    MAX_ATTACHED,
    MAX_ATTACHMENT,
    NONE,
    PICTURE_PX,
)
from waypost.mail.template import Template
from waypost.mqtt.settings import RESET_AFTER_S, VERSIONS
from waypost.reading.event import MAX_TEXT
from waypost.routing.patterns import Glob

_ANY = (Glob("*"),)

# What of a mail goes along: the same keys for webhooks, notifications and MQTT.

_ATTACHMENTS = Key(
    "attachments",
    choice_of(NONE, BASE64),
    NONE,
    '"none" or "base64"',
    '"base64": attachments go along, in the event. "none": their names and hashes do.',
)


def _max_text(meaning: str, default: int) -> Key:
    return Key("max_text", read_count, default, "a number", meaning)


def _rules(
    *,
    types: tuple[Glob, ...],
    most: int = MAX_ATTACHMENT,
    picture: str,
    picture_px: int | None = None,
) -> tuple[Key, ...]:
    """Which attachments go along; `picture` is what that key means."""
    return (
        Key(
            "attachment_types",
            list_of(read_type_glob, may_be_empty=not types),
            types,
            'list of media types, as in "image/*"',
            "Which attachments go along.",
        ),
        Key(
            "max_attachment",
            read_size_limit,
            most,
            'octets, or as "5M"',
            "The largest attachment that goes along; all of one mail have at most"
            f" {MAX_ATTACHED >> 20} MiB together.",
        ),
        Key("picture", read_flag, True, "true or false", picture),
        Key(
            "picture_px",
            read_pixels,
            picture_px,
            "pixels, 0 to 10000",
            "A picture above `max_attachment` is made smaller, a JPEG of at most so many in width"
            " and height. 0, or absent without a default: it is left out as others are.",
        ),
    )


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
        _ATTACHMENTS,
        *_rules(types=_ANY, picture="true: pictures are among them. false: they are not."),
        _max_text("Characters of the mail's text that go along.", MAX_TEXT),
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
        *_rules(
            types=(),
            most=notify.MAX_ATTACHMENT,
            picture="true: the mail's first picture goes along, whatever `attachment_types` say."
            " false: no picture does.",
            picture_px=PICTURE_PX,
        ),
        _max_text("Characters of the text, the template included.", notify.MAX_TEXT),
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
        _ATTACHMENTS,
        *_rules(
            types=_ANY,
            picture="true: the first JPEG or PNG among them is published for itself, too, as it is."
            " false: no picture goes along.",
            picture_px=PICTURE_PX,
        ),
        _max_text("Characters of the mail's text that go along.", MAX_TEXT),
        Key(
            "mailbox",
            read_mailbox_label,
            "",
            "letters, digits, - and _",
            "Mail for this name with a topic behind it, as in `mqtt+pump/set@[192.168.1.20]`, is"
            " [published](../how-to/mqtt-and-home-assistant.md#mail-that-publishes) there, as"
            " plain text. Absent: no address names a topic.",
        ),
        Key(
            "topics",
            list_of(read_topic_filter, may_be_empty=False),
            (),
            'list of topic filters, as in "pump/#" and "lights/+/set"',
            "The topics that addresses may name.",
        ),
        Key(
            "requests",
            read_flag,
            False,
            "true or false",
            "true: messages on BASE/bridge/request/send and BASE/send/ROUTE become mail. Whoever"
            " may publish there may then send mail as a trusted client.",
        ),
    ),
    "[MQTT and Home Assistant](../how-to/mqtt-and-home-assistant.md).",
)

SUBSCRIBE = Section(
    "mqtt.subscribe",
    (
        Key(
            "topic",
            read_topic_filter,
            REQUIRED,
            "a topic; + is any one level, # all that follow",
            "Messages there become mail.",
        ),
        Key(
            "qos",
            read_qos,
            1,
            "0 or 1",
            "1: what comes while the hub is away is kept by the broker, if it was published with"
            " QoS 1 or 2. 0: it is not.",
        ),
        Key("from", read_address, None, "an address", "The sender. Absent: `mqtt` at this hub."),
        Key("to", list_of(read_address), (), "list of addresses", "Who gets the mail."),
        Key("route", read_text, None, "a text", "Or the `[[route]]`, by its name."),
        Key(
            "subject",
            read_topic_template,
            Template("Message on $topic"),
            "a text with $names",
            "The subject. `$topic`, `$payload`; `${topic.1}` is a level of the topic, from 0;"
            " `${json.alarm.name}` is a value of a payload that is JSON.",
        ),
        Key("text", read_topic_template, Template("$payload"), "a text with $names", "The text."),
    ),
    "[Messages on other topics](../how-to/mqtt-and-home-assistant.md#mail-from-mqtt) that become"
    " mail. Filters must not overlap.",
    is_array=True,
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
        Key("name", read_device_name, REQUIRED, "a text", "What it is called, in any script."),
        Key(
            "kind",
            read_text,
            None,
            "a text",
            'What it is, for people, as in "camera".',
        ),
        Key(
            "command_topic",
            read_publication,
            None,
            "a topic, as in `publish:`",
            "Mail to the device's own address, as in `pump@[192.168.1.7]`, is"
            " [published](../how-to/mqtt-and-home-assistant.md#answer-a-machine) there, and not"
            " sent to the device.",
        ),
    ),
    "A device, by name. Others are called by their address.",
    is_array=True,
)
