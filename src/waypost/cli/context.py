"""What most commands begin with: settings from --config and --data, and the hub's data."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from waypost.config.load import find_config, load_settings
from waypost.config.settings import Settings
from waypost.errors import WaypostError
from waypost.queue.history import History


def load_arguments(parsed: argparse.Namespace) -> dict[str, Any]:
    """What `load_settings` is to be called with."""
    config: Path | None = find_config(parsed.config)
    if config is not None:
        config = config.absolute()
    return {"config": config, "data": parsed.data, "environment": os.environ}


def settings_of(parsed: argparse.Namespace) -> Settings:
    """The settings a command works with. Raises ConfigError."""
    return load_settings(**load_arguments(parsed))


def history_of(settings: Settings) -> History:
    """The queue's reader. Raises WaypostError where no hub has ever run."""
    history = History(settings.data_dir)
    if not history.exists():
        raise WaypostError(
            f"there is no hub's data in {settings.data_dir}; name the right place with --data"
        )
    return history
