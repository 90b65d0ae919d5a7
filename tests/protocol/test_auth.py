"""AUTH on the server's engine (RFC 4954), every mechanism, without sockets and without TLS."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramClient, ScramException, ScramMechanism
from scramp.core import Nonce

from tests.protocol.driver import split_replies
from waypost.mail import reply as replies
from waypost.mail.reply import Reply
from waypost.smtp.command import MailRequested, RcptRequested
from waypost.smtp.events import (
    ContentRequested,
    LoginOffer,
    LoginRequested,
    ServerSettings,
    TlsRequested,
)
from waypost.smtp.phase import Phase
from waypost.smtp.sasl import (
    Claim,
    PasswordClaim,
    ProofClaim,
    Scram,
    ScramKeys,
    TokenClaim,
)
from waypost.smtp.server import ServerSession

ALL = ("SCRAM-SHA-256", "PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2")
PASSWORD = "pässword"
MADE = ScramMechanism("SCRAM-SHA-256").make_auth_info(PASSWORD, 4096, b"0123456789abcdef")
KEYS = ScramKeys(*MADE)


def keys_of(name: str) -> ScramKeys:
    """Those of ann; nobody else's fit any password."""
    return KEYS if name in ("ann", "a,b=c", "a=2Cb") else KEYS._replace(stored_key=b"x" * 32)


class Server:
    """A session whose logins are good for PASSWORD and the token "good"."""

    def __init__(
        self,
        *,
        encrypted: bool = True,
        needs_tls: bool = True,
        mechanisms: tuple[str, ...] = ALL,
        lenient: bool = False,
        greeted: bool = True,
        offer: bool = True,
    ) -> None:
        self.session = ServerSession(
            ServerSettings(1_000, 10, lenient=lenient),
            "hub.example",
            offers_tls=not encrypted,
            is_encrypted=encrypted,
            login_offer=LoginOffer(mechanisms, keys_of, needs_tls) if offer else None,
        )
        self.claims: list[Claim] = []
        self.mails: list[tuple[MailRequested, str | None]] = []
        self.verdict: Reply | None = None  # None: by the password
        if greeted:
            self.say(b"EHLO x")

    def feed(self, octets: bytes) -> bytes:
        session = self.session
        session.receive(octets)
        while (event := session.next_event()) is not None:
            if isinstance(event, LoginRequested):
                self._judge(event)
            elif isinstance(event, MailRequested):
                self.mails.append((event, session.login))
                session.answer(replies.SENDER_OK)
            elif isinstance(event, RcptRequested):
                session.answer(replies.RECIPIENT_OK)
            elif isinstance(event, TlsRequested):
                session.answer(replies.READY_FOR_TLS)
            elif isinstance(event, ContentRequested):
                session.answer(replies.START_CONTENT)
            elif session.is_answering:
                session.answer(replies.OK)
        return session.data_to_send()

    def _judge(self, event: LoginRequested) -> None:
        claim = event.claim
        self.claims.append(claim)
        if isinstance(claim, PasswordClaim):
            is_good = claim.password.revealed == PASSWORD
        elif isinstance(claim, TokenClaim):
            is_good = claim.token.revealed == "good"
        else:
            is_good = claim.is_good
        reply = self.verdict or (replies.LOGGED_IN if is_good else replies.LOGIN_REFUSED)
        if reply.is_positive:
            self.session.login = claim.username
        self.session.answer(reply)

    def say(self, *lines: bytes) -> str:
        """Say lines; the code and enhanced code of the last reply, or 334 with its challenge."""
        said = b""
        for line in lines:
            said = self.feed(line + b"\r\n")
        last = split_replies(said)[-1].split(b"\r\n")[-2].decode()
        if last.startswith("334"):
            return f"334 {b64decode(last[4:]).decode()}"
        return " ".join(last.split(" ")[:2])

    @property
    def is_closed(self) -> bool:
        return self.session.phase is Phase.CLOSED


def b64(text: str | bytes) -> bytes:
    return b64encode(text.encode() if isinstance(text, str) else text)


GOOD = b64(f"\0ann\0{PASSWORD}")
WRONG = b64("\0ann\0wrong")


# When it is offered, and to whom.


def offered(server: Server, greeting: bytes = b"EHLO x\r\n") -> bytes | None:
    found = re.search(rb"250[- ]AUTH ([^\r]*)\r\n", server.feed(greeting))
    return found and found[1]


