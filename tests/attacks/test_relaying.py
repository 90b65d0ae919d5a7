"""Attacks 17 to 42, 53 to 57, 62 and 76: addresses made to relay, to break out, or to overflow."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.attacks.talk import Talk
from tests.attacks.world import OWN, World
from tests.support.hub import Hub
from tests.support.mail import message, stuffed
from tests.support.waiting import wait_until

US4, US6 = OWN[0], OWN[3]
CONTENT = stuffed(message())

# Each with the number of its attack: a@b, "a%b" and so on, for our name and for our literals.
# The second is what may be said: 7 relaying denied, 1 no such mailbox, 3 no address at all.
RELAYING = [
    (17, "x@elsewhere.example", "7"),
    (18, "x%elsewhere.example@plant.example", "1"),
    (19, f"x%elsewhere.example@[{US4}]", "1"),
    (19, f"x%elsewhere.example@[IPv6:{US6}]", "1"),
    (20, '"x@elsewhere.example"', "3"),
    (21, '"x%elsewhere.example"', "3"),
    (22, '"x@elsewhere.example"@plant.example', "1"),
    (22, f'"x@elsewhere.example"@[{US4}]', "1"),
    (23, "x@elsewhere.example@plant.example", "3"),
    (23, f"x@elsewhere.example@[{US4}]", "3"),
    (24, "@plant.example:x@elsewhere.example", "7"),
    (25, f"@[{US4}]:x@elsewhere.example", "7"),
    (25, f"@[IPv6:{US6}]:x@elsewhere.example", "7"),
    (26, "elsewhere.example!x", "3"),
    (27, "elsewhere.example!x@plant.example", "1"),
    (28, f"elsewhere.example!x@[{US4}]", "1"),
    (29, "plant.example!elsewhere.example!x", "3"),
    (29, "plant.example!elsewhere.example!x@plant.example", "1"),
    (30, "x@[IPv6:2001:db8::7]", "7"),
    (30, "x@[ipv6:2001:DB8::7]", "7"),
    (30, "x@[IPv6:2001:db8:0:0:0:0:0:7]", "7"),
    (30, "x@[IPv6:2001:0db8:0000:0000:0000:0000:0.0.0.7]", "7"),
    (30, f"x@[IPv6:{US6}]", "1"),
    (31, f"x@[::ffff:{US4}]", "3"),
    (31, f"x@[IPv6:::ffff:{US4}]", "1"),
    (31, f"x@[IPv6:::ffff:{US4}.]", "3"),
    (32, f"x@[{US4}.]", "3"),
    (33, "x@plant.example.", "3"),
    (33, f"x@{US4}.", "37"),
    (37, "x@[203.0.113.7]", "7"),
    (37, f"x@{US4}", "7"),
    (38, "x@[10.9.0.50]", "7"),
    (38, "x@[127.0.0.1]", "1"),
    (39, f"@plant.example,@[{US4}]:x@[10.9.0.50]", "7"),
    (39, "@[10.9.0.50]:x@elsewhere.example", "7"),
    (40, "x@localhost", "7"),
    (40, "x@sub.plant.example", "7"),
    (40, "x@plant.example.elsewhere.example", "7"),
    (40, "x@[plant.example]", "3"),
    (40, "x@", "3"),
    (40, "@", "3"),
    (40, "x", "3"),
]
_SAID = {"1": "550 5.1.1", "3": "501 5.1.3", "7": "550 5.7.1"}
# Attacks 34 to 36: the same from senders that might be thought ours.
SENDERS = {
    "no sender": "x@elsewhere.example",
    "34": "",
    "35": "ann@plant.example",
    "36": f"ann@[{US4}]",
    "36 by IPv6": f"ann@[IPv6:{US6}]",
    "36 by loopback": "ann@[127.0.0.1]",
}


@pytest.mark.parametrize("sender", SENDERS.values(), ids=SENDERS)
def test_attacks_17_to_40_relaying(world: World, hub: Hub, sender: str) -> None:
    """No way of writing an address makes a stranger's mail leave, and none makes a mailbox."""
    before = {path.name for path in (hub.data / "mail").iterdir()} if mail(hub) else set()
    with world.watched(hub) as connections:
        for start in range(0, len(RELAYING), 10):
            with world.stranger(100) as talk:
                some = RELAYING[start : start + 10]
                replies = talk.begin(*(path for _, path, _ in some), sender=sender)
                for (number, path, may), reply in zip(some, replies, strict=True):
                    wanted = tuple(_SAID[code] for code in may)
                    assert reply.startswith(wanted), (number, path, reply)
                assert talk.say("DATA")[0].startswith("554")
    assert connections == set()
    assert {path.name for path in mail(hub)} == before


