"""GET /livez and /readyz, for supervisors and balancers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from waypost.web.message import Request, Response, answer

# By what is looked at: what is wrong with it. None: nothing.
Troubles = Callable[[], Mapping[str, str | None]]


class Health:
    """Says how the hub is. A next hop that is away is no trouble: its mail waits."""

    def __init__(self, troubles: Troubles) -> None:
        self._troubles = troubles

    async def live(self, request: Request) -> Response:
        """The process answers."""
        return answer({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Mail can come in, and be kept."""
        troubles = self._troubles()
        checks = {name: trouble or "ok" for name, trouble in troubles.items()}
        is_ready = not any(troubles.values())
        status = "ok" if is_ready else "not ready"
        return answer({"status": status, "checks": checks}, 200 if is_ready else 503)
