"""Free TCP ports for servers that tests and benchmarks start."""

import socket


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on at `host` now; take it soon, it is not reserved."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port