def mail(hub: Hub) -> list[Path]:
    """The directories of the mailboxes there are."""
    root = hub.data / "mail"
    return list(root.iterdir()) if root.exists() else []


def test_attacks_17_to_40_every_number_has_an_address() -> None:
    numbers = {number for number, _, _ in RELAYING} | {34, 35, 36}
    assert numbers == set(range(17, 41))


def test_attack_18_percent_and_bang_are_not_rewritten(world: World, hub: Hub) -> None:
    """Nor for a trusted client: they are parts of a mailbox's name."""
    with world.watched(hub) as connections, world.trusted() as talk:
        replies = talk.begin("x%elsewhere.example@[10.9.0.1]", "elsewhere.example!x@plant.example")
        assert all(reply.startswith("250") for reply in replies)
        assert talk.content(CONTENT).startswith("250")
        hub.wait_for_mail("x%25elsewhere.example")
        hub.wait_for_mail("elsewhere.example%21x")
    assert connections == set()


SPELLINGS_OF_US = [
    *(f"[{US4}]", f"[IPv6:::ffff:{US4}]", "[IPv6:::ffff:cb00:7101]", "[ipv6:::FFFF:CB00:7101]"),
    "[IPv6:0:0:0:0:0:ffff:203.0.113.1]",
    *("[IPv6:2001:db8::1]", "[IPv6:2001:DB8:0::1]", "[IPv6:2001:db8:0:0:0:0:0:1]"),
    *("[IPv6:2001:0db8:0000::0001]", "[iPv6:2001:db8::0.0.0.1]"),
]


def test_attack_42_one_mailbox_for_all_spellings(world: World, hub: Hub) -> None:
    before = len(hub.mailbox("ann"))
    with world.stranger(101) as talk:
        paths = [f"ann@{text}" for text in SPELLINGS_OF_US]
        assert all(reply.startswith("250") for reply in talk.begin(*paths))
        assert talk.content(CONTENT).startswith("250")
    stored = hub.wait_for_mail("ann", before + 1)
    wait_until(lambda: not hub.json("queue", "list"))
    assert len(hub.mailbox("ann")) == len(stored) == before + 1


# Attack 53: where octets could be put that end a line, for a header or for a command.
FIELDS = {
    "HELO": b"EHLO x%by\r\n",
    "MAIL": b"MAIL FROM:<a%bb@elsewhere.example>\r\n",
    "MAIL's host": b"MAIL FROM:<a@elsewhere%b.example>\r\n",
    "RCPT": b"RCPT TO:<ann%b@plant.example>\r\n",
    "RCPT's literal": b"RCPT TO:<ann@[203.0.113.1%b]>\r\n",
    "quoted": b'RCPT TO:<"an%bn"@plant.example>\r\n',
    "quoted pair": b'RCPT TO:<"an\\%bn"@plant.example>\r\n',
    "ENVID": b"MAIL FROM:<> ENVID=a%bb\r\n",
    "ORCPT": b"RCPT TO:<ann@plant.example> ORCPT=rfc822;a%bb\r\n",
    "AUTH=": b"MAIL FROM:<> AUTH=a%bb\r\n",
}
BREAKS = {
    "LF": b"\nDATA",
    "CR": b"\rBcc: evil@elsewhere.example",
    "NUL": b"\0",
    "LF CR": b"\n\r",
    "CR CR LF": b"\r\r\nDATA",
    "ESC": b"\x1b[2J",
    "VT": b"\x0b",
    "DEL": b"\x7f",
}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("octets", BREAKS)
def test_attack_53_line_ends_in_values(world: World, hub: Hub, field: str, octets: str) -> None:
    """Nothing is taken that holds one, from a stranger; two such lines end the session."""
    command = FIELDS[field] % BREAKS[octets]
    with world.stranger(102) as talk:
        if command.startswith(b"RCPT"):
            talk.say("MAIL FROM:<>")
        talk.send(command)
        reply = talk.reply()
        assert reply.startswith("5"), reply
        assert_usable_or_gone(talk)


