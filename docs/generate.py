"""Writes the generated pages of docs/reference/ from the code; `--check` says which are stale.

What a name means stands in explained.toml, keyed by name; a name without its explanation, or an
explanation without its name, stops the run. So does a test or module that is named in
reference/rfc-support.toml and not there.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import sqlite3
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from waypost.check.reasons import REASONS
from waypost.check.verdict import Outcome, Verdict
from waypost.cli import build_parser
from waypost.config.schema import SECTIONS
from waypost.config.schema.key import REQUIRED, Key
from waypost.delivery import connection, smtp
from waypost.dispatch import dispatcher
from waypost.intake import doorway, session
from waypost.mail import dsn, message
from waypost.mail import reply as replies
from waypost.mail.address import IPAddress
from waypost.mail.reply import Reply
from waypost.mail.template import Template
from waypost.net import interfaces
from waypost.net.gate import Gate, Origin
from waypost.net.interfaces import OwnAddresses
from waypost.net.networks import Networks
from waypost.net.special import BLOCKS, Block, special_block, unwrap
from waypost.queue import room, schema, spool, sqlite
from waypost.smtp import client, lines, server
from waypost.smtp.events import ContentRequested, ServerSettings
from waypost.smtp.phase import Phase
from waypost.smtp.server import ServerSession

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
SOURCE = ROOT / "src" / "waypost"
QUIRKS = ROOT / "tests" / "devices"

MADE = "<!-- Made by docs/generate.py. Change the code or the generator, not this page. -->\n"


EXPLAINED: dict[str, dict[str, str]] = tomllib.loads((DOCS / "explained.toml").read_text("utf-8"))
TEXT = EXPLAINED["text"]


class DocsFault(Exception):
    """The code and what is said about it do not fit together."""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines
    )


def covered(kind: str, names: Iterable[str], explained: Iterable[str]) -> None:
    """Each name has an explanation, and each explanation a name."""
    missing = sorted(set(names) - set(explained))
    left_over = sorted(set(explained) - set(names))
    if missing or left_over:
        raise DocsFault(
            f"{kind}: docs/explained.toml lacks {missing}, and explains what is gone: {left_over}"
        )


# config.md


def config_page() -> str:
    """All sections of the configuration's schema."""
    parts = [MADE, TEXT["config_intro"]]
    for section in SECTIONS:
        if not section.name:
            title = "Top of the file"
        else:
            title = f"`[[{section.name}]]`" if section.is_array else f"`[{section.name}]`"
            title = f"`[{section.name}.NAME]`" if section.is_named else title
        meaning = "" if not section.name else f"{section.meaning}\n\n"
        rows = [
            (f"`{key.name}`", key.expected, default_text(key), key.meaning) for key in section.keys
        ]
        parts.append(
            f"\n## {title}\n\n{meaning}" + table(("key", "takes", "default", "meaning"), rows)
        )
    parts.append(TEXT["config_match"])
    parts.append("\n## What is fixed\n\nNot settings, but good to know.\n\n" + fixed_values())
    return "".join(parts)


def default_text(key: Key) -> str:
    """A default as it would stand in the file."""
    if key.default is REQUIRED:
        return "*required*"
    if key.default is None:
        return "none"
    return f"`{toml_text(key.default)}`"


def toml_text(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Template):
        value = value.text
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml_text, value))}]"
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{k} = {toml_text(v)}" for k, v in value.items()) + " }"
            if value
            else "{}"
        )
    return f"{value:g}" if isinstance(value, float) and value < 1e6 else str(value)


