"""Pieces of configuration for hubs of tests."""

from __future__ import annotations

# A listener as a hub has it that is the only mail server of its host.
PORT_25 = '[[listener]]\nname = "smtp"\nbind = ["0.0.0.0:25", "[::]:25"]\n'


def route(*targets: str, name: str = "route", match: str = "", goes_on: bool = False) -> str:
    """A [[route]]; `match` as in 'recipient = "cam*@*", sender = "*"'."""
    quoted = ", ".join(f'"{target}"' for target in targets)
    text = f'[[route]]\nname = "{name}"\nmatch = {{ {match} }}\nto = [{quoted}]\n'
    return text + "continue = true\n" if goes_on else text


def retry(
    first_s: float, *, max_s: float = 10, warn_after_s: float = 60, give_up_after_s: float = 120
) -> str:
    """The [retry] table."""
    return (
        f"[retry]\nfirst_s = {first_s}\nmax_s = {max_s}\nwarn_after_s = {warn_after_s}\n"
        f"give_up_after_s = {give_up_after_s}\n"
    )
