"""Sessions that ask about a mailbox, with peers of every kind on loopback sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import ssl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_port
from tests.support.postfix import install
from tests.support.scripted_peer import DROP, EXTENSIONS, Pause, ScriptedPeer
from waypost.check import probe
from waypost.check.answers import Stage
from waypost.check.probe import Prober, Session
from waypost.errors import ConnectForbidden
from waypost.mail.address import Address, IPAddress
from waypost.net.gate import Gate
from waypost.net.interfaces import OwnAddresses
from waypost.net.networks import Networks

HOST = "mx.x.dev"
IP = ip_address("127.0.0.1")
ANN = Address.parse("ann@x.dev")
ÅSA = Address.parse("åsa@x.dev")
SENDER = Address.parse("postmaster@plant.test")
EHLO = "EHLO client.test"
FROM_NOBODY = "MAIL FROM:<>"
TO_ANN = "RCPT TO:<ann@x.dev>"

PauseAt = Callable[[str], Pause]


def prober(port: int, *, sender: Address | None = SENDER, probed: str = "loopback") -> Prober:
    gate = Gate(
        trusted=Networks([]),
        own=OwnAddresses(follow_interfaces=False),
        listening=frozenset,
        probed=Networks([probed]),
    )
    return Prober(gate, helo=lambda ip: "client.test", sender=sender, port=port)


def ask(
    port: int,
    recipient: Address = ANN,
    *,
    sender: Address | None = SENDER,
    timeout_s: float = 20.0,
    with_tls: bool = True,
    host: str = HOST,
    ip: IPAddress = IP,
) -> Session:
    """One session, from a loop of its own that complains of nothing."""
    complaints: list[dict[str, Any]] = []

    async def run() -> Session:
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: complaints.append(context)
        )
        asking = prober(port, sender=sender)
        session = await asking.ask(host, ip, recipient, timeout_s=timeout_s, with_tls=with_tls)
        await asyncio.sleep(0)
        return session

    session = asyncio.run(run())
    assert not complaints
    return session


@pytest.fixture
def peer() -> Iterator[ScriptedPeer]:
    with ScriptedPeer() as running:
        yield running


@pytest.fixture
def pause_at(peer: ScriptedPeer) -> Iterator[Callable[[str], Pause]]:
    """The peer falls silent at a step, until the test ends."""
    pauses: list[Pause] = []

    def pause(step: str) -> Pause:
        pauses.append(peer.pause_at(step))
        return pauses[-1]

    yield pause
    for each in pauses:
        each.go_on()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is waited for long."""
    monkeypatch.setattr(probe, "REPLY_S", 0.2)
    monkeypatch.setattr(probe, "GOODBYE_S", 0.1)


# What goes over the wire.


def test_the_exact_sequence(peer: ScriptedPeer) -> None:
    session = ask(peer.port)
    assert peer.commands == [EHLO, FROM_NOBODY, TO_ANN, "RSET", "QUIT"]
    assert (peer.connections, peer.was_pipelined, peer.mails) == (1, False, [])
    assert session.is_accepted
    assert session.stage is Stage.RCPT
    assert (session.banner, session.mail_from) == ("peer.test ESMTP", "<>")
    assert session.extensions == list(EXTENSIONS)
    assert session.transcript[0] == "S: 220 peer.test ESMTP"
    assert session.transcript[-2:] == ["C: QUIT", "S: 221 2.0.0 Bye"]


@pytest.mark.parametrize("code", [250, 251, 252])
def test_each_yes_is_one(peer: ScriptedPeer, code: int) -> None:
    peer.answer("RCPT", f"{code} Will do")
    assert ask(peer.port).is_accepted


@pytest.mark.parametrize("code", [421, 450, 451, 452, 550, 551, 552, 553, 554])
def test_a_no_ends_it(peer: ScriptedPeer, code: int) -> None:
    peer.answer("RCPT", f"{code} no")
    session = ask(peer.port)
    assert session.reply is not None
    assert (session.reply.code, session.is_accepted) == (code, False)
    assert peer.commands.count(TO_ANN) == 1
    assert not [line for line in peer.commands if line[:4] in ("DATA", "BDAT", "VRFY", "EXPN")]


def test_a_reply_that_wants_more_is_no_yes(peer: ScriptedPeer) -> None:
    peer.answer("RCPT", "354 Go on")
    session = ask(peer.port)
    assert (session.is_accepted, session.trouble) == (False, "net.dropped")


