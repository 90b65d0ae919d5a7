"""Texts with places to fill in, as operators write them: ``$subject``, ``${json.alarm.name}``.

`string.Template`'s rules, as users of mailrise know them; nothing in a template, or in what is put
into one, is ever run. A dot leads into a tree of JSON, by key or by number from 0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from string import Template as _Template
from typing import ClassVar

# Characters that one value may put into a text.
MAX_VALUE = 100_000


class _Dotted(_Template):
    braceidpattern = r"(?a:[a-z_][a-z0-9_]*(?:\.[a-z0-9_-]+)*)"
    flags: ClassVar[re.RegexFlag] = re.IGNORECASE


@dataclass(frozen=True, slots=True)
class Template:
    """One text that `parse` has taken."""

    text: str

    @classmethod
    def parse(cls, text: str, names: Collection[str], trees: Collection[str] = ()) -> Template:
        """A template over these names; those in `trees` may have dots behind. Raises ValueError."""
        template = _Dotted(text)
        if not template.is_valid():
            raise ValueError(f"{text!r}: a $ that stands for itself is written $$")
        for used in template.get_identifiers():
            name, dot, _ = used.partition(".")
            if name not in names and name not in trees:
                known = [f"${name}" for name in names] + [f"${{{tree}.KEY}}" for tree in trees]
                raise ValueError(f"unknown: ${used}; known: {', '.join(known)}")
            if dot and name not in trees:
                raise ValueError(f"${{{used}}}: there is nothing below ${name}")
        return cls(text)

    def fill(self, values: Mapping[str, object]) -> str:
        """The text with these values, by name; what a tree does not have is empty.

        A value may stand under a whole dotted name, too: then nothing is looked for below it.
        """
        template = _Dotted(self.text)
        found = {name: _words(_value(values, name)) for name in template.get_identifiers()}
        return template.substitute(found)


def _value(values: Mapping[str, object], name: str) -> object:
    if name in values:
        return values[name]
    first, *path = name.split(".")
    value = values.get(first)
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _words(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value[:MAX_VALUE]
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(value)[:MAX_VALUE]
    return json.dumps(value, ensure_ascii=False)[:MAX_VALUE]
