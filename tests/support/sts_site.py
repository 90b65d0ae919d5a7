"""A web server that gives out an MTA-STS policy, or what a test wants in its place."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.certificates import Certificate
from tests.support.netns import Namespace

GOOD = "version: STSv1\nmode: enforce\nmx: mx.plant.test\nmax_age: 100000\n"


class Site:
    """The web server of a domain's policy, as its certificate says."""

    def __init__(
        self,
        certificate: Certificate,
        *,
        address: tuple[str, int] = ("127.0.0.1", 0),
        namespace: Namespace | None = None,  # None: ours
    ) -> None:
        self.asked: list[str] = []
        self.status = 200
        self.headers = {"Content-Type": "text/plain; charset=utf-8"}
        self.body = GOOD.encode()
        site = self

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                self.send_response(site.status)
                for name, value in site.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(site.body)

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        with contextlib.nullcontext() if namespace is None else namespace.entered():
            self.server = ThreadingHTTPServer(address, Page)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.chain_file, certificate.key_file)
        self.server.socket = context.wrap_socket(
            self.server.socket, server_side=True, do_handshake_on_connect=False
        )

    @contextlib.contextmanager
    def serving(self) -> Iterator[Site]:
        thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join()
