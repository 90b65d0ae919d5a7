"""The spool (queue/spool.py): content that is whole and durable under its name, or not there."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.contract.mail import on_loop
from tests.fault.small_disk import small_disk
from waypost.errors import QueueFull, StoreUnavailable, TemporaryError
from waypost.queue import spool as spool_module
from waypost.queue.spool import (
    INLINE_BYTES,
    MAX_UNWRITTEN_BYTES,
    ContentWriter,
    FileContent,
    InlineContent,
    Spool,
    StoredContent,
)

PIECE = bytes(range(256)) * 256


def nothing() -> None:
    """For writers whose client need not wait."""


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[Spool]:
    """A spool that ends in good order."""
    spool = Spool(directory)
    try:
        yield spool
    finally:
        await spool.close()


def written(spool: Spool, name: str, size: int) -> ContentWriter:
    """A writer that has been given `size` octets."""
    writer = spool.create(name, nothing)
    left = size
    while left:
        piece = PIECE[:left]
        writer.write(piece)
        left -= len(piece)
    return writer


async def finished(writer: ContentWriter) -> StoredContent:
    """The content, durable."""
    content = writer.finish()
    return content if isinstance(content, InlineContent) else await content


def files(directory: Path) -> list[str]:
    """All files of a spool, temporary ones as tmp/NAME."""
    return sorted(
        str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()
    )


def octets(content: StoredContent) -> bytes:
    """What is read back."""
    with content.open() as source:
        return source.read()


def expected(size: int) -> bytes:
    """What `written` gave."""
    return (PIECE * (size // len(PIECE) + 1))[:size]


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES - 1, INLINE_BYTES])
@on_loop
async def test_small_content_needs_no_file(tmp_path: Path, size: int) -> None:
    async with opened(tmp_path / "content") as spool:
        content = await finished(written(spool, "small", size))
        assert isinstance(content, InlineContent)
        assert octets(content) == content.inline == expected(size)
        assert content.size == size
    assert files(tmp_path / "content") == []


@pytest.mark.parametrize("size", [INLINE_BYTES + 1, 3 * INLINE_BYTES, 5_000_001])
@on_loop
async def test_large_content_comes_back_as_it_was(tmp_path: Path, size: int) -> None:
    async with opened(tmp_path / "content") as spool:
        content = await finished(written(spool, "large", size))
        assert isinstance(content, FileContent)
        assert content.size == size
        assert content.path == spool.path_of("large")
        assert octets(content) == expected(size)
    assert files(tmp_path / "content") == ["large"]
    assert stat.S_IMODE(content.path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "content").stat().st_mode) == 0o700


@on_loop
async def test_whether_content_is_eight_bit_is_seen_on_the_way(tmp_path: Path) -> None:
    async with opened(tmp_path / "content") as spool:
        writer = spool.create("mixed", nothing)
        writer.write(b"plain")
        assert not writer.is_eight_bit
        writer.write("grün".encode())
        writer.write(b"plain")
        assert writer.is_eight_bit
        writer.abort()


@on_loop
async def test_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    directory = tmp_path / "content"
    async with opened(directory) as spool:
        writer = written(spool, "large", 1_000_000)
        while not files(directory):
            await asyncio.sleep(0)
        assert files(directory) == ["tmp/large"]
        await finished(writer)
        assert files(directory) == ["large"]


@on_loop
async def test_the_order_is_write_sync_rename_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def noted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            steps.append(name)
            return call(*arguments)

        return run

    monkeypatch.setattr(spool_module, "write_all", noted("write", spool_module.write_all))
    monkeypatch.setattr(spool_module, "sync_directory", noted("sync directory", lambda _: None))
    monkeypatch.setattr(os, "fsync", noted("sync file", os.fsync))
    monkeypatch.setattr(os, "rename", noted("rename", os.rename))
    async with opened(tmp_path / "content") as spool:
        await finished(written(spool, "large", INLINE_BYTES + 1))
    assert steps[0] == "write"
    assert [step for step in steps if step != "write"] == ["sync file", "rename", "sync directory"]


@on_loop
async def test_files_finished_together_share_the_directory_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(spool_module, "sync_directory", synced.append)
    async with opened(tmp_path / "content") as spool:
        writers = [written(spool, f"large{number}", 100_000) for number in range(20)]
        contents = await asyncio.gather(*(finished(writer) for writer in writers))
        assert all(octets(content) == expected(100_000) for content in contents)
        assert len(synced) < 10


@on_loop
async def test_aborted_content_leaves_no_file(tmp_path: Path) -> None:
    async with opened(tmp_path / "content") as spool:
        written(spool, "small", 10).abort()
        written(spool, "large", 1_000_000).abort()
    assert files(tmp_path / "content") == []


@on_loop
async def test_discarded_content_leaves_no_file(tmp_path: Path) -> None:
    async with opened(tmp_path / "content") as spool:
        for size in (10, 1_000_000):
            writer = written(spool, f"of{size}", size)
            await finished(writer)
            writer.discard()
    assert files(tmp_path / "content") == []


@on_loop
async def test_a_fast_client_is_made_to_wait_and_woken(tmp_path: Path) -> None:
    drained = asyncio.Event()
    async with opened(tmp_path / "content") as spool:
        writer = spool.create("large", drained.set)
        # Nothing is written before the loop has had a turn.
        sent = 0
        while writer.write(PIECE):
            sent += len(PIECE)
        assert MAX_UNWRITTEN_BYTES - len(PIECE) <= sent <= MAX_UNWRITTEN_BYTES + 2 * len(PIECE)
        assert not drained.is_set()
        await drained.wait()
        assert writer.write(b"x")
        content = await finished(writer)
        assert octets(content) == expected(writer.size - 1) + b"x"


@on_loop
async def test_what_a_crash_left_is_swept(tmp_path: Path) -> None:
    directory = tmp_path / "content"
    async with opened(directory) as spool:
        for name in ("wanted", "orphan"):
            await finished(written(spool, name, 100_000))
        (directory / "tmp" / "half").write_bytes(b"x")
        assert spool.sweep({"wanted"}) == 2
        assert files(directory) == ["wanted"]
        assert spool.sweep(set()) == 1


@on_loop
async def test_a_name_that_is_taken_is_not_written_through(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_bytes(b"precious")
    directory = tmp_path / "content"
    async with opened(directory) as spool:
        (directory / "tmp" / "planted").symlink_to(target)
        with pytest.raises(StoreUnavailable):
            await finished(written(spool, "planted", 100_000))
    assert target.read_bytes() == b"precious"


# Trouble.


@on_loop
async def test_no_room_is_queue_full_and_leaves_no_file(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4) as ballast:
        async with opened(ballast.directory / "content") as spool:
            with pytest.raises(QueueFull):
                await finished(written(spool, "too-large", 8_000_000))
            content = await finished(written(spool, "fits", 1_000_000))
            assert octets(content) == expected(1_000_000)
            assert files(ballast.directory / "content") == ["fits"]


def failing(number: int, *, after: int = 0) -> Callable[..., Any]:
    """A system call that fails with `number`, the first `after` times apart."""
    calls = 0

    def call(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EIO, StoreUnavailable),
        (errno.ENOSPC, QueueFull),
        (errno.EDQUOT, QueueFull),
        (errno.EROFS, StoreUnavailable),
    ],
)
@pytest.mark.parametrize("call", ["write", "fsync", "rename", "open"])
@on_loop
async def test_trouble_at_any_step_is_told_and_leaves_no_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
    kind: type[TemporaryError],
) -> None:
    directory = tmp_path / "content"
    async with opened(directory) as spool:
        with monkeypatch.context() as patched:
            patched.setattr(os, call, failing(number))
            with pytest.raises(kind):
                await finished(written(spool, "unlucky", 200_000))
        assert files(directory) == []
        content = await finished(written(spool, "lucky", 200_000))
        assert octets(content) == expected(200_000)


@on_loop
async def test_a_directory_that_does_not_sync_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "content"
    async with opened(directory) as spool:
        with monkeypatch.context() as patched:
            patched.setattr(spool_module, "sync_directory", failing(errno.EIO))
            with pytest.raises(StoreUnavailable):
                await finished(written(spool, "unlucky", 200_000))
        # Whatever is left of it belongs to no message.
        spool.sweep(set())
        assert files(directory) == []


@on_loop
async def test_one_content_in_trouble_does_not_fail_those_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "content"
    async with opened(directory) as spool:
        (directory / "tmp" / "taken").touch()
        (directory / "gone").mkdir()  # unlink() of a directory fails
        writers = [written(spool, name, 100_000) for name in ("a", "taken", "b")]
        stored = asyncio.gather(*(finished(writer) for writer in writers), return_exceptions=True)
        await asyncio.sleep(0)
        spool.remove("gone")
        results = await stored
        assert isinstance(results[1], StoreUnavailable)
        for content in (results[0], results[2]):
            assert isinstance(content, FileContent)
            assert octets(content) == expected(100_000)
        spool.remove("gone")
        content = await finished(written(spool, "c", 100_000))
        assert octets(content) == expected(100_000)
    gc.collect()  # a failure nobody asked about would be reported now