def test_it_is_offered_after_tls_and_until_it_is_done() -> None:
    server = Server()
    assert offered(server) == b"SCRAM-SHA-256 PLAIN LOGIN OAUTHBEARER XOAUTH2"
    assert server.say(b"AUTH PLAIN " + GOOD) == "235 2.7.0"
    assert offered(server) is None


def test_before_tls_it_is_neither_offered_nor_taken() -> None:
    """RFC 4954 §4: 538; and the password that came with it is not looked at."""
    server = Server(encrypted=False)
    assert offered(server) is None
    assert server.say(b"AUTH PLAIN " + GOOD) == "538 5.7.11"
    assert server.say(b"AUTH LOGIN") == "538 5.7.11"
    assert server.claims == []
    assert server.session.login is None


def test_where_tls_is_not_needed_it_is_both() -> None:
    server = Server(encrypted=False, needs_tls=False)
    assert offered(server) is not None
    assert server.say(b"AUTH PLAIN " + GOOD) == "235 2.7.0"


def test_where_nobody_can_log_in_it_is_not_known() -> None:
    server = Server(offer=False)
    assert offered(server) is None
    assert server.say(b"AUTH PLAIN " + GOOD) == "502 5.5.1"


def test_a_mechanism_that_is_not_offered() -> None:
    server = Server(mechanisms=("PLAIN",))
    for mechanism in (b"LOGIN", b"CRAM-MD5", b"XOAUTH2", b"", b"PLAINX", b"\xc3\xa4"):
        assert server.say(b"AUTH " + mechanism) == "504 5.5.4"
    assert server.session.phase is Phase.READY


def test_before_any_greeting_and_after_helo() -> None:
    """Cameras say EHLO, then HELO, then AUTH LOGIN."""
    server = Server(greeted=False)
    assert server.say(b"AUTH PLAIN " + GOOD) == "503 5.5.1"
    server.say(b"EHLO cam")
    server.say(b"HELO cam")
    assert server.say(b"auth login") == "334 Username:"
    assert server.say(b64("ann"), b64(PASSWORD)) == "235 2.7.0"
    assert server.session.protocol == "SMTP"  # RFC 3848 has no word for it


def test_twice_and_in_a_transaction() -> None:
    server = Server()
    server.say(b"MAIL FROM:<a@b.example>")
    assert server.say(b"AUTH PLAIN " + GOOD) == "503 5.5.1"
    server.say(b"RCPT TO:<a@b.example>")
    assert server.say(b"AUTH PLAIN " + GOOD) == "503 5.5.1"
    assert server.session.phase is Phase.RECIPIENTS
    server.say(b"RSET")
    assert server.say(b"AUTH PLAIN " + GOOD) == "235 2.7.0"
    assert server.say(b"AUTH PLAIN " + GOOD) == "503 5.5.1"
    assert len(server.claims) == 1


@pytest.mark.parametrize("command", [b"RSET", b"EHLO again", b"HELO again", b"NOOP"])
def test_a_login_outlasts_all_but_tls(command: bytes) -> None:
    server = Server()
    server.say(b"AUTH PLAIN " + GOOD, command, b"MAIL FROM:<a@b.example>")
    assert server.mails[-1][1] == "ann"


def test_tls_ends_a_login_and_an_exchange() -> None:
    """RFC 3207 §4.2: nothing the client said before counts."""
    server = Server(encrypted=False, needs_tls=False)
    assert server.say(b"AUTH PLAIN " + GOOD) == "235 2.7.0"
    assert server.say(b"STARTTLS") == "220 2.0.0"
    server.session.encrypted()
    assert server.session.login is None
    assert server.say(b"AUTH PLAIN " + GOOD) == "503 5.5.1"
    server.say(b"EHLO x", b"MAIL FROM:<a@b.example>")
    assert server.mails[-1][1] is None


@pytest.mark.parametrize("greeting", [b"EHLO x", b"HELO x"])
def test_words_for_received(greeting: bytes) -> None:
    server = Server(greeted=False)
    server.say(greeting, b"AUTH PLAIN " + GOOD)
    assert server.session.protocol == ("ESMTPSA" if greeting == b"EHLO x" else "SMTP")
    server.say(b"MAIL FROM:<a@b.example> SMTPUTF8")
    assert server.session.protocol == "UTF8SMTPSA"


