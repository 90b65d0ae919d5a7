"""Mail that comes by HTTP: what is written down of it, and what its sender hears."""

from __future__ import annotations

from waypost.intake.requests import MAX_KEY
from waypost.mail import reply as replies
from waypost.mail.envelope import Arrival
from waypost.mail.reply import Reply
from waypost.web.message import Request, Response, answer, problem, refused
from waypost.web.server import WEB

# Seconds until a client may try again.
LATER_S = 60


def arrival_of(request: Request, name: str) -> Arrival:
    """How it came; `name` is that of the token or the hook.

    Whoever has one of these has it from the operator, and is trusted as devices are.
    """
    return Arrival("HTTP", request.client_ip, request.local_ip, name, WEB, trusted=True)


def key_of(request: Request) -> str | None:
    """The Idempotency-Key of a request; None: it has none. Raises Refused."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not 0 < len(key) <= MAX_KEY or not (key.isascii() and key.isprintable()):
        raise refused(400, f"an Idempotency-Key has 1 to {MAX_KEY} characters of ASCII")
    return key


def response_of(reply: Reply, transaction: object = None) -> Response:
    """What a reply of SMTP is in HTTP; `transaction` is what the client gave to have back."""
    echo = {} if transaction is None else {"transaction": transaction}
    if reply.is_positive:
        return answer({"id": reply.text.rpartition(" ")[2], **echo})
    more = {"code": reply.code, "enhanced": reply.enhanced, "text": reply.text, **echo}
    if reply.status == replies.MESSAGE_TOO_BIG.status:
        return problem(413, reply.text, more=more)
    # RFC 5321 §4.5.3.1.10: 452, and yet the same request will never pass.
    if reply.is_transient and reply.status != replies.TOO_MANY_RECIPIENTS.status:
        return problem(503, reply.text, fields=(("Retry-After", str(LATER_S)),), more=more)
    return problem(422, reply.text, more=more)