def fixed_values() -> str:
    """Constants of the code that an operator may meet."""
    rows = [
        ("a client may be idle for", seconds(session.IDLE_S)),
        (
            "a stranger, when four in five connections of the listener are taken",
            seconds(session.STRESSED_IDLE_S),
        ),
        ("a stranger may go without bringing mail for", seconds(session.WITHOUT_MAIL_S)),
        (
            f"pace of a stranger's content, after {seconds(session.PACE_AFTER_S)}",
            f"{session.PACE_BYTES_S} octets a second",
        ),
        ("a stranger's content may take", seconds(session.CONTENT_S)),
        ("a TLS handshake may take", seconds(session.HANDSHAKE_S)),
        ("a PROXY header may take", seconds(doorway.PROXY_S)),
        ("refused commands before the session ends", str(lines.MAX_JUNK_COMMANDS)),
        (
            "command line (MAIL and RCPT: with path)",
            f"{lines.MAX_COMMAND_LINE} ({lines.MAX_PATH_COMMAND_LINE}) octets",
        ),
        ("`Received` fields that mean a loop", str(message.MAX_RECEIVED)),
        (
            "content up to this size lies in the database, larger in a file",
            octets(spool.INLINE_BYTES),
        ),
        (
            "room kept free on the disk",
            f"{octets(room.RESERVE_BYTES)}, or {room.RESERVE_SHARE:.0%} of a small disk",
        ),
        ("finished mail stays in the trace for", seconds(sqlite.TRACE_S)),
        ("messages under way at once", str(dispatcher.MAX_ACTIVE)),
        ("connections to one next hop at once", str(smtp.MAX_WINDOW)),
        (
            "a host that could not be reached is left alone for",
            f"{seconds(dispatcher.DOWN_S)}, or half of `retry.first_s` if that is less",
        ),
        ("an idle outgoing connection is kept for", seconds(smtp.IDLE_S)),
        ("waiting for a connection", seconds(smtp.CONNECT_S)),
        (
            "waiting for a peer's greeting, for its reply to the envelope",
            seconds(connection.GREETING_S),
        ),
        ("waiting for a peer's reply to the content", seconds(connection.CONTENT_S)),
        ("a report returns the whole message up to", octets(dsn.MAX_RETURNED_BYTES)),
        (
            "changed interfaces are seen at once, and at the latest after",
            seconds(interfaces.POLL_S),
        ),
    ]
    return table(("what", "value"), rows)


def seconds(value: float) -> str:
    """A duration for people."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if value >= 2 * size and value % size == 0:
            return f"{value / size:g} {unit}"
    return f"{value:g} s"


def octets(value: int) -> str:
    """A size for people."""
    return f"{value // 1_048_576} MiB" if value % 1_048_576 == 0 else f"{value // 1024} KiB"


# cli.md


def cli_page() -> str:
    """Every command with its arguments."""
    parts = [MADE, TEXT["cli_intro"]]
    names = [name for name, _, _ in commands(build_parser())]
    if unknown := sorted(set(EXPLAINED["commands"]) - set(names)):
        raise DocsFault(f"docs/explained.toml has notes on commands that are gone: {unknown}")
    for name, text, parser in commands(build_parser()):
        level = "##" if name.count(" ") == 1 else "###"
        usage = " ".join(parser.format_usage().split()).removeprefix("usage: ")
        parts.append(f"\n{level} {name}\n\n")
        if text:
            parts.append(f"{text[0].upper()}{text[1:]}.\n\n")
        parts.append(f"```text\n{usage}\n```\n")
        rows = list(arguments(parser))
        if rows:
            parts.append("\n" + table(("argument", "meaning"), rows))
        if name in EXPLAINED["commands"]:
            parts.append(f"\n{EXPLAINED['commands'][name]}\n")
    return "".join(parts)


def commands(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Name, help and parser of each command below this one."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, below in action.choices.items():
                yield below.prog, helps.get(name, ""), below
                yield from commands(below)


def arguments(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Arguments of one command, in the order of its help."""
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
            continue
        value = action.metavar or ("" if action.nargs == 0 else action.dest)
        if not isinstance(value, str):
            value = " ".join(value)
        if action.choices is not None:
            value = ", ".join(map(str, action.choices))
        if action.option_strings:
            name = ", ".join(
                f"`{option}{' ' + value if value else ''}`" for option in action.option_strings
            )
        else:
            name = f"`{value}`"
        text = action.help or ""
        if action.required and action.option_strings:
            text += " (required)"
        yield name, text