@pytest.mark.parametrize("escaped", ["+0D+0A", "+0Ax:+20y", "+00", "+7F", "\\x{0D}\\x{0A}", "+1B"])
def test_attack_53_line_ends_in_escapes(world: World, hub: Hub, escaped: str) -> None:
    """xtext and \\x{} could put them into a report's fields."""
    with world.stranger(103) as talk:
        if not escaped.startswith("\\"):
            assert talk.say(f"MAIL FROM:<> ENVID=a{escaped}b")[0].startswith("501 5.5.4")
        talk.say("MAIL FROM:<x@elsewhere.example> SMTPUTF8")
        for kind in ("rfc822", "utf-8") if not escaped.startswith("\\") else ("utf-8",):
            command = f"RCPT TO:<ann@plant.example> ORCPT={kind};a{escaped}b@plant.example"
            assert talk.say(command)[0].startswith("501 5.5.4"), command


@pytest.mark.parametrize("who", ["stranger", "trusted"])
@pytest.mark.parametrize(
    "path",
    [
        '"a\\"@plant.example',
        '"a>"b@plant.example',
        '"a> ORCPT=x"@elsewhere.example',
        '"a>\tBCC:<evil@elsewhere.example"@elsewhere.example',
        'a"b"@plant.example',
        '"a""b"@plant.example',
        '"a"b"@plant.example',
        '"a@plant.example',
    ],
)
def test_attack_54_quoted_local_parts(world: World, hub: Hub, who: str, path: str) -> None:
    """What a path is, its first unquoted ">" says; no second path hides in quotes."""
    with world.stranger(104) if who == "stranger" else world.trusted() as talk:
        (reply,) = talk.begin(path)
        assert reply.startswith(("501 ", "550 ")), reply


def test_attack_54_a_bracket_in_quotes_goes_on_in_quotes(world: World, hub: Hub) -> None:
    """What is a proper address is one mailbox, and stands quoted in what the hub writes."""
    path = '"a> b"@plant.example'
    with world.trusted() as talk:
        assert talk.begin(path, sender='"<s> "@[10.9.0.50]')[0].startswith("250")
        assert talk.content(CONTENT).startswith("250")
    (stored,) = hub.wait_for_mail("a%3E%20b")
    assert stored.startswith(
        b'Return-Path: <"<s> "@[10.9.0.50]>\r\nDelivered-To: "a> b"@plant.example\r\n'
    )


SHELL = [
    *("$(id)", "`id`", "|id", "a;id", "a&id", "a|b", "${IFS}", "-oQ/tmp", "-f", "--help", "~root"),
    *("*", "?", "a'b", "#x", "a{b,c}", "^x", "!!", "=x"),
]


@pytest.mark.parametrize("local_part", SHELL)
def test_attack_55_no_shell_ever(world: World, hub: Hub, local_part: str) -> None:
    """Syntax or not: a name of a mailbox at most, and never a word of a command."""
    with world.stranger(105) as talk:
        (reply,) = talk.begin(f"{local_part}@plant.example")
        assert reply.startswith(("550 5.1.1", "501 5.1.3")), reply
        _, reply = talk.say("RSET", f"MAIL FROM:<{local_part}@x.example>")
        assert reply.startswith(("250", "501 5.1.7")), reply


@pytest.mark.parametrize("path", ["ann@", "ann@[]", "ann@.", "ann@;id;", "ann@-oQ.example", "@"])
def test_attack_55_an_empty_or_odd_domain_is_refused(world: World, hub: Hub, path: str) -> None:
    """CVE-2020-7247 began with one."""
    with world.stranger(106) as talk:
        assert talk.begin(path)[0].startswith("501 5.1.3")
        refused = talk.say("RSET", f"MAIL FROM:<{path}>")[1]
        assert refused.startswith("501 5.1.7"), refused


# Attack 56: command, refusal.
TOO_LONG = [
    ("NOOP " + "x" * 506, "500 5.5.2"),  # 513 octets with CRLF
    ("EHLO " + "x" * 506, "500 5.5.2"),
    ("RCPT TO:<ann@plant.example> ORCPT=rfc822;" + "x" * 501, "501 5.5.4"),
    ("RCPT TO:<" + "x" * 65 + "@plant.example>", "501 5.1.3"),
    ("RCPT TO:<x@" + "d" * 63 + ("." + "d" * 63) * 3 + ".x>", "501 "),
    ("RCPT TO:<x@" + "d" * 64 + ".example>", "501 5.1.3"),
    ("RCPT TO:<x@" + "d." * 127 + "dd>", "501 "),
    ("RCPT TO:<" + '"' + "\\x" * 65 + '"' + "@plant.example>", "501 "),
    ("RCPT TO:<" + "@x.example," * 200 + ":x@plant.example>", "50"),
    ("NOOP " + "x" * 100_000, "500 5.5.2"),
    ("x" * 1_000_000, "500 5.5.2"),
]


