"""Content on its way to the disk, and content read back.

Small content stays in memory and goes into the store's own transaction: one sync instead of
two. Larger content is streamed to a file: temporary name, fsync, rename, fsync of the directory,
all before the store commits the message that names it. What a crash leaves is swept at start.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from waypost.batching import BatchWorker
from waypost.durable import sync_directory, write_all
from waypost.errors import QueueFull, StoreUnavailable, TemporaryError
from waypost.queue.room import free_bytes

# Where a file beats a row of the database; see docs/decisions/0004-inline-content.md.
INLINE_BYTES = 65_536
# Octets of one message that may wait for the spool's thread before its client is made to wait.
MAX_UNWRITTEN_BYTES = 524_288

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class InlineContent:
    """Content small enough to be held in memory."""

    inline: bytes

    @property
    def size(self) -> int:
        """Octets."""
        return len(self.inline)

    def open(self) -> BinaryIO:
        """A reader from the start."""
        return BytesIO(self.inline)


@dataclass(frozen=True, slots=True)
class FileContent:
    """Content in a file of the spool."""

    path: Path
    size: int
    inline: None = None

    def open(self) -> BinaryIO:
        """A reader from the start; blocks, so for worker threads only. Raises OSError."""
        return self.path.open("rb")


StoredContent = InlineContent | FileContent


def storage_error(error: OSError) -> TemporaryError:
    """The trouble below the seam, in our terms."""
    if error.errno in _NO_ROOM:
        return QueueFull(f"no room: {error.strerror}")
    return StoreUnavailable(f"cannot write: {error.strerror}")


@dataclass(slots=True)
class _Append:
    writer: ContentWriter
    pieces: list[bytes]
    octets: int


@dataclass(slots=True)
class _Commit:
    writer: ContentWriter


@dataclass(slots=True)
class _Abort:
    writer: ContentWriter


@dataclass(slots=True)
class _Remove:
    name: str


_Request = _Append | _Commit | _Abort | _Remove


class ContentWriter:
    """One message's content while it comes in. Used on the event loop's thread."""

    __slots__ = (
        "_held",
        "_on_drained",
        "_pieces",
        "_spool",
        "descriptor",
        "error",
        "head",
        "is_eight_bit",
        "name",
        "size",
        "unwritten",
    )

    def __init__(self, spool: Spool, name: str, on_drained: Callable[[], None]) -> None:
        self._spool = spool
        self._on_drained = on_drained
        self._pieces: list[bytes] = []
        self._held = 0  # octets in _pieces
        self.name = name
        self.size = 0
        self.is_eight_bit = False
        self.head = b""  # the first INLINE_BYTES or so, once the content has outgrown memory
        self.unwritten = 0
        # Only the spool's thread touches these two while work is waiting.
        self.descriptor: int | None = None  # None: no file yet
        self.error: OSError | None = None  # None: all writes went well

    def write(self, piece: bytes) -> bool:
        """Add a piece; False: let the client wait until `on_drained` is called."""
        self._pieces.append(piece)
        self._held += len(piece)
        self.size += len(piece)
        if not self.is_eight_bit and not piece.isascii():
            self.is_eight_bit = True
        if self._held > INLINE_BYTES:
            self._hand_over()
        return self.unwritten <= MAX_UNWRITTEN_BYTES

    def first(self) -> bytes:
        """The content so far; of a large one what it begins with."""
        return self.head or b"".join(self._pieces)

    def finish(self) -> InlineContent | asyncio.Future[StoredContent]:
        """The whole content; as a future when a file has to be made durable first.

        The future raises QueueFull or StoreUnavailable.
        """
        if not self.head:
            pieces = self._pieces
            return InlineContent(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        self._hand_over()
        return self._spool.commit(self)

    def abort(self) -> None:
        """Forget it all."""
        self._pieces = []
        if self.head:
            self._spool.abort(self)

    def discard(self) -> None:
        """The content was finished, but its message is not wanted after all."""
        if self.head:
            self._spool.remove(self.name)

    def _hand_over(self) -> None:
        pieces, self._pieces = self._pieces, []
        if not self.head:
            self.head = b"".join(pieces)
        octets, self._held = self._held, 0
        self.unwritten += octets
        self._spool.append(self, pieces, octets)

    def written(self, octets: int) -> None:
        """The spool's answer to a hand-over."""
        was_full = self.unwritten > MAX_UNWRITTEN_BYTES
        self.unwritten -= octets
        if was_full and self.unwritten <= MAX_UNWRITTEN_BYTES:
            self._on_drained()