# replies.md


def replies_page() -> str:
    """The named replies, and those written where they are needed."""
    return "".join(
        (
            MADE,
            TEXT["replies_intro"],
            "\n## Standard replies\n\n",
            named_replies("mail/reply.py", vars(replies), EXPLAINED["replies"]),
            "\n## In place of the next host's reply\n\nThe message is not sent; a report goes to"
            " the sender.\n\n",
            named_replies("smtp/client.py", vars(client), EXPLAINED["client_replies"]),
            "\n## Others\n\nReplies written at the place that gives them; … stands for what is"
            " filled in. `250 … queued as` is the one that means: the message is safe on disk.\n\n",
            table(("reply", "text", "from"), sorted(set(other_replies()))),
        )
    )


def named_replies(kind: str, names: dict[str, object], when: dict[str, str]) -> str:
    """A table of the replies a module names."""
    found = {
        name: value
        for name, value in names.items()
        if isinstance(value, Reply) and name.isupper() and not name.startswith("_")
    }
    covered(f"replies of {kind}", found, when)
    return table(
        ("reply", "text", "when"),
        ((code_text(value), code_words(value.text), when[name]) for name, value in found.items()),
    )


def code_words(text: str) -> str:
    """A reply's text as it is sent; Markdown must not read it."""
    return f"`{text.replace(chr(10), ' / ')}`"


def code_text(value: Reply) -> str:
    """Code and enhanced code."""
    return f"`{value.code}`" if value.status is None else f"`{value.code} {value.enhanced}`"


# Functions that make replies: where their code, text and status stand.
REPLY_MAKERS: dict[str, tuple[int | None, int, int | None]] = {
    "Reply": (None, 1, 2),
    "_refused": (None, 1, None),
    "deferred": (451, 0, 1),
    "failed": (554, 0, 1),
}
DEFAULT_STATUS = {"deferred": (4, 0), "failed": (0, 0)}


def other_replies() -> Iterator[tuple[str, str, str]]:
    """Replies made outside mail/reply.py and smtp/client.py's names."""
    for path, tree in sources():
        if path in ("mail/reply.py", "delivery/transport.py"):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            maker = REPLY_MAKERS.get(node.func.id)
            if maker is None:
                continue
            fixed_code, text_at, status_at = maker
            code = fixed_code if fixed_code is not None else constant(node.args, 0)
            text = text_of(node.args[text_at]) if len(node.args) > text_at else None
            if path == "smtp/client.py" and text in {value.text for value in CLIENT_REPLIES}:
                continue
            if not isinstance(code, int) or text is None:
                continue
            if status_at is None:
                status: object = (constant(node.args, 2), constant(node.args, 3))
            elif len(node.args) > status_at:
                status = constant(node.args, status_at)
            else:
                status = DEFAULT_STATUS.get(node.func.id)
            enhanced = ""
            if isinstance(status, tuple):
                enhanced = f" {code // 100}.{'.'.join(map(str, status))}"
            yield f"`{code}{enhanced}`", code_words(text), path


CLIENT_REPLIES = [value for value in vars(client).values() if isinstance(value, Reply)]


def constant(arguments_given: Sequence[ast.expr], position: int) -> object:
    """A literal argument; None: it is computed, or missing."""
    if len(arguments_given) <= position:
        return None
    try:
        value: object = ast.literal_eval(arguments_given[position])
    except ValueError:
        return None
    return value


def text_of(node: ast.expr) -> str | None:
    """A text, with … for what is filled in; None: all of it is computed."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return None
    pieces = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
    text = "".join(map(str, pieces))
    return text if text.strip("…") else None


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Every module, by its path below src/waypost."""
    for path in sorted(SOURCE.rglob("*.py")):
        yield path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text("utf-8"))


# log-events.md


@dataclass(slots=True)
class Event:
    """A log event as the code writes it."""

    fields: dict[str, None]  # in order
    modules: dict[str, None]


