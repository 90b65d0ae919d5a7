"""The process that notifies: `python -m waypost.delivery.notifier_worker`, started by notifier.

The one place where Apprise is loaded, and the one that connects past net/gate: to where URLs of
the operator lead, and nowhere else. Why: docs/decisions/0022-webhooks-and-notifications.md.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import resource
import signal
import socket
import sys
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import apprise
from apprise.attachment.file import AttachFile

from waypost.delivery.notifier import HEADER, Told
from waypost.durable import write_all

MEMORY_BYTES = 1_073_741_824
MAX_FILE_BYTES = 33_554_432  # more than attachments.MAX_ATTACHED
# Seconds; Apprise's own are 4, too few for a picture on a slow line.
CONNECT_S = 10
READ_S = 30
MAX_WHY = 160

_DELIMITERS = re.compile(r"[:/?#@&=;]+")
_STATUS = re.compile(r"\berror=([1-5][0-9]{2})\b")
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class _Records(logging.Handler):
    """Keeps what Apprise complains of: it says no more than True or False itself."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        if len(self.lines) < 20:
            self.lines.append(record.getMessage())


def serve(connection: socket.socket) -> None:
    """Do what comes from the hub, until it hangs up."""
    records = _Records()
    logger = logging.getLogger("apprise")
    logger.addHandler(records)
    logger.propagate = False
    with connection.makefile("rb") as requests:
        while len(header := requests.read(HEADER.size)) == HEADER.size:
            size, octets = HEADER.unpack(header)
            records.lines.clear()
            told = _told(json.loads(requests.read(size)), requests.read(octets), records)
            connection.sendall(json.dumps(told).encode("ascii") + b"\n")


def _told(words: list[Any], octets: bytes, records: _Records) -> Told:
    """`words` are those of Notifier; the URL alone asks for the service's name."""
    url, *content = words
    asset = apprise.AppriseAsset(
        app_id="Waypost",
        app_desc="Waypost",
        app_url="",
        async_mode=False,
        http_redirects=False,
        allow_templates=False,
        storage_mode=apprise.PersistentStoreMode.MEMORY,
    )
    service = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if service is None:
        return Told(False, is_known=False, why="it is no URL that Apprise knows")
    service.socket_connect_timeout = max(service.socket_connect_timeout, CONNECT_S)
    service.socket_read_timeout = max(service.socket_read_timeout, READ_S)
    name = str(service.service_name)
    if not content:
        return Told(True, name)
    title, text, about = content
    try:
        is_done = notified(service, asset, title, text, _files(about, octets))
    except Exception as error:  # a fault of one of a hundred plug-ins; the others go on
        return Told(False, name, why=f"Apprise failed with {type(error).__name__}")
    if is_done:
        return Told(True, name)
    status = next((int(m[1]) for line in records.lines if (m := _STATUS.search(line))), None)
    return Told(False, name, status=status, why=_why(records.lines, status, url))


def _files(about: list[Any], octets: bytes) -> Iterator[tuple[str, str, bytes]]:
    """Name, media type and octets of each."""
    at = 0
    for name, type_, size in about:
        yield name, type_, octets[at : at + size]
        at += size


def notified(
    service: apprise.NotifyBase,
    asset: apprise.AppriseAsset,
    title: str,
    text: str,
    files: Iterable[tuple[str, str, bytes]],
) -> bool:
    """Whether the service has taken it."""
    one = apprise.Apprise(asset=asset)
    one.add(service)
    with contextlib.ExitStack() as stack:
        attach = None
        for name, type_, octets in files:
            attach = attach or apprise.AppriseAttachment(asset=asset)
            path = stack.enter_context(_in_memory(octets))
            file = AttachFile(path, name=name, mimetype=type_)  # type: ignore[no-untyped-call]
            attach.add(file)
        return bool(
            one.notify(body=text, title=title, body_format=apprise.NotifyFormat.TEXT, attach=attach)
        )


@contextlib.contextmanager
def _in_memory(octets: bytes) -> Iterator[str]:
    """A file that is on no disk: many plug-ins open attachments by their path."""
    descriptor = os.memfd_create("attachment")
    try:
        write_all(descriptor, octets)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _why(lines: list[str], status: int | None, url: str) -> str:
    if status is not None:
        return f"HTTP {status} {_PHRASES.get(status, '')}".rstrip()
    text = " ".join(" ".join(lines[:1]).split())
    return without_secrets(text, url)[:MAX_WHY] or "it failed, and Apprise does not say why"


def without_secrets(text: str, url: str) -> str:
    """The text less all that stands in the URL; the scheme names the service, and stays."""
    _, _, rest = url.partition("://")
    parts = {form for part in _DELIMITERS.split(rest) for form in (part, unquote(part))}
    parts |= {word for part in parts for word in re.split(r"[^\w.\-]+", part)}
    for part in sorted(parts, key=len, reverse=True):
        if len(part) > 2:
            text = text.replace(part, "***")
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text)


def main() -> None:
    """Argument: the number of the socket's descriptor."""
    # Signals for all of a terminal's or a service's processes are the hub's to act on.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would hold mail, and secrets
    # It writes attachments only, and those to memory.
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
