"""Tells a webhook an event: one signed POST, to an address that may be told, and no further.

The signature is that of the Standard Webhooks: HMAC-SHA256 over `ID.TIMESTAMP.BODY` with the receiver's
secret, in base64, as `webhook-signature: v1,…`; beside it `webhook-id` (the event's id, good as a key for
what was done already) and `webhook-timestamp` (of this try, so that an old one is not played back).
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import ssl
import time
from typing import Final

import httpx

from gateway.front.events.courier import TAKEN, TellOutcome
from gateway.front.events.event_shelf import KeptEvent
from gateway.front.events.failed_delivery import is_untrusted, why_undelivered
from gateway.front.events.webhook_file import Webhook
from gateway.front.house.guarded_transport import guarded_client

ANSWER_S: Final = 15.0
"""Within this a receiver says that it has an event; what takes it longer should be done afterwards."""
AT_ONCE: Final = 4


class WebhookPost:
    """One webhook, as a courier tells it (`gateway.front.events.courier.Receiver`)."""

    at_once = AT_ONCE

    def __init__(self, webhook: Webhook) -> None:
        self.name = webhook.name
        self.retry_s = webhook.retry_s
        self.webhook = webhook
        self._trust = ssl.create_default_context()
        self._client: httpx.AsyncClient | None = None

    def wants(self, event: KeptEvent) -> bool:
        """Whether it is of a type that the webhook names."""
        return event.type in self.webhook.types

    async def close(self) -> None:
        """Lets go of its connections."""
        if self._client is not None:
            await self._client.aclose()

    async def tell(self, event: KeptEvent, missed: int) -> TellOutcome:
        """Posts it; what the answer says beyond its status is not read."""
        table = event.to_json(personal=self.webhook.personal)
        if missed:
            table["missed"] = missed
        body = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "voicegate",
            **self._signed(event.id, body),
        }
        if self._client is None:
            self._client = guarded_client(self._trust, ANSWER_S)
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                self._client.stream("POST", self.webhook.url, content=body, headers=headers) as answer,
            ):
                return _outcome(answer)
        except TimeoutError:
            return TellOutcome("later", f"no answer within {ANSWER_S:g} s")
        except (httpx.HTTPError, OSError, ValueError) as error:  # its text may have the URL
            if is_untrusted(error):  # by the next try this machine may trust others
                await asyncio.to_thread(self._trust.load_default_certs)
            return TellOutcome("later", why_undelivered(error))

    def _signed(self, event_id: str, body: bytes) -> dict[str, str]:
        now = int(time.time())
        return {
            "webhook-id": event_id,
            "Idempotency-Key": event_id,
            "webhook-timestamp": str(now),
            "webhook-signature": " ".join(
                signature(one, event_id, now, body) for one in self.webhook.secrets
            ),
        }


def signature(secret: bytes, event_id: str, timestamp: int, body: bytes) -> str:
    """`v1,` and the HMAC-SHA256 in base64."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, "sha256")).decode()


def _outcome(answer: httpx.Response) -> TellOutcome:
    if answer.is_success:
        return TAKEN
    if answer.status_code == 410:
        return TellOutcome("never", "HTTP 410")
    after = answer.headers.get("retry-after", "")
    after_s = float(after) if after.isascii() and after.isdigit() and len(after) < 9 else 0.0
    return TellOutcome("later", f"HTTP {answer.status_code}", after_s, answered=True)