def log_page() -> str:
    """Every event the code can write."""
    events: dict[str, Event] = {}
    for path, tree in sources():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "event"
            ):
                name = constant(node.args, 0)
                if not isinstance(name, str):
                    raise DocsFault(f"{path}:{node.lineno}: an event whose name is computed")
                event = events.setdefault(name, Event({}, {}))
                event.fields.update({word.arg: None for word in node.keywords if word.arg})
                event.modules[path] = None
    covered("log events", events, EXPLAINED["events"])
    covered(
        "fields of log events",
        {f for e in events.values() for f in e.fields},
        EXPLAINED["fields"],
    )
    rows = (
        (
            f"`{name}`",
            EXPLAINED["events"][name],
            " ".join(f"`{field}`" for field in event.fields) or "–",
            ", ".join(event.modules),
        )
        for name, event in sorted(events.items())
    )
    fields = ((f"`{name}`", text) for name, text in sorted(EXPLAINED["fields"].items()))
    return "".join(
        (
            MADE,
            TEXT["log_intro"],
            "\n## Events\n\n",
            table(("event", "meaning", "keys", "from"), rows),
            "\n## Keys\n\n",
            table(("key", "value"), fields),
        )
    )


# address-codes.md


_CODE = re.compile(r"(?:syntax|literal|dns)\.\w+")


def address_codes_page() -> str:
    """Every code an AddressError can carry."""
    found: dict[str, dict[str, None]] = {}
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                if path.startswith("mail/") or path == "errors.py":
                    if _CODE.fullmatch(node.value) is not None:
                        found.setdefault(node.value, {})[path] = None
    unknown = sorted(set(found) - set(REASONS))
    if unknown:
        raise DocsFault(f"check/reasons.py has no reason for {', '.join(unknown)}")
    rows = (
        (f"`{code}`", REASONS[code].plain, ", ".join(paths))
        for code, paths in sorted(found.items())
    )
    return "".join((MADE, TEXT["address_codes_intro"], table(("code", "meaning", "from"), rows)))


# verdicts.md


def verdicts_page() -> str:
    """Every reason a check can give, and what follows from it."""
    covered("verdicts", [verdict.value for verdict in Verdict], EXPLAINED["verdicts"])
    covered("outcomes", [outcome.value for outcome in Outcome], EXPLAINED["outcomes"])
    scores = (
        (f"`{verdict.value}`", str(verdict.score), EXPLAINED["verdicts"][verdict.value])
        for verdict in Verdict
    )
    outcomes = ((f"`{outcome.value}`", EXPLAINED["outcomes"][outcome.value]) for outcome in Outcome)
    reasons = (
        (
            f"`{code}`",
            reason.plain,
            "–" if reason.verdict is None else f"`{reason.verdict.value}`",
            "–" if reason.outcome is None else f"`{reason.outcome.value}`",
            "–" if reason.advice is None else f"`{reason.advice.value}`",
            reason.ref,
        )
        for code, reason in REASONS.items()
    )
    return "".join(
        (
            MADE,
            TEXT["verdicts_intro"],
            "\n## Verdicts\n\n",
            table(("verdict", "score", "meaning"), scores),
            "\n## Outcomes\n\n",
            table(("outcome", "what happens to a message sent now"), outcomes),
            "\n## Reasons\n\n",
            table(("code", "in plain words", "verdict", "outcome", "advice", "rule"), reasons),
        )
    )


# files.md


def files_page() -> str:
    """Files, and the tables of the database."""
    database = sqlite3.connect(":memory:")
    database.executescript(schema.TABLES)
    columns = {
        name: [row[1] for row in database.execute(f"PRAGMA table_info({name})")]
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    }
    database.close()
    covered("tables of queue.db", columns, EXPLAINED["tables"])
    inline = octets(spool.INLINE_BYTES)
    return "".join(
        (
            MADE,
            TEXT["files_intro"],
            table(
                ("name", "what"),
                [(name, text.format(inline=inline)) for name, text in EXPLAINED["files"].items()],
            ),
            TEXT["files_middle"].format(version=schema.VERSION, trace=seconds(sqlite.TRACE_S)),
            table(
                ("table", "holds", "columns"),
                (
                    (f"`{name}`", EXPLAINED["tables"][name], ", ".join(columns[name]))
                    for name in sorted(columns)
                ),
            ),
            TEXT["files_end"],
        )
    )