# PLAIN (RFC 4616) and LOGIN.


def test_plain_in_both_forms() -> None:
    for lines in ([b"AUTH PLAIN " + GOOD], [b"AUTH PLAIN", GOOD], [b"auth plain  " + GOOD]):
        server = Server()
        assert server.say(*lines) == "235 2.7.0"
        (claim,) = server.claims
        assert isinstance(claim, PasswordClaim)
        assert (claim.username, claim.password.revealed) == ("ann", PASSWORD)
    assert Server().say(b"AUTH PLAIN") == "334 "


@pytest.mark.parametrize(
    ("response", "reply"),
    [
        ("ann\0ann\0" + PASSWORD, "235 2.7.0"),
        ("bob\0ann\0" + PASSWORD, "501 5.5.2"),  # to act for somebody else
        ("\0ann\0wrong", "535 5.7.8"),
        ("\0ann", "501 5.5.2"),
        ("\0ann\0p\0q", "501 5.5.2"),
        ("\0\0p", "501 5.5.2"),
        ("\0ann\0", "501 5.5.2"),
        ("", "501 5.5.2"),
        ("\0" + "a" * 255 + "\0p", "535 5.7.8"),
        ("\0" + "a" * 256 + "\0p", "501 5.5.2"),
        ("\0ann\0" + "p" * 256, "501 5.5.2"),
        ("\0a\nb\0p", "501 5.5.2"),
        ("\0a\x1b[0m\0p", "501 5.5.2"),
        (b"\0a\xffb\0p", "501 5.5.2"),
        (b"\0ann\0\xed\xa0\x80", "501 5.5.2"),  # a surrogate
    ],
)
def test_what_plain_may_say(response: str | bytes, reply: str) -> None:
    for lines in ([b"AUTH PLAIN " + (b64(response) or b"=")], [b"AUTH PLAIN", b64(response)]):
        assert Server().say(*lines) == reply


def test_login_asks_in_the_words_that_devices_know() -> None:
    server = Server()
    assert server.feed(b"AUTH LOGIN\r\n") == b"334 VXNlcm5hbWU6\r\n"
    assert server.feed(b64("ann") + b"\r\n") == b"334 UGFzc3dvcmQ6\r\n"
    assert server.say(b64(PASSWORD)) == "235 2.7.0"


def test_login_with_the_name_on_the_first_line() -> None:
    server = Server()
    assert server.feed(b"AUTH LOGIN " + b64("ann") + b"\r\n") == b"334 UGFzc3dvcmQ6\r\n"
    assert server.say(b64(PASSWORD)) == "235 2.7.0"


@pytest.mark.parametrize("empty", [b"", b"="])
def test_login_with_nothing(empty: bytes) -> None:
    assert Server().say(b"AUTH LOGIN", empty, b64("p")) == "501 5.5.2"
    assert Server().say(b"AUTH LOGIN", b64("ann"), empty) == "501 5.5.2"


# What ends an exchange.


@pytest.mark.parametrize("mechanism", ALL)
def test_giving_up(mechanism: str) -> None:
    server = Server()
    assert server.say(f"AUTH {mechanism}".encode()).startswith("334 ")
    assert server.say(b"*") == "501 5.7.0"
    assert server.say(b"NOOP") == "250 2.0.0"
    assert server.claims == []


@pytest.mark.parametrize("mechanism", ALL)
@pytest.mark.parametrize(
    "line",
    [b"NOOP x", b"!!!!", b"YQ", b"YQ=", b"Y Q==", b"=YQ=", b"====", b"\xc3\xa4", b"YQ==YQ=="],
)
def test_what_is_no_base64(mechanism: str, line: bytes) -> None:
    """501, and the session goes on; never is a line of an exchange taken for a command."""
    server = Server()
    server.say(f"AUTH {mechanism}".encode())
    assert server.say(line).startswith("501 5.5.2")
    assert server.say(f"AUTH {mechanism} ".encode() + line).startswith("501 5.5.2")
    assert server.say(b"NOOP") == "250 2.0.0"


