"""The configuration: every fault at once, each with its line and key; defaults; environment."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

import pytest

from waypost.config.load import default_data_dir, find_config, load_settings
from waypost.config.settings import DEFAULT_LISTENERS, Settings
from waypost.errors import ConfigError, ConfigFault
from waypost.mail.address import Domain


def load(directory: Path, text: str, environment: Mapping[str, str] | None = None) -> Settings:
    file = directory / "waypost.toml"
    file.write_text(text, "utf-8")
    return load_settings(file, directory / "data", environment or {})


def faults(
    directory: Path, text: str, environment: Mapping[str, str] | None = None
) -> list[ConfigFault]:
    with pytest.raises(ConfigError) as caught:
        load(directory, text, environment)
    assert caught.value.faults
    assert all(str(fault) in str(caught.value) for fault in caught.value.faults)
    return list(caught.value.faults)


def places(found: list[ConfigFault]) -> set[tuple[int | None, str]]:
    return {(fault.line, fault.key) for fault in found}


def line_of(text: str, start: str) -> int:
    return next(
        number for number, line in enumerate(text.split("\n"), 1) if line.lstrip().startswith(start)
    )


# Defaults.


def test_no_file_means_the_documented_defaults(tmp_path: Path) -> None:
    settings = load_settings(None, tmp_path, {})
    assert settings.data_dir == tmp_path
    assert settings.hostname is None
    assert settings.follow_interfaces
    assert settings.trusted == ("loopback", "private")
    assert not settings.routing.accept_from_strangers
    assert settings.routing.bare_ip
    assert settings.mailboxes.auto_create
    assert settings.mailboxes.fold_case
    assert settings.mailboxes.subaddress == "+"
    assert settings.limits.message_bytes == 52_428_800
    assert settings.limits.recipients == 1_000
    assert settings.limits.connections == 12_000
    assert settings.retry.first_s == 60
    assert settings.retry.max_s == 14_400
    assert settings.retry.warn_after_s == 14_400
    assert settings.retry.give_up_after_s == 432_000
    binds = {listener.name: listener.bind for listener in settings.listeners}
    assert binds["smtp"] == ("0.0.0.0:2525", "[::]:2525")
    assert binds["submission"] == ("0.0.0.0:2587", "[::]:2587")


def test_an_empty_file_is_no_file(tmp_path: Path) -> None:
    assert load(tmp_path, "").listeners == DEFAULT_LISTENERS


def test_where_data_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_data_dir({}) == Path("/var/lib/waypost")
    assert default_data_dir({"WAYPOST_DATA": "/x"}) == Path("/x")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert default_data_dir({"XDG_DATA_HOME": "/home/u/share"}) == Path("/home/u/share/waypost")
    file = tmp_path / "w.toml"
    file.write_text('data_dir = "/srv/mail"')
    assert load_settings(file, None, {}).data_dir == Path("/srv/mail")
    assert load_settings(file, Path("/given"), {}).data_dir == Path("/given")
    assert load_settings(None, None, {"WAYPOST_DATA": "/env"}).data_dir == Path("/env")


def test_a_file_that_is_given_is_the_one(tmp_path: Path) -> None:
    assert find_config(tmp_path / "x.toml") == tmp_path / "x.toml"


# All of it.

WHOLE = """
data_dir = "/var/lib/waypost"
hostname = "Hub.LAN"
[addresses]
own = ["auto", "203.0.113.7", "2001:db8::7"]
domains = ["plant.example", "bücher.example"]
bare_ip = "never"
[networks]
trusted = [
    "loopback",   # with comments
    "10.0.0.0/8",
]
accept_from_strangers = true
[[listener]]
name = "smtp"
bind = ["0.0.0.0:2525", "[::]:2525"]
[[listener]]
name = "local"
bind = ["/run/waypost/lmtp"]
role = "lmtp"
networks = ["any"]
[mailboxes]
auto_create = false
root = "boxes"
case = "exact"
subaddress = ""
[[mailbox]]
name = "alerts"
aliases = ["postmaster", "root"]
[[mailbox]]
name = "ann"
[[route]]
name = "cameras"
match = { recipient = "cam*@*", client = ["192.168.1.0/24"], listener = "smtp" }
to = ["mailbox:alerts", "smtp:[10.0.0.5]:25"]
continue = true
[[route]]
name = "rest"
to = ["reject:5.7.1 not here"]
[delivery]
port = 2526
[limits]
message_bytes = 1000
recipients = 10
connections = 100
[retry]
first_s = 1
max_s = 2.5
warn_after_s = 3
give_up_after_s = 4
[log]
format = "json"
"""


def test_every_key_arrives(tmp_path: Path) -> None:
    settings = load(tmp_path, WHOLE)
    assert settings.hostname == "hub.lan"
    assert settings.follow_interfaces
    assert settings.extra_own == (ip_address("203.0.113.7"), ip_address("2001:db8::7"))
    assert settings.routing.domains == {
        Domain("hub.lan"),
        Domain("plant.example"),
        Domain("xn--bcher-kva.example"),
    }
    assert not settings.routing.bare_ip
    assert settings.trusted == ("loopback", "10.0.0.0/8")
    assert settings.routing.accept_from_strangers
    assert [(each.name, each.role) for each in settings.listeners] == [
        ("smtp", "hub"),
        ("local", "lmtp"),
    ]
    assert settings.mailboxes.names == ("alerts", "ann")
    assert settings.mailboxes.aliases == (("postmaster", "alerts"), ("root", "alerts"))
    assert not settings.mailboxes.auto_create
    assert not settings.mailboxes.fold_case
    assert settings.mailboxes.subaddress == ""
    first, second = settings.routing.rules
    assert (first.name, first.continues, first.listener) == ("cameras", True, "smtp")
    assert [str(target) for target in first.targets] == ["mailbox:alerts", "smtp:[10.0.0.5]:25"]
    assert (second.name, second.continues) == ("rest", False)
    assert settings.routing.delivery_port == 2526
    assert settings.limits.message_bytes == 1_000
    assert settings.retry.max_s == 2.5
    assert settings.log_as_json


# Faults.

FAULTY = """
hostname = "not a name"
colour = "red"

