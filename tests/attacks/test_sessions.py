"""Attacks 11, 13, 14, 58, 65, 66 and 68 on sessions, content, names of mailboxes, and the log."""

from __future__ import annotations

import base64
import re
import ssl
import time
from pathlib import Path

import pytest

from tests.attacks.talk import Talk
from tests.attacks.world import OWN, World
from tests.support.hub import Hub
from tests.support.mail import content_of, fields_of, message, stuffed
from tests.support.waiting import wait_until

CONTENT = stuffed(message())


def encrypt(talk: Talk, hub: Hub) -> Talk:
    """The same session, after STARTTLS and a handshake."""
    assert talk.say("STARTTLS")[0].startswith("220")
    context = ssl.create_default_context(cafile=hub.data / "tls" / "ca.pem")
    return talk.over(context, OWN[0])


def test_attack_13_what_was_said_before_tls_was_never_said(world: World, hub: Hub) -> None:
    """Greeting, sender, extensions: who changed them on the way has changed nothing."""
    before = len(hub.mailbox("ann"))
    with world.session("45.0.0.13") as clear:
        clear.say("EHLO before.example")
        clear.say("MAIL FROM:<before@elsewhere.example>", "RSET")
        talk = encrypt(clear, hub)
        assert talk.say("MAIL FROM:<x@elsewhere.example>")[0].startswith("503 ")
        for command in ("RCPT TO:<ann@plant.example>", "DATA"):
            assert talk.say(command) == ["503 5.5.1 " + GREET_FIRST]
        (offer,) = talk.say("EHLO after.example")
        assert "STARTTLS" not in offer
        assert talk.say("STARTTLS")[0].startswith("503 ")
        assert talk.begin("ann@plant.example", sender="after@elsewhere.example")[0].startswith("2")
        assert talk.content(CONTENT).startswith("250")
        talk.close()
    stored = hub.wait_for_mail("ann", before + 1)[-1]
    assert stored.startswith(b"Return-Path: <after@elsewhere.example>")
    (received,) = fields_of(stored, "received")
    assert "from after.example" in received
    assert " with ESMTPS id " in received
    assert b"before" not in stored


GREET_FIRST = "Say EHLO or HELO first"
MECHANISMS = ("PLAIN", "LOGIN", "SCRAM-SHA-256", "CRAM-MD5", "XOAUTH2", "EXTERNAL", "")
SECRET = base64.b64encode(b"\0ann\0geheim").decode()


@pytest.mark.parametrize("who", ["stranger", "trusted"])
def test_attack_14_no_login_before_tls(world: World, hub: Hub, who: str) -> None:
    """Neither offered nor taken, and what was sent of it is in no log."""
    for mechanism in MECHANISMS:
        for more in ("", f" {SECRET}", " ="):
            with world.stranger(14) if who == "stranger" else world.trusted() as talk:
                (offer,) = talk.say("EHLO x")
                assert not re.search(r"^250[- ]AUTH", offer, re.MULTILINE)
                (reply,) = talk.say(f"AUTH {mechanism}{more}")
                assert reply.startswith(("501", "502", "504", "530", "538")), reply
                assert talk.say(SECRET)[0].startswith("500"), "a line of a login was waited for"
    assert SECRET not in hub.log_text()
    assert SECRET.encode() not in hub.run("trace").stdout


# Attack 65: content that is expensive to understand. The hub has a route by subject for `ann`.


def parts(depth: int) -> bytes:
    """A multipart in a multipart, and so on."""
    heads = [
        f'Content-Type: multipart/mixed; boundary="{number}"\r\n\r\n--{number}\r\n'
        for number in range(depth)
    ]
    return "".join(heads).encode() + b"\r\nx\r\n"


MONSTERS = {
    "101 levels": parts(101),
    "10,000 levels": parts(10_000),
    "10,000 parts": b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
    + b"--b\r\n\r\n" * 10_000,
    "300 kB of a field": b"Subject: " + b"x" * 300_000 + b"\r\n\r\n",
    "300 kB of a folded field": b"Subject: x" + b"\r\n " * 100_000 + b"\r\n\r\n",
    "10,000 fields": b"X-A: b\r\n" * 10_000 + b"\r\n",
    "boundary of 64 kB": b'Content-Type: multipart/mixed; boundary="'
    + b"b" * 65_536
    + b'"\r\n\r\n',
    "20,000 comments": b"From: a" + b"(" * 20_000 + b")" * 20_000 + b" <a@b.example>\r\n\r\n",
    "20,000 open quotes": b'From: "' + b'\\"' * 20_000 + b" <a@b.example>\r\n\r\n",
    "20,000 encoded words": b"Subject: " + b"=?utf-8?q?a?=\r\n " * 20_000 + b"x\r\n\r\n",
    "an encoded word without end": b"Subject: =?utf-8?b?" + b"A" * 200_000 + b"\r\n\r\n",
    "8,000 addresses": b"To: a@b.example" + b",\r\n a@b.example" * 8_000 + b"\r\n\r\n",
    "8,000 From addresses": b"From: a@b.example" + b",\r\n a@b.example" * 8_000 + b"\r\n\r\n",
    "no colon at all": b"x" * 900 + b"\r\n" + b"y" * 300_000 + b"\r\n",
    "a million lines": b"\r\n" * 1_000_000,
}


