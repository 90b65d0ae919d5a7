"""aiosmtpd as it comes, with a handler that counts messages and stores none."""

import asyncio
import sys

from aiosmtpd.smtp import SMTP, Envelope, Session


class Counter:
    """aiosmtpd finds these methods by their names."""

    def __init__(self) -> None:
        self.received = 0

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        self.received += 1
        return "250 2.0.0 Ok"

    async def handle_NOOP(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, argument: str
    ) -> str:
        return f"250 {self.received}"


async def serve(port: int, size_limit: int) -> None:
    counter = Counter()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        # Without a host name it would ask DNS for one at every connection.
        lambda: SMTP(counter, hostname="aiosmtpd.bench.example", data_size_limit=size_limit),
        "127.0.0.1",
        port,
        backlog=1000,
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