@pytest.mark.parametrize("lenient", [False, True])
def test_lines_that_are_too_long(lenient: bool) -> None:
    """RFC 4954 §4: 12,288 octets with CRLF, on the first line and on the others."""
    for begin in (b"AUTH PLAIN ", b""):
        for size, reply in ((12_288, "501 5.5.2"), (12_290, "500 5.5.2"), (50_000, "500 5.5.2")):
            server = Server(lenient=lenient)
            if not begin:
                server.say(b"AUTH PLAIN")
            line = begin + b"A" * (size - 2 - len(begin))
            # Base64 has a length that is a multiple of four; either way it is not of PLAIN.
            assert server.say(line) == reply
            assert server.say(b"NOOP") == "250 2.0.0"
    # Other commands are no longer for it.
    assert Server().say(b"NOOP " + b"x" * 600) == "500 5.5.2"


def test_nuls_and_bare_line_ends() -> None:
    server = Server()
    server.say(b"AUTH PLAIN")
    assert server.say(GOOD[:4] + b"\0" + GOOD[4:]).startswith("500 ")
    assert server.say(GOOD) != "235 2.7.0"  # the exchange has ended
    server = Server()
    server.say(b"AUTH PLAIN")
    server.feed(GOOD + b"\n")
    assert server.claims == []


def test_three_failures_end_the_session() -> None:
    for lines in (
        [b"AUTH PLAIN " + WRONG] * 3,
        [b"AUTH PLAIN !"] * 3,
        [b"AUTH LOGIN", b"*"] * 3,
        [b"AUTH PLAIN " + WRONG, b"AUTH PLAIN =", b"AUTH PLAIN " + WRONG],
    ):
        server = Server()
        for line in lines[:-1]:
            server.say(line)
        assert not server.is_closed
        said = split_replies(server.feed(lines[-1] + b"\r\n"))
        assert [reply[:3] for reply in said][1:] == [b"421"]
        assert server.is_closed


def test_later_is_no_login() -> None:
    server = Server()
    server.verdict = replies.LOGIN_LATER
    assert server.say(b"AUTH PLAIN " + GOOD) == "454 4.7.0"
    assert server.session.login is None
    server.verdict = None
    assert server.say(b"AUTH PLAIN " + GOOD) == "235 2.7.0"


def test_what_is_pipelined_behind_it_waits_for_the_answer() -> None:
    """RFC 2920 §3.1: the server reads no further, and then knows who it is."""
    server = Server()
    session = server.session
    session.receive(b"AUTH PLAIN " + GOOD + b"\r\nMAIL FROM:<a@b.example>\r\nNOOP\r\n")
    event = session.next_event()
    assert isinstance(event, LoginRequested)
    assert session.next_event() is None
    assert session.data_to_send() == b""
    session.login = "ann"
    session.answer(replies.LOGGED_IN)
    assert isinstance(session.next_event(), MailRequested)
    session.answer(replies.SENDER_OK)
    assert session.next_event() is None
    assert [said[:3] for said in split_replies(session.data_to_send())] == [b"235", b"250", b"250"]


def test_what_is_pipelined_behind_a_prompt_is_its_answer() -> None:
    """A command in place of a response is none, whatever it says."""
    server = Server()
    said = server.feed(b"AUTH LOGIN\r\nMAIL FROM:<a@b.example>\r\nNOOP\r\n")
    assert [reply[:3] for reply in split_replies(said)] == [b"334", b"501", b"250"]
    assert server.mails == []


def test_a_session_that_ends_while_it_is_judged() -> None:
    server = Server()
    session = server.session
    session.receive(b"AUTH PLAIN " + GOOD + b"\r\nNOOP\r\n")
    assert session.next_event() is not None
    session.refuse(replies.SHUTTING_DOWN)
    assert session.next_event() is None
    assert session.data_to_send() == replies.SHUTTING_DOWN.wire


# SCRAM-SHA-256 (RFC 5802, RFC 7677).


def first_of(client: ScramClient) -> bytes:
    return b64(client.get_client_first())


def heard(said: str) -> str:
    assert said.startswith("334 ")
    return said[4:]


@pytest.mark.parametrize("initial", [True, False])
@pytest.mark.parametrize("name", ["ann", "a,b=c", "a=2Cb"])
def test_scram(name: str, initial: bool) -> None:
    server = Server()
    client = ScramClient(["SCRAM-SHA-256"], name, PASSWORD)
    if initial:
        said = server.say(b"AUTH SCRAM-SHA-256 " + first_of(client))
    else:
        assert server.say(b"AUTH SCRAM-SHA-256") == "334 "
        said = server.say(first_of(client))
    client.set_server_first(heard(said))
    said = server.say(b64(client.get_client_final()))
    client.set_server_final(heard(said))  # raises unless the server knows the keys, too
    # Until it has heard that, the client is not in.
    assert server.session.phase is Phase.LOGIN
    assert server.say(b"") == "235 2.7.0"
    (claim,) = server.claims
    assert isinstance(claim, ProofClaim)
    assert (claim.username, claim.is_good) == (name, True)
    assert server.session.login == name


