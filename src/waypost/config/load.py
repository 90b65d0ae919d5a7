"""A configuration file and the environment, read into settings."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from waypost.config.composing import compose
from waypost.config.consistency import Consistency
from waypost.config.lines import KeyPath, line_numbers
from waypost.config.reading import Reader, apply_environment
from waypost.config.settings import Settings
from waypost.errors import ConfigError, ConfigFault

CONFIG_PLACES = (Path("waypost.toml"), Path("/etc/waypost/waypost.toml"))


def find_config(given: Path | None) -> Path | None:
    """The file to read: the one given, else the first of CONFIG_PLACES that exists.

    None: there is none, and defaults hold.
    """
    if given is not None:
        return given
    return next((place for place in CONFIG_PLACES if place.is_file()), None)


def default_data_dir(environment: Mapping[str, str]) -> Path:
    """Where data lies when neither `--data` nor `data_dir` says."""
    if environment.get("WAYPOST_DATA"):
        return Path(environment["WAYPOST_DATA"])
    if os.geteuid() == 0:
        return Path("/var/lib/waypost")
    share = environment.get("XDG_DATA_HOME")
    return (Path(share) if share else Path.home() / ".local" / "share") / "waypost"


def load_settings(
    config: Path | None, data: Path | None, environment: Mapping[str, str]
) -> Settings:
    """Read file and environment. Raises ConfigError with every fault found."""
    faults: list[ConfigFault] = []
    tree: dict[str, Any] = {}
    lines: dict[KeyPath, int] = {}
    source = "defaults" if config is None else str(config)
    if config is not None:
        try:
            text = config.read_text("utf-8")
            tree = tomllib.loads(text)
            lines = line_numbers(text)
        except OSError as error:
            raise ConfigError(
                [ConfigFault(source, None, "", f"cannot be read: {error.strerror}")]
            ) from error
        except UnicodeDecodeError as error:
            raise ConfigError([ConfigFault(source, None, "", "is not UTF-8")]) from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError([ConfigFault(source, None, "", f"is not TOML: {error}")]) from error
    reader = Reader(source, lines, faults)
    values = reader.read(tree)
    apply_environment(values, environment, faults)
    Consistency(values, reader.fault).check()
    if faults:
        raise ConfigError(faults)
    if data is None:
        given = values[""]["data_dir"]
        data = Path(given) if given else default_data_dir(environment)
    return compose(values, config, data)
