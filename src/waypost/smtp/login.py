"""Logins in a server's session (RFC 4954): who may try, and the way through one.

The exchange itself is smtp/sasl's, and whether a claim is good is the caller's matter.
"""

from __future__ import annotations

from waypost.mail import reply as replies
from waypost.mail.reply import Reply
from waypost.smtp.command import CommandRefused
from waypost.smtp.events import Event, LoginOffer, LoginRequested
from waypost.smtp.lines import LineSession
from waypost.smtp.phase import Phase
from waypost.smtp.sasl import LoginDialogue, Step

# RFC 4954 §4: a session may end after some failed logins.
MAX_FAILED_LOGINS = 3


class LoginSession(LineSession):
    """A session in which clients may log in."""

    __slots__ = ()

    def _offered_mechanisms(self) -> tuple[str, ...]:
        offer = self._login_offer
        # RFC 4954 §4: once is enough.
        if offer is None or self.login is not None or not self._may_log_in(offer):
            return ()
        return offer.mechanisms

    def _may_log_in(self, offer: LoginOffer) -> bool:
        return self.is_encrypted or not offer.needs_tls

    def _auth(self, argument: str) -> Event | None:
        if self._login_offer is None:
            raise CommandRefused(replies.NOT_IMPLEMENTED)
        if not self._may_log_in(self._login_offer):
            raise CommandRefused(replies.LOGIN_NEEDS_TLS)
        if self.phase is Phase.CONNECTED:
            raise CommandRefused(replies.GREET_FIRST)
        if self.phase is not Phase.READY or self.login is not None:
            raise CommandRefused(replies.NOT_IN_THIS_ORDER)
        mechanism, _, initial = argument.partition(" ")
        mechanism = mechanism.upper()
        if mechanism not in self._login_offer.mechanisms:
            raise CommandRefused(replies.UNKNOWN_MECHANISM)
        self._dialogue = LoginDialogue(mechanism, self._login_offer.keys_of)
        self.phase = Phase.LOGIN
        return self._went_on(self._dialogue.begin(initial.strip(" ").encode()))

    def _response(self, line: bytes) -> Event | None:
        assert self._dialogue is not None  # the phase says so
        return self._went_on(self._dialogue.hear(line))

    def _went_on(self, step: Step) -> Event | None:
        """Put a challenge, or end the login; a claim is for the caller to judge."""
        if isinstance(step, bytes):
            self._out.append(step)
        elif isinstance(step, Reply):
            self._end_login(step)
        else:
            assert self._dialogue is not None  # it has just spoken
            return LoginRequested(self._dialogue.mechanism, step)
        return None

    def _end_login(self, reply: Reply) -> None:
        login = self.login
        self._leave_login()
        if reply.is_positive:
            self.login = login
        if reply.code == 421:
            self.refuse(reply)
            return
        self._out.append(reply.wire)
        if not reply.is_positive:
            self._failed_logins += 1
            if self._failed_logins >= MAX_FAILED_LOGINS:
                self.refuse(replies.TOO_MANY_LOGINS)
