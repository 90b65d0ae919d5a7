"""What the command line asks about devices, answered by the hub that runs."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from waypost.devices.device import Device
from waypost.devices.registry import Registry
from waypost.devices.visits import Visits
from waypost.mail.address import IPAddress
from waypost.mail.raw_octets import text_of
from waypost.observe import Log
from waypost.tls.kept import KeptUnavailable


class Desk:
    """Actions for the control socket."""

    def __init__(
        self,
        registry: Registry,
        visits: Visits,
        on_rename: Callable[[], Awaitable[None]],
        on_forget: Callable[[IPAddress], Awaitable[None]],
        log: Log,
    ) -> None:
        """`on_rename` is called when a device has another name, or none; `on_forget` when it is
        known no more.
        """
        self._on_forget = on_forget
        self._registry = registry
        self._on_rename = on_rename
        self._visits = visits
        self._log = log
        self.actions = {
            "devices": self._list,
            "device": self._show,
            "device-set": self._set,
            "device-forget": self._forget,
            "device-dialogue": self._dialogue,
        }

    async def _list(self, request: dict[str, Any]) -> dict[str, Any]:
        await self._catch_up()
        return {"devices": [device_row(device) for device in self._registry.all()]}

    async def _show(self, request: dict[str, Any]) -> dict[str, Any]:
        await self._catch_up()
        return {"device": device_row(self._registry.find(str(request["device"])))}

    async def _catch_up(self) -> None:
        """Writing finds out subjects; what cannot be written can still be shown."""
        with contextlib.suppress(KeptUnavailable):  # registry.keep() says so
            await self._registry.write()

    async def _set(self, request: dict[str, Any]) -> dict[str, Any]:
        device = self._registry.change(str(request["device"]), dict(request["settings"]))
        await self._registry.write()
        await self._on_rename()
        self._log.event("operator", action="set-device", client=device.ip)
        return {"device": device_row(device)}

    async def _forget(self, request: dict[str, Any]) -> dict[str, Any]:
        device = self._registry.forget(str(request["device"]))
        self._visits.forget(device.ip)
        await self._registry.write()
        await self._on_forget(device.ip)
        self._log.event("operator", action="forget-device", client=device.ip)
        return {"device": device_row(device)}

    async def _dialogue(self, request: dict[str, Any]) -> dict[str, Any]:
        visit = self._visits.last(self._registry.find(str(request["device"])).ip)
        if visit is None:
            return {"began_at": None, "lines": []}
        return {
            "began_at": visit.began_at,
            "lines": [
                [round(line.after_s, 3), line.who, text_of(line.text)] for line in visit.lines
            ],
        }


def device_row(device: Device) -> dict[str, Any]:
    """A device for programs."""
    return {
        "ip": str(device.ip),
        **device.settings.as_json(),
        **{key: getattr(device, key) for key in ("name", "kind", "command_topic")},
        **device.seen_as_json(),
    }