[addresses]
own = ["auto", "10.0.0.300"]
domains = [
    "good.example",
    "bad_name.example",
]
bare_ip = "always"

[networks]
trusted = ["loopback", "10.0.0.1/8"]
accept_from_strangers = "yes"

[[listener]]
name = "smtp"
bind = ["0.0.0.0:2525"]

[[listener]]
bind = ["0.0.0.0:99999"]
role = "web"

[tls]
certificate = "x.pem"

[[route]]
name = "one"
to = ["mailbox:alerts"]

[[route]]
name = "two"
match = { recipient = "*@*", colour = "red" }
to = [
    "mailbox:x",
    "carrier-pigeon:1",
]
limits.x = 1

[limits]
message_bytes = 0
recipients = true
connections = 1.5

[retry]
first_s = "60"
max_s = -1

[log]
format = "xml"
"""


def test_every_fault_is_found_at_once_with_line_and_key(tmp_path: Path) -> None:
    found = faults(tmp_path, FAULTY)
    second_listener = FAULTY.split("\n").index('bind = ["0.0.0.0:99999"]')
    assert places(found) == {
        (line_of(FAULTY, "hostname"), "hostname"),
        (line_of(FAULTY, "colour"), "colour"),
        (line_of(FAULTY, "own"), "addresses.own"),
        (line_of(FAULTY, "domains"), "addresses.domains"),
        (line_of(FAULTY, "bare_ip"), "addresses.bare_ip"),
        (line_of(FAULTY, "trusted"), "networks.trusted"),
        (line_of(FAULTY, "accept"), "networks.accept_from_strangers"),
        (second_listener, "listener[2]"),  # its name is missing: the line of the header
        (second_listener + 1, "listener[2].bind"),
        (second_listener + 2, "listener[2].role"),
        (line_of(FAULTY, "[tls]"), "tls"),
        (line_of(FAULTY, "match"), "route[2].match"),
        (line_of(FAULTY, "to = [") + 5, "route[2].to"),
        (line_of(FAULTY, "limits.x"), "route[2].limits"),
        (line_of(FAULTY, "message_bytes"), "limits.message_bytes"),
        (line_of(FAULTY, "recipients"), "limits.recipients"),
        (line_of(FAULTY, "connections"), "limits.connections"),
        (line_of(FAULTY, "first_s"), "retry.first_s"),
        (line_of(FAULTY, "max_s"), "retry.max_s"),
        (line_of(FAULTY, "format"), "log.format"),
    }
    assert all(fault.source == str(tmp_path / "waypost.toml") for fault in found)


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ('hostname = ""', "hostname", "text"),
        ("hostname = 5", "hostname", "text"),
        ('hostname = "a b"', "hostname", "domain"),
        ("[addresses]\nown = []", "addresses.own", "list"),
        ('[addresses]\nown = "auto"', "addresses.own", "list"),
        ('[addresses]\nown = ["fe80::1%eth0"]', "addresses.own", "IP address"),
        ('[networks]\ntrusted = ["lan"]', "networks.trusted", "'lan'"),
        (
            "[networks]\naccept_from_strangers = 1",
            "networks.accept_from_strangers",
            "true or false",
        ),
        ("[delivery]\nport = 0", "delivery.port", "65535"),
        ("[delivery]\nport = 65536", "delivery.port", "65535"),
        ("[delivery]\nport = true", "delivery.port", "port"),
        ("[limits]\nrecipients = -1", "limits.recipients", "above 0"),
        ("[retry]\nfirst_s = 0", "retry.first_s", "above 0"),
        ("[retry]\nfirst_s = nan", "retry.first_s", "above 0"),
        ("[retry]\ngive_up_after_s = inf", "retry.give_up_after_s", "number"),
        ("[retry]\nmax_s = false", "retry.max_s", "seconds"),
        ('[log]\nformat = "JSON"', "log.format", "json"),
        ('[mailboxes]\ncase = "Fold"', "mailboxes.case", "fold"),
        ('[mailboxes]\nroot = "a\\u0000b"', "mailboxes.root", "control"),
        ("limits = 5", "limits", "[limits]"),
        ("listener = 5", "listener", "[[listener]]"),
        ("[listener]\nname = 'x'", "listener", "[[listener]]"),
        ("route = [1]", "route[1]", "table"),
        ("colour = 1", "colour", "unknown key"),
        ("[colours]\nred = 1", "colours", "unknown key"),
        ("[limits]\ncolour = 1", "limits.colour", "message_bytes"),
    ],
)
def test_each_fault_says_what_was_expected(
    tmp_path: Path, text: str, key: str, expected: str
) -> None:
    found = [fault for fault in faults(tmp_path, text) if fault.key == key]
    assert expected in found[0].problem
    assert found[0].line == text.count("\n", 0, text.rindex(key.split(".")[-1].split("[")[0])) + 1


def test_every_bad_entry_of_a_list_is_named(tmp_path: Path) -> None:
    text = '[networks]\ntrusted = ["lan", "loopback", "wan"]\n[addresses]\ndomains = ["a_b", "c d"]'
    found = {fault.key: fault.problem for fault in faults(tmp_path, text)}
    assert "'lan'" in found["networks.trusted"]
    assert "'wan'" in found["networks.trusted"]
    assert len(found) == 2
    route = '[[route]]\nname = "x"\nto = ["carrier:1", "mailbox:a", "smtp:a_b"]\n'
    (fault,) = faults(tmp_path, route)
    assert "carrier" in fault.problem
    assert "a_b" in fault.problem


def test_times_of_a_match(tmp_path: Path) -> None:
    route = '[[route]]\nname = "x"\nto = ["discard"]\nmatch = { time = %s }\n'
    for given, hours in (
        ('"22:00-06:00"', ["22:00-06:00"]),
        ('["sat 00:00-24:00", "22:00-06:00"]', ["sat 00:00-24:00", "22:00-06:00"]),
    ):
        [rule] = load(tmp_path, route % given).routing.rules
        assert rule.time is not None
        assert [one.text for one in rule.time] == hours
    for wrong in ('"10pm-6am"', "[]", "22", '"08:00-08:00"'):
        [fault] = faults(tmp_path, route % wrong)
        assert fault.key == "route[1].match"
        assert "time: " in str(fault)


def test_every_bad_entry_of_a_match_is_named(tmp_path: Path) -> None:
    text = '[[route]]\nname = "x"\nmatch = { colour = 1, client = ["lan"], sender = 2 }\n'
    (fault,) = faults(tmp_path, text + 'to = ["discard"]\n')
    assert (fault.line, fault.key) == (3, "route[1].match")
    for word in ("colour", "'lan'", "sender"):
        assert word in fault.problem


def test_faults_between_keys_are_found_with_the_others(tmp_path: Path) -> None:
    text = """
