"""The example transport of docs/how-to/add-a-transport.md keeps the contract."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from tests.contract.mail import TEXT, new_message, on_loop
from waypost.delivery.transport import DeliveryJob, Transport
from waypost.mail.envelope import OutcomeKind
from waypost.queue.store import QueueIdSource
from waypost.routing.targets import Target

EXAMPLE = Path(__file__).parents[2] / "docs" / "how-to" / "examples" / "drop_folder.py"


def drop_folder() -> Transport:
    """The transport of the example."""
    spec = importlib.util.spec_from_file_location("drop_folder", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    transport: Transport = module.DropFolder()
    return transport


def job(directory: Path, *to: str) -> DeliveryJob:
    """A message for a directory."""
    message = new_message(QueueIdSource().next_id(), to=to)
    return DeliveryJob(message, message.recipients, Target("drop", str(directory)))


@on_loop
async def test_a_message_becomes_a_file(tmp_path: Path) -> None:
    work = job(tmp_path, "bob@[127.0.0.1]", "ann@[127.0.0.1]")
    transport = drop_folder()
    assert transport.window() >= 1
    assert {transport.destination(work.target, r) for r in work.recipients} == {str(work.target)}
    outcomes = await transport.deliver(work)
    assert [outcome.kind for outcome in outcomes] == [OutcomeKind.DELIVERED] * 2
    [file] = tmp_path.iterdir()
    assert file.name == f"{work.message.queue_id}.eml"
    assert file.read_bytes() == work.message.prepend + TEXT


@on_loop
async def test_a_second_attempt_makes_no_second_file(tmp_path: Path) -> None:
    work = job(tmp_path, "bob@[127.0.0.1]")
    transport = drop_folder()
    await transport.deliver(work)
    await transport.deliver(work)
    assert len(list(tmp_path.iterdir())) == 1


@on_loop
async def test_trouble_defers(tmp_path: Path) -> None:
    [outcome] = await drop_folder().deliver(job(tmp_path / "missing", "bob@[127.0.0.1]"))
    assert outcome.kind is OutcomeKind.DEFERRED
    assert "No such file" in str(outcome.reply)


def test_it_is_short() -> None:
    code = [line for line in EXAMPLE.read_text("utf-8").splitlines() if line.strip()]
    assert len(code) <= 45
