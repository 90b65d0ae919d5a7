"""Mail read in a process of its own: hostile mail costs its own reading and nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.support.mail import octets_of
from waypost.reading import process
from waypost.reading.process import MailReader, Reader
from waypost.reading.read import read_mail
from waypost.reading.values import Attachment, Limits, ReadMail
from waypost.reading.wire import Allowance

from .test_read import MANY_PARTS, nested

DATA = Path(__file__).parents[2] / "data" / "device_mail"
NESTED = (DATA / "camera_nested.eml").read_bytes()
HEAD = b"From: cam@192.0.2.7\r\nSubject: s\r\n"
HTML = HEAD + b"Content-Type: text/html\r\n\r\n"
# Laid out in columns, each of the lower cells becomes as wide as the first.
WIDE = HTML + b"<table><tr><td>" + b"x" * 90_000 + b"</td></tr>" + b"<tr><td>a</td></tr>" * 20_000

# Row 65 of the attacks to withstand.
HOSTILE = {
    "101 levels": nested(101),
    "10,000 parts": MANY_PARTS,
    "300 kB header": HEAD + b"X: " + b"x" * 300_000 + b"\r\n\r\nhi\r\n",
    "300 kB header, folded": HEAD + b"X: x" + b"\r\n y" * 75_000 + b"\r\n\r\nhi\r\n",
    "10,000 headers": HEAD + b"X: x\r\n" * 10_000 + b"\r\nhi\r\n",
    "64 kB boundary": HEAD
    + b"Content-Type: multipart/mixed; boundary="
    + b"b" * 65_536
    + b"\r\n\r\n--"
    + b"b" * 65_536
    + b"\r\n\r\nhi\r\n",
    "comment depth 20,000": b"To: " + b"(" * 20_000 + b")" * 20_000 + b"\r\n" + HEAD + b"\r\nhi",
    "encoded words": HEAD + b"To: " + b"=?utf-8?q?=C3=A4?= " * 20_000 + b"\r\n\r\nhi\r\n",
    "encoded words begun": HEAD + b"To: " + b"=?a?q?" * 40_000 + b"\r\n\r\nhi\r\n",
}


def test_a_mail_is_read_as_in_this_process() -> None:
    with Reader() as reader:
        for path in sorted(DATA.glob("*.eml")):
            with path.open("rb") as file:
                assert reader.read(file) == read_mail(path.read_bytes())
                assert file.tell() == 0
        assert reader.read(BytesIO(NESTED)) == reader.read(NESTED) == read_mail(NESTED)


def test_octets_and_thumbnails() -> None:
    with Reader() as reader:
        inline, attached = reader.read(NESTED).attachments
        for one in (inline, attached):
            assert reader.octets(NESTED, one) == octets_of(NESTED, one)
        made = reader.thumbnail(octets_of(NESTED, inline), 48)
        assert made is not None
        with Image.open(BytesIO(made)) as small:
            assert max(small.size) == 48
        assert reader.thumbnail(b"no picture", 48) is None


@pytest.mark.parametrize("name", HOSTILE)
def test_attack_65_is_read_within_a_second(name: str) -> None:
    # The kernel counts, in whole seconds of the process: 0 leaves less than one for the mail.
    with Reader(allowance=Allowance(cpu_s=0)) as reader:
        assert reader.read(HOSTILE[name]) == read_mail(HOSTILE[name])


def test_too_much_processor_time_costs_one_mail() -> None:
    rows = HTML + b"<table>" + b"<tr><td>a</td></tr>" * 200_000
    with Reader(Limits(html=10_000_000), Allowance(cpu_s=0)) as reader:
        read = reader.read(rows)
        assert "more than 0 s of processor time" in (read.fault or "")
        assert read.subject == "s"
        assert reader.read(NESTED) == read_mail(NESTED)


def test_too_much_memory_costs_one_mail() -> None:
    with Reader(allowance=Allowance(cpu_s=60, memory=400_000_000)) as reader:
        parts = (b"\r\nplain", WIDE.removeprefix(HEAD), b"Content-Type: a/b; name=a.bin\r\n\r\nx")
        body = b"".join(b"\r\n--b\r\n" + part for part in parts)
        read = reader.read(HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n" + body)
        assert "more memory than it may" in (read.fault or "")
        # What could be read: all but the HTML.
        assert read.subject == "s"
        assert read.text == "plain\n"
        assert [one.name for one in read.attachments] == ["a.bin"]
        assert reader.read(NESTED) == read_mail(NESTED)


def test_too_much_time_costs_one_mail() -> None:
    with Reader(allowance=Allowance(wall_s=20)) as reader:
        reader.read(b"")
        assert reader._process is not None
        os.kill(reader._process.pid, signal.SIGSTOP)
        reader._allowance = reader._allowance._replace(wall_s=0.2)
        assert reader.thumbnail(b"", 48) is None
        assert reader._process is None
        reader._allowance = reader._allowance._replace(wall_s=20)
        assert reader.read(NESTED) == read_mail(NESTED)


def test_a_killed_process_gives_a_fault_and_the_next_mail_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Reader() as reader:
        reader.read(b"")
        assert reader._process is not None
        reader._process.kill()
        reader._process.wait()
        assert reader.read(NESTED) == read_mail(NESTED)
        # Now killed at work: between what is sent and what comes back.
        received = process._received

        def killing(*arguments: object) -> bytes:
            assert reader._process is not None
            os.kill(reader._process.pid, signal.SIGSTOP)
            reader._process.kill()
            return received(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(process, "_received", killing)
        read = reader.read(NESTED * 2_000)
        assert "ended" in (read.fault or "")
        monkeypatch.undo()
        assert reader.read(NESTED) == read_mail(NESTED)


def test_what_cannot_be_read_is_no_exception(tmp_path: Path) -> None:
    with Reader() as reader, (tmp_path / "file").open("wb") as unreadable:
        assert "cannot be read" in (reader.read(unreadable).fault or "")  # type: ignore[arg-type]
        assert reader.read(b"") == ReadMail()
        beyond = Attachment("a", "b/c", 0, "", False, "", 0, 1 << 40, "")
        assert reader.octets(b"abc", beyond) == b"abc"


def test_no_secret_of_the_environment_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAYPOST_TEST_SECRET", "sesame")
    with Reader() as reader:
        reader.read(b"")
        assert reader._process is not None
        environment = Path(f"/proc/{reader._process.pid}/environ").read_bytes()
        assert b"PYTHONPATH=" in environment
        assert b"sesame" not in environment


def test_it_goes_before_the_hub_where_memory_runs_out() -> None:
    with Reader() as reader:
        reader.read(b"")
        assert reader._process is not None
        score = Path(f"/proc/{reader._process.pid}/oom_score_adj").read_text()
        assert int(score) > int(Path("/proc/self/oom_score_adj").read_text())


def test_limits_cross() -> None:
    with Reader(Limits(text=4)) as reader:
        read = reader.read(b"\r\nlong text\r\n")
        assert (read.text, read.text_truncated) == ("long", True)


def test_answers_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with Reader() as reader:
        answers = iter([b"V\0\0\0\2", b"{}", *[b"V\xff\xff\xff\xff"] * 2])
        monkeypatch.setattr(process, "_received", lambda *_: next(answers))
        assert "no sensible answer" in (reader.read(NESTED).fault or "")


def test_attack_65_never_blocks_the_loop() -> None:
    async def run() -> None:
        reader = MailReader()
        longest = 0.0

        async def watch() -> None:
            nonlocal longest
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.005)
                longest = max(longest, time.monotonic() - before)

        watching = asyncio.create_task(watch())
        started = time.monotonic()
        read = await asyncio.gather(*(reader.read(one) for one in HOSTILE.values()))
        assert [one.subject for one in read] == ["s"] * len(HOSTILE)
        taken = time.monotonic() - started
        (inline, _) = (await reader.read(NESTED)).attachments
        octets = await reader.octets(NESTED, inline)
        assert octets == octets_of(NESTED, inline)
        assert await reader.thumbnail(octets, 48)
        watching.cancel()
        # No absolute time: much less than the reading took, in a process of its own.
        assert longest < taken / 2
        await reader.close()

    asyncio.run(run())