[[listener]]
name = "smtp"
bind = ["0.0.0.0:2525"]
[[listener]]
name = "smtp"
bind = ["/run/x"]
[[mailbox]]
name = "ann"
[[mailbox]]
name = "ann"
[[route]]
name = "one"
match = { listener = "stmp" }
to = ["discard"]
[[route]]
name = "one"
to = ["discard"]
[retry]
first_s = 100
give_up_after_s = 10
[log]
format = "xml"
"""
    found = faults(tmp_path, text)
    lines = text.split("\n")
    assert places(found) == {
        (6, "listener[2].name"),
        (7, "listener[2].bind"),
        (lines.index('name = "ann"', 10) + 1, "mailbox[2].name"),
        (line_of(text, "match"), "route[1].match"),
        (lines.index('name = "one"', 15) + 1, "route[2].name"),
        (line_of(text, "give_up"), "retry.give_up_after_s"),
        (line_of(text, "format"), "log.format"),
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[retry]\n\n# first_s = 1\nfirst_s = "x"', 4),
        ('retry.first_s = "x"', 1),
        ('\nretry . first_s = "x"', 2),
        ('retry."first_s" = "x"', 1),
        ("'retry'.first_s = 'x'", 1),
        ('[ retry ] # here\nfirst_s = "x"', 2),
        ('["retry"]\nfirst_s = "x"', 2),
        ('retry = { first_s = "x" }', 1),
        ('[networks]\ntrusted = [\n  "loopback",\n  "any", # = 1\n]\n[retry]\nfirst_s = "x"', 7),
        ('data_dir = """\n/x\\\n[retry]\nfirst_s = 1\n"""\n[retry]\nfirst_s = "x"', 7),
        ("data_dir = '/x[y]#z'\n[retry]\nfirst_s = 'x'", 3),
        ('# \u2028 \u0085 are no line ends\n[retry]\nfirst_s = "x"', 3),
        ('data_dir = "/x\u2028y"\n[retry]\nfirst_s = "x"', 3),
        ('[retry]\r\nmax_s = 1\r\nfirst_s = "x"\r\n', 3),
    ],
)
def test_the_line_is_right_however_the_key_is_written(tmp_path: Path, text: str, line: int) -> None:
    file = tmp_path / "waypost.toml"
    file.write_bytes(text.encode())
    with pytest.raises(ConfigError) as caught:
        load_settings(file, tmp_path, {})
    assert (line, "retry.first_s") in places(list(caught.value.faults))


def test_the_line_is_right_in_tables_below_arrays(tmp_path: Path) -> None:
    text = """