def cpu_s(hub: Hub) -> float:
    """CPU time of a hub's process."""
    fields = Path(f"/proc/{hub.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.parametrize("name", MONSTERS)
def test_attack_65_monsters_pass_unread(world: World, hub: Hub, name: str) -> None:
    """Delivered as they came, at no more cost than as many octets of anything."""
    content = MONSTERS[name]
    plain = b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * (len(content) // 72 + 1)
    costs = []
    for each in (plain, content):
        before, count = cpu_s(hub), len(hub.mailbox("ann"))
        with world.stranger(65) as talk:
            talk.begin("ann@plant.example")
            assert talk.content(stuffed(each)).startswith("250")
        stored = hub.wait_for_mail("ann", count + 1)[-1]
        assert content_of(stored) == each
        costs.append(cpu_s(hub) - before)
    # In steps of 10 ms; the first message of a kind may be the one that compiles a pattern.
    assert costs[1] < 10 * costs[0] + 0.3


def test_attack_65_others_are_served_meanwhile(world: World, hub: Hub) -> None:
    """Each command of another session is answered between any two of the monsters'."""
    with world.stranger(66) as talk, world.stranger(67) as other:
        longest = 0.0
        for content in MONSTERS.values():
            talk.begin("ann@plant.example")
            assert talk.say("DATA")[0].startswith("354")
            talk.send(stuffed(content))
            before = time.monotonic()
            assert other.say("NOOP") == ["250 2.0.0 Ok"]
            longest = max(longest, time.monotonic() - before)
            assert talk.reply().startswith("250")
    assert longest < 5


NAMES = [
    ("ann", "ann", True),
    ("ANN", "ann", True),
    ("\u0430nn", "%D0%B0nn", False),  # Cyrillic a
    ("\uff41nn", "%EF%BD%81nn", False),  # full width
    ("ann\u200b", "ann%E2%80%8B", False),  # a space of no width
    ("a\u0301nn", "%C3%A1nn", False),  # an accent of its own
    ('".."', "%2E.", False),
    ('"."', "%2E", False),
    ('"/"', "%2F", False),
    ('"../../../tmp/x"', "%2E.%2F..%2F..%2Ftmp%2Fx", False),
    ('"/etc/passwd"', "%2Fetc%2Fpasswd", False),
    (".hidden", None, False),
    ('".hidden"', "%2Ehidden", False),
    ('"a\x00b"', None, False),
    ("%2e%2e%2f", "%252e%252e%252f", False),
    ("x" * 300, None, False),
    ("ж" * 33, None, False),
]


@pytest.mark.parametrize(("local_part", "directory", "is_there"), NAMES)
def test_attack_66_names_of_mailboxes(
    world: World, hub: Hub, local_part: str, directory: str | None, is_there: bool
) -> None:
    """A look-alike is another mailbox, and none is anywhere but right below the root."""
    path = f"{local_part}@plant.example"
    with world.stranger(68) as talk:
        talk.say("MAIL FROM:<> SMTPUTF8")
        assert talk.say(f"RCPT TO:<{path}>")[0].startswith("250" if is_there else "5")
    if directory is None:
        return
    with world.session("10.9.0.50", OWN[1]) as talk:
        talk.say("MAIL FROM:<> SMTPUTF8")
        assert talk.say(f"RCPT TO:<{path}>")[0].startswith("250")
        before = len(hub.mailbox(directory))
        assert talk.content(CONTENT).startswith("250")
    hub.wait_for_mail(directory, before + 1)
    root = hub.data / "mail"
    assert (root / directory).resolve().parent == root.resolve()


ODD = "x\x1b[31m\u2028\u2029\x85\x0b\x0c\u202e\ufeff id=forged\x7f"


@pytest.mark.parametrize("kind", ["text", "json"])
def test_attack_68_one_event_is_one_line(tmp_path: Path, kind: str) -> None:
    """Whatever clients say in names, addresses and greetings."""
    with Hub(tmp_path, f'[log]\nformat = "{kind}"\n') as hub:
        with Talk(hub.host, hub.port) as talk:
            talk.send(f"EHLO {ODD}\rQUIT\r\n".encode())
            talk.reply()
            for command in (
                f'MAIL FROM:<"{ODD}"@elsewhere.example> SMTPUTF8',
                "MAIL FROM:<ж\u2028ж@elsewhere.example> SMTPUTF8",
                f'RCPT TO:<"{ODD}"@[8.8.8.8]>',
                "RCPT TO:<x\u2028bug@[8.8.8.8]>",
                "RCPT TO:<x\u2029\u0085y@[127.0.0.1]>",
                f"AUTH {ODD}",
                f"{ODD}",
            ):
                talk.say(command)
            talk.send(b"MAIL FROM:<\xff\xfe@x> SMTPUTF8\r\n")
            talk.reply()
        wait_until(lambda: "8.8.8.8" in hub.log_text(), hub.log_text)
        log = hub.log_file.read_bytes()
    assert log.isascii()
    assert re.search(rb"[^\n -~]", log) is None
    begin = re.compile(rb"\{\"at\"" if kind == "json" else rb"\d{4}-\d\d-\d\dT\S+Z [a-z-]+( |$)")
    for line in log.splitlines():
        assert begin.match(line), line
        assert b" id=forged" not in re.sub(rb'"(?:[^"\\]|\\.)*"', b"", line)
