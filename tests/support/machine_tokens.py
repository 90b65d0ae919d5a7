"""A token server for programs that speak for themselves, in a process of its own: Authlib's.

Service accounts (RFC 7523), which Glewlwyd has not, and client credentials (RFC 6749 §4.4), of
which Glewlwyd tells nobody whose they are. Authlib judges request, secret, signature and claims;
here is only what it is to know, and how octets come and go. Run by `MachineTokens`.
"""

from __future__ import annotations

import json
import secrets
import ssl
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl

from authlib.oauth2.rfc6749 import (  # type: ignore[import-untyped]
    AuthorizationServer,
    ClientCredentialsGrant,
    ClientMixin,
    OAuth2Request,
)
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload  # type: ignore[import-untyped]
from authlib.oauth2.rfc6750 import BearerTokenGenerator  # type: ignore[import-untyped]
from authlib.oauth2.rfc7523 import JWTBearerGrant  # type: ignore[import-untyped]
from joserfc.jwk import RSAKey

from tests.support.ports import free_port
from tests.support.waiting import wait_until

ISSUER = "hub@project.iam.example"
ACCOUNT = "mail@far.example"
DAEMON = "daemon"
DAEMON_SECRET = "daemon-s3cret-4410"
SCOPE = "https://mail.example/"
LIFE_S = 3_600


class _Client(ClientMixin):  # type: ignore[misc]
    """The service account, or a daemon with a secret."""

    def __init__(self, name: str) -> None:
        self._name = name

    def get_client_id(self) -> str:
        return self._name

    def check_client_secret(self, secret: str) -> bool:
        return self._name == DAEMON and secret == DAEMON_SECRET

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "client_secret_post"

    def get_allowed_scope(self, scope: str) -> str:
        return SCOPE if scope == SCOPE else ""

    def check_grant_type(self, grant_type: str) -> bool:
        ours = ClientCredentialsGrant if self._name == DAEMON else JWTBearerGrant
        return bool(grant_type == ours.GRANT_TYPE)


class _Server(AuthorizationServer):  # type: ignore[misc]
    """Authlib's, over what http.server gives."""

    def __init__(self, url: str, key: RSAKey) -> None:
        super().__init__(scopes_supported=[SCOPE])
        self.tokens: dict[str, dict[str, Any]] = {}

        class Grant(JWTBearerGrant):  # type: ignore[misc]
            def resolve_issuer_client(self, issuer: str) -> _Client | None:
                return _Client(ISSUER) if issuer == ISSUER else None

            def resolve_client_public_key(self, client: _Client) -> RSAKey:
                return key

            def get_audiences(self) -> list[str]:
                return [url]

            def authenticate_user(self, subject: str) -> str | None:
                return subject if subject == ACCOUNT else None

            def has_granted_permission(self, client: _Client, user: str) -> bool:
                return True

        class Daemons(ClientCredentialsGrant):  # type: ignore[misc]
            TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_post",)

        self.register_grant(Grant)
        self.register_grant(Daemons)
        self.register_token_generator(
            "default",
            BearerTokenGenerator(
                lambda **_: secrets.token_urlsafe(24), expires_generator=lambda *_: LIFE_S
            ),
        )

    def query_client(self, client_id: str) -> _Client | None:
        return _Client(DAEMON) if client_id == DAEMON else None

    def save_token(self, token: dict[str, Any], request: OAuth2Request) -> None:
        self.tokens[token["access_token"]] = {
            "active": True,
            "username": request.user or request.client.get_client_id(),
            "scope": token["scope"],
            "exp": int(time.time()) + LIFE_S,
        }

    def create_oauth2_request(self, request: Any) -> OAuth2Request:
        method, url, form = request
        made = OAuth2Request(method, url)
        made.payload = BasicOAuth2Payload(form)
        made._form = form
        type(made).form = property(lambda self: self._form)
        return made

    def handle_response(self, status: int, body: Any, headers: Any) -> tuple[int, bytes]:
        return status, json.dumps(body).encode()

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""


def main(port: int, pair: str, public: str) -> None:
    """Serve until ended."""
    url = f"https://127.0.0.1:{port}/token"
    server = _Server(url, RSAKey.import_key(Path(public).read_text()))

    class Page(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            octets = self.rfile.read(int(self.headers["Content-Length"]))
            form = dict(parse_qsl(octets.decode()))
            if self.path == "/introspect":
                found = server.tokens.get(form.get("token", ""), {"active": False})
                status, body = 200, json.dumps(found).encode()
            elif self.path != "/token":
                status, body = 404, b"{}"
            else:
                status, body = server.create_token_response(("POST", url, form))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    web = ThreadingHTTPServer(("127.0.0.1", port), Page)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    web.socket = context.wrap_socket(web.socket, server_side=True, do_handshake_on_connect=False)
    print("ready", flush=True)
    web.serve_forever()


class MachineTokens:
    """Running between `with` and its end."""

    def __init__(self, directory: Path, certificate: Path, key: Path, public: Path) -> None:
        """A certificate of 127.0.0.1, and the public key (PEM) of the service account."""
        self._directory = directory
        self._pair = directory / "machine.pem"
        self._pair.write_bytes(key.read_bytes() + certificate.read_bytes())
        self._public = public
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def __enter__(self) -> MachineTokens:
        words = [
            *("-m", "tests.support.machine_tokens"),
            *(str(self.port), str(self._pair), str(self._public)),
        ]
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).parents[2],
            )
        wait_until(lambda: "ready" in self.log_text(), self.log_text)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(10)

    @property
    def _log(self) -> Path:
        return self._directory / "machine.log"

    def log_text(self) -> str:
        """All it has logged so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
