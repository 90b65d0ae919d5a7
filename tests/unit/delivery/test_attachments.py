"""Which attachments go along, by the rules that are the same for every target."""

from __future__ import annotations

import base64
import io
import os

import pytest
from PIL import Image

from tests.contract.mail import new_message, on_loop
from waypost.delivery.attachments import (
    AttachmentRules,
    Enclosed,
    LeftOut,
    attached,
    enclosed,
)
from waypost.delivery.events import Event, EventReader
from waypost.devices.names import DeviceNames
from waypost.mail.message import QueuedMessage
from waypost.queue.spool import InlineContent
from waypost.queue.store import QueueIdSource
from waypost.reading.process import MailReader
from waypost.routing.patterns import Glob

PNG = Glob("image/png")


def photo(px: int) -> bytes:
    octets = io.BytesIO()
    Image.frombytes("RGB", (px, px), os.urandom(px * px * 3)).save(octets, "JPEG", quality=95)
    return octets.getvalue()


PHOTO = photo(400)
FILES = (("image/jpeg", PHOTO), ("application/pdf", b"%PDF-1.4" * 100), ("image/jpeg", b"\xff\xd8"))


def mail() -> QueuedMessage:
    parts = [
        f"--x\r\nContent-Type: {type_}; name=file\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        f"{base64.b64encode(octets).decode()}\r\n"
        for type_, octets in FILES
    ]
    content = "Content-Type: multipart/mixed; boundary=x\r\n\r\n" + "".join(parts) + "--x--\r\n"
    return new_message(QueueIdSource().next_id())._replace(content=InlineContent(content.encode()))


async def fates(rules: AttachmentRules) -> list[Enclosed | LeftOut]:
    """What becomes of each of FILES."""
    reader = MailReader()
    try:
        events, message = EventReader(reader, DeviceNames), mail()
        event: Event = await events.read(message)
        return [
            await enclosed(events, message, attachment, rules)
            for attachment in event.mail.attachments
        ]
    finally:
        await reader.close()


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (AttachmentRules(), ["sent", "sent", "sent"]),
        (AttachmentRules(types=()), ["types", "types", "types"]),
        (AttachmentRules(types=(PNG,)), ["types", "types", "types"]),
        (AttachmentRules(takes_pictures=False), ["pictures", "sent", "pictures"]),
        (AttachmentRules(max_octets=700), ["larger than 700", "larger than 700", "sent"]),
        (
            AttachmentRules(max_octets=20_000, picture_px=100),
            ["made smaller", "sent", "sent"],
        ),
    ],
)
@on_loop
async def test_rules(rules: AttachmentRules, expected: list[str]) -> None:
    for found, wanted in zip(await fates(rules), expected, strict=True):
        if isinstance(found, LeftOut):
            assert wanted in found.why
        else:
            assert wanted == ("made smaller" if found.is_smaller else "sent")


@on_loop
async def test_a_picture_is_halved_until_it_fits() -> None:
    sizes = []
    for most in (20_000, 6_000, 1_500):
        found = (await fates(AttachmentRules(max_octets=most, picture_px=160)))[0]
        assert isinstance(found, Enclosed)
        assert len(found.octets) <= most
        with Image.open(io.BytesIO(found.octets)) as made:
            sizes.append(made.width)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 160
    assert sizes[-1] < 160
    tiny = (await fates(AttachmentRules(max_octets=100, picture_px=160)))[0]
    assert tiny == LeftOut("larger than 100 octets")


@on_loop
async def test_all_of_one_mail_share_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    most = len(PHOTO) + 10
    monkeypatch.setattr("waypost.delivery.attachments.MAX_ATTACHED", most)
    reader = MailReader()
    try:
        events, message = EventReader(reader, DeviceNames), mail()
        entries = await attached(events, message, await events.read(message), AttachmentRules())
    finally:
        await reader.close()
    assert ["data_base64" in entry for entry in entries] == [True, False, True]
    assert entries[1]["left_out"] == f"the attachments have more than {most} octets"
    assert all(entry["url"] is None for entry in entries)