[[route]]
name = "one"
to = ["discard"]
[route.match]
recipient = "*"
[[route]]
name = "two"
to = ["discard"]
[route.match]
colour = "red"
"""
    (fault,) = faults(tmp_path, text)
    assert (fault.line, fault.key) == (10, "route[2].match")


def test_what_is_no_toml_is_said_with_its_line(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "[retry]\nfirst_s = \n")
    assert "line 2" in str(fault)
    file = tmp_path / "waypost.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_settings(file, tmp_path, {})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path / "none.toml", tmp_path, {})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path, tmp_path, {})


def test_a_fault_in_words() -> None:
    assert str(ConfigFault("w.toml", 3, "retry.first_s", "bad")) == "w.toml:3: retry.first_s: bad"
    assert str(ConfigFault("WAYPOST__X", None, "", "bad")) == "WAYPOST__X: bad"


# Environment.


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        'hostname = "file.lan"\n[retry]\nfirst_s = 5\n',
        {
            "WAYPOST__HOSTNAME": "env.lan",
            "WAYPOST__RETRY__FIRST_S": "7.5",
            "WAYPOST__ADDRESSES__DOMAINS": '["a.example", "b.example"]',
            "WAYPOST__NETWORKS__ACCEPT_FROM_STRANGERS": "true",
            "WAYPOST__MAILBOXES__SUBADDRESS": "",
            "WAYPOST__LOG__FORMAT": "json",
            "WAYPOST__limits__recipients": "3",
            "WAYPOST_DATA": "/elsewhere",
            "HOME": "/home/u",
        },
    )
    assert settings.hostname == "env.lan"
    assert settings.retry.first_s == 7.5
    assert Domain("b.example") in settings.routing.domains
    assert settings.routing.accept_from_strangers
    assert settings.mailboxes.subaddress == ""
    assert settings.log_as_json
    assert settings.limits.recipients == 3


def test_faults_of_the_environment_come_with_those_of_the_file(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        "[retry]\nfirst_s = 'x'\n",
        {
            "WAYPOST__RETRY__MAX_S": "soon",
            "WAYPOST__RETRY__COLOUR": "1",
            "WAYPOST__COLOUR": "1",
            "WAYPOST__LISTENER__NAME": "x",
            "WAYPOST__A__B__C": "1",
            "WAYPOST__": "1",
        },
    )
    assert {(fault.source.rpartition("/")[2], fault.line) for fault in found} == {
        ("waypost.toml", 2),
        ("WAYPOST__RETRY__MAX_S", None),
        ("WAYPOST__RETRY__COLOUR", None),
        ("WAYPOST__COLOUR", None),
        ("WAYPOST__LISTENER__NAME", None),
        ("WAYPOST__A__B__C", None),
        ("WAYPOST__", None),
    }


@pytest.mark.parametrize("value", ["", "\n", "]", '"', "= 1", "1\nx = 2", "{", "\0", "'''", "nan"])
def test_any_value_of_the_environment_is_read_or_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "", {"WAYPOST__RETRY__FIRST_S": value})
    (fault,) = caught.value.faults
    assert fault.source == "WAYPOST__RETRY__FIRST_S"


def test_not_everybody_may_be_a_proxy(tmp_path: Path) -> None:
    listener = '[[listener]]\nname = "smtp"\nbind = ["0.0.0.0:25"]\n'
    (fault,) = faults(tmp_path, listener + 'proxy_protocol = ["10.0.0.2", "any"]\n')
    assert (fault.line, fault.key) == (4, "listener[1].proxy_protocol")
    assert "anybody could claim to be any client" in fault.problem
    settings = load(tmp_path, listener + 'proxy_protocol = ["10.0.0.2", "fd00::/64"]\n')
    assert settings.listeners[0].proxy_protocol == ("10.0.0.2", "fd00::/64")


@pytest.mark.parametrize(
    ("text", "delay_s"),
    [
        ("0", 0.0),
        ("2.5", 2.5),
        ("60", 60.0),
        *[(t, None) for t in ("61", "-1", "nan", "true", '"2"')],
    ],
)
def test_a_greeting_is_held_back_for_a_minute_at_most(
    tmp_path: Path, text: str, delay_s: float | None
) -> None:
    config = f"[limits]\ngreet_delay_s = {text}\n"
    if delay_s is None:
        (fault,) = faults(tmp_path, config)
        assert fault.key == "limits.greet_delay_s"
    else:
        assert load(tmp_path, config).limits.greet_delay_s == delay_s


# Webhooks and notifications.


def test_webhooks_and_notifications_are_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    urls = tmp_path / "urls"
    urls.write_text("# phones\nntfy://x/one\n\ntgram://two/3\nntfy://x/one\n")
    for file in (secret, urls):
        file.chmod(0o600)
    settings = load(
        tmp_path,
        '[webhook.plc]\nurl = "http://10.0.0.1/x"\n'
        f'secret_file = "{secret}"\nmax_attachment = "2M"\nnetworks = ["private"]\n'
        f'[notify.phones]\nurls = ["json://h/p"]\nurls_file = "{urls}"\ntext = "$text\\n$device"\n',
    )
    [hook] = settings.webhooks
    assert hook.url.revealed == "http://10.0.0.1/x"
    assert hook.secret is not None
    assert hook.secret.revealed == "s3cret"
    assert (hook.rules.max_octets, hook.networks) == (2 << 20, ("private",))
    assert (hook.rules.picture_px, hook.rules.takes_pictures) == (None, True)
    [phones] = settings.notify
    assert (phones.rules.types, phones.rules.max_octets) == ((), 1 << 20)
    revealed = [url.revealed for url in phones.urls]
    assert revealed == ["json://h/p", "ntfy://x/one", "tgram://two/3"]
    assert "s3cret" not in repr(settings)
    assert "ntfy" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[webhook.a]", "webhook.a"),
        ('[webhook.a]\nurl = "ftp://x/"', "webhook.a.url"),
        ('[webhook.a]\nurl = "file:///etc/passwd"', "webhook.a.url"),
        ('[webhook.a]\nurl = "http://u:p4ss@x/"', "webhook.a.url"),
        ('[webhook.a]\nurl = "http://127.1/"', "webhook.a.url"),
        (
            '[webhook.a]\nurl = "http://x/"\nattachment_types = ["image"]',
            "webhook.a.attachment_types",
        ),
        ('[webhook."a b"]\nurl = "http://x/"', "webhook.a b"),
        ('[notify.a]\nurls = ["ntfy://x"]\npicture_px = -1', "notify.a.picture_px"),
        ('[http]\nurl = "http://hub/?a=b"', "http.url"),
        ('[http]\nurl = "ftp://hub/"', "http.url"),
        ("[notify.a]", "notify.a"),
        ('[notify.a]\nurls = ["p4ss"]', "notify.a.urls"),
        ('[notify.a]\nurls = ["mailto://u:p4ss@x"]', "notify.a.urls"),
        ('[notify.a]\nurls = ["ntfy://x"]\ntitle = "$body"', "notify.a.title"),
        ('[[route]]\nname = "r"\nto = ["webhook:b"]\n', "route[1].to"),
        ('[[route]]\nname = "r"\nto = ["notify:b"]\n', "route[1].to"),
    ],
)
def test_faults_of_webhooks_and_notifications(tmp_path: Path, text: str, key: str) -> None:
    found = faults(tmp_path, text)
    assert key in {fault.key for fault in found}
    assert "p4ss" not in "".join(map(str, found))


def test_lmtp_is_refused_on_port_25(tmp_path: Path) -> None:
    """RFC 2033 §5: a client that speaks SMTP there would lose mail."""
    text = '[[listener]]\nname = "lmtp"\nrole = "lmtp"\nbind = ["127.0.0.1:{}"]\n'
    (fault,) = faults(tmp_path, text.format(25))
    assert fault.line == 4
    assert fault.key == "listener[1].bind"
    load(tmp_path, text.format(24))