# session-states.md


LINES = {
    "HELO": b"HELO client.test",
    "EHLO": b"EHLO client.test",
    "LHLO": b"LHLO client.test",
    "MAIL": b"MAIL FROM:<a@[192.0.2.1]>",
    "RCPT": b"RCPT TO:<b@[192.0.2.2]>",
    "DATA": b"DATA",
    "BDAT": b"BDAT 2\r\n\r\n",
    "BDAT LAST": b"BDAT 2 LAST\r\n\r\n",
    "VRFY": b"VRFY b@[192.0.2.2]",
}
CONTENT = b"Subject: x\r\n\r\ntext\r\n.\r\n"
# How each phase is reached.
WAYS: dict[Phase, tuple[bytes, ...]] = {
    Phase.CONNECTED: (),
    Phase.READY: (b"%s client.test",),
    Phase.SENDER: (b"%s client.test", LINES["MAIL"]),
    Phase.RECIPIENTS: (b"%s client.test", LINES["MAIL"], LINES["RCPT"]),
    Phase.CHUNKS: (b"%s client.test", LINES["MAIL"], LINES["RCPT"], LINES["BDAT"]),
    Phase.FAILED: (b"%s client.test", LINES["MAIL"], LINES["RCPT"], b"BDAT 1\r\n\n"),
}


def states_page() -> str:
    """What the engine does with each verb in each phase."""
    covered("phases", [phase.name for phase in Phase], EXPLAINED["phases"])
    parts = [MADE, TEXT["states_intro"]]
    parts.append(
        table(("phase", "meaning"), ((f"{p.name}", EXPLAINED["phases"][p.name]) for p in Phase))
    )
    transitions: dict[tuple[str, str], list[str]] = {}
    for title, is_lmtp in (("SMTP", False), ("LMTP", True)):
        rows = []
        phases = {
            Phase(number): row
            for number, row in enumerate(server._LMTP if is_lmtp else server._SMTP)
        }
        covered("phases that take commands", [p.name for p in phases], [p.name for p in WAYS])
        for verb in verbs_of(phases):
            cells = []
            for phase in phases:
                code, after = tried(phase, verb, is_lmtp=is_lmtp)
                cells.append(code if after is phase else f"{code} → {after.name}")
                if not is_lmtp and after is not phase and verb != "QUIT":
                    transitions.setdefault((phase.name, after.name), []).append(verb)
            rows.append((f"`{verb}`", *cells))
        parts.append(f"\n## {title}\n\n" + table(("", *(phase.name for phase in phases)), rows))
    parts.append(TEXT["states_notes"])
    parts.append(
        "\n## As a picture\n\nSMTP, without QUIT, which leads from everywhere to CLOSED.\n\n"
    )
    parts.append("```mermaid\nstateDiagram-v2\n    [*] --> CONNECTED\n")
    # Content is read in phases of its own, which the table above passes through.
    transitions[("RECIPIENTS", "DATA")] = ["DATA"]
    transitions[("DATA", "READY")] = ["end of content"]
    for (before, after_name), verbs in sorted(transitions.items()):
        parts.append(f"    {before} --> {after_name}: {', '.join(verbs)}\n")
    parts.append("    CHUNKS --> FAILED: BDAT with bad content\n    CLOSED --> [*]\n```\n")
    return "".join(parts)


def verbs_of(phases: Mapping[Phase, Mapping[bytes, object]]) -> list[str]:
    """Verbs of the table, and both forms of BDAT."""
    verbs = {verb.decode(): None for row in phases.values() for verb in row}
    for late in ("MAIL", "RCPT", "DATA"):
        verbs.pop(late)
    greetings = [verb for verb in verbs if verb in ("HELO", "EHLO", "LHLO")]
    others = [verb for verb in verbs if verb not in greetings]
    return [*greetings, "MAIL", "RCPT", "DATA", "BDAT", "BDAT LAST", *others]


