"""A command of a moment loads what it needs, and nothing of the others."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from waypost.cli import build_parser


def verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (action,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    return dict(action.choices)


def test_every_verb_is_found_by_itself() -> None:
    everything = verbs(build_parser())
    for verb, parser in everything.items():
        alone = verbs(build_parser(verb))
        assert alone[verb].format_help() == parser.format_help()
        assert len(alone) < len(everything)


@pytest.mark.parametrize(
    ("command", "unneeded"),
    [
        ("version", ["waypost.hub", "waypost.app", "dns"]),
        ("queue list", ["waypost.hub", "waypost.app", "dns"]),
        ("trace", ["waypost.hub", "waypost.app", "dns"]),
        ("send --to ann@[127.0.0.1] --via 127.0.0.1:1 --from <>", ["waypost.hub", "dns"]),
        ("send --help", ["waypost.hub", "dns", "acme", "apprise"]),
    ],
)
def test_what_a_command_does_not_load(
    command: str, unneeded: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('loaded', *sys.modules, file=sys.stderr))\n"
        "from waypost.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    data = [] if command == "version" else ["--data", str(tmp_path_factory.mktemp("data"))]
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split(), *data],
        capture_output=True,
        text=True,
        check=False,
    )
    line = done.stderr.splitlines()[-1]
    assert line.startswith("loaded "), done.stderr
    assert not set(line.split()) & set(unneeded)
