"""The hub's door for its own command line: a Unix socket in the data directory.

One JSON object a line, one answer a line. Who may open the socket (mode 0600) is who may act.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waypost.errors import HubUnreachable, WaypostError

SOCKET_NAME = "control.sock"
MAX_REQUEST_BYTES = 1_048_576
ANSWER_S = 60.0

Answer = dict[str, Any]
Action = Callable[[dict[str, Any]], Awaitable[Answer]]


@contextmanager
def _short_path(directory: Path) -> Iterator[str]:
    """A path to the socket that fits the 108 octets of a socket address, however deep it lies."""
    path = str(directory / SOCKET_NAME)
    if len(os.fsencode(path)) < 100:
        yield path
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)


class ControlServer:
    """Answers requests by name."""

    def __init__(self, directory: Path, actions: dict[str, Action]) -> None:
        self._directory = directory
        self._actions = actions
        self._server: asyncio.Server | None = None  # None: not started

    async def start(self) -> None:
        """Bind, replacing what a killed hub left. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            (self._directory / SOCKET_NAME).unlink()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        old_mask = os.umask(0o177)
        try:
            with _short_path(self._directory) as path:
                listening.bind(path)
        finally:
            os.umask(old_mask)
        self._server = await asyncio.start_unix_server(
            self._serve, sock=listening, limit=MAX_REQUEST_BYTES
        )

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(FileNotFoundError):
            (self._directory / SOCKET_NAME).unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                answer = await self._answer(line)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass  # the client went away, or sent a line without end
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> Answer:
        try:
            request = json.loads(line)
            action = self._actions[request["do"]]
        except (ValueError, KeyError, TypeError):
            return {"error": "not a request this hub knows"}
        try:
            return await action(request)
        except (WaypostError, ValueError) as error:
            return {"error": str(error)}


def ask_hub(directory: Path, do: str, **fields: Any) -> Answer:
    """Send one request to the hub that runs on `directory`; blocks.

    Raises HubUnreachable when none runs, WaypostError when it refuses.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_S)
            with _short_path(directory) as path:
                connection.connect(path)
            connection.sendall(json.dumps({"do": do, **fields}).encode() + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
    except OSError as error:
        raise HubUnreachable(f"no hub is running on {directory}") from error
    if not line:
        raise HubUnreachable(f"the hub on {directory} gave no answer")
    answer: Answer = json.loads(line)
    if "error" in answer:
        raise WaypostError(answer["error"])
    return answer