def tried(phase: Phase, verb: str, *, is_lmtp: bool) -> tuple[str, Phase]:
    """The reply to `verb` in `phase`, and the phase after it."""
    session = ServerSession(
        ServerSettings(max_message_bytes=1_000_000, max_recipients=10, is_lmtp=is_lmtp), "hub.test"
    )
    session.greet()
    for way in WAYS[phase]:
        line = way % (b"LHLO" if is_lmtp else b"EHLO") if b"%s" in way else way
        drive(session, line)
    session.data_to_send()
    if session.phase is not phase:
        raise DocsFault(f"the way to {phase.name} leads to {session.phase.name}")
    drive(session, LINES.get(verb, verb.encode()))
    if session.phase is Phase.DATA:
        return "354", Phase.DATA
    codes = [line[:3].decode() for line in session.data_to_send().splitlines() if line[3:4] == b" "]
    return " ".join(codes), session.phase


def drive(session: ServerSession, line: bytes) -> None:
    """Send one line and say yes to all the engine asks."""
    session.receive(line if line.startswith(b"BDAT") else line + b"\r\n")
    while (event := session.next_event()) is not None:
        if session.is_answering:
            session.answer(
                replies.START_CONTENT if isinstance(event, ContentRequested) else replies.OK
            )


# gate.md


def gate_page() -> str:
    """Every block of special addresses, for every origin."""
    gate = Gate(
        trusted=Networks(("loopback", "private")),
        own=OwnAddresses(follow_interfaces=False),  # none, so that the blocks alone decide
        listening=frozenset,
    )
    rows = []
    for block in BLOCKS:
        answers = asked(gate, inside(block))
        rows.append((f"`{block.network}`", block.kind, block.source, *answers))
    for text, ip in (
        ("other IPv4", IPv4Address("9.9.9.9")),
        ("other `2000::/3`", IPv6Address("2620:fe::9")),
    ):
        rows.append((text, "global", "", *asked(gate, ip)))
    heads = ("block", "kind", "source", *(origin.value for origin in Origin))
    return MADE + TEXT["gate_intro"] + table(heads, rows)


def inside(block: Block) -> IPAddress:
    """An address of the block that no narrower block and no wrapper holds."""
    last = block.network.num_addresses - 1
    for ip in (block.network[min(last, 9)], block.network[max(0, last - 1)]):
        if special_block(ip) is block and unwrap(ip) == ip:
            return ip
    raise DocsFault(f"no address of {block.network} alone was found")


def asked(gate: Gate, ip: IPAddress) -> list[str]:
    """The gate's answers, in the order of Origin."""
    return ["yes" if gate.may_connect(ip.packed, 25, origin) else "no" for origin in Origin]


# rfc-support.md


STATUSES = ("done", "partly", "not yet")
LEVELS = ("MUST", "SHOULD", "MAY", "–")


def rfc_page() -> str:
    """The clauses of rfc-support.toml."""
    with (REFERENCE / "rfc-support.toml").open("rb") as file:
        rfcs = tomllib.load(file)["rfc"]
    clauses = [(rfc, clause) for rfc in rfcs for clause in rfc["clause"]]
    faults = [fault for rfc, clause in clauses for fault in clause_faults(rfc, clause)]
    if faults:
        raise DocsFault("rfc-support.toml: " + "; ".join(faults))
    counts = [sum(clause["status"] == status for _, clause in clauses) for status in STATUSES]
    summary = ", ".join(f"{count} {status}" for count, status in zip(counts, STATUSES, strict=True))
    parts = [MADE, TEXT["rfc_intro"], f"\n{len(clauses)} clauses: {summary}.\n"]
    for rfc in rfcs:
        rows = (
            (
                clause["section"],
                clause["level"],
                clause["asks"] + (f" *{clause['note']}*" if "note" in clause else ""),
                clause["status"],
                f"`{clause['module']}`" if "module" in clause else "",
                " ".join(f"`{test.removeprefix('tests/')}`" for test in clause.get("tests", [])),
            )
            for clause in rfc["clause"]
        )
        parts.append(f"\n## RFC {rfc['number']}: {rfc['title']}\n\n")
        parts.append(table(("section", "level", "requirement", "status", "module", "tests"), rows))
    return "".join(parts)


