"""The catalogue of devices, against one running hub: as a trusted client, then as a stranger."""

from __future__ import annotations

import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.devices.profiles import Expected, Profile, read_catalogue
from tests.support.hub import Hub
from tests.support.mail import content_of, fields_of
from waypost.delivery.maildir import directory_name

HUB, DEVICE, STRANGER = "127.0.0.1", "127.0.0.2", "127.0.0.3"
PAUSE_S = 0.03  # between segments, so that each is read by itself
SILENCE_S = 3.0  # longer than a trusted client's silence has to last
PROFILES = read_catalogue()
STRICT = "the strict answer"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    config = (
        f'[networks]\ntrusted = ["{DEVICE}/32"]\naccept_from_strangers = true\n'
        "[limits]\ngreet_delay_s = 0\nmessage_bytes = 1_000_000\n"
        + "".join(f'[[mailbox]]\nname = "{profile.mailbox}"\n' for profile in PROFILES)
    )
    hub = Hub(tmp_path_factory.mktemp("devices"), config)
    listener = f'[[listener]]\nname = "smtp"\nbind = ["{HUB}:{hub.port}"]\n'
    listener += f'any_login = ["{DEVICE}/32"]\n'
    with Hub(hub.directory, config, port=hub.port, listener=listener) as running:
        yield running
        assert " bug " not in running.log_text()
        assert "Traceback" not in running.log_text()


class Device:
    """One connection of a device."""

    def __init__(self, hub: Hub, source: str) -> None:
        self.socket = socket.create_connection((HUB, hub.port), 20, (source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = b""

    def send(self, segments: list[bytes]) -> None:
        for number, segment in enumerate(segments):
            if number:
                time.sleep(PAUSE_S)
            self.socket.sendall(segment)

    def reply(self) -> list[str]:
        """The next reply, a line each; nothing when the hub has closed."""
        lines: list[str] = []
        while not lines or lines[-1][3:4] == "-":
            while b"\r\n" not in self._unread:
                received = self.socket.recv(65_536)
                if not received:
                    assert not lines
                    assert not self._unread
                    return []
                self._unread += received
            line, self._unread = self._unread.split(b"\r\n", 1)
            lines.append(line.decode("ascii"))
        return lines

    def hears(self, text: str) -> None:
        reply = self.reply()
        assert any(line.startswith(text) for line in reply), f"{reply}, not {text!r}"

    def is_left_alone(self) -> bool:
        """Nothing is said for a while."""
        self.socket.settimeout(SILENCE_S)
        try:
            return self._unread == b"" and self.socket.recv(1) is None
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(20)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def replay(hub: Hub, profile: Profile, source: str) -> None:
    """Send what the device sends, and hear what it has to hear."""
    device = Device(hub, source)
    with device.socket:
        for turn in profile.turns:
            if any(turn.segments):
                device.send(turn.segments)
            for expected in turn.expected:
                if source == DEVICE:
                    device.hears(expected.text)
                elif stranger_hears(device, expected) == STRICT:
                    return
            if turn.ends == "RESET":
                device.reset()
            if turn.ends:
                return
        if source == DEVICE and turn.expected[-1].text.startswith("221"):
            assert device.reply() == []


def stranger_hears(device: Device, expected: Expected) -> str:
    if expected.mark == "~":
        assert device.is_left_alone()
        device.send([b"\r\n.\r\n"])
    device.hears(expected.to_stranger)
    if expected.mark == "!":
        assert device.reply() == []
    return "" if expected.mark == ":" else STRICT


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_profile(hub: Hub, profile: Profile) -> None:
    replay(hub, profile, DEVICE)
    count, mailbox = len(profile.stored), directory_name(profile.mailbox)
    check_stored(profile, hub.wait_for_mail(mailbox, count), 1)
    replay(hub, profile, STRANGER)
    if profile.stranger_stored:
        stored = hub.wait_for_mail(mailbox, 2 * count)
        check_stored(profile, stored, 2)
    else:
        assert len(hub.mailbox(mailbox)) == count


def check_stored(profile: Profile, stored: list[bytes], times: int) -> None:
    wanted = Counter(profile.stored * times)
    found = Counter(content_of(message) for message in stored)
    assert found == wanted, stored
    received = [fields_of(message, "received")[0] for message in stored]
    assert any(profile.trace in field for field in received), received
    if profile.sender is not None:
        for message in stored:
            line = message.split(b"\r\n", 1)[0].decode()
            assert line == f"Return-Path: <{profile.sender}>"


def test_names_are_used_once() -> None:
    assert len(PROFILES) >= 25
    assert len({profile.name for profile in PROFILES}) == len(PROFILES)
    assert all(re.fullmatch(r"[a-z0-9\-]+", profile.name) for profile in PROFILES)
    assert all(profile.evidence and profile.device for profile in PROFILES)
