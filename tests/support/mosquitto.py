"""Mosquitto from the Debian package, as a broker of its own, and its client as a listener."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support.certificates import Certificate
from tests.support.ports import free_port
from tests.support.postfix import install
from tests.support.waiting import wait_until

USER = "hub"
PASSWORD = "s3cret-of-the-hub"

_STOP_S = 10.0


class Got(NamedTuple):
    """One message a listener has heard."""

    topic: str
    payload: bytes
    was_kept: bool  # the broker had it from before
    qos: int
    correlation: bytes | None = None


class Mosquitto:
    """Running between `with` and its end, on a port of its own.

    `authority` and `server`: TLS, and clients have to show a certificate of that authority.
    `has_login`: USER and PASSWORD, and nobody else. What it keeps lies in memory only.
    """

    def __init__(
        self,
        *,
        has_login: bool = False,
        authority: Certificate | None = None,
        server: Certificate | None = None,
        options: str = "",
        acl: str | None = None,  # None: everybody may do everything
    ) -> None:
        self.port = free_port()
        self._has_login = has_login
        self._authority = authority
        self._server = server
        self._options = options
        self._acl = acl
        self._process: subprocess.Popen[bytes] | None = None
        self.directory = Path()  # set by __enter__

    def __enter__(self) -> Mosquitto:
        install("mosquitto")
        self.directory = Path(tempfile.mkdtemp(prefix="mosquitto-"))
        try:
            self._configure()
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def start(self) -> None:
        """Return when it answers."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_program(), "-c", str(self.directory / "conf")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, self.log_text)

    def kill(self) -> None:
        """As a power cut: what it kept is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """In good order."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(_STOP_S)

    def log_text(self) -> str:
        """All it has logged."""
        return (self.directory / "log").read_text(errors="replace")

    def listener(self, *topics: str, qos: int = 1) -> Listener:
        """Somebody who hears what is published from now on, and what the broker has kept."""
        return Listener(self, topics, qos)

    def publish(self, topic: str, payload: str, *, kept: bool = False) -> None:
        """As somebody else."""
        with self.listener() as client:
            client.publish(topic, payload, kept=kept)

    def kept(self, topic: str = "#") -> dict[str, bytes]:
        """What the broker keeps, by topic."""
        with self.listener(topic) as listener:
            listener.settle()
            return {one.topic: one.payload for one in listener.got() if one.was_kept}

    def prepare(self, client: Client) -> None:
        """What a client needs to be let in."""
        if self._has_login:
            client.username_pw_set(USER, PASSWORD)
        if self._authority is not None:
            shown = Certificate(self.directory, "listener", issuer=self._authority)
            client.tls_set(
                str(self._authority.file), certfile=str(shown.file), keyfile=str(shown.key_file)
            )

    def _configure(self) -> None:
        lines = [f"listener {self.port} 127.0.0.1", "user root", "persistence false"]
        lines.append(f"allow_anonymous {'false' if self._has_login else 'true'}")
        if self._has_login:
            passwords = self.directory / "passwords"
            subprocess.run(
                ["mosquitto_passwd", "-b", "-c", str(passwords), USER, PASSWORD],
                check=True,
                timeout=20,
            )
            lines.append(f"password_file {passwords}")
        if self._acl is not None:
            (self.directory / "acl").write_text(self._acl)
            lines.append(f"acl_file {self.directory / 'acl'}")
        if self._authority is not None and self._server is not None:
            lines += [f"cafile {self._authority.file}", "require_certificate true"]
            lines += [f"certfile {self._server.file}", f"keyfile {self._server.key_file}"]
        lines.append(self._options)
        (self.directory / "conf").write_text("\n".join(lines) + "\n")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log_text()
        return _listens(self.port)

    def _end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


class Listener:
    """Hears what is published, through restarts of the broker."""

    def __init__(self, broker: Mosquitto, topics: Sequence[str], qos: int) -> None:
        """With QoS 0 the broker has sent us a message before it acknowledges it."""
        self._got: list[Got] = []
        self._subscribed = 0
        self._topics = [(topic, qos) for topic in (*topics, "listener")]
        client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client = client
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = lambda _, __, heard: self._got.append(
            Got(
                *(heard.topic, bytes(heard.payload), heard.retain, heard.qos),
                getattr(heard.properties, "CorrelationData", None),
            )
        )
        client.reconnect_delay_set(1, 1)
        broker.prepare(client)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        wait_until(lambda: self._subscribed, broker.log_text)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def subscriptions(self) -> int:
        """How often it has subscribed: once more after each restart of the broker."""
        return self._subscribed

    def got(self, topic: str = "") -> list[Got]:
        """All it has heard, there or everywhere."""
        return [one for one in list(self._got) if topic in ("", one.topic)]

    def wait_for(self, topic: str, count: int = 1, *, payload: bytes | None = None) -> list[Got]:
        """The messages there, once there are so many."""

        def look() -> list[Got] | None:
            found = [one for one in self.got(topic) if payload in (None, one.payload)]
            return found if len(found) >= count else None

        found = wait_until(look, lambda: f"{topic}: {[one[:2] for one in self.got()][-20:]}")
        assert found is not None
        return found

    def publish(
        self,
        topic: str,
        payload: str | bytes,
        *,
        kept: bool = False,
        qos: int = 1,
        answer_to: str | None = None,
        correlation: bytes | None = None,
    ) -> None:
        """Say something; back when the broker has it."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if answer_to is not None:
            properties.ResponseTopic = answer_to
        if correlation is not None:
            properties.CorrelationData = correlation
        self._client.publish(topic, payload, qos, kept, properties).wait_for_publish(20)

    def settle(self) -> None:
        """Until all has come that the broker had when this was called."""
        mark = os.urandom(8)
        self._client.publish("listener", mark, 1)
        self.wait_for("listener", payload=mark)

    def _on_connect(self, client: Client, *_: object) -> None:
        client.subscribe(self._topics)

    def _on_subscribe(self, *_: object) -> None:
        self._subscribed += 1


def _program() -> str:
    return shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin") or "mosquitto"


def _listens(port: int) -> bool:
    wanted = f"0100007F:{port:04X} 00000000:0000 0A"
    return wanted in Path("/proc/net/tcp").read_text()


def json_of(octets: bytes) -> dict[str, Any]:
    """A payload."""
    found = json.loads(octets)
    assert isinstance(found, dict)
    return found
