"""The world around a hub under attack: every address answers, every name leads where it says.

One namespace holds it (AnyIP), so whatever the hub connects to is reached, and is written down.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from tests.attacks.talk import Talk, greeted
from tests.support.hub import Hub
from tests.support.netns import Namespace, whole_internet
from waypost.mail.address import IPAddress
from waypost.queue.history import History

ZONE = "world.test"
# The hub's own: documentation, private and global ones.
OWN = ("203.0.113.1", "10.9.0.1", "5.6.7.8", "2001:db8::1", "fd00:9::1", "2a00:5678::1")
HUB_PORT = 2525
# Where mail goes, where all mail is refused for good, and where a page says that it has moved.
MAIL_PORT, BROKEN_PORT, PAGE_PORT = 25, 26, 80
# Thousands of messages are gone after this long, on any machine.
SETTLED_S = 200.0
# The honest address of a name that moves; it says 421 to whoever comes.
HONEST = "93.184.216.34"

# One stranger tries thousands of things without delay.
NO_LIMITS = """
[limits]
greet_delay_s = 0
connections_per_client = 1000
connections_per_minute = 1000000
messages_per_minute = 1000000
recipients_per_minute = 1000000
"""
# Senders are believed, which they are not by default: it is what stands behind that is attacked.
CONFIG = f"""
[policy]
literal_sender = "off"
{NO_LIMITS}
[addresses]
domains = ["plant.example"]
[networks]
accept_from_strangers = true
[dns]
servers = ["127.0.0.1:53"]
[retry]
first_s = 1.5
max_s = 1.5
[[mailbox]]
name = "ann"
aliases = ["postmaster"]
[[mailbox]]
name = "broken"
[[route]]
name = "broken"
match = {{ recipient = "broken@*" }}
to = ["smtp:[127.0.0.1]:{BROKEN_PORT}"]
[[route]]
name = "subjects"
match = {{ recipient = "ann@*", subject = "*nobody has this*" }}
to = ["discard"]
[[route]]
name = "names"
match = {{ recipient = "*@*.{ZONE}" }}
to = ["direct"]
"""
# To the hub itself, by way of what may never be reached.
MOVED = (
    b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:25/\r\nRefresh: 0; url=http://[::1]:25/\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)
LISTENER = f'[[listener]]\nname = "smtp"\nbind = ["0.0.0.0:{HUB_PORT}", "[::]:{HUB_PORT}"]\n'


def hexed(ip: IPAddress) -> str:
    """An address as a label of a name of the zone."""
    return ip.packed.hex()


class World:
    """A namespace with listeners at every address and the name server of ZONE."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.reached: Counter[IPAddress] = Counter()  # connections, by address
        self._asked: Counter[tuple[str, int]] = Counter()  # by name and type, of names that move
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Answer."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._selector)
            stack.enter_context(self._wake)
            self._selector.register(stack.enter_context(self._woken), selectors.EVENT_READ, None)
            with self.namespace.entered():
                for port in (MAIL_PORT, BROKEN_PORT, PAGE_PORT):
                    for host in ("0.0.0.0", "::"):
                        listening = stack.enter_context(_listening(host, port))
                        self._selector.register(listening, selectors.EVENT_READ, self._accept)
                names = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                names.bind(("127.0.0.1", 53))
            self._selector.register(names, selectors.EVENT_READ, self._answer)
            thread = threading.Thread(target=self._serve)
            thread.start()
            try:
                yield
            finally:
                self._wake.send(b"x")
                thread.join()

    def stranger(self, number: int) -> contextlib.AbstractContextManager[Talk]:
        """A session of some host of the Internet that nobody trusts."""
        return self.session(f"45.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}")

    def trusted(self) -> contextlib.AbstractContextManager[Talk]:
        """A session of a host of the private network."""
        return self.session("10.9.0.50", "10.9.0.1")

    @contextlib.contextmanager
    def session(self, source: str, host: str | None = None, port: int = HUB_PORT) -> Iterator[Talk]:
        """A session with the hub, or another one at that port, from any address."""
        if host is None:
            host = OWN[3] if ":" in source else OWN[0]
        with contextlib.ExitStack() as stack:
            with self.namespace.entered():
                talk = stack.enter_context(greeted(host, port, source=source))
            yield talk

    @contextlib.contextmanager
    def watched(self, hub: Hub, port: int = HUB_PORT) -> Iterator[set[str]]:
        """To whom the hub opened connections until all its mail was settled, as "address:port".

        Left out are clients' own, to `port`, questions about names, and the host that refuses all
        mail.
        """
        self.reached.clear()
        found: set[str] = set()
        with self.namespace.watched() as attempts:
            yield found
            wait_until_settled(hub)
        ours = {f"127.0.0.1:{BROKEN_PORT}", "127.0.0.1:53"}
        found.update(
            attempt
            for attempt in attempts
            if attempt not in ours and not attempt.endswith(f":{port}")
        )

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                key.data(key.fileobj)

    def _accept(self, listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            host, port, *_ = connection.getsockname()
            if port != BROKEN_PORT:
                self.reached[ip_address(host.partition("%")[0])] += 1
            if port == PAGE_PORT:
                connection.settimeout(5)
                connection.recv(65_536)
                connection.sendall(MOVED)
                return
            later = host == HONEST
            connection.sendall(b"421 4.3.2 Later\r\n" if later else b"554 5.7.1 Counted\r\n")

    def _answer(self, names: socket.socket) -> None:
        octets, client = names.recvfrom(65_535)
        query = dns.message.from_wire(octets)
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.AA | dns.flags.RA
        asked = query.question[0]
        if not self._fill(answer, asked.name, asked.rdtype):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        if asked.name.labels[1:2] == (b"forged",):
            self._forge(names, query, client)
        names.sendto(answer.to_wire(max_size=65_000), client)  # whatever the question allows

    def _forge(
        self, names: socket.socket, query: dns.message.Message, client: tuple[str, int]
    ) -> None:
        """What somebody sends who has not seen the question: here, ahead of the answer."""
        asked = query.question[0]
        for octets in (b"", b"\0" * 11, query.to_wire(), b"\xff" * 600):
            names.sendto(octets, client)
        for name, change in ((asked.name.to_text(), 1), ("other.example.", 0)):
            forged = dns.message.make_query(name, asked.rdtype, id=query.id ^ change)
            forged.flags |= dns.flags.QR | dns.flags.RA
            if asked.rdtype == dns.rdatatype.A:
                _add(forged, name, 300, "A", "10.6.6.6")
            names.sendto(forged.to_wire(), client)

    def _fill(
        self, answer: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType
    ) -> bool:
        """Put records into an answer; False: there is no such name.

        HEX.a has the address, HEX.mx an exchange of that address, HEX.cname is an alias of it,
        HEX.mxcname has an exchange that is an alias; HEX.moves has an honest address first.
        What stands before HEX, with a hyphen, makes another name of it. HEX.sts has a host with a
        policy (MTA-STS), of that address. Others: _ODD_FORMS.
        """
        labels = name.to_text(omit_final_dot=True).lower().split(".")
        first = labels[0]
        if first in ("_mta-sts", "mta-sts") and labels[2:3] == ["sts"]:
            labels = labels[1:]
        if labels[2:] != ZONE.split("."):
            return False
        if labels[1] in _ODD_FORMS:
            for owner, rtype, text in _ODD_FORMS[labels[1]]:
                if rtype == "CNAME" or dns.rdatatype.from_text(rtype) == kind:
                    _add(answer, owner, 300, rtype, text)
            return True
        label, form = labels[0].rpartition("-")[2], labels[1]
        text, ttl = name.to_text(), 300
        if form in ("mx", "mxcname"):
            if kind == dns.rdatatype.MX:
                host = "a" if form == "mx" else "cname"
                _add(answer, text, ttl, "MX", f"10 {label}.{host}.{ZONE}.")
            return True
        if form == "cname":
            _add(answer, text, ttl, "CNAME", f"{label}.a.{ZONE}.")
            text = f"{label}.a.{ZONE}."
        address = str(ip_address(bytes.fromhex(label)))
        if form == "moves":
            ttl = 0
            self._asked[text, kind] += 1
            if self._asked[text, kind] == 1:
                address = HONEST
        if kind == (dns.rdatatype.AAAA if ":" in address else dns.rdatatype.A):
            _add(answer, text, ttl, dns.rdatatype.to_text(kind), address)
        if first == "_mta-sts" and kind == dns.rdatatype.TXT:
            _add(answer, text, ttl, "TXT", '"v=STSv1; id=1"')
        if form == "big":
            _add(answer, text, ttl, "TXT", " ".join(f'"{"x" * 250}"' for _ in range(200)))
        return True


# What the names one.FORM have, with their owners.
_ODD_FORMS: dict[str, list[tuple[str, str, str]]] = {
    "loop": [
        (f"one.loop.{ZONE}.", "CNAME", f"two.loop.{ZONE}."),
        (f"two.loop.{ZONE}.", "CNAME", f"one.loop.{ZONE}."),
    ],
    "self": [(f"one.self.{ZONE}.", "CNAME", f"one.self.{ZONE}.")],
    "mxloop": [
        (f"one.mxloop.{ZONE}.", "MX", f"10 one.loop.{ZONE}."),
        (f"one.mxloop.{ZONE}.", "MX", f"20 one.self.{ZONE}."),
    ],
    "null": [
        (f"one.null.{ZONE}.", "MX", "0 ."),
        (f"one.null.{ZONE}.", "A", "10.7.7.9"),
    ],
    "hundred": [
        (f"one.hundred.{ZONE}.", "MX", f"{number} {number + 0x0A070800:08x}.a.{ZONE}.")
        for number in range(100)
    ],
}


def _add(answer: dns.message.Message, name: str, ttl: int, kind: str, text: str) -> None:
    answer.answer.append(dns.rrset.from_text(name, ttl, "IN", kind, text))


def _listening(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if ":" in host:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    listening.listen(4096)
    return listening


def wait_until_settled(hub: Hub) -> None:
    """Until nothing is in the queue any more."""
    history = History(hub.data)
    deadline = time.monotonic() + SETTLED_S
    while history.counts():
        assert time.monotonic() < deadline, hub.log_text()[-4000:]
        time.sleep(0.05)


@contextlib.contextmanager
def the_world() -> Iterator[World]:
    """The world, at work."""
    with whole_internet(*(f"{ip}/128" if ":" in ip else f"{ip}/32" for ip in OWN)) as namespace:
        world = World(namespace)
        with world.running():
            yield world
