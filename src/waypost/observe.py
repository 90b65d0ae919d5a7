"""The log: structured events, one line each, written by a thread of its own.

Text lines are ``time event key=value …``; JSON lines hold the same. Values are escaped, so that
one event is one line whatever a client sent. Secrets never get here: events name what they log.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
import time
from functools import lru_cache
from queue import SimpleQueue

# Lines gather this long before they are handed to the thread.
FLUSH_S = 0.05

_PLAIN = re.compile(r"[!#-<>-\[\]-~]+")


class Log:
    """Takes events on any thread; lines come out in order."""

    def __init__(self, descriptor: int, *, as_json: bool = False) -> None:
        """`descriptor` is where lines go; it is not closed."""
        self._descriptor = descriptor
        self._as_json = as_json
        self._lines: list[str] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_flushing = False
        self._waiting: SimpleQueue[str | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def event(self, name: str, **fields: object) -> None:
        """Log one event; fields that are None are left out."""
        now = time.time()
        if self._as_json:
            entry: dict[str, object] = {"at": round(now, 3), "event": name}
            entry.update(
                (key, value if isinstance(value, int | float | bool) else str(value))
                for key, value in fields.items()
                if value is not None
            )
            self._lines.append(json.dumps(entry, ensure_ascii=True) + "\n")
        else:
            line = f"{_timestamp(int(now))}.{int(now * 1000) % 1000:03d}Z {name}"
            for key, value in fields.items():
                if value is not None:
                    line += f" {key}={_escaped(str(value))}"
            self._lines.append(line + "\n")
        if not self._is_flushing:
            self._is_flushing = True
            try:
                asyncio.get_running_loop().call_later(FLUSH_S, self._flush)
            except RuntimeError:
                self._flush()  # no loop: before it runs, after it ended, or in another thread

    def close(self) -> None:
        """Write what waits and end the thread."""
        self._flush()
        self._waiting.put(None)
        self._thread.join()

    def _flush(self) -> None:
        self._is_flushing = False
        lines, self._lines = self._lines, []
        if lines:
            self._waiting.put("".join(lines))

    def _write(self) -> None:
        while (text := self._waiting.get()) is not None:
            octets = text.encode("utf-8", "backslashreplace")
            while octets:
                try:
                    octets = octets[os.write(self._descriptor, octets) :]
                except OSError:
                    break  # nobody reads the log any more; mail goes on


@lru_cache(maxsize=4)
def _timestamp(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


@lru_cache(maxsize=4096)
def _escaped(text: str) -> str:
    return text if _PLAIN.fullmatch(text) is not None else json.dumps(text, ensure_ascii=True)