def clause_faults(rfc: dict[str, object], clause: dict[str, object]) -> Iterator[str]:
    """What is wrong with one entry."""
    where = f"RFC {rfc['number']} {clause.get('section')}"
    if clause.get("status") not in STATUSES:
        yield f"{where}: status {clause.get('status')!r}"
    if clause.get("level") not in LEVELS:
        yield f"{where}: level {clause.get('level')!r}"
    tests = clause.get("tests", [])
    assert isinstance(tests, list)
    if clause.get("status") == "done" and not tests:
        yield f"{where}: done, but no test is named"
    if clause.get("status") != "done" and "note" not in clause:
        yield f"{where}: a note has to say what is missing"
    module = clause.get("module")
    if module is not None and not (SOURCE / str(module)).is_file():
        yield f"{where}: there is no module {module}"
    for test in map(str, tests):
        path, _, name = test.partition("::")
        if not (ROOT / path).is_file():
            yield f"{where}: there is no file {path}"
        elif name and f"def {name}(" not in (ROOT / path).read_text("utf-8"):
            yield f"{where}: {path} has no {name}"


# device-quirks.md


def quirks_page() -> str:
    """The rows of tests/devices/rows.toml, with the profiles and tests that try them."""
    rows = tomllib.loads((QUIRKS / "rows.toml").read_text("utf-8"))["row"]
    profiles = [
        profile
        for path in sorted((QUIRKS / "catalogue").glob("*.toml"))
        for profile in tomllib.loads(path.read_text("utf-8"))["profile"]
    ]
    lines = []
    for row in rows:
        names = [one["name"] for one in profiles if row.get("key") in one["quirks"]]
        by_file: dict[str, list[str]] = {}
        for test in row.get("tests", []):
            file, _, name = test.partition("::")
            by_file.setdefault(file, []).append(f"`{name}`")
        tests = [f"{file}: {', '.join(named)}" for file, named in by_file.items()]
        if names:
            tests.insert(0, f"catalogue: {', '.join(f'`{name}`' for name in names)}")
        lines.append((row["quirk"], row["trusted"], row["stranger"], "; ".join(tests)))
    return (
        MADE + TEXT["quirks_intro"] + table(("what it does", "trusted", "stranger", "tests"), lines)
    )


PAGES: dict[str, Callable[[], str]] = {
    "config.md": config_page,
    "cli.md": cli_page,
    "replies.md": replies_page,
    "log-events.md": log_page,
    "address-codes.md": address_codes_page,
    "verdicts.md": verdicts_page,
    "files.md": files_page,
    "session-states.md": states_page,
    "device-quirks.md": quirks_page,
    "gate.md": gate_page,
    "rfc-support.md": rfc_page,
}


def main() -> int:
    """Write the pages, or with --check compare them; the exit status."""
    parser = argparse.ArgumentParser(description="Make the generated pages of docs/reference/.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if one is stale"
    )
    check: bool = parser.parse_args().check
    os.environ["NO_COLOR"] = "1"  # newer versions of argparse colour their usage on terminals
    stale = []
    for name, make in PAGES.items():
        path = REFERENCE / name
        try:
            text = make()
        except DocsFault as fault:
            sys.stderr.write(f"{name}: {fault}\n")
            return 1
        if check and (not path.is_file() or path.read_text("utf-8") != text):
            stale.append(name)
        elif not check:
            path.write_text(text, "utf-8")
    if stale:
        sys.stderr.write(f"stale: {', '.join(stale)}; run: python docs/generate.py\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