def test_helo_where_ehlo_is_not_known(peer: ScriptedPeer) -> None:
    peer.answer("EHLO", "502 5.5.2 What?")
    assert ask(peer.port).is_accepted
    assert peer.commands == [EHLO, "HELO client.test", FROM_NOBODY, TO_ANN, "RSET", "QUIT"]


@pytest.mark.parametrize("reply", ["421 4.7.0 later", "450 busy"])
def test_no_helo_where_ehlo_is_put_off(peer: ScriptedPeer, reply: str) -> None:
    peer.answer("EHLO", reply)
    session = ask(peer.port)
    assert peer.commands == [EHLO, "QUIT"]
    assert (session.stage, session.reply and session.reply.code) == (Stage.EHLO, int(reply[:3]))


def test_a_host_that_hangs_up_on_helo_has_refused_ehlo(peer: ScriptedPeer) -> None:
    peer.answer("EHLO", "554 5.7.1 Blocked using zen.spamhaus.org")
    peer.answer("HELO", DROP)
    session = ask(peer.port)
    assert session.trouble is None
    assert session.reply is not None
    assert session.reply.code == 554


def test_a_sender_somebody_reads_where_nobody_is_refused(peer: ScriptedPeer) -> None:
    peer.answer(FROM_NOBODY, "550 5.7.1 null sender not allowed")
    session = ask(peer.port)
    assert session.is_accepted
    assert session.mail_from == f"<{SENDER}>"
    assert peer.commands == [
        *(EHLO, FROM_NOBODY, f"MAIL FROM:<{SENDER}>", TO_ANN, "RSET", "QUIT"),
    ]


@pytest.mark.parametrize("reply", ["421 later", "450 4.7.1 later", "530 5.7.0 STARTTLS first"])
def test_another_sender_is_no_way_round(peer: ScriptedPeer, reply: str) -> None:
    peer.answer("MAIL", reply)
    session = ask(peer.port)
    assert peer.commands == [EHLO, FROM_NOBODY, "QUIT"]
    assert (session.stage, session.mail_from) == (Stage.MAIL, "<>")


def test_no_sender_but_nobody(peer: ScriptedPeer) -> None:
    peer.answer("MAIL", "550 no")
    session = ask(peer.port, sender=None)
    assert peer.commands == [EHLO, FROM_NOBODY, "QUIT"]
    assert session.reply is not None


def test_both_senders_refused(peer: ScriptedPeer) -> None:
    peer.answer("MAIL", "550 no")
    session = ask(peer.port)
    assert peer.commands == [EHLO, FROM_NOBODY, f"MAIL FROM:<{SENDER}>", "QUIT"]
    assert session.stage is Stage.MAIL


@pytest.mark.parametrize("reply", ["554 5.7.1 Go away", "421 4.3.2 Full house"])
def test_refused_at_the_door(peer: ScriptedPeer, reply: str) -> None:
    peer.answer("GREETING", reply)
    session = ask(peer.port)
    assert peer.commands in (["QUIT"], [])  # this peer does not wait for it
    assert session.stage is Stage.GREETING
    assert session.reply is not None
    assert session.as_json()["rcpt"]["code"] == int(reply[:3])


@pytest.mark.parametrize("step", ["GREETING", "EHLO", "MAIL", "RCPT"])
def test_421_anywhere(peer: ScriptedPeer, step: str) -> None:
    peer.answer(step, "421 4.3.2 Going down")
    session = ask(peer.port)
    assert session.stage is Stage(step.lower())
    assert session.reply is not None
    assert (session.reply.code, session.trouble) == (421, None)


# SMTPUTF8.


def test_an_address_beyond_ascii(peer: ScriptedPeer) -> None:
    assert ask(peer.port, ÅSA).is_accepted
    assert peer.commands[1:3] == [f"{FROM_NOBODY} SMTPUTF8", "RCPT TO:<åsa@x.dev>"]


def test_an_address_beyond_ascii_that_cannot_be_said() -> None:
    with ScriptedPeer(extensions=["8BITMIME"]) as peer:
        session = ask(peer.port, ÅSA)
    assert peer.commands == [EHLO, "QUIT"]
    assert (session.stage, session.trouble, session.is_accepted) == (Stage.EHLO, None, False)
    assert session.as_json()["rcpt"] is None


