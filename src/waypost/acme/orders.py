"""One order of one certificate: account, proofs, certificate (RFC 8555 §7).

The library is asked step by step, each step in a worker thread, so that waiting is done on the
loop and an order can be given up at any point.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from acme import challenges, crypto_util, errors, messages
from acme.client import ClientV2
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.errors import Error as JoseError
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC

from waypost.acme.network import GatedNetwork
from waypost.acme.responder import Proof, responding
from waypost.acme.settings import SHORT_LIVED, AcmeSettings
from waypost.durable import write_secret
from waypost.errors import TemporaryError, WaypostError
from waypost.http.client import HttpClient
from waypost.http.url import Url
from waypost.mail.address import IPAddress
from waypost.net.gate import Origin
from waypost.tls.authority import Subjects, subjects_of

ORDER_S = 300.0
# How long a server that works on something is left alone.
POLL_S = (0.5, 1.0, 2.0, 4.0)
# The library pauses for a second and asks until its deadline: so it asks once.
_ONCE = datetime.timedelta(milliseconds=500)
MAX_PROBLEM = 500

Given = ParamSpec("Given")
Found = TypeVar("Found")


class OrderFailed(TemporaryError):
    """There is no certificate; the text says why, in the server's words where it had some."""

    def __init__(self, text: str, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s  # None: the server did not say


@challenges.ChallengeResponse.register
class TlsAlpn01Response(challenges.KeyAuthorizationChallengeResponse):
    """The library has forgotten this challenge; it asks nothing more than its kind."""

    typ = "tls-alpn-01"


@challenges.Challenge.register
class TlsAlpn01(challenges.KeyAuthorizationChallenge):
    """See above."""

    response_cls = TlsAlpn01Response
    typ = TlsAlpn01Response.typ

    def validation(self, account_key: JWK, **kwargs: Any) -> bytes:
        return hashlib.sha256(self.key_authorization(account_key).encode()).digest()


async def obtain(
    settings: AcmeSettings,
    subjects: Subjects,
    account: Path,
    clients: Callable[[Origin], HttpClient],
) -> bytes:
    """The certificate with its chain, and its key in front, in PEM.

    `account` is the file of the account's key. Raises OrderFailed, OSError.
    """
    key = await asyncio.to_thread(account_key, account)
    network = GatedNetwork(key, ES256, Url.parse(settings.directory), clients, {"ca": settings.ca})
    try:
        async with asyncio.timeout(ORDER_S):
            with _in_our_words():
                return await _Order(settings, subjects, key, network).obtain()
    except TimeoutError:
        raise OrderFailed(f"no certificate in {ORDER_S:.0f} s") from None
    except WaypostError as error:
        raise OrderFailed(str(error), network.retry_after_s) from error
    finally:
        network.stop()


def account_key(file: Path) -> JWKEC:
    """The key of our account, made at first use. Raises OSError, OrderFailed; blocks."""
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), None)
    except FileNotFoundError:
        key = ec.generate_private_key(ec.SECP256R1())
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_secret(file, _pem(key))
    except (ValueError, TypeError) as error:
        raise OrderFailed(f"{file} cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise OrderFailed(f"{file} holds no key of the curve P-256")
    return JWKEC(key=key)


class _Order:
    """An order on its way."""

    def __init__(
        self,
        settings: AcmeSettings,
        subjects: Subjects,
        account: JWKEC,
        network: GatedNetwork,
    ) -> None:
        self._settings = settings
        self._subjects = subjects
        self._account = account
        self._network = network

    async def obtain(self) -> bytes:
        directory = await _ask(ClientV2.get_directory, self._settings.directory, self._network)
        client = ClientV2(directory, self._network)
        profile = self._profile(directory)
        await _ask(self._register, client)
        key = _pem(ec.generate_private_key(ec.SECP256R1()))
        request = crypto_util.make_csr(
            key, domains=sorted(self._subjects.names), ipaddrs=list(self._subjects.ips)
        )
        order = await _ask(client.new_order, request, profile)
        await self._prove(client, order)
        chain = await self._finalized(client, order)
        return key + self._checked(chain, key)

    def _profile(self, directory: messages.Directory) -> str | None:
        offered = directory["meta"].profiles or {}
        wanted = self._settings.profile
        if wanted is None:
            return SHORT_LIVED if self._subjects.ips and SHORT_LIVED in offered else None
        if wanted not in offered:
            there = f"it has {', '.join(sorted(offered))}" if offered else "it has none"
            raise OrderFailed(f"the server has no profile {wanted!r} (acme.profile): {there}")
        return wanted

    def _register(self, client: ClientV2) -> None:
        """Have an account. Blocks."""
        contact = tuple(f"mailto:{address}" for address in self._settings.contact)
        wanted = messages.NewRegistration(contact=contact, terms_of_service_agreed=True)
        try:
            client.new_account(wanted)
            return
        except errors.ConflictError as conflict:  # it is there
            known = messages.RegistrationResource(uri=conflict.location, body=wanted)
        found = client.query_registration(known)
        if set(found.body.contact) != set(contact):
            client.update_registration(found, messages.Registration(contact=contact))

    async def _prove(self, client: ClientV2, order: messages.OrderResource) -> None:
        open_ones = [
            entry for entry in order.authorizations if entry.body.status != messages.STATUS_VALID
        ]
        chosen = [self._challenge(entry) for entry in open_ones]
        proofs = [
            _proof(entry, challenge, self._account)
            for entry, challenge in zip(open_ones, chosen, strict=True)
        ]
        async with responding(self._settings, proofs):
            for challenge in chosen:
                answer = challenge.response(self._account)
                await _ask(client.answer_challenge, challenge, answer)
            for entry in open_ones:
                await self._wait_for(client, entry)

    def _challenge(self, entry: messages.AuthorizationResource) -> messages.ChallengeBody:
        kind = self._settings.challenge
        for challenge in entry.body.challenges:
            if getattr(challenge.chall, "typ", None) == kind:
                return challenge
        raise OrderFailed(
            f"the server takes no {kind} for {entry.body.identifier.value} (acme.challenge)"
        )

    async def _wait_for(self, client: ClientV2, entry: messages.AuthorizationResource) -> None:
        for pause_s in _pauses():
            entry, _ = await _ask(client.poll, entry)
            if entry.body.status == messages.STATUS_VALID:
                return
            if entry.body.status not in (messages.STATUS_PENDING, messages.STATUS_PROCESSING):
                break
            await asyncio.sleep(pause_s)
        problems = [_words(each.error) for each in entry.body.challenges if each.error]
        why = "; ".join(problems) or f"the authorization is {entry.body.status.name}"
        raise OrderFailed(_shown(f"{entry.body.identifier.value} was not proven: {why}"))

    async def _finalized(self, client: ClientV2, order: messages.OrderResource) -> bytes:
        await _ask(client.begin_finalization, order)
        for pause_s in _pauses():
            try:
                done = await _ask(client.poll_finalization, order, datetime.datetime.now() + _ONCE)
            except errors.TimeoutError:  # not ready yet
                await asyncio.sleep(pause_s)
            else:
                return str(done.fullchain_pem).encode()
        raise AssertionError("pauses have no end")

    def _checked(self, chain: bytes, key: bytes) -> bytes:
        """The chain and nothing else, if it is what was asked for."""
        certificates = x509.load_pem_x509_certificates(chain)
        found = subjects_of(certificates[0])
        ours = serialization.load_pem_private_key(key, None).public_key()
        if certificates[0].public_key() != ours:
            raise OrderFailed("the server sent a certificate for a key that is not ours")
        if not (found.ips >= self._subjects.ips and found.names >= self._subjects.names):
            raise OrderFailed("the server's certificate does not stand for all it was asked for")
        return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


async def _ask(
    step: Callable[Given, Found], *arguments: Given.args, **options: Given.kwargs
) -> Found:
    """Have the library do a step."""
    return await asyncio.to_thread(step, *arguments, **options)


@contextlib.contextmanager
def _in_our_words() -> Iterator[None]:
    """What the library raises, and what comes of a server that answers nonsense: OrderFailed."""
    try:
        yield
    except WaypostError:
        raise
    except errors.IssuanceError as error:
        raise OrderFailed(_words(error.error)) from error
    except messages.Error as error:
        raise OrderFailed(_words(error)) from error
    except (errors.Error, JoseError) as error:
        raise OrderFailed(_shown(f"the server's answer cannot be used: {error}")) from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        # The library takes a server's JSON for what it should be, and so may we then.
        raise OrderFailed(_shown(f"the server's answer makes no sense: {error!r}")) from error


def _proof(
    entry: messages.AuthorizationResource,
    challenge: messages.ChallengeBody,
    account: JWKEC,
) -> Proof:
    text = entry.body.identifier.value
    identifier: IPAddress | str
    try:
        identifier = ip_address(text)
    except ValueError:
        identifier = text
    authorization = challenge.key_authorization(account).encode()
    path = f"/.well-known/acme-challenge/{challenge.chall.encode('token')}"
    return Proof(identifier, path, authorization, hashlib.sha256(authorization).digest())


def _pauses() -> Iterator[float]:
    yield from POLL_S
    while True:
        yield POLL_S[-1]


def _words(problem: messages.Error) -> str:
    """A problem document (RFC 7807) as one line; its members may be anything."""
    kind = str(problem.typ).removeprefix(messages.ERROR_PREFIX)
    usual = messages.ERROR_CODES.get(kind, "no reason given")
    parts = [str(problem.detail or problem.title or usual)]
    for each in problem.subproblems or ():
        named = f"{each.identifier.value}: " if each.identifier else ""
        parts.append(f"{named}{each.detail or each.typ}")
    return _shown(f"{'; '.join(parts)} ({kind})")


def _shown(text: str) -> str:
    """What a server wrote, without controls, and not without end."""
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= MAX_PROBLEM else f"{text[: MAX_PROBLEM - 1]}…"


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
