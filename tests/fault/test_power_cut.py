"""What a power cut would leave: only what was synced counts, contents and names alike.

The hub's system calls are recorded, and followed in a model of the disk where the octets of a file
are safe after its fsync, and a name after the fsync of its directory. At each promise the model
says whether all that the promise rests on is safe: before the 250, before the queue notes a
delivery, and before it removes its own copy.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fault.clients import submit
from tests.fault.ledger import MAILBOX, RELAY, Ledger
from tests.fault.mail import LARGE, SMALL
from tests.fault.sink import relay_config, running_sink
from tests.fault.waiting import wait_until_drained
from tests.support.hub import Hub

CALLS = "openat,write,pwrite64,ftruncate,fsync,fdatasync,mkdir,rename,unlink"

# One line of `strace -f -y`: a thread, and a whole call or one half of it.
_CALL = re.compile(r"(\d+) +(\w+)\((.*)")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)")
_DESCRIPTOR = re.compile(r"(?:AT_FDCWD|\d+)<([^>]*)>")
_NAME = re.compile(r'"((?:[^"\\]|\\.)*)"')
_FAILED = re.compile(r"= -1 E\w+")


@dataclass(slots=True)
class Disk:
    """The files of one directory tree, and what of them a power cut would take."""

    root: str
    dirty: set[str] = field(default_factory=set)  # files with octets that are not safe
    loose: dict[str, set[str]] = field(default_factory=dict)  # directory -> names not safe in it
    known: set[str] = field(default_factory=set)  # files that have been opened before
    broken: list[str] = field(default_factory=list)  # promises that do not hold
    promises: int = 0

    def unsafe(self, *parts: str) -> list[str]:
        """What is not safe of some parts below the root; of the root's own name for ""."""
        paths = set(self.dirty)
        for directory, names in self.loose.items():
            paths |= {f"{directory}/{name}" for name in names}
        return sorted(path for path in paths if self._is_in(path, parts))

    def _is_in(self, path: str, parts: tuple[str, ...]) -> bool:
        if path.endswith("/tmp"):
            return False  # made anew where it is missing
        if path == self.root:
            return "" in parts
        inside = path.removeprefix(f"{self.root}/")
        return inside != path and inside.partition("/")[0] in parts

    def promise(self, what: str, *parts: str) -> None:
        """Something is said or done that must not be undone by a power cut."""
        self.promises += 1
        self.broken += [f"{what}: {path} is not safe" for path in self.unsafe(*parts)]

    def begin(self, call: str, text: str) -> None:
        """A call that changes things does so from its beginning on."""
        names = _NAME.findall(text)
        if call in ("write", "pwrite64", "ftruncate"):
            found = _DESCRIPTOR.match(text)
            path = "" if found is None else found[1]
            if "queued as" in text:
                self.promise("250", "", "queue.db", "queue.db-wal", "content")
            elif path == f"{self.root}/queue.db-wal":
                # An accept rests on the content, a settlement on the mailbox.
                self.promise("a commit", "content", "mail")
            if path.startswith(self.root):
                self.dirty.add(path)
        elif call == "unlink" and "/content/" in names[0]:
            self.promise("the end of a content", "queue.db-wal", "mail")

    def end(self, call: str, text: str) -> None:
        """A sync is worth something once it is over; names exist once they are made."""
        if _FAILED.search(text):
            return
        names = _NAME.findall(text)
        if call in ("fsync", "fdatasync"):
            found = _DESCRIPTOR.match(text)
            assert found is not None, text
            self.dirty.discard(found[1])
            self.loose.pop(found[1], None)
        elif call == "openat" and "O_CREAT" in text and names[0] not in self.known:
            self.known.add(names[0])
            self._note(names[0])
        elif call in ("mkdir", "unlink"):
            self._note(names[0])
            if call == "unlink":
                self.dirty.discard(names[0])
                self._forget(names[0])
        elif call == "rename":
            # Should the old name come back instead, it is that of a temporary file.
            self._forget(names[0])
            self._note(names[1])
            if names[0] in self.dirty:
                self.dirty.discard(names[0])
                self.dirty.add(names[1])

    def _note(self, path: str) -> None:
        directory, _, name = path.rpartition("/")
        if not name.startswith("queue.db-shm"):  # memory, not storage
            self.loose.setdefault(directory, set()).add(name)

    def _forget(self, path: str) -> None:
        directory, _, name = path.rpartition("/")
        self.loose.get(directory, set()).discard(name)


def follow(record: str, root: Path) -> Disk:
    """The disk after all calls of a record."""
    disk = Disk(str(root))
    begun: dict[str, str] = {}
    for line in record.splitlines():
        if (call := _CALL.match(line)) is not None:
            thread, name, text = call.groups()
            disk.begin(name, text)
            if text.endswith("<unfinished ...>"):
                begun[thread] = text.removesuffix("<unfinished ...>")
            else:
                disk.end(name, text)
        elif (resumed := _RESUMED.match(line)) is not None:
            thread, name, text = resumed.groups()
            disk.end(name, begun.pop(thread) + text)
    return disk


def test_every_promise_rests_on_what_is_safe(tmp_path: Path, say: Callable[[str], None]) -> None:
    rng = random.Random(30)
    ledger = Ledger()
    record = tmp_path / "calls"
    strace = ("strace", "-D", "-f", "-y", "-s", "300", "-o", str(record), "-e", f"trace={CALLS}")
    with running_sink() as sink, Hub(tmp_path / "hub", relay_config(sink), prefix=strace) as hub:
        for number in range(6):
            for kind, size, place in (
                ("small", SMALL, MAILBOX),
                ("large", LARGE, MAILBOX),
                ("relayed", LARGE, RELAY),
            ):
                reply = submit(hub, ledger, f"{kind}-{number}", size, place, rng=rng)
                assert reply is not None
                assert reply.startswith("250")
                # One after the other, so that each promise is about one mail.
                wait_until_drained(hub)
    disk = follow(record.read_text(), hub.data)
    say(f"{disk.promises} promises of {ledger.acknowledged} mails, {len(disk.broken)} broken")
    assert disk.promises > 3 * ledger.acknowledged
    assert disk.broken == []
    assert disk.unsafe("queue.db", "queue.db-wal", "content", "mail") == []


def test_the_model_sees_a_sync_that_is_missing(tmp_path: Path) -> None:
    """The model judges others; it has to be judged as well."""
    root = tmp_path / "data"
    wal, file = f"{root}/queue.db-wal", f"{root}/content/x"
    lines = [
        f'1 openat(AT_FDCWD</>, "{file}", O_WRONLY|O_CREAT, 0600) = 5<{file}>',
        f'1 write(5<{file}>, "Subject:", 8) = 8',
        f"1 fsync(5<{file}>) = 0",
        f"1 fsync(6<{root}/content>) = 0",
        f'2 pwrite64(7<{wal}>, "", 24, 0) = 24',
        f"2 fdatasync(7<{wal}> <unfinished ...>",
        "2 <... fdatasync resumed>) = 0",
        '3 write(8<socket:[1]>, "250 2.0.0 queued as 1", 21) = 21',
    ]
    assert follow("\n".join(lines), root).broken == []
    for missing, words in (
        (2, "a commit: {file}"),
        (3, "a commit: {file}"),
        (6, "250: {wal}"),
    ):
        left = [line for index, line in enumerate(lines) if index != missing]
        expected = words.format(file=file, wal=wal) + " is not safe"
        assert expected in follow("\n".join(left), root).broken
    failed = [line.replace("= 0", "= -1 EIO (I/O error)") for line in lines]
    assert follow("\n".join(failed), root).broken
