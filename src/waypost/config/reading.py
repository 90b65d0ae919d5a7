"""A TOML tree and the environment, read by the schema into values; every fault is noted."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from waypost.config.lines import KeyPath
from waypost.config.presets import with_preset
from waypost.config.schema import SECTIONS
from waypost.config.schema.key import REQUIRED, Key, Section
from waypost.errors import ConfigFault

ENVIRONMENT_PREFIX = "WAYPOST__"

Values = dict[str, Any]  # section name -> dict of values, or a list of such for [[sections]]


class Reader:
    """Reads a TOML tree by the schema, noting every fault."""

    def __init__(self, source: str, lines: dict[KeyPath, int], faults: list[ConfigFault]) -> None:
        self._source = source
        self._lines = lines
        self._faults = faults

    def read(self, tree: dict[str, Any]) -> Values:
        """The values of all sections, defaults included."""
        tree = _side_by_side(tree)
        top = next(section for section in SECTIONS if not section.name)
        sections = {section.name: section for section in SECTIONS if section.name}
        values: Values = {
            name: [] for name, section in sections.items() if section.is_array or section.is_named
        }
        scalars = {key: value for key, value in tree.items() if key not in sections}
        values[""] = self._table(top, scalars, ())
        for name, section in sections.items():
            content = tree.get(name, [] if section.is_array else {})
            if section.is_array:
                if not isinstance(content, list):
                    self.fault(tuple(name.split(".")), f"expected [[{name}]], a list of tables")
                    continue
                values[name] = [
                    self._table(section, entry, (*name.split("."), index))
                    for index, entry in enumerate(content)
                ]
            elif section.is_named:
                if not isinstance(content, dict):
                    self.fault((name,), f"expected [{name}.NAME]")
                    continue
                if name == "relay":
                    known = frozenset(key.name for key in section.keys)
                    content = {key: with_preset(entry, known) for key, entry in content.items()}
                values[name] = [
                    {"name": key, **self._table(section, entry, (name, key))}
                    for key, entry in content.items()
                ]
            elif isinstance(content, dict):
                values[name] = self._table(section, content, (name,))
            else:
                self.fault((name,), f"expected a table [{name}]")
                values[name] = self._table(section, {}, (name,))
        return values

    def _table(self, section: Section, content: Any, path: KeyPath) -> dict[str, Any]:
        if not isinstance(content, dict):
            self.fault(path, "expected a table")
            content = {}
        known = [key.name for key in section.keys]
        for name in content:
            if name not in known:
                names = ", ".join(known)
                if not section.name:
                    names += ", and the tables " + ", ".join(s.name for s in SECTIONS if s.name)
                below = [s.name for s in SECTIONS if s.name.startswith(f"{section.name}.")]
                if below:
                    names += f", and the tables {', '.join(below)}"
                self.fault((*path, name), f"unknown key; known here: {names}")
        return {key.name: self._value(key, content, path) for key in section.keys}

    def _value(self, key: Key, content: dict[str, Any], path: KeyPath) -> Any:
        if key.name not in content:
            if key.default is REQUIRED:
                self.fault(path, f"{key.name} is missing: expected {key.expected}")
                return None
            return key.default
        try:
            return key.read(content[key.name])
        except ValueError as error:
            self.fault((*path, key.name), str(error))
            return None if key.default is REQUIRED else key.default

    def fault(self, path: KeyPath, problem: str) -> None:
        """Note a fault of the key that is there."""
        self._faults.append(ConfigFault(self._source, self._line(path), _dotted(path), problem))

    def _line(self, path: KeyPath) -> int | None:
        while path:
            if path in self._lines:
                return self._lines[path]
            path = path[:-1]
        return None


def _side_by_side(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree with [[a.b]] beside [a], as sections are."""
    found = dict(tree)
    for section in SECTIONS:
        above, dot, name = section.name.partition(".")
        if dot and isinstance(found.get(above), dict) and name in found[above]:
            found[above] = dict(found[above])
            found[section.name] = found[above].pop(name)
    return found


def _dotted(path: KeyPath) -> str:
    text = ""
    for part in path:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")


def apply_environment(
    values: Values, environment: Mapping[str, str], faults: list[ConfigFault]
) -> None:
    """WAYPOST__SECTION__KEY=value overrides a key; the value is TOML, or else a plain text."""
    for name, text in sorted(environment.items()):
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        parts = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        section_name, key_name = ("", parts[0]) if len(parts) == 1 else (parts[0], parts[-1])
        section = _section_with_one_table(section_name)
        key = section.key(key_name) if section is not None and len(parts) <= 2 else None
        if key is None:
            faults.append(ConfigFault(name, None, "", "no such key (lists of tables need a file)"))
            continue
        try:
            (value,) = tomllib.loads(f"value = {text}").values()
        except ValueError:  # no TOML, or more than a value
            value = text
        try:
            values[section_name][key.name] = key.read(value)
        except ValueError as error:
            faults.append(ConfigFault(name, None, "", str(error)))


def _section_with_one_table(name: str) -> Section | None:
    return next((s for s in SECTIONS if s.name == name and not (s.is_array or s.is_named)), None)
