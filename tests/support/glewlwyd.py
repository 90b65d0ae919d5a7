"""Glewlwyd, an OAuth2 and OpenID server from the Debian package: a private instance behind TLS.

It has clients for each grant (authorization code with PKCE, device code, client credentials),
refresh tokens for one use only, and introspection (RFC 7662). A user's part, which a browser
would do, is done over its own web interface by `User`.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import sqlite3
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.cookiejar import CookieJar
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.support.ports import free_port
from tests.support.postfix import install
from tests.support.waiting import wait_until

_STOP_S = 10.0
_DATABASE = Path("/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3")
_ADMIN = ("admin", "password")  # as the package's database begins with

# The mail scope, as a provider would have it.
SCOPES = ("mail.send",)

_CONFIG = """\
port={port}
bind_address="127.0.0.1"
external_url="https://127.0.0.1:{port}"
login_url="login.html"
api_prefix="api"
log_mode="file"
log_level="INFO"
log_file="{here}/glewlwyd.log"
cookie_secure=0
session_expiration=2419200
session_key="GLEWLWYD2_SESSION_ID"
max_post_size=16778240
admin_scope="g_admin"
profile_scope="g_profile"
user_module_path="/usr/lib/glewlwyd/user"
client_module_path="/usr/lib/glewlwyd/client"
user_auth_scheme_module_path="/usr/lib/glewlwyd/scheme"
plugin_module_path="/usr/lib/glewlwyd/plugin"
use_secure_connection=true
secure_connection_key_file="{key}"
secure_connection_pem_file="{certificate}"
hash_algorithm="SHA512"
database={{ type="sqlite3" path="{here}/glewlwyd.db" }}
static_files_path="/usr/share/glewlwyd/webapp"
static_files_mime_types=({{ extension=".html" mime_type="text/html" }})
"""


class Client(NamedTuple):
    """A program that may ask for tokens."""

    id: str
    secret: str  # empty: a public client
    grants: Sequence[str]
    redirect_uris: Sequence[str] = ()


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Hands 3xx responses out as errors: the test looks at where they lead."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Glewlwyd:
    """Running between `with` and its end."""

    def __init__(
        self, ca: Path, certificate: Path, key: Path, clients: Sequence[Client], life_s: int = 3_600
    ) -> None:
        """A certificate that stands for 127.0.0.1; `life_s` of access tokens."""
        self.ca = ca
        self._pair = (certificate, key)
        self._clients = clients
        self._life_s = life_s
        self._signing_key = secrets.token_hex(32)
        self._process: subprocess.Popen[bytes] | None = None
        self.directory = Path()  # set by start()
        self.port = 0

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/api/oidc"

    def __enter__(self) -> Glewlwyd:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Return when it answers, and knows clients and a user `hub`."""
        install("glewlwyd")
        self.directory = Path(tempfile.mkdtemp(prefix="glewlwyd-"))
        self.port = free_port()
        try:
            with sqlite3.connect(self.directory / "glewlwyd.db") as database:
                database.executescript(_DATABASE.read_text())
            database.close()
            config = self.directory / "glewlwyd.conf"
            certificate, key = self._pair
            config.write_text(
                _CONFIG.format(
                    here=self.directory, port=self.port, certificate=certificate, key=key
                )
            )
            self._launch()
            self._configure()
        except BaseException:
            self.stop()
            raise

    def _launch(self) -> None:
        with (self.directory / "start.log").open("ab") as output:
            self._process = subprocess.Popen(
                ["glewlwyd", f"--config-file={self.directory}/glewlwyd.conf"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_until(self._has_started, self.log_text)

    def halt(self) -> None:
        """End the process; what it knows stays."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(_STOP_S)
        self._process = None

    def resume(self) -> None:
        """Start it again after `halt()`."""
        self._launch()

    def stop(self) -> None:
        """End it and remove its directory."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self.directory != Path():
            shutil.rmtree(self.directory)
            self.directory = Path()

    def log_text(self) -> str:
        """All it has logged so far."""
        texts = [self.directory / name for name in ("start.log", "glewlwyd.log")]
        return "".join(path.read_text(errors="replace") for path in texts if path.exists())

    def set_life(self, life_s: int) -> None:
        """How long access tokens live from now on."""
        self._life_s = life_s
        admin = Browser(self, *_ADMIN)
        admin.call("PUT", "api/mod/plugin/oidc", self._plugin())
        admin.call("PUT", "api/mod/plugin/oidc/reset")

    def revoke_refresh_tokens(self) -> None:
        """As a user does who takes an app's access back: every grant of every user is gone."""
        database = sqlite3.connect(self.directory / "glewlwyd.db", timeout=10)
        with database:
            database.execute("UPDATE gpo_refresh_token SET gpor_enabled = 0")
        database.close()

    def enabled_refresh_tokens(self) -> int:
        """How many it would still take."""
        database = sqlite3.connect(self.directory / "glewlwyd.db", timeout=10)
        query = "SELECT COUNT(*) FROM gpo_refresh_token WHERE gpor_enabled = 1"
        (count,) = database.execute(query).fetchone()
        database.close()
        return int(count)

    def _has_started(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log_text()
        try:
            Browser(self).call("GET", "config")
        except OSError:
            return False
        return True

    def _configure(self) -> None:
        admin = Browser(self, *_ADMIN)
        admin.call("POST", "api/scope", _scope("mail.send"))
        admin.call(
            "POST",
            "api/user",
            {"username": "hub", "password": "hub-login-1", "scope": ["g_profile", *SCOPES]},
        )
        for client in self._clients:
            admin.call(
                "POST",
                "api/client",
                {
                    "client_id": client.id,
                    "name": client.id,
                    "enabled": True,
                    "confidential": bool(client.secret),
                    "client_secret": client.secret,
                    "authorization_type": list(client.grants),
                    "redirect_uri": list(client.redirect_uris),
                    "token_endpoint_auth_method": ["client_secret_post", "client_secret_basic"],
                    "scope": ["mail.send"],
                },
            )
        admin.call("POST", "api/mod/plugin", self._plugin())

    def _plugin(self) -> dict[str, Any]:
        enabled = {
            f"auth-type-{kind}-enabled": kind in ("code", "client", "device", "refresh")
            for kind in ("code", "token", "none", "password", "client", "device", "refresh")
        }
        return {
            "module": "oidc",
            "name": "oidc",
            "display_name": "OIDC",
            "parameters": {
                **enabled,
                "iss": self.url,
                "jwt-type": "sha",
                "jwt-key-size": "256",
                "key": self._signing_key,
                "access-token-duration": self._life_s,
                "refresh-token-duration": 1_209_600,
                "code-duration": 600,
                "refresh-token-rolling": False,
                "refresh-token-one-use": "always",
                "allow-non-oidc": True,
                "pkce-allowed": True,
                "pkce-required": False,
                "pkce-method-plain-allowed": False,
                "introspection-revocation-allowed": True,
                "introspection-revocation-allow-target-client": True,
                "device-authorization-expiration": 60,
                "device-authorization-interval": 1,
                "subject-type": "public",
                "address-claim": {"type": "no"},
                "name-claim": "no",
                "email-claim": "no",
                "scope-claim": "no",
            },
        }


def _scope(name: str) -> dict[str, Any]:
    return {"name": name, "display_name": name, "password_required": True, "password_max_age": 0}


class Browser:
    """A session of somebody with the server's web interface."""

    def __init__(self, server: Glewlwyd, username: str = "", password: str = "") -> None:
        self._root = f"https://127.0.0.1:{server.port}/"
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=server.ca)),
            urllib.request.HTTPCookieProcessor(CookieJar()),
            urllib.request.ProxyHandler({}),
            NoRedirects,
        )
        if username:
            self.call("POST", "api/auth", {"username": username, "password": password})

    def call(self, method: str, path: str, content: Any = None) -> Any:
        """A call of the server's own interface; raises HTTPError, with its text, for a refusal."""
        request = urllib.request.Request(
            self._root + path,
            method=method,
            data=None if content is None else json.dumps(content).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=20) as response:
                octets = response.read()
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{method} {path}: {error} {error.read()!r}") from None
        return json.loads(octets) if octets.startswith((b"{", b"[")) else octets

    def visit(self, url: str) -> str:
        """Where a page leads to."""
        try:
            with self._opener.open(url, timeout=20) as response:
                text, place = response.read(), None
        except urllib.error.HTTPError as error:
            with error:
                text, place = error.read(), error.headers["Location"]
        assert place is not None, f"{url} leads nowhere: {text!r}"
        return str(place)


def consent(server: Glewlwyd, url: str) -> str:
    """What a person does at the authorization URL of a login: the redirect back."""
    browser = Browser(server, "hub", "hub-login-1")
    asked = parse_qs(urlsplit(url).query)
    (client,) = asked["client_id"]
    browser.call("PUT", f"api/auth/grant/{client}", {"scope": " ".join(asked["scope"])})
    return browser.visit(f"{url}&{urlencode({'g_continue': ''})}")


def enter_code(server: Glewlwyd, client: str, user_code: str) -> None:
    """What a person does at the verification page of a device login."""
    browser = Browser(server, "hub", "hub-login-1")
    browser.call("PUT", f"api/auth/grant/{client}", {"scope": " ".join(SCOPES)})
    place = browser.visit(f"{server.url}/device?{urlencode({'code': user_code, 'g_continue': ''})}")
    assert re.search(r"prompt=deviceComplete", place), place