@pytest.mark.parametrize(("extensions", "count"), [(["8BITMIME"], 1), (["SMTPUTF8"], 2)])
def test_a_sender_beyond_ascii_goes_where_it_can(extensions: list[str], count: int) -> None:
    with ScriptedPeer(extensions=extensions) as peer:
        peer.answer(FROM_NOBODY, "550 no")
        ask(peer.port, sender=ÅSA)
    senders = [line for line in peer.commands if line.startswith("MAIL")]
    assert senders == [FROM_NOBODY, "MAIL FROM:<åsa@x.dev> SMTPUTF8"][:count]


# Peers that break off, say nothing, or nonsense.


@pytest.mark.parametrize("step", ["GREETING", "EHLO", "MAIL", "RCPT"])
def test_a_peer_that_hangs_up(peer: ScriptedPeer, step: str) -> None:
    peer.answer(step, DROP)
    session = ask(peer.port)
    assert (session.stage, session.trouble) == (Stage(step.lower()), "net.dropped")
    assert session.reply is None


@pytest.mark.parametrize("step", ["RSET", "QUIT"])
def test_after_the_answer_nothing_counts(peer: ScriptedPeer, step: str) -> None:
    peer.answer(step, DROP)
    assert ask(peer.port).is_accepted


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("step", ["GREETING", "EHLO", "MAIL", "RCPT"])
def test_a_peer_that_says_nothing(peer: ScriptedPeer, pause_at: PauseAt, step: str) -> None:
    pause_at(step)
    session = ask(peer.port)
    assert (session.stage, session.trouble) == (Stage(step.lower()), "net.timeout")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("step", ["RSET", "QUIT"])
def test_nobody_waits_long_for_a_goodbye(peer: ScriptedPeer, pause_at: PauseAt, step: str) -> None:
    pause_at(step)
    assert ask(peer.port).is_accepted


LINE, TLS, END, SILENCE = "LINE", "TLS", "END", "SILENCE"
GREETING = b"220 x\r\n"
HELLO = b"250 x\r\n"


class RawPeer:
    """Does one act after the other, whatever it hears: octets are said, LINE reads a line."""

    def __init__(self, *acts: bytes | str, context: ssl.SSLContext | None = None) -> None:
        self._acts = acts
        self._context = context
        self.heard: list[str] = []
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError), contextlib.closing(writer):
            writer.transport.set_write_buffer_limits(0)
            for act in self._acts:
                if isinstance(act, bytes):
                    writer.write(act)
                    await writer.drain()
                elif act == LINE:
                    self.heard.append((await reader.readline()).decode(errors="replace"))
                elif act == TLS:
                    assert self._context is not None
                    await writer.start_tls(self._context)
                elif act == SILENCE:
                    await reader.read()


def ask_raw(peer: RawPeer, recipient: Address = ANN, **options: Any) -> Session:
    """One session with such a peer, both in one loop."""

    complaints: list[dict[str, Any]] = []

    async def run() -> Session:
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: complaints.append(context)
        )
        server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
        async with server:
            port: int = server.sockets[0].getsockname()[1]
            options.setdefault("timeout_s", 20.0)
            host = options.pop("host", HOST)
            session = await prober(port).ask(host, IP, recipient, **options)
            await asyncio.sleep(0.01)
            return session

    session = asyncio.run(run())
    assert not complaints
    return session


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "garbage",
    [
        b"hello\r\n",
        b"\r\n",
        b"\n",
        b"\0\0\0\0\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"999 x\r\n",
        b"25 x\r\n",
        b"250-x\r\n550 y\r\n",
        "２５０ ok\r\n".encode(),
        b"220-" + b"x" * 40_000,
        b"x" * 300_000,
        b"220-x\r\n" * 6_000,
    ],
    ids=lambda octets: repr(octets[:16]),
)
@pytest.mark.parametrize("before", [(), (GREETING, LINE), (GREETING, LINE, HELLO, LINE)])
def test_garbage_is_no_answer(before: Sequence[bytes | str], garbage: bytes) -> None:
    session = ask_raw(RawPeer(*before, garbage, SILENCE))
    assert session.trouble == "net.dropped"
    assert session.reply is None
    assert not session.is_accepted


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("unit", [b"250-x\r\n", b"x" * 997, b"250-" + b"y" * 500])
def test_a_reply_without_end(unit: bytes) -> None:
    session = ask_raw(RawPeer(GREETING, LINE, *[unit] * 5_000, SILENCE))
    assert (session.stage, session.trouble) == (Stage.EHLO, "net.dropped")