def test_the_vector_of_rfc_7677() -> None:
    """§3, with the nonce of the server put in."""
    salt = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    mechanism = ScramMechanism("SCRAM-SHA-256")
    asked: list[str] = []

    def keys_of_user(name: str) -> ScramKeys:
        asked.append(name)
        return ScramKeys(*mechanism.make_auth_info("pencil", 4096, salt))

    exchange = Scram(keys_of_user)
    exchange._server.s_nonce = Nonce("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    assert exchange.respond(None) == b""
    assert exchange.respond(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO") == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    claim = exchange.respond(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert claim == ProofClaim(
        "user", is_good=True, signature=b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    )
    assert asked == ["user"]


def proven(server: Server, password: str, name: str = "ann") -> str:
    """What the server says to the proof."""
    client = ScramClient(["SCRAM-SHA-256"], name, password)
    client.set_server_first(heard(server.say(b"AUTH SCRAM-SHA-256 " + first_of(client))))
    return server.say(b64(client.get_client_final()))


@pytest.mark.parametrize(("name", "password"), [("ann", "wrong"), ("nobody", PASSWORD)])
def test_scram_with_a_wrong_password(name: str, password: str) -> None:
    server = Server()
    assert proven(server, password, name) == "535 5.7.8"
    (claim,) = server.claims
    assert claim == ProofClaim(name, is_good=False)


def test_who_may_not_guess_any_more_does_not_learn_by_scram_either() -> None:
    """A right proof and a wrong one look the same to whoever is sent away unheard."""
    said = []
    for password in (PASSWORD, "wrong"):
        server = Server()
        server.verdict = replies.LOGIN_LATER
        said.append(proven(server, password))
        assert server.session.login is None
    assert said == ["454 4.7.0", "454 4.7.0"]


@pytest.mark.parametrize(
    ("last", "reply"), [(b"*", "501 5.7.0"), (b"x\0", "500 5.5.2"), (b"x" * 13_000, "500 5.5.2")]
)
def test_a_client_that_does_not_like_the_signature_is_not_in(last: bytes, reply: str) -> None:
    server = Server()
    assert proven(server, PASSWORD).startswith("334 v=")
    assert server.say(last).startswith(reply[:3])
    assert server.session.login is None
    server.say(b"MAIL FROM:<a@b.example>")
    assert server.mails[-1][1] is None


@pytest.mark.parametrize(
    "first",
    [
        "",
        "n",
        "n,,",
        "n,,n=ann",
        "n,,n=,r=abc",
        "n,,n=ann,r=",
        "n,a=bob,n=ann,r=abc",
        "p=tls-unique,,n=ann,r=abc",  # channel binding is not offered
        "n,,m=x,n=ann,r=abc",
        "n,,n=a=b,r=abc",
        "n,,r=abc,n=ann",
        "n,,n=ann,r=a\0b",
        "n,,n=a\x7fb,r=abc",
        "x,,n=ann,r=abc",
        "n,,n=" + "a" * 300 + ",r=abc",
        "n,,n=ann,r=\u00e4",
    ],
)
def test_scram_with_a_first_message_that_is_none(first: str) -> None:
    server = Server()
    assert server.say(b"AUTH SCRAM-SHA-256 " + (b64(first) or b"=")) == "501 5.5.2"
    assert server.claims == []


@pytest.mark.parametrize(
    "final", ["", "c=biws", "c=!,r=R,p=AAAA", "c=biws,r=x,p=AAAA", "c=eSws,r=R,p=AAAA", "e=x"]
)
def test_scram_with_a_last_message_that_is_none(final: str) -> None:
    server = Server()
    client = ScramClient(["SCRAM-SHA-256"], "ann", PASSWORD)
    first = heard(server.say(b"AUTH SCRAM-SHA-256 " + first_of(client)))
    nonce = first.partition("r=")[2].partition(",")[0]
    assert server.say(b64(final.replace("R", nonce)))[:3] in ("501", "535")
    assert all(isinstance(claim, ProofClaim) and not claim.is_good for claim in server.claims)
    assert server.session.login is None


def test_a_proof_is_good_only_once() -> None:
    server = Server()
    client = ScramClient(["SCRAM-SHA-256"], "ann", PASSWORD)
    first = first_of(client)
    client.set_server_first(heard(server.say(b"AUTH SCRAM-SHA-256 " + first)))
    final = b64(client.get_client_final())
    server.say(final, b"*")
    server.say(b"AUTH SCRAM-SHA-256 " + first)
    assert server.say(final) == "535 5.7.8"


def test_a_server_that_does_not_know_the_keys_is_found_out() -> None:
    """What the client checks is real: a signature with other keys does not pass."""
    client = ScramClient(["SCRAM-SHA-256"], "ann", PASSWORD)
    exchange = Scram(lambda name: KEYS._replace(server_key=b"y" * 32))
    first = exchange.respond(client.get_client_first().encode())
    assert isinstance(first, bytes)
    client.set_server_first(first.decode())
    claim = exchange.respond(client.get_client_final().encode())
    assert isinstance(claim, ProofClaim)
    with pytest.raises(ScramException):
        client.set_server_final(claim.signature.decode())


# OAUTHBEARER (RFC 7628) and XOAUTH2.


BEARER = "n,a=ann,\x01host=hub.example\x01port=587\x01auth=Bearer {}\x01\x01"
XOAUTH2 = "user=ann\x01auth=Bearer {}\x01\x01"


@pytest.mark.parametrize(("mechanism", "form"), [("OAUTHBEARER", BEARER), ("XOAUTH2", XOAUTH2)])
def test_tokens(mechanism: str, form: str) -> None:
    server = Server()
    assert server.say(f"AUTH {mechanism} ".encode() + b64(form.format("good"))) == "235 2.7.0"
    (claim,) = server.claims
    assert isinstance(claim, TokenClaim)
    assert (claim.username, claim.token.revealed) == ("ann", "good")


@pytest.mark.parametrize(("mechanism", "form"), [("OAUTHBEARER", BEARER), ("XOAUTH2", XOAUTH2)])
@pytest.mark.parametrize(("last", "reply"), [(b"AQ==", "535"), (b"", "535"), (b"*", "501")])
def test_a_refused_token(mechanism: str, form: str, last: bytes, reply: str) -> None:
    """RFC 7628 §3.2.3: the reason is a challenge, the refusal comes after its answer."""
    server = Server()
    said = server.say(f"AUTH {mechanism} ".encode() + b64(form.format("bad")))
    assert said == '334 {"status":"invalid_token"}'
    assert server.say(last)[:3] == reply
    assert server.session.login is None
    assert server.say(b"NOOP") == "250 2.0.0"


def test_a_token_without_a_name_and_one_with_commas() -> None:
    server = Server()
    server.say(b"AUTH OAUTHBEARER " + b64("n,,\x01auth=Bearer good\x01\x01"))
    assert server.claims[0].username == ""
    server = Server()
    server.say(b"AUTH OAUTHBEARER " + b64("y,a=a=2Cb=3Dc,\x01auth=bearer good\x01\x01"))
    assert server.claims[0].username == "a,b=c"


@pytest.mark.parametrize("form", ["n,,\x01\x01", "n,,\x01auth=Basic x\x01\x01", "", "user=ann"])
def test_no_token(form: str) -> None:
    server = Server()
    assert server.say(b"AUTH OAUTHBEARER " + (b64(form) or b"=")) == "501 5.5.2"


# All of it at once.


def test_no_claim_shows_what_was_said() -> None:
    server = Server()
    server.say(b"AUTH PLAIN " + GOOD)
    other = Server()
    other.say(b"AUTH XOAUTH2 " + b64(XOAUTH2.format("good")))
    shown = repr([*server.claims, *other.claims])
    assert PASSWORD not in shown
    assert "good" not in shown


DIALOGUE = (
    b"EHLO x\r\nAUTH LOGIN\r\n" + b64("ann") + b"\r\n" + b64("wrong") + b"\r\n"
    b"AUTH PLAIN " + WRONG + b"\r\nAUTH XOAUTH2 " + b64(XOAUTH2.format("good")) + b"\r\n"
    b"AUTH PLAIN\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<a@b.example>\r\nAUTH LOGIN\r\nRSET\r\n"
)


def test_every_split_point() -> None:
    whole = Server(greeted=False)
    expected = whole.feed(DIALOGUE)
    codes = [reply[:3] for reply in split_replies(expected)]
    assert codes == [
        *(b"250", b"334", b"334", b"535", b"535", b"235"),
        *(b"503", b"250", b"250", b"503", b"250"),
    ]
    for at in range(len(DIALOGUE)):
        server = Server(greeted=False)
        assert server.feed(DIALOGUE[:at]) + server.feed(DIALOGUE[at:]) == expected
        assert [claim.username for claim in server.claims] == ["ann", "ann", "ann"]


LINES = [
    *(b"EHLO x", b"HELO x", b"RSET", b"NOOP", b"MAIL FROM:<a@b.example>", b"RCPT TO:<a@b.example>"),
    *(f"AUTH {mechanism}".encode() for mechanism in ALL),
    *(b"AUTH PLAIN " + GOOD, b"AUTH PLAIN " + WRONG, b"AUTH PLAIN =", GOOD, b"*", b"", b"="),
    *(b64("ann"), b64(PASSWORD), b64("n,,n=ann,r=abc"), b64("c=biws,r=abc,p=AAAA"), b"\xff", b"!"),
    *(b64(BEARER.format("bad")), b64(XOAUTH2.format("good")), b"AUTH", b"AUTH LOGIN YW5u"),
    *(b"STARTTLS", b"x" * 3_000, b"A" * 12_286, b"A" * 13_000),
]


@given(st.lists(st.sampled_from(LINES), max_size=30), st.booleans())
def test_each_line_has_exactly_one_reply(lines: list[bytes], lenient: bool) -> None:
    server = Server(lenient=lenient)
    for line in lines:
        if server.is_closed:
            break
        said = split_replies(server.feed(line + b"\r\n"))
        assert len(said) == 1 or (
            len(said) == 2 and said[1].startswith(b"421") and server.is_closed
        )
        assert not server.session.is_answering
        # Only one answer makes a login, and each of its exchanges has a claim behind it.
        if said[0].startswith(b"235"):
            assert server.session.login is not None
        if server.session.login is None:
            assert not said[0].startswith(b"235")


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from([line + b"\r\n" for line in LINES]),
            st.binary(max_size=60).map(lambda octets: b64(octets) + b"\r\n"),
            st.text(max_size=40).map(lambda text: b"AUTH SCRAM-SHA-256 " + b64(text) + b"\r\n"),
            st.text(max_size=40).map(lambda text: b"AUTH PLAIN " + b64(text) + b"\r\n"),
        ),
        max_size=25,
    ),
    st.booleans(),
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
)
def test_any_octets_and_any_split(pieces: list[bytes], lenient: bool, sizes: list[int]) -> None:
    """Never an exception, never anything but replies, and the same however it comes."""
    stream = b"".join(pieces)
    # SCRAM's nonces differ, so what it says is compared only where it is not offered.
    mechanisms = ALL[1:]
    split_replies(Server(lenient=lenient).feed(stream))
    whole = Server(lenient=lenient, mechanisms=mechanisms)
    expected = whole.feed(stream)
    split_replies(expected)
    other = Server(lenient=lenient, mechanisms=mechanisms)
    position = index = 0
    said = b""
    while position < len(stream):
        size = sizes[index % len(sizes)]
        said += other.feed(stream[position : position + size])
        position, index = position + size, index + 1
        assert other.session.buffered_bytes <= 12_289 or other.is_closed
    assert said == expected
    assert repr(other.claims) == repr(whole.claims)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_scram_hears_anything(first: bytes, second: bytes) -> None:
    server = Server()
    server.say(b"AUTH SCRAM-SHA-256 " + b64("n,,n=ann,r=abc"))
    server.say(b64(first))
    server.say(b64(second))
    assert server.session.login is None


def test_a_bad_line_ends_the_login_also_when_more_came_with_it() -> None:
    """What stands behind it is a command again, not an answer to a challenge that is gone."""
    session = Server()
    said = session.feed(b"AUTH LOGIN AQ4/\r\n\0\r\nNOOP\r\n")
    assert [reply[:3] for reply in split_replies(said)] == [b"334", b"500", b"250"]