class Spool:
    """The directory of large contents."""

    def __init__(self, directory: Path) -> None:
        """Makes the directory, mode 0700. Raises OSError."""
        self._directory = directory
        self._temporary = directory / "tmp"
        self._temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        self._worker: BatchWorker[_Request, StoredContent | None] = BatchWorker("spool", self._run)

    def create(self, name: str, on_drained: Callable[[], None]) -> ContentWriter:
        """A writer for new content; `name` becomes the file's name if one is needed."""
        return ContentWriter(self, name, on_drained)

    def path_of(self, name: str) -> Path:
        """Where content of this name lies."""
        return self._directory / name

    def share(self, content: StoredContent, name: str) -> StoredContent:
        """The same content for a second message: a file gets a second name, durably. Blocks.

        Raises QueueFull, StoreUnavailable.
        """
        if not isinstance(content, FileContent):
            return content
        try:
            os.link(content.path, self.path_of(name))
            sync_directory(self._directory)
        except OSError as error:
            raise storage_error(error) from error
        return FileContent(self.path_of(name), content.size)

    def discard(self, names: Iterable[str]) -> None:
        """Delete files of messages that are finished; blocks, for worker threads only.

        What cannot be deleted now is swept at the next start.
        """
        for name in names:
            with contextlib.suppress(OSError):
                self.path_of(name).unlink()

    def names(self) -> list[str]:
        """The files there are; blocks. Raises OSError."""
        return [entry.name for entry in self._directory.iterdir() if entry.name != "tmp"]

    def sweep(self, live: Collection[str]) -> int:
        """Delete what no message names: left by a crash before the commit, or after the last
        recipient. `live`: the names in use. Returns how many went; blocks. Raises OSError.
        """
        stale = list(self._temporary.iterdir())
        stale += [self.path_of(name) for name in self.names() if name not in live]
        swept = 0
        for path in stale:
            with contextlib.suppress(OSError):  # not ours, as lost+found
                path.unlink()
                swept += 1
        return swept

    async def close(self) -> None:
        """Finish what waits."""
        await self._worker.close()

    # What writers ask for.

    def append(self, writer: ContentWriter, pieces: list[bytes], octets: int) -> None:
        """Write pieces behind what is there."""
        future = self._worker.submit(_Append(writer, pieces, octets))
        future.add_done_callback(lambda _: writer.written(octets))

    def commit(self, writer: ContentWriter) -> asyncio.Future[StoredContent]:
        """Make the file durable under its name."""
        return self._worker.submit(_Commit(writer))  # type: ignore[return-value]

    def abort(self, writer: ContentWriter) -> None:
        """Remove the unfinished file."""
        self._worker.submit(_Abort(writer))

    def remove(self, name: str) -> None:
        """Delete a finished file."""
        self._worker.submit(_Remove(name))

    # In the spool's thread.

    def _run(self, requests: list[_Request]) -> list[StoredContent | Exception | None]:
        results: list[StoredContent | Exception | None] = []
        renamed: list[tuple[int, str]] = []
        for request in requests:
            if isinstance(request, _Append):
                self._append(request.writer, request.pieces)
                results.append(None)
            elif isinstance(request, _Abort):
                self._close(request.writer, remove=True)
                results.append(None)
            elif isinstance(request, _Remove):
                self.discard([request.name])
                results.append(None)
            else:
                result = self._commit(request.writer)
                if isinstance(result, FileContent):
                    renamed.append((len(results), request.writer.name))
                results.append(result)
        if renamed:
            try:
                sync_directory(self._directory)
            except OSError as error:
                for index, name in renamed:
                    results[index] = storage_error(error)
                    self.discard([name])
        return results

    def _append(self, writer: ContentWriter, pieces: list[bytes]) -> None:
        if writer.error is not None:
            return
        try:
            if writer.descriptor is None:
                writer.descriptor = os.open(
                    self._temporary / writer.name,
                    os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                    0o600,
                )
            if not free_bytes(self._directory):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            for piece in pieces:
                write_all(writer.descriptor, piece)
        except OSError as error:
            writer.error = error

    def _commit(self, writer: ContentWriter) -> StoredContent | Exception:
        try:
            if writer.error is not None:
                raise writer.error
            assert writer.descriptor is not None
            os.fsync(writer.descriptor)
            os.rename(self._temporary / writer.name, self.path_of(writer.name))
        except OSError as error:
            # After a failed fsync the kernel may call the pages clean: the file is never trusted.
            self._close(writer, remove=True)
            return storage_error(error)
        self._close(writer, remove=False)
        return FileContent(self.path_of(writer.name), writer.size)

    def _close(self, writer: ContentWriter, *, remove: bool) -> None:
        descriptor, writer.descriptor = writer.descriptor, None
        if descriptor is None:
            return  # there is no file, or one by that name which is not this writer's
        with contextlib.suppress(OSError):
            os.close(descriptor)
        if remove:
            with contextlib.suppress(OSError):
                (self._temporary / writer.name).unlink()