@pytest.mark.usefixtures("quick")
def test_one_octet_now_and_then_does_not_keep_us(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with (
            contextlib.closing(writer.transport),
            contextlib.suppress(OSError, asyncio.CancelledError),
        ):
            while True:
                writer.write(b"2")
                await writer.drain()
                await asyncio.sleep(0.02)

    peer = RawPeer()
    monkeypatch.setattr(peer, "serve", dribble)
    assert ask_raw(peer).trouble == "net.timeout"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "acts",
    [
        (b"220 x\r\n250 x\r\n", SILENCE),
        (b"220 x\r\n250 x\r\n250 x\r\n250 yes\r\n", SILENCE),
        (GREETING, LINE, b"250 x\r\n250 x\r\n250 yes\r\n", SILENCE),
        (GREETING, LINE, HELLO, LINE, b"250 x\r\n250 yes\r\n", SILENCE),
        (GREETING, LINE, HELLO, LINE, HELLO, LINE, b"250 x\r\n250 yes\r\n", SILENCE),
    ],
)
def test_replies_to_nothing_are_no_answers(acts: Sequence[bytes | str]) -> None:
    session = ask_raw(RawPeer(*acts))
    assert session.trouble == "net.dropped"
    assert not session.is_accepted


@pytest.mark.usefixtures("quick")
def test_the_whole_session_has_a_deadline(peer: ScriptedPeer, pause_at: PauseAt) -> None:
    pause_at("MAIL")
    session = ask(peer.port, timeout_s=0.1)
    assert (session.stage, session.trouble) == (Stage.MAIL, "net.timeout")
    assert session.banner is not None


@pytest.mark.usefixtures("quick")
def test_a_deadline_takes_no_answer_back(peer: ScriptedPeer, pause_at: PauseAt) -> None:
    pause_at("RSET")
    assert ask(peer.port, timeout_s=0.05 + probe.GOODBYE_S).is_accepted


# No connection.


def test_nobody_listens() -> None:
    session = ask(free_port())
    assert (session.stage, session.trouble) == (Stage.CONNECT, "net.refused")


def test_no_way() -> None:
    gate = Gate(
        trusted=Networks([]), own=OwnAddresses(follow_interfaces=False), listening=frozenset
    )
    asking = Prober(gate, helo=str, sender=None, port=25)

    async def no_way(*arguments: object, **options: object) -> None:
        raise OSError(101, "Network is unreachable")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "connect", no_way)
        session = asyncio.run(asking.ask(HOST, ip_address("5.9.0.1"), ANN, timeout_s=5))
    assert (session.stage, session.trouble) == (Stage.CONNECT, "net.unreachable")


