"""Has a message that a caller left reach somebody: mail with a link, by a relay, to whom the plan names.

The sound itself is not in it, and no word. Headers are made by the standard library, which takes no line end
in them.
"""

from __future__ import annotations

import asyncio
import smtplib
import ssl
import time
from collections.abc import Callable
from email.errors import MessageError
from email.message import EmailMessage
from email.policy import SMTP
from typing import Final

from gateway.front.events.courier import TAKEN, TellOutcome
from gateway.front.events.event_shelf import KeptEvent
from gateway.front.events.failed_delivery import why_undelivered
from gateway.front.events.webhook_file import MAIL
from gateway.front.house.guarded_transport import is_here

SMTP_S: Final = 15.0
RETRY_S: Final = 86_400.0
LONGEST_SHOWN: Final = 120


class MessageMail:
    """Mail by one relay, as a courier sends it. `address_of` says to whom, by the route; None: to nobody."""

    name = MAIL
    at_once = 2
    retry_s = RETRY_S

    def __init__(self, relay: str, sender: str, address_of: Callable[[str], str | None]) -> None:
        """`relay`: HOST or HOST:PORT; `sender`: an address."""
        host, colon, port = relay.rpartition(":")
        self._host, self._port = (host.strip("[]"), int(port)) if colon else (relay, 25)
        self._sender = sender
        self._address_of = address_of

    def wants(self, event: KeptEvent) -> bool:
        """Whether somebody is to hear of it."""
        return event.type == "message.left" and self._address(event) is not None

    def _address(self, event: KeptEvent) -> str | None:
        return self._address_of(str(event.data.get("route") or ""))

    async def tell(self, event: KeptEvent, missed: int) -> TellOutcome:
        """Hands the mail to the relay."""
        address = self._address(event)
        if address is None:
            return TAKEN  # the plan names nobody any more
        try:
            mail = self.mail(event, address)
        except (ValueError, MessageError) as error:
            return TellOutcome("never", str(error)[:LONGEST_SHOWN])
        try:
            await asyncio.to_thread(self._send, mail)
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            said = "never" if all(code >= 500 for code in codes) else "later"
            return TellOutcome(
                "never" if said == "never" else "later", f"the relay refuses the address: {codes}"
            )
        except (smtplib.SMTPException, OSError) as error:
            return TellOutcome("later", why_undelivered(error))
        return TAKEN

    def mail(self, event: KeptEvent, address: str) -> EmailMessage:
        """What is sent. Raises `ValueError` for what cannot stand in a header."""
        data = event.data
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(event.at))
        caller = _shown(data.get("caller") or "somebody")
        mail = EmailMessage(policy=SMTP)
        mail["From"], mail["To"] = self._sender, address
        mail["Subject"] = f"Message of {data['seconds']:.0f} s from {caller}"
        mail["Date"] = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime())
        mail["Message-ID"] = f"<{event.id}@voicegate.invalid>"  # the same, however often it is sent
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's holiday answers it
        cut = "\nIt was cut short: a part of the gateway failed meanwhile.\n" if data.get("cut_short") else ""
        mail.set_content(
            f"{caller} left a message of {data['seconds']:.0f} s, {when}, on the route "
            f"{_shown(data.get('route') or '?')}.\n{cut}\nTo hear it: {_shown(data['link'])}\n"
            f"Call: {event.call_id}\n"
        )
        return mail

    def _send(self, mail: EmailMessage) -> None:
        """Raises `smtplib.SMTPException`, `OSError`."""
        with smtplib.SMTP(self._host, self._port, timeout=SMTP_S) as relay:
            relay.ehlo_or_helo_if_needed()
            if not is_here(self._host):  # callers' numbers leave this machine encrypted, to whom we know
                relay.starttls(context=ssl.create_default_context())
            relay.send_message(mail)


def _shown(text: object) -> str:
    """One short line of what somebody wrote."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    return " ".join(line.split())[:LONGEST_SHOWN]
