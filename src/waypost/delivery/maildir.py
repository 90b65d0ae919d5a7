"""Delivery into Maildirs below the data directory (cr.yp.to/proto/maildir.html).

tmp, fsync, rename into new, fsync of the directory; then the queue may forget the message. One
thread writes for all mailboxes, and messages that wait together share the directory syncs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from waypost.batching import BatchWorker
from waypost.delivery.transport import DeliveryJob, deferred
from waypost.durable import sync_directory, write_all
from waypost.mail.envelope import Outcome, OutcomeKind, QueuedRecipient
from waypost.mail.message import QueuedMessage, delivery_fields
from waypost.mail.reply import Reply
from waypost.routing.targets import Target

_DELIVERED = Reply(250, "Delivered to the mailbox", (0, 0))
_FULL = Reply(452, "No room in the mailbox now", (2, 2))
# What a directory name may hold as it is; a leading dot never (Maildir++ folders, "..").
_SAFE = "+=@-_."
# The directory of the mailbox "" (RFC 5321 allows it, in quotes); quote() writes no "%" alone.
_NAMELESS = "%"
_LEADING_DOT = re.compile(r"^\.")
_COPY_BYTES = 262_144
# The Maildir text: what has stayed in tmp for 36 hours was left by a delivery that died.
_STALE_S = 36 * 3_600.0


def directory_name(mailbox: str) -> str:
    """The name of a mailbox's directory: no separator, no dot in front, no case surprises."""
    return _LEADING_DOT.sub("%2E", quote(mailbox, safe=_SAFE)) or _NAMELESS


def maildir_of(root: Path, mailbox: str) -> Path:
    """Where a mailbox's mail lies."""
    return root / directory_name(mailbox)


def head_of(message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> bytes:
    """The fields that are put before a message in a mailbox."""
    addresses = [recipient.recipient.forward_path for recipient in recipients]
    return delivery_fields(message.envelope.reverse_path, addresses) + message.prepend


def mailbox_names(root: Path) -> Iterator[str]:
    """The mailboxes that exist below `root`."""
    if not root.is_dir():
        return
    for entry in sorted(root.iterdir()):
        if (entry / "new").is_dir() and not entry.is_symlink():
            yield "" if entry.name == _NAMELESS else unquote(entry.name)


@dataclass(slots=True)
class _Delivery:
    mailbox: str
    message: QueuedMessage
    recipients: list[QueuedRecipient]


class MaildirTransport:
    """The transport of ``mailbox:`` targets."""

    def __init__(self, root: Path, on_created: Callable[[str], None]) -> None:
        """`on_created` is called on the loop when a mailbox was made by its first mail."""
        self._root = root
        self._on_created = on_created
        self._count = 0
        self._host = re.sub(r"[/:]", "_", socket.gethostname())
        self._known: set[str] = set()
        self._worker: BatchWorker[_Delivery, Reply] = BatchWorker("maildir", self._run)

    def destination(self, target: Target, recipient: QueuedRecipient) -> str:
        """Each mailbox is its own destination."""
        return str(target)

    def window(self) -> int:
        """Deliveries that may gather for one round of syncs."""
        return 64

    async def deliver(self, job: DeliveryJob) -> list[Outcome]:
        """See Transport."""
        mailbox = job.target.argument
        reply = await self._worker.submit(_Delivery(mailbox, job.message, list(job.recipients)))
        if reply.is_positive:
            self._on_created(mailbox)
        outcome = Outcome.of(reply, success=OutcomeKind.DELIVERED)
        return [outcome] * len(job.recipients)

    async def close(self) -> None:
        """Finish what waits."""
        await self._worker.close()

    # In the thread.

    def _run(self, deliveries: list[_Delivery]) -> list[Reply | Exception]:
        replies: list[Reply | Exception] = []
        written: dict[Path, list[tuple[int, str]]] = {}
        made: set[Path] = set()
        for index, delivery in enumerate(deliveries):
            directory = maildir_of(self._root, delivery.mailbox)
            try:
                if directory not in made:
                    self._make(directory)
                    made.add(directory)
                name = self._write(directory, delivery)
            except OSError as error:
                self._known.discard(directory.name)
                replies.append(_reply_for(error))
            else:
                written.setdefault(directory, []).append((index, name))
                replies.append(_DELIVERED)
        for directory, entries in written.items():
            try:
                self._publish(directory, [name for _, name in entries])
            except OSError as error:
                self._known.discard(directory.name)
                for index, _ in entries:
                    replies[index] = _reply_for(error)
        return replies

    def _make(self, directory: Path) -> None:
        parts = (directory, *(directory / name for name in ("tmp", "new", "cur")))
        if any(part.is_symlink() for part in parts):
            raise OSError(errno.ELOOP, "a directory of the mailbox is a symbolic link")
        if directory.name in self._known and directory.exists():
            return
        # One by one: mkdir() gives its mode to the last directory only, not to parents it makes.
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in parts:
            part.mkdir(mode=0o700, exist_ok=True)
        for made in (directory, self._root, self._root.parent):
            sync_directory(made)
        before = time.time() - _STALE_S
        for left in (directory / "tmp").iterdir():
            with contextlib.suppress(OSError):
                if left.lstat().st_mtime < before:
                    left.unlink()
        self._known.add(directory.name)

    def _write(self, directory: Path, delivery: _Delivery) -> str:
        message = delivery.message
        self._count += 1
        # time.MusecPpidQcount.host, as the Maildir text proposes; the queue id says which mail.
        now = time.time_ns()
        name = (
            f"{now // 1_000_000_000}.M{now // 1000 % 1_000_000}P{os.getpid()}Q{self._count}"
            f"I{message.queue_id}.{self._host}"
        )
        path = directory / "tmp" / name
        descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as target:
                head = head_of(message, delivery.recipients)
                if message.content.inline is not None:
                    write_all(target.fileno(), head + message.content.inline)
                else:
                    write_all(target.fileno(), head)
                    with message.content.open() as source:
                        while piece := source.read(_COPY_BYTES):
                            write_all(target.fileno(), piece)
                os.fsync(target.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        return name

    def _publish(self, directory: Path, names: list[str]) -> None:
        try:
            for name in names:
                os.rename(directory / "tmp" / name, directory / "new" / name)
            sync_directory(directory / "new")
        except OSError:
            # The queue keeps these messages: what stayed here would be a copy for each attempt.
            for name in names:
                for part in ("tmp", "new"):
                    with contextlib.suppress(OSError):
                        (directory / part / name).unlink()
            raise


def _reply_for(error: OSError) -> Reply:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _FULL
    return deferred(f"cannot write to the mailbox: {error.strerror}", (2, 0))