@pytest.mark.parametrize("is_deadline", [True, False])
def test_a_host_that_does_not_even_refuse(
    monkeypatch: pytest.MonkeyPatch, is_deadline: bool
) -> None:
    async def hang(*arguments: object, **options: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(probe, "connect", hang)
    if not is_deadline:
        monkeypatch.setattr(probe, "CONNECT_S", 0.05)
    session = ask(25, timeout_s=0.05 if is_deadline else 20)
    assert (session.stage, session.trouble) == (Stage.CONNECT, "net.timeout")


@pytest.mark.parametrize(
    "ip",
    [
        *("10.0.0.5", "127.0.0.1", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.5"),
        *("169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "64:ff9b::7f00:1"),
        *("2002:7f00:1::1", "::127.0.0.1"),
    ],
)
def test_the_gate_is_asked_when_it_connects(
    monkeypatch: pytest.MonkeyPatch, ip: str, peer: ScriptedPeer
) -> None:
    """Whatever DNS said of a name before."""
    asking = prober(peer.port, probed="192.168.7.0/24")

    def no_socket(*arguments: object, **options: object) -> None:
        raise AssertionError("a socket was made")

    async def run() -> None:
        monkeypatch.setattr("socket.socket", no_socket)
        for try_it in (
            asking.ask(HOST, ip_address(ip), ANN, timeout_s=5),
            asking.answers(ip_address(ip), timeout_s=5),
        ):
            with pytest.raises(ConnectForbidden):
                await try_it

    loop = asyncio.new_event_loop()
    loop.run_until_complete(run())
    monkeypatch.undo()
    loop.close()
    assert peer.connections == 0


def test_whether_anything_greets_us(peer: ScriptedPeer) -> None:
    assert asyncio.run(prober(peer.port).answers(IP, timeout_s=5))
    assert peer.commands == ["QUIT"]
    peer.answer("GREETING", "554 no")
    assert asyncio.run(prober(peer.port).answers(IP, timeout_s=5))
    peer.answer("GREETING", DROP)
    assert not asyncio.run(prober(peer.port).answers(IP, timeout_s=5))
    assert not asyncio.run(prober(free_port()).answers(IP, timeout_s=5))


# TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of nobody in particular, in one file."""
    install("openssl")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=nobody.test"),
            *("-keyout", str(path), "-out", f"{path}.crt"),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


OFFER = b"250-x\r\n250 STARTTLS\r\n"
GO_AHEAD = b"220 Go ahead\r\n"
REST = (LINE, b"250-x\r\n250 SIZE\r\n", LINE, HELLO, LINE, b"550 no\r\n", LINE, HELLO, LINE)


def test_tls_where_it_is_offered(server_context: ssl.SSLContext) -> None:
    names: list[str | None] = []
    server_context.sni_callback = lambda tls, name, context: names.append(name)
    peer = RawPeer(GREETING, LINE, OFFER, LINE, GO_AHEAD, TLS, *REST, context=server_context)
    session = ask_raw(peer)
    assert [line.rstrip() for line in peer.heard] == [
        *(EHLO, "STARTTLS", EHLO, FROM_NOBODY, TO_ANN, "RSET", "QUIT")
    ]
    assert session.is_encrypted
    assert not session.has_tls_failed
    assert session.extensions == ["SIZE"]
    assert session.reply is not None
    assert session.reply.code == 550
    assert names == [HOST]


@pytest.mark.parametrize(
    "host",
    [
        *("[127.0.0.1]", "[IPv6:::1]", "a..b", ".x.dev", "x" * 64 + ".dev", "\\001" * 60 + ".dev"),
        *("mx_1.x.dev", "x." * 126 + "dev"),
    ],
    ids=lambda host: host[:12],
)
def test_a_name_tls_cannot_say_is_no_fault_of_the_host(
    server_context: ssl.SSLContext, host: str
) -> None:
    peer = RawPeer(GREETING, LINE, OFFER, LINE, GO_AHEAD, TLS, *REST, context=server_context)
    session = ask_raw(peer, host=host)
    assert session.is_encrypted
    assert session.stage is Stage.RCPT


@pytest.mark.parametrize("size", [len(GO_AHEAD), 1024, 4096, 8192, 16384])
@pytest.mark.parametrize("lies", [b"2", b"250 ok", b"250-ok\r\n", b"250 ok\r\n" * 4])
@pytest.mark.usefixtures("quick")
def test_what_was_said_before_tls_is_not_believed_after(
    server_context: ssl.SSLContext, size: int, lies: bytes
) -> None:
    """Somebody in between may have put it there, just behind a piece we read (CVE-2011-0411)."""
    filler = size - len(GO_AHEAD)
    go_ahead = b"220-" + b"x" * (filler - 6) + b"\r\n" + GO_AHEAD if filler else GO_AHEAD
    assert len(go_ahead) == size
    peer = RawPeer(
        *(GREETING, LINE, OFFER, LINE, go_ahead + lies, TLS, *REST), context=server_context
    )
    session = ask_raw(peer)
    assert session.reply is None or session.reply.code == 550
    assert not [line for line in session.transcript if "ok" in line]


def test_no_tls_where_it_is_not_wanted() -> None:
    peer = RawPeer(GREETING, LINE, OFFER, LINE, HELLO, LINE, HELLO, LINE, HELLO, LINE)
    session = ask_raw(peer, with_tls=False)
    assert peer.heard[1].startswith("MAIL")
    assert session.is_accepted


def test_tls_that_is_offered_and_not_given() -> None:
    peer = RawPeer(
        *(GREETING, LINE, OFFER, LINE, b"454 4.7.0 not now\r\n", LINE, HELLO, LINE, HELLO),
        *(LINE, HELLO, LINE),
    )
    session = ask_raw(peer)
    assert session.is_accepted
    assert (session.is_encrypted, session.has_tls_failed) == (False, False)


def test_421_instead_of_tls() -> None:
    session = ask_raw(RawPeer(GREETING, LINE, OFFER, LINE, b"421 4.3.2 Down\r\n", END))
    assert session.reply is not None
    assert (session.reply.code, session.trouble) == (421, None)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "acts",
    [(SILENCE,), (END,), (LINE, b"\x15\x03\x01\x00\x02\x02\x28", END)],
)
def test_a_broken_handshake_is_told_and_leaves_the_rest_to_others(
    acts: Sequence[bytes | str],
) -> None:
    session = ask_raw(RawPeer(GREETING, LINE, OFFER, LINE, GO_AHEAD, *acts))
    assert session.has_tls_failed
    assert not session.is_encrypted
    assert session.reply is None
    assert session.trouble in ("net.dropped", "net.timeout")


# What a peer says reaches logs, JSON and terminals.

NASTY = "\x1b[2J\x1b]0;x\x07\x00\x7f\x9b31m\x85\u2028\u202e\u200b\r"
_SAFE = re.compile(r"[ -~\ufffd]*")


@pytest.mark.parametrize("step", ["GREETING", "EHLO", "STARTTLS", "MAIL", "RCPT", "QUIT"])
@pytest.mark.parametrize("octets", [NASTY.encode(), NASTY.encode("latin-1", "ignore"), b"\xff" * 9])
def test_no_controls_of_a_peer(step: str, octets: bytes) -> None:
    bad = b"-" + octets + b"STARTTLS" + octets + b"\r\n250 " + octets + b"\r\n"
    replies = {"GREETING": GREETING, "EHLO": HELLO, "MAIL": HELLO, "RCPT": HELLO, "QUIT": HELLO}
    code = {"GREETING": b"220", "RCPT": b"550"}.get(step, b"250")
    replies[step] = code + bad.replace(b"\r\n250 ", b"\r\n" + code + b" ")
    acts: list[bytes | str] = [replies["GREETING"], LINE]
    for each in ("EHLO", "MAIL", "RCPT", "QUIT"):
        acts += [replies[each], LINE]
    session = ask_raw(RawPeer(*acts))
    text = json.dumps(session.as_json(), ensure_ascii=False)
    assert _SAFE.fullmatch(text), text
    json.loads(text)


def test_a_line_of_garbage_is_shown_as_its_octets() -> None:
    session = ask_raw(RawPeer(b"\x1b[31mhello\x9b\r\n", END))
    assert session.transcript[0].startswith("!: not a reply: b'\\x1b[31mhello")
    assert _SAFE.fullmatch("".join(session.transcript))


# What is left behind.


@pytest.mark.usefixtures("quick")
def test_nothing_is_left_open(server_context: ssl.SSLContext) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    tls = (GREETING, LINE, OFFER, LINE, GO_AHEAD, TLS)
    scripts: list[tuple[bytes | str, ...]] = [
        *((END,), (SILENCE,), (b"x\r\n", SILENCE), (GREETING, END), (*tls, SILENCE), (*tls, END)),
        *((*tls, *REST), (GREETING, LINE, OFFER, LINE, GO_AHEAD, SILENCE)),
    ]
    for script in scripts:
        ask_raw(RawPeer(*script, context=server_context))
    before = descriptors()
    for script in scripts * 2:
        ask_raw(RawPeer(*script, context=server_context))
    assert descriptors() <= before


def test_a_session_that_is_cancelled_hangs_up(peer: ScriptedPeer, pause_at: PauseAt) -> None:
    pause = pause_at("RCPT")

    async def run() -> None:
        task = asyncio.ensure_future(prober(peer.port).ask(HOST, IP, ANN, timeout_s=20))
        await asyncio.to_thread(pause.wait_until_reached)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert "RSET" not in peer.commands


def test_our_name_is_that_of_the_address_we_come_from(peer: ScriptedPeer) -> None:
    gate = Gate(
        trusted=Networks([]),
        own=OwnAddresses(follow_interfaces=False),
        listening=frozenset,
        probed=Networks(["loopback"]),
    )
    asking = Prober(gate, helo=lambda ip: f"[{ip}]", sender=None, port=peer.port)
    asyncio.run(asking.ask(HOST, IPv4Address("127.0.0.1"), ANN, timeout_s=5))
    assert peer.commands[0] == "EHLO [127.0.0.1]"
