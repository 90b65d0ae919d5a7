"""A port that leads to another one, as a proxy's does."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def forwarder(port: int) -> Iterator[int]:
    """A port of 127.0.0.1 behind which is another one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepting = threading.Thread(target=_accept, args=(server, port))
        accepting.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        accepting.join()


def _accept(server: socket.socket, port: int) -> None:
    carrying: list[threading.Thread] = []
    with contextlib.suppress(OSError):
        while True:
            client, _ = server.accept()
            carrying.append(threading.Thread(target=_carry, args=(client, port)))
            carrying[-1].start()
    for thread in carrying:
        thread.join()


def _carry(client: socket.socket, port: int) -> None:
    with client, socket.create_connection(("127.0.0.1", port)) as there:
        back = threading.Thread(target=_copy, args=(there, client))
        back.start()
        _copy(client, there)
        back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while octets := source.recv(65_536):
            target.sendall(octets)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
