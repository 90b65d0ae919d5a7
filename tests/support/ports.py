"""Free TCP ports for servers that tests and benchmarks start."""

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def reserved_port(host: str = "127.0.0.1") -> Iterator[int]:
    """A port that stays free for servers that set SO_REUSEADDR, and for nobody else."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
        # Bound and not listening: the kernel gives it to no client, and refuses connections.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host, 0))
        yield holder.getsockname()[1]


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on at `host` now; take it soon, it is not reserved."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port
