"""The HTTP port: its sockets, how many may come, and how all of it ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from ipaddress import ip_address

from waypost.intake.smtp_listener import listen_at, split_bind
from waypost.intake.visitors import Visitors
from waypost.mail import reply as replies
from waypost.mail.address import IPAddress
from waypost.net.networks import client_key
from waypost.net.peers import ip_of
from waypost.observe import Log
from waypost.web.connection import ClientGone, Connection
from waypost.web.message import Request, Response, Serve, problem
from waypost.web.routes import names_the_hub

# What stands for the listener, in logs and in traces.
WEB = "web"
MAX_CONNECTIONS = 512
# Of one client, also where a proxy brings many: an IPv4 address, or an IPv6 /64.
MAX_OF_CLIENT = 128
BACKLOG = 128


class WebServer:
    """Serves HTTP at any number of addresses."""

    def __init__(
        self,
        serve: Serve,
        *,
        names: Callable[[], Collection[str]],
        visitors: Visitors,
        log: Log,
    ) -> None:
        """`names` are those the hub may be asked by, in lower case, besides its addresses."""
        self._serve_routes = serve
        self._names = names
        self._visitors = visitors
        self._log = log
        self._servers: dict[str, asyncio.Server] = {}  # by bind
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._of_client: Counter[str] = Counter()
        self.places: dict[str, tuple[IPAddress, int]] = {}  # by bind: address and port as bound

    @property
    def bound(self) -> list[tuple[IPAddress | None, int]]:
        """Addresses and ports for the gate; None: every address."""
        return [(None if ip.is_unspecified else ip, port) for ip, port in self.places.values()]

    def is_listening(self, binds: Sequence[str]) -> bool:
        """True when it is open at all of these, and nowhere else."""
        return set(binds) == set(self._servers)

    async def listen(self, binds: Sequence[str]) -> None:
        """Be open at these and nowhere else. Raises OSError that names one that cannot be had.

        Connections that are there go on.
        """
        for bind in set(self._servers) - set(binds):
            self._servers.pop(bind).close()
            del self.places[bind]
        trouble: OSError | None = None
        for bind in binds:
            if bind in self._servers:
                continue
            try:
                await self._listen(bind)
            except OSError as error:
                trouble = trouble or OSError(
                    error.errno, f"[http] cannot bind {bind}: {error.strerror}"
                )
        if trouble is not None:
            raise trouble

    async def _listen(self, bind: str) -> None:
        host, port = split_bind(bind)
        listening = listen_at(host, port)
        self._servers[bind] = await asyncio.start_server(
            self._connected, sock=listening, backlog=BACKLOG
        )
        self.places[bind] = (ip_address(host), listening.getsockname()[1])
        self._log.event("listening", listener=WEB, bind=bind)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer, local = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
        if not peer or not local:  # gone already
            writer.transport.abort()
            return
        client_ip = ip_of(peer[0])
        key = client_key(client_ip)
        if len(self._connections) >= MAX_CONNECTIONS or self._of_client[key] >= MAX_OF_CLIENT:
            self._visitors.turned_away(client_ip, WEB, replies.TOO_MANY_CONNECTIONS)
            writer.transport.abort()
            return
        connection = Connection(
            reader, writer, client_ip=client_ip, local_ip=ip_of(local[0]), serve=self._serve
        )
        task = asyncio.get_running_loop().create_task(self._run(connection))
        self._connections[task] = connection
        self._of_client[key] += 1

        def end(_: object) -> None:
            # Not at the end of the task: one that is cancelled may never have begun.
            del self._connections[task]
            self._of_client[key] -= 1
            if not self._of_client[key]:
                del self._of_client[key]
            writer.transport.abort() if task.cancelled() else writer.close()

        task.add_done_callback(end)

    async def _run(self, connection: Connection) -> None:
        try:
            await connection.run()
        except OSError:
            return  # the client broke off: what it asked for may have been done

    async def _serve(self, request: Request) -> Response:
        host = request.headers.get("host")
        # Whoever speaks HTTP/1.0 without Host is no browser, so nobody has led it here.
        if host is not None and not names_the_hub(host, self._names()):
            text = (
                "the hub is not known by this name here: use its address, or add it to http.hosts"
            )
            return problem(421, text)
        try:
            return await self._serve_routes(request)
        except ClientGone:
            raise
        except Exception as error:
            self._log.event("bug", task=WEB, why=repr(error))
            return problem(500, "a fault here; the hub's log has it")

    async def drain(self, limit_s: float) -> None:
        """Take no new connections, let requests under way end within `limit_s`, close."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()
        self.places.clear()
        for task, connection in self._connections.items():
            connection.is_last = True
            if connection.is_idle:
                task.cancel()
        if self._connections:
            await asyncio.wait(list(self._connections), timeout=limit_s)
        for task in self._connections:
            task.cancel()
