"""The command line: one module for each group of verbs."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from waypost import __version__
from waypost.cli.output import EXIT_LATER, EXIT_NO, EXIT_USAGE, complain, reason_of
from waypost.errors import ConfigError, HubUnreachable, TemporaryError, WaypostError

# Which module of this package has a verb, in the order of the help.
_MODULES = {
    **dict.fromkeys(("serve", "reload", "version", "completion"), "serve"),
    **{verb: verb for verb in ("send", "sendmail", "route", "check", "queue", "mailbox", "trace")},
    **{verb: verb for verb in ("device", "relay", "dns", "tls", "user")},
    "config": "configuration",
}

_EPILOG = """\
Start with "waypost serve"; then mail alerts@[127.0.0.1] on port 2525.
Exit status: 0 yes, 1 no (refused, not found), 2 usage or configuration error, 75 try again later.
"""


def build_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """The grammar of the command line; the reference is generated from it.

    `verb` is the only one that is asked for, so that no other's code is loaded; None: all.
    """
    parser = argparse.ArgumentParser(
        prog="waypost",
        description="Mail straight to and from IP addresses: a hub, its queue and its tools.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"waypost {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration (default: ./waypost.toml, else /etc/waypost/waypost.toml, if any)",
    )
    common.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="data directory (default: data_dir of the configuration, else $WAYPOST_DATA, else"
        " /var/lib/waypost as root, else $XDG_DATA_HOME/waypost)",
    )
    verbs = parser.add_subparsers(title="commands", dest="verb", metavar="COMMAND", required=True)
    wanted = _MODULES.values() if verb is None else (_MODULES[verb],)
    for module in dict.fromkeys(wanted):
        importlib.import_module(f"waypost.cli.{module}").add_commands(verbs, common)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    # No option of the program itself takes a value: the verb comes first, or there is none.
    verb = words[0] if words and words[0] in _MODULES else None
    parsed = build_parser(verb).parse_args(words)
    try:
        status: int = parsed.run(parsed)
        sys.stdout.flush()
        return status
    except ConfigError as error:
        for fault in error.faults:
            complain(str(fault))
        return EXIT_USAGE
    except HubUnreachable as error:
        complain(f"{error}; start one with: waypost serve")
        return EXIT_LATER
    except TemporaryError as error:
        complain(str(error))
        return EXIT_LATER
    except WaypostError as error:
        complain(str(error))
        return EXIT_NO
    except BrokenPipeError:
        # The reader of our output has seen enough (as "| head" does).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_NO
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        complain(reason_of(error))
        return EXIT_NO
