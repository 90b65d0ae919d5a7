"""A resolver that is made when somebody asks: most commands never do, and loading takes a while."""

from __future__ import annotations

from collections.abc import Callable

from waypost.dns.resolver import Answer, MailExchange, Resolver, TlsaRecord
from waypost.mail.address import IPAddress


class LaterResolver(Resolver):
    """See Resolver. For commands only: while it loads, nothing else goes on."""

    def __init__(self, make: Callable[[], Resolver]) -> None:
        self._make = make
        self._made: Resolver | None = None  # None: nobody has asked

    async def mx(self, name: str) -> Answer[MailExchange]:
        return await self._resolver.mx(name)

    async def ipv4(self, name: str) -> Answer[IPAddress]:
        return await self._resolver.ipv4(name)

    async def ipv6(self, name: str) -> Answer[IPAddress]:
        return await self._resolver.ipv6(name)

    async def txt(self, name: str) -> Answer[str]:
        return await self._resolver.txt(name)

    async def tlsa(self, name: str) -> Answer[TlsaRecord]:
        return await self._resolver.tlsa(name)

    async def ptr(self, ip: IPAddress) -> Answer[str]:
        return await self._resolver.ptr(ip)

    async def validates(self) -> bool:
        return await self._resolver.validates()

    @property
    def _resolver(self) -> Resolver:
        if self._made is None:
            self._made = self._make()
        return self._made
