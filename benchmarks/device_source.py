"""A crowd of devices, each at an address of its own, that all begin at the same moment.

Each connects, says EHLO, MAIL, RCPT and DATA, sends a picture and QUITs, as a camera does: one step
behind the other's answer. Writes JSON: how long each device waited for each kind of answer, and
took for its whole session.
"""

import asyncio
import base64
import json
import sys
import time

import uvloop

from benchmarks.load import HOST, RECIPIENT, SENDER

DEVICES = 200
PICTURE_BYTES = 100_000
# The answers a device waits for, in order; "content" is the 250 that means the mail is safe.
ANSWERS = ("greeting", "EHLO", "MAIL", "RCPT", "DATA", "content", "QUIT")
SESSION = "session"  # all of it
_PATIENCE_S = 120.0
_SPOKEN = (
    b"EHLO camera\r\n",
    b"MAIL FROM:<" + SENDER.encode() + b">\r\n",
    b"RCPT TO:<" + RECIPIENT.encode() + b">\r\n",
    b"DATA\r\n",
)
_CODES = (b"220", b"250", b"250", b"250", b"354", b"250", b"221")


def address_of(number: int) -> str:
    """The address of a device, one for each."""
    return f"127.0.{1 + number // 250}.{1 + number % 250}"


def picture_mail() -> bytes:
    """A mail with a picture in an attachment, ready for DATA."""
    picture = base64.encodebytes(bytes(range(256)) * (PICTURE_BYTES // 256 + 1))
    return (
        b"From: <" + SENDER.encode() + b">\r\nTo: <" + RECIPIENT.encode() + b">\r\n"
        b"Subject: Motion\r\nMIME-Version: 1.0\r\nContent-Type: image/jpeg\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n" + picture.replace(b"\n", b"\r\n") + b".\r\n"
    )


async def _device(number: int, port: int, mail: bytes, start: asyncio.Event) -> list[float]:
    """Seconds until each answer, and from the first step to the last."""
    await start.wait()
    waits = []
    began_at = spoken_at = time.perf_counter()
    reader, writer = await asyncio.open_connection(HOST, port, local_addr=(address_of(number), 0))
    # Waiting then means that the kernel has all of it.
    writer.transport.set_write_buffer_limits(0)
    for code, says in zip(_CODES, (*_SPOKEN, mail, b"QUIT\r\n", b""), strict=True):
        reply = await reader.readline()
        while reply[3:4] == b"-":
            reply = await reader.readline()
        waits.append(time.perf_counter() - spoken_at)
        if reply[:3] != code:
            raise SystemExit(f"expected {code.decode()}, got {reply.decode().strip()!r}")
        writer.write(says)
        # What the server has not taken yet is not what it is asked to answer.
        await writer.drain()
        spoken_at = time.perf_counter()
    writer.close()
    return [*waits, spoken_at - began_at]


async def main(port: int) -> None:
    mail = picture_mail()
    start = asyncio.Event()
    devices = [asyncio.create_task(_device(number, port, mail, start)) for number in range(DEVICES)]
    await asyncio.sleep(0)
    start.set()
    async with asyncio.timeout(_PATIENCE_S):
        waits = await asyncio.gather(*devices)
    by_answer = dict(zip((*ANSWERS, SESSION), map(list, zip(*waits, strict=True)), strict=True))
    json.dump(by_answer, sys.stdout)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
