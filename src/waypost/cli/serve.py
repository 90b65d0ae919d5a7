"""serve, reload, version, completion."""

from __future__ import annotations

import argparse
import errno
from pathlib import Path

import shtab

from waypost import __version__
from waypost.cli.context import load_arguments, settings_of
from waypost.cli.output import EXIT_LATER, EXIT_USAGE, EXIT_YES, complain, reason_of, say, say_json
from waypost.config.load import load_settings
from waypost.control import ask_hub
from waypost.errors import StoreUnavailable
from waypost.queue.room import is_full


def add_commands(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add this module's verbs."""
    serve = verbs.add_parser("serve", parents=[common], help="run the hub until told to stop")
    serve.set_defaults(run=_serve)
    reload = verbs.add_parser(
        "reload", parents=[common], help="make the running hub read its configuration again"
    )
    reload.set_defaults(run=_reload)
    version = verbs.add_parser("version", help="print the version")
    version.add_argument("--json", action="store_true", help="as JSON")
    version.set_defaults(run=_version)
    completion = verbs.add_parser("completion", help="print a shell's completion script")
    completion.add_argument("shell", choices=shtab.SUPPORTED_SHELLS)
    completion.set_defaults(run=_completion)


def _serve(parsed: argparse.Namespace) -> int:
    # It is most of the program, and its neighbours here are commands of a moment.
    from waypost.hub.running import run_hub
    from waypost.queue.sqlite import StoreInUse

    arguments = load_arguments(parsed)
    settings = load_settings(**arguments)
    try:
        run_hub(settings, arguments)
    except (StoreInUse, StoreUnavailable, OSError) as error:
        text = reason_of(error) if isinstance(error, OSError) else str(error)
        complain(text)
        if _is_for_want_of_room(error, settings.data_dir):
            complain(
                f"the disk is full: make room on that of {settings.data_dir} (df shows it), and"
                " start again; what was accepted is safe"
            )
            return EXIT_LATER
        if isinstance(error, OSError) and "cannot bind" in text:
            where = "[http]" if "[http]" in text else "[[listener]]"
            complain(f"choose another address or port with {where} bind = […]")
        return EXIT_USAGE
    return EXIT_YES


def _is_for_want_of_room(error: Exception, directory: Path) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    try:
        return isinstance(error, StoreUnavailable) and is_full(directory)
    except OSError:
        return False  # then it is not room that is lacking


def _reload(parsed: argparse.Namespace) -> int:
    ask_hub(settings_of(parsed).data_dir, "reload")
    return EXIT_YES


def _version(parsed: argparse.Namespace) -> int:
    if parsed.json:
        say_json({"version": __version__})
    else:
        say(f"waypost {__version__}")
    return EXIT_YES


def _completion(parsed: argparse.Namespace) -> int:
    from waypost.cli import build_parser

    say(shtab.complete(build_parser(), shell=parsed.shell))
    return EXIT_YES