@pytest.mark.parametrize(("command", "refusal"), TOO_LONG)
def test_attack_56_too_long(world: World, hub: Hub, command: str, refusal: str) -> None:
    with world.stranger(107) as talk:
        if command.startswith("RCPT"):
            talk.say("MAIL FROM:<>")
        (reply,) = talk.say(command)
        assert reply.startswith(refusal), reply[:200]
        assert len(reply) < 512
        assert talk.say("NOOP") == ["250 2.0.0 Ok"]


def test_attack_56_memory_stays_flat(world: World, hub: Hub) -> None:
    """200 MB of a line without end."""
    with world.stranger(108) as talk:
        talk.send(b"NOOP ")
        talk.send(b"x" * 1_000_000)
        before = resident_kib(hub)
        for _ in range(200):
            talk.send(b"x" * 1_000_000)
        after = resident_kib(hub)
        assert talk.say("")[0].startswith("500 5.5.2")
    assert after - before < 8 * 1024


def resident_kib(hub: Hub) -> int:
    """Resident memory of a hub's process (inside `ip netns exec`, which becomes it)."""
    status = Path(f"/proc/{hub.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


def test_attack_62_unknown_recipients_are_refused_at_once(world: World, hub: Hub) -> None:
    """No report to a sender that may be forged: one who is unknown never gets into the queue."""
    log = len(hub.log_text())
    with world.watched(hub) as connections, world.stranger(109) as talk:
        for path in ("nobody@plant.example", f"nobody@[{US4}]", f"nobody@[IPv6:{US6}]"):
            assert talk.begin(path, sender="victim@elsewhere.example")[0].startswith("550 5.1.1")
            assert talk.say("DATA")[0].startswith("554 5.5.1")
            talk.say("RSET")
    assert connections == set()
    assert " received " not in hub.log_text()[log:]


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("MAIL FROM:<jürgen@elsewhere.example>", "553 5.6.7"),
        ("MAIL FROM:<a@bücher.example>", "553 5.6.7"),
        ("RCPT TO:<jürgen@plant.example>", "553 5.6.7"),
        ("RCPT TO:<ann@bücher.example>", "553 5.6.7"),
        ("RCPT TO:<ann@plant.example> ORCPT=utf-8;jürgen@plant.example", "553 5.6.7"),
    ],
)
def test_attack_76_utf8_without_smtputf8(world: World, hub: Hub, command: str, reply: str) -> None:
    """Refused where it stands, and DATA after it finds the session sound."""
    with world.stranger(110) as talk:
        if command.startswith("RCPT"):
            talk.say("MAIL FROM:<x@elsewhere.example>")
        assert talk.say(command)[0].startswith(reply)
        assert talk.say("DATA")[0].startswith(("503 ", "554 "))
        talk.say("RSET")
        assert talk.begin("ann@plant.example", sender="x@elsewhere.example")[0].startswith("250")
        before = len(hub.mailbox("ann"))
        assert talk.content(stuffed("Subject: Grüße\r\n\r\n✉\r\n".encode())).startswith("250")
    hub.wait_for_mail("ann", before + 1)


@pytest.mark.parametrize("octets", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"])
def test_attack_76_what_is_no_utf8(world: World, hub: Hub, octets: bytes) -> None:
    with world.stranger(111) as talk:
        talk.send(b"MAIL FROM:<a" + octets + b"@x.example> SMTPUTF8\r\n")
        assert talk.reply().startswith("500 5.5.2")
        assert talk.say("DATA")[0].startswith("503 ")


def assert_usable_or_gone(talk: Talk) -> None:
    """Whatever was refused: what follows is read as commands, or nothing is read at all."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            talk.send(b"NOOP\r\n")
        except OSError:
            return
        reply = talk.reply()
        if not reply or reply.startswith(("250 2.0.0", "421 ")):
            return
        assert reply.startswith("5"), reply
    raise AssertionError("neither in step nor gone")
