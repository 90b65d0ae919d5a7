"""Manners: who is asked, how often, in which order, and what is remembered of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from time import sleep as real_sleep
from types import SimpleNamespace
from typing import Any, cast

import pytest

from waypost.check import inquiry
from waypost.check.answers import Stage
from waypost.check.inquiry import Answer, Inquiry
from waypost.check.memory import Budget, Memory
from waypost.check.probe import Prober, Session
from waypost.check.settings import CheckSettings
from waypost.check.standing import Standings
from waypost.errors import ConnectForbidden
from waypost.mail.address import Address, IPAddress
from waypost.mail.reply import Reply
from waypost.net.gate import Gate
from waypost.net.interfaces import OwnAddresses
from waypost.net.networks import Networks

HOUR_S = 3_600.0
ANN, BOB = Address.parse("ann@x.dev"), Address.parse("bob@x.dev")
LITERAL = Address.parse("ann@[5.9.0.1]")
IPS = [ip_address(f"5.9.{number}.1") for number in range(9)]
PLACES = [(f"mx{number}.x.dev", ip) for number, ip in enumerate(IPS)]
AT_LITERAL = [("[5.9.0.1]", ip_address("5.9.0.1"))]
NO_USER = "550 5.1.1 User unknown"
ALL_IS_WELL = "250 2.1.5 Ok"

Script = Callable[[Session, Address], None]


def said(text: str, stage: Stage = Stage.RCPT) -> Script:
    """The host answers so at a stage."""

    def play(session: Session, recipient: Address) -> None:
        session.stage, session.banner = stage, "x"
        session.extensions = ["STARTTLS"]
        session.reply = Reply.received(int(text[:3]), [text[4:]])
        session.transcript.append(f"C: RCPT TO:<{recipient}>")

    return play


def trouble(code: str, stage: Stage = Stage.CONNECT) -> Script:
    """The session comes to nothing."""

    def play(session: Session, recipient: Address) -> None:
        session.stage, session.trouble = stage, code
        session.banner = None if stage in (Stage.CONNECT, Stage.GREETING) else "x"

    return play


def only_for(*local_parts: str, no: str = NO_USER) -> Script:
    """Mailboxes of these names, and of nobody else."""

    def play(session: Session, recipient: Address) -> None:
        said(ALL_IS_WELL if recipient.local_part in local_parts else no)(session, recipient)

    return play


@dataclass
class FakeProber:
    """Plays a script for each host, and notes who was asked."""

    scripts: dict[IPAddress, Script] = field(default_factory=dict)
    default: Script = field(default_factory=lambda: only_for("ann"))
    port: int = 25
    asked: list[tuple[str, str]] = field(default_factory=list)  # ip, recipient
    tested: list[str] = field(default_factory=list)
    forbidden: set[IPAddress] = field(default_factory=set)
    greeting: set[str] = field(default_factory=set)  # those that still answer
    under_way: int = 0
    most_under_way: int = 0
    tls_breaks: bool = False

    async def ask(
        self, host: str, ip: IPAddress, recipient: Address, *, timeout_s: float, with_tls: bool
    ) -> Session:
        if ip in self.forbidden:
            raise ConnectForbidden(f"{ip} is private")
        self.asked.append((str(ip), str(recipient)))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.to_thread(real_sleep, 0.005)  # long enough for others to come, too
        session = Session(host, ip, self.port)
        if self.tls_breaks and with_tls:
            session.stage, session.trouble = Stage.EHLO, "net.dropped"
            session.has_tls_failed = True
        else:
            self.scripts.get(ip, self.default)(session, recipient)
        self.under_way -= 1
        return session

    async def answers(self, ip: IPAddress, *, timeout_s: float) -> bool:
        self.tested.append(str(ip))
        await asyncio.sleep(0)
        return str(ip) in self.greeting

    def recipients(self) -> list[str]:
        return [recipient for _, recipient in self.asked]

    def hosts(self) -> list[str]:
        return [ip for ip, _ in self.asked]


@dataclass
class FakeStandings:
    """We are in order, unless a test says otherwise."""

    faults: Sequence[str] = ()
    asked: int = 0

    async def faults_towards(self, ip: IPAddress) -> Sequence[str]:
        self.asked += 1
        return self.faults


class Desk:
    """An inquiry with all that is around it, in a time of its own."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.memory = Memory(None, clock=self.clock)
        self.prober = FakeProber()
        self.standings = FakeStandings()
        self.settings = CheckSettings(may_probe=True, budget=Budget(100, 100, 1_000, 10_000))
        self.waits: list[float] = []
        self.inquiry = self.opened()

    def clock(self) -> float:
        return self.now

    def opened(self, *, waits: bool = False, is_fresh: bool = False) -> Inquiry:
        """Another run, with the same memory."""
        self.inquiry = Inquiry(
            *(cast(Prober, self.prober), self.memory, cast(Standings, self.standings)),
            self.settings,
            timeout_s=60.0,
            waits=waits,
            is_fresh=is_fresh,
            on_wait=self.waits.append,
        )
        return self.inquiry

    def ask(
        self, address: Address = ANN, places: Sequence[tuple[str, IPAddress]] = PLACES[:1]
    ) -> Answer:
        return asyncio.run(self.inquiry.ask(address, places))

    def code(
        self, address: Address = ANN, places: Sequence[tuple[str, IPAddress]] = PLACES[:1]
    ) -> str:
        return self.ask(address, places).findings[0].code

    def ask_all(
        self, questions: Sequence[tuple[Address, Sequence[tuple[str, IPAddress]]]]
    ) -> list[str]:
        """Side by side; the codes."""

        async def run() -> list[Answer]:
            return await asyncio.gather(*(self.inquiry.ask(*each) for each in questions))

        return [answer.findings[0].code for answer in asyncio.run(run())]

    def is_blocked(self) -> bool:
        return self.inquiry.is_port_blocked

    def next_run(self, **options: bool) -> None:
        self.prober.asked.clear()
        self.opened(**options)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    made = Desk()
    really_sleep = asyncio.sleep

    async def sleep(delay: float) -> None:
        made.now += delay
        await really_sleep(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(inquiry, "time", SimpleNamespace(time=made.clock, monotonic=made.clock))
    monkeypatch.setattr(inquiry, "source_towards", lambda ip: ip_address("5.8.0.1"))
    yield made
    made.memory.close()


def smtp_of(answer: Answer) -> dict[str, Any]:
    assert answer.evidence.smtp is not None
    json.dumps(answer.evidence.smtp)
    return dict(answer.evidence.smtp)


# What an answer means, and how long it lives.


def test_a_yes_counts_where_others_get_a_no(desk: Desk) -> None:
    answer = desk.ask()
    assert answer.findings[0].code == "smtp.rcpt_ok"
    first, second = desk.prober.recipients()
    assert first == "ann@x.dev"
    assert second.endswith("-nobody@x.dev")
    smtp = smtp_of(answer)
    assert (smtp["catch_all"], smtp["control"]) == ("no", {"kind": "random", "code": 550})


def test_a_yes_lives_a_day_and_nobody_is_asked_for_a_week(desk: Desk) -> None:
    desk.ask()
    desk.now += 24 * HOUR_S - 1
    desk.next_run()
    answer = desk.ask()
    assert (answer.findings[0].code, answer.evidence.is_from_cache) == ("smtp.rcpt_ok", True)
    assert desk.prober.asked == []
    desk.now += 1
    assert desk.code() == "smtp.rcpt_ok"
    assert desk.prober.recipients() == ["ann@x.dev"]
    desk.now += 6 * 24 * HOUR_S
    desk.next_run()
    desk.ask()
    assert len(desk.prober.asked) == 2


def test_a_no_lives_two_hours(desk: Desk) -> None:
    assert desk.code(BOB) == "smtp.no_such_user"
    desk.now += 2 * HOUR_S - 1
    desk.next_run()
    assert desk.code(BOB) == "smtp.no_such_user"
    assert desk.prober.asked == []
    desk.now += 1
    desk.ask(BOB)
    assert desk.prober.recipients() == ["bob@x.dev"]


def test_one_address_says_nothing_of_another(desk: Desk) -> None:
    desk.ask(BOB)
    assert desk.code(ANN) == "smtp.rcpt_ok"
    assert desk.code(Address.parse("Ann@x.dev")) == "smtp.no_such_user"
    assert desk.code(Address.parse("ann@y.dev")) == "smtp.rcpt_ok"


def test_a_host_that_takes_everybody(desk: Desk) -> None:
    desk.prober.default = said(ALL_IS_WELL)
    assert desk.code() == "smtp.catch_all"
    assert desk.code(BOB) == "smtp.catch_all"
    assert len(desk.prober.asked) == 3
    desk.now += 7 * 24 * HOUR_S - 1
    desk.next_run()
    assert desk.code(BOB) == "smtp.catch_all"
    assert len(desk.prober.asked) == 1
    desk.now += 24 * HOUR_S
    desk.next_run()
    assert desk.code(BOB) == "smtp.catch_all"
    assert len(desk.prober.asked) == 2


@pytest.mark.parametrize(
    "control",
    [
        said("450 4.2.0 Greylisted"),
        said("554 5.7.1 Blocked using zen.spamhaus.org"),
        said("550 5.7.1 Relaying denied", Stage.MAIL),
        said("552 5.2.2 Over quota", Stage.MAIL),
        said("554 5.1.1 User unknown", Stage.GREETING),
        trouble("net.timeout"),
        trouble("net.dropped", Stage.RCPT),
    ],
)
def test_a_control_that_fails_proves_nothing(desk: Desk, control: Script) -> None:
    def play(session: Session, recipient: Address) -> None:
        (said(ALL_IS_WELL) if recipient == ANN else control)(session, recipient)

    desk.prober.default = play
    answer = desk.ask()
    assert answer.findings[0].code == "smtp.unproven"
    assert smtp_of(answer)["catch_all"] == "unknown"
    desk.prober.default = only_for("ann", "bob")
    assert desk.code(BOB) == "smtp.rcpt_ok"


def test_a_provider_known_for_its_yes_is_not_asked_twice(desk: Desk) -> None:
    places = [("mta5.am0.yahoodns.net", IPS[0])]
    assert desk.code(places=places) == "smtp.provider_accepts_all"
    assert len(desk.prober.asked) == 1
    assert desk.code(BOB, [("notyahoodns.net", IPS[0])]) == "smtp.no_such_user"


@pytest.mark.parametrize(
    ("reply", "stage", "code"),
    [
        ("554 5.7.1 Go away", Stage.GREETING, "smtp.blocked_policy"),
        ("550 5.7.1 bad HELO", Stage.EHLO, "smtp.blocked_policy"),
        ("550 sender rejected", Stage.MAIL, "smtp.sender_rejected"),
        ("552 5.2.2 Over quota", Stage.MAIL, "smtp.sender_rejected"),
        ("554 5.7.1 Relay access denied", Stage.GREETING, "smtp.blocked_policy"),
        ("530 5.7.0 Must issue a STARTTLS command first", Stage.MAIL, "smtp.needs_tls"),
        ("554 5.7.1 <ann@x.dev>: blocked using zen.spamhaus.org", Stage.RCPT, "smtp.blocked_dnsbl"),
        ("550 5.7.25 no reverse DNS", Stage.RCPT, "smtp.blocked_no_ptr"),
    ],
)
def test_a_refusal_of_us_holds_for_the_domain_for_three_hours(
    desk: Desk, reply: str, stage: Stage, code: str
) -> None:
    desk.prober.default = said(reply, stage)
    assert desk.code() == code
    assert desk.code(BOB) == code
    assert len(desk.prober.asked) == 1
    assert desk.code(Address.parse("ann@y.dev")) == code
    desk.now += 3 * HOUR_S - 1
    desk.next_run()
    assert desk.code(BOB) == code
    assert desk.prober.asked == []
    desk.now += 1
    desk.ask(BOB)
    assert desk.prober.recipients() == ["bob@x.dev"]


def test_a_refusal_at_rcpt_by_rules_may_be_of_one_mailbox(desk: Desk) -> None:
    desk.prober.default = only_for("ann", no="550 5.7.1 not for you")
    assert desk.code(BOB) == "smtp.blocked_policy"
    desk.prober.default = only_for("ann")
    assert desk.code(ANN) == "smtp.rcpt_ok"


def test_smtputf8_that_is_missing(desk: Desk) -> None:
    desk.prober.default = said("250 x", Stage.EHLO)
    assert desk.code(Address.parse("åsa@x.dev")) == "smtp.no_smtputf8"
    assert desk.code(Address.parse("åsa@x.dev")) == "smtp.no_smtputf8"
    assert len(desk.prober.asked) == 1
    desk.prober.default = only_for("ann")
    assert desk.code(ANN) == "smtp.rcpt_ok"


def test_fresh_asks_whatever_is_known(desk: Desk) -> None:
    desk.ask()
    desk.next_run(is_fresh=True)
    answer = desk.ask()
    assert not answer.evidence.is_from_cache
    assert len(desk.prober.asked) == 2
    desk.prober.default = said("554 5.7.1 Go away", Stage.GREETING)
    desk.ask()
    desk.prober.default = only_for("ann")
    assert desk.code() == "smtp.rcpt_ok"


def test_tls_that_was_used_is_not_said_to_be_missing(desk: Desk) -> None:
    def play(session: Session, recipient: Address) -> None:
        said(NO_USER)(session, recipient)
        session.extensions, session.is_encrypted = ["SIZE"], True

    desk.prober.default = play
    assert [finding.code for finding in desk.ask().findings] == ["smtp.no_such_user"]

    def plain(session: Session, recipient: Address) -> None:
        said(NO_USER)(session, recipient)
        session.extensions = ["SIZE"]

    desk.prober.default = plain
    assert [finding.code for finding in desk.ask(BOB).findings][1:] == ["no_starttls"]


# Literals.


def test_a_literal_is_refused_or_its_user_is(desk: Desk) -> None:
    desk.prober.default = only_for("postmaster")
    answer = desk.ask(LITERAL, AT_LITERAL)
    assert answer.findings[0].code == "smtp.no_such_user"
    assert desk.prober.recipients() == ["ann@[5.9.0.1]", "postmaster@[5.9.0.1]"]
    assert smtp_of(answer)["accepts_literal"] == "yes"
    assert smtp_of(answer)["control"] == {"kind": "postmaster", "code": 250}
    desk.next_run()
    desk.prober.default = said(NO_USER)
    assert desk.code(Address.parse("eve@[5.9.0.1]"), AT_LITERAL) == "smtp.no_such_user"
    assert len(desk.prober.asked) == 1  # postmaster was asked for before


def test_a_host_that_takes_no_literals(desk: Desk) -> None:
    desk.prober.default = said("550 5.7.1 Relaying denied")
    answer = desk.ask(LITERAL, AT_LITERAL)
    assert answer.findings[0].code == "smtp.literal_not_accepted"
    assert smtp_of(answer)["accepts_literal"] == "no"
    desk.next_run()
    bob = Address.parse("bob@[5.9.0.1]")
    assert desk.code(bob, AT_LITERAL) == "smtp.literal_not_accepted"
    assert desk.prober.recipients() == ["bob@[5.9.0.1]"]
    desk.now += 3 * HOUR_S
    desk.next_run()
    desk.ask(bob, AT_LITERAL)
    assert desk.prober.recipients() == ["bob@[5.9.0.1]", "postmaster@[5.9.0.1]"]


def test_postmaster_is_its_own_control(desk: Desk) -> None:
    desk.prober.default = said(NO_USER)
    assert desk.code(Address.parse("Postmaster@[5.9.0.1]"), AT_LITERAL) == (
        "smtp.literal_not_accepted"
    )
    assert len(desk.prober.asked) == 1


@pytest.mark.parametrize("control", [said("450 4.7.1 later"), trouble("net.timeout")])
def test_a_postmaster_that_cannot_be_asked_for_proves_nothing(desk: Desk, control: Script) -> None:
    def play(session: Session, recipient: Address) -> None:
        (control if recipient.local_part == "postmaster" else said(NO_USER))(session, recipient)

    desk.prober.default = play
    answer = desk.ask(LITERAL, AT_LITERAL)
    assert answer.findings[0].code == "smtp.no_such_user"
    assert smtp_of(answer)["accepts_literal"] == "unknown"


def test_a_literal_that_is_accepted_has_a_control_too(desk: Desk) -> None:
    answer = desk.ask(LITERAL, AT_LITERAL)
    assert answer.findings[0].code == "smtp.rcpt_ok"
    assert smtp_of(answer)["accepts_literal"] == "yes"
    assert desk.prober.recipients()[1].endswith("-nobody@[5.9.0.1]")


# Coming back later.


def test_a_host_that_asks_to_come_back_is_left_alone_until_then(desk: Desk) -> None:
    desk.prober.default = said("450 4.2.0 Greylisted")
    for wait_s in (300.0, 900.0, 3_600.0, 3_600.0):
        desk.next_run()
        answer = desk.ask()
        assert answer.findings[0].code == "smtp.greylisted"
        assert answer.evidence.retry_at == desk.now + wait_s
        desk.now += wait_s - 1
        again = desk.ask()
        assert (again.evidence.is_from_cache, again.evidence.retry_at) == (True, desk.now + 1)
        assert len(desk.prober.asked) == 1
        desk.now += 1
    desk.prober.default = only_for("ann")
    assert desk.code() == "smtp.rcpt_ok"


def test_greylisting_is_of_one_mailbox_but_too_many_questions_of_all(desk: Desk) -> None:
    desk.prober.default = said("450 4.2.0 Greylisted")
    desk.ask()
    desk.prober.default = said("451 4.7.1 Too many connections, rate limit")
    assert desk.code(BOB) == "smtp.rate_limited"
    assert desk.code(Address.parse("eve@x.dev")) == "smtp.rate_limited"
    assert desk.prober.recipients() == ["ann@x.dev", "bob@x.dev"]


def test_a_host_too_busy_to_greet_is_left_alone_for_the_whole_domain(desk: Desk) -> None:
    desk.prober.default = said("421 4.3.2 Busy", Stage.GREETING)
    assert desk.code() == "smtp.busy"
    answer = desk.ask(BOB)
    assert (answer.findings[0].code, answer.evidence.is_from_cache) == ("smtp.busy", True)
    assert answer.evidence.retry_at == desk.now + 300
    assert len(desk.prober.asked) == 1


@pytest.mark.parametrize("is_fresh", [False, True])
def test_who_waits_comes_back_twice_at_most(desk: Desk, is_fresh: bool) -> None:
    desk.prober.default = said("450 4.2.0 Greylisted")
    desk.opened(waits=True, is_fresh=is_fresh)
    assert desk.code() == "smtp.greylisted"
    assert len(desk.prober.asked) == 3
    assert [round(wait_s) for wait_s in desk.waits] == [300, 900]


def test_who_waits_gets_through(desk: Desk) -> None:
    desk.prober.default = said("450 4.2.0 Greylisted")
    desk.opened(waits=True)

    def let_through(wait_s: float) -> None:
        desk.prober.default = only_for("ann")

    desk.waits = cast(list[float], SimpleNamespace(append=let_through))
    desk.opened(waits=True)
    assert desk.code() == "smtp.rcpt_ok"
    assert len(desk.prober.asked) == 3


# Which hosts are asked.


@pytest.mark.parametrize(
    "first",
    [
        *(trouble("net.timeout"), trouble("net.refused"), trouble("net.unreachable")),
        *(trouble("net.dropped", Stage.GREETING), trouble("net.timeout", Stage.EHLO)),
        *(said("554 no", Stage.GREETING), said("421 busy", Stage.GREETING)),
    ],
)
def test_the_next_host_where_the_first_does_not_let_us_in(desk: Desk, first: Script) -> None:
    desk.prober.scripts[IPS[0]] = first
    answer = desk.ask(places=PLACES[:2])
    assert answer.findings[0].code == "smtp.rcpt_ok"
    assert smtp_of(answer)["attempts"] == 2
    assert desk.prober.hosts() == ["5.9.0.1", "5.9.1.1", "5.9.1.1"]


@pytest.mark.parametrize(
    "first",
    [
        *(said(NO_USER), said("450 4.2.0 Greylisted"), said("550 no", Stage.MAIL)),
        *(trouble("net.dropped", Stage.RCPT), trouble("net.timeout", Stage.MAIL)),
    ],
)
def test_no_second_opinion(desk: Desk, first: Script) -> None:
    desk.prober.scripts[IPS[0]] = first
    desk.ask(places=PLACES[:2])
    assert desk.prober.hosts() == ["5.9.0.1"]


def test_three_hosts_at_most_one_after_the_other(desk: Desk) -> None:
    desk.prober.default = trouble("net.timeout")
    assert desk.code(places=PLACES) == "net.timeout"
    assert desk.prober.hosts() == ["5.9.0.1", "5.9.1.1", "5.9.2.1"]
    assert desk.prober.most_under_way == 1


def test_what_a_host_said_tells_more_than_that_another_was_silent(desk: Desk) -> None:
    desk.prober.scripts[IPS[0]] = said("554 5.7.1 blocked using zen.spamhaus.org", Stage.GREETING)
    desk.prober.default = trouble("net.timeout")
    assert desk.code(places=PLACES[:2]) == "smtp.blocked_dnsbl"


def test_a_family_without_a_way_is_passed_over(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """An IPv4-only host asks a domain whose hosts have many IPv6 addresses first."""

    def source(ip: IPAddress) -> IPAddress:
        if ip.version == 6:
            raise OSError(101, "Network is unreachable")
        return ip_address("5.8.0.1")

    monkeypatch.setattr(inquiry, "source_towards", source)
    six = [(f"mx{number}.x.dev", ip_address(f"2a00:{number}::1")) for number in range(1, 6)]
    assert desk.code(places=[*six, *PLACES[:1]]) == "smtp.rcpt_ok"
    assert set(desk.prober.hosts()) == {"5.9.0.1"}
    desk.next_run()
    desk.prober.default = trouble("net.unreachable")
    for number in range(5):
        code = desk.code(Address.parse(f"ann@x{number}.dev"), six[number : number + 1])
        assert code == "net.unreachable"
    assert not desk.inquiry.is_port_blocked


def test_a_mapped_address_is_the_host_it_stands_for(desk: Desk) -> None:
    desk.ask(places=[("mx", ip_address("::ffff:5.9.0.1"))])
    assert set(desk.prober.hosts()) == {"5.9.0.1"}


def test_a_dead_domain_is_not_tried_for_each_of_its_addresses(desk: Desk) -> None:
    desk.prober.default = trouble("net.timeout")
    assert desk.code(places=PLACES[:2]) == "net.timeout"
    again = desk.ask(BOB, PLACES[:2])
    assert (again.findings[0].code, again.evidence.is_from_cache) == ("net.timeout", True)
    assert len(desk.prober.asked) == 2
    desk.prober.default = only_for("ann")
    desk.now += inquiry.DEAD_S
    assert desk.code() == "smtp.rcpt_ok"
    desk.prober.default = trouble("net.timeout")
    desk.ask(Address.parse("ann@y.dev"))
    desk.next_run()
    desk.ask(Address.parse("ann@y.dev"))  # another run looks again
    assert len(desk.prober.asked) == 1


def test_one_session_with_a_domain_at_a_time(desk: Desk) -> None:
    questions = [(Address.parse(f"u{number}@x.dev"), PLACES[:1]) for number in range(20)]
    desk.ask_all(questions)
    assert desk.prober.most_under_way == 1
    desk.ask_all([(Address.parse(f"ann@y{number}.dev"), PLACES[:1]) for number in range(5)])
    assert desk.prober.most_under_way > 1


def test_the_same_question_twice_is_asked_once(desk: Desk) -> None:
    assert desk.ask_all([(BOB, PLACES[:1])] * 5) == ["smtp.no_such_user"] * 5
    assert len(desk.prober.asked) == 1


def test_broken_tls_is_retried_once_without_and_both_are_counted(desk: Desk) -> None:
    desk.prober.tls_breaks = True
    assert desk.code(BOB) == "smtp.no_such_user"
    assert desk.prober.recipients() == ["bob@x.dev"] * 2
    desk.settings = CheckSettings(budget=Budget(host_per_minute=3, network_per_minute=3))
    desk.opened()
    desk.waits.clear()
    desk.ask(ANN)
    assert [round(wait_s) for wait_s in desk.waits] == [60]


# Budgets.


def test_a_budget_is_waited_for(desk: Desk) -> None:
    desk.settings = CheckSettings(budget=Budget(host_per_minute=2))
    desk.opened()
    for number in range(5):
        desk.ask(Address.parse(f"u{number}@x.dev"))
    assert [round(wait_s) for wait_s in desk.waits] == [60, 60]
    assert len(desk.prober.asked) == 5


def test_a_budget_of_the_day_is_not_waited_for(desk: Desk) -> None:
    desk.settings = CheckSettings(budget=Budget(per_day=1))
    desk.opened()
    desk.ask(BOB)
    answer = desk.ask(ANN)
    assert answer.findings[0].code == "net.budget"
    assert answer.evidence.smtp is None
    assert desk.waits == []
    assert len(desk.prober.asked) == 1
    desk.now += 24 * HOUR_S
    assert desk.code(ANN) in ("smtp.rcpt_ok", "smtp.unproven")


def test_a_budget_that_ends_before_the_control_proves_nothing(desk: Desk) -> None:
    desk.settings = CheckSettings(budget=Budget(per_day=1))
    desk.opened()
    assert desk.code() == "smtp.unproven"


# Our own standing.


def test_who_is_not_in_order_asks_nobody_on_the_internet(desk: Desk) -> None:
    desk.standings.faults = ["5.8.0.1 has no name in DNS (PTR)", "listed"]
    answer = desk.ask()
    assert answer.findings[0].code == "net.self_check"
    assert answer.findings[0].text == "5.8.0.1 has no name in DNS (PTR); listed"
    assert desk.prober.asked == []
    private = Address.parse("ann@[192.168.7.5]")
    assert desk.code(private, [("[192.168.7.5]", ip_address("192.168.7.5"))]) == "smtp.rcpt_ok"
    assert desk.standings.asked == 1


def test_what_the_gate_refuses(desk: Desk) -> None:
    desk.prober.forbidden = {IPS[0]}
    answer = desk.ask()
    assert answer.findings[0].code == "net.forbidden"
    assert desk.prober.asked == []
    assert desk.code(places=PLACES[:2]) == "smtp.rcpt_ok"


def test_a_name_that_leads_home_opens_no_socket(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real gate, whatever the resolver said before."""
    gate = Gate(
        trusted=Networks(["private", "loopback"]),
        own=OwnAddresses(follow_interfaces=False, extra=[ip_address("5.8.0.1")]),
        listening=frozenset,
    )
    connects: list[object] = []

    async def sock_connect(*arguments: object) -> None:
        connects.append(arguments)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", sock_connect, raising=False)
    desk.prober = cast(FakeProber, Prober(gate, helo=str, sender=None, port=25))
    desk.opened()
    for number, text in enumerate(
        ["127.0.0.1", "10.0.0.5", "::1", "::ffff:10.0.0.5", "169.254.169.254", "5.8.0.1", "fd00::1"]
    ):
        address = Address.parse(f"ann@x{number}.dev")
        assert desk.code(address, [("mx.x.dev", ip_address(text))]) == "net.forbidden"
    assert connects == []


# A blocked port.


def dead_domains(count: int, first: int = 0) -> list[tuple[Address, list[tuple[str, IPAddress]]]]:
    return [
        (
            Address.parse(f"ann@dead{number}.dev"),
            [(f"mx.dead{number}.dev", ip_address(f"5.{number + 1}.0.1"))],
        )
        for number in range(first, first + count)
    ]


def test_where_nobody_can_be_reached_the_fault_is_ours(desk: Desk) -> None:
    desk.prober.default = trouble("net.timeout")
    codes = [desk.code(*each) for each in dead_domains(5)]
    assert codes == ["net.timeout"] * 2 + ["net.port25_blocked"] * 3
    assert len(desk.prober.asked) == 3
    assert desk.inquiry.is_port_blocked
    # Hosts that are not of the Internet are none the worse for it.
    desk.prober.default = only_for("ann")
    private = Address.parse("ann@[192.168.7.5]")
    assert desk.code(private, [("[192.168.7.5]", ip_address("192.168.7.5"))]) == "smtp.rcpt_ok"


def test_not_where_one_was_reached(desk: Desk) -> None:
    desk.ask()
    desk.prober.default = trouble("net.timeout")
    assert [desk.code(*each) for each in dead_domains(6)] == ["net.timeout"] * 6
    assert not desk.inquiry.is_port_blocked


def test_a_host_that_refuses_the_connection_was_reached(desk: Desk) -> None:
    desk.prober.default = trouble("net.refused")
    desk.ask()
    desk.prober.default = trouble("net.timeout")
    assert [desk.code(*each) for each in dead_domains(4)] == ["net.timeout"] * 4
    assert desk.memory.subjects_of("reached", 9) == []


def test_one_dead_domain_is_no_proof_however_many_hosts_it_has(desk: Desk) -> None:
    desk.prober.default = trouble("net.timeout")
    for number in range(3):
        desk.ask(Address.parse(f"u{number}@x.dev"), PLACES)
        desk.now += inquiry.DEAD_S
    assert not desk.inquiry.is_port_blocked


def test_one_dead_network_is_no_proof_however_many_domains_it_has(desk: Desk) -> None:
    desk.prober.default = trouble("net.timeout")
    for number in range(5):
        place = ("mx", ip_address(f"5.9.0.{number + 1}"))
        assert desk.code(Address.parse(f"ann@x{number}.dev"), [place]) == "net.timeout"


def test_slow_hosts_are_no_dead_ones(desk: Desk) -> None:
    desk.prober.default = trouble("net.timeout", Stage.GREETING)
    assert [desk.code(*each) for each in dead_domains(5)] == ["net.timeout"] * 5


def test_dead_hosts_that_fail_fast_do_not_speak_for_slow_ones(desk: Desk) -> None:
    """Asked side by side: three fail, and then one that was under way answers."""
    reached = asyncio.Event()

    async def run() -> list[str]:
        plain_ask = desk.prober.ask

        async def ask(host: str, *arguments: Any, **options: Any) -> Session:
            if host == "mx.slow.dev":
                await reached.wait()
            return await plain_ask(host, *arguments, **options)

        desk.prober.ask = ask  # type: ignore[method-assign]
        desk.prober.scripts[IPS[0]] = only_for("ann")
        desk.prober.default = trouble("net.timeout")
        slow_one = asyncio.ensure_future(
            desk.inquiry.ask(Address.parse("ann@slow.dev"), [("mx.slow.dev", IPS[0])])
        )
        await asyncio.gather(*(desk.inquiry.ask(*each) for each in dead_domains(3)))
        assert desk.is_blocked()
        reached.set()
        code = (await slow_one).findings[0].code
        assert not desk.is_blocked()
        later = await desk.inquiry.ask(*dead_domains(1, 7)[0])
        return [code, later.findings[0].code]

    assert asyncio.run(run()) == ["smtp.rcpt_ok", "net.timeout"]


def test_a_host_that_was_reached_lately_is_tried_before_the_port_is_blamed(desk: Desk) -> None:
    desk.ask()
    desk.next_run()
    desk.prober.default = trouble("net.timeout")
    desk.prober.greeting = {"5.9.0.1"}
    assert desk.ask_all(dead_domains(30)) == ["net.timeout"] * 30
    assert desk.prober.tested == ["5.9.0.1"]
    desk.next_run()
    desk.prober.greeting = set()
    desk.prober.tested.clear()
    codes = desk.ask_all(dead_domains(30, first=100))
    assert "net.port25_blocked" in codes
    assert desk.prober.tested == ["5.9.0.1"]


def test_the_self_test_keeps_to_the_budget(desk: Desk) -> None:
    desk.ask()
    desk.settings = CheckSettings(budget=Budget(host_per_minute=2))
    desk.next_run()
    desk.prober.default = trouble("net.timeout")
    [desk.code(*each) for each in dead_domains(3)]
    assert desk.prober.tested == []
