"""What our answer to an INVITE says for machines: that the call's voice is synthetic, and where to read more.

It is a Call-Info (RFC 3261 §20.9) with the call's id, its issuer and the URL of a signed statement. It has at
most 300 bytes, and is left out where the answer would become longer than what UDP carries whole (§18.1.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.edge.grammar.sip_message import Response

HEADER: Final = "Call-Info"
PURPOSE: Final = "synthetic-speech"
MOST_BYTES: Final = 300
PACKET: Final = 1300


@dataclass(frozen=True, slots=True)
class SpeechNotice:
    """What it says of every call. `url`: where the page is; None: at the address that callers know."""

    issuer: str
    http_port: int
    url: str | None = None

    def value(self, call_id: str, address: str) -> str:
        """The header's value for a call whose caller reaches us at `address`."""
        host = f"[{address}]" if ":" in address else address
        base = self.url or f"http://{host}:{self.http_port}"
        where = f"{base.rstrip('/')}/synthetic/{call_id}"
        return f"<{where}>;purpose={PURPOSE};id={call_id};iss={self.issuer}"

    def put(self, answer: Response, call_id: str, address: str) -> None:
        """Puts the header into an answer that is whole but for it, if there is room."""
        value = self.value(call_id, address)
        longer = len(f"{HEADER}: {value}\r\n".encode())
        if longer <= MOST_BYTES and len(bytes(answer)) + longer <= PACKET:
            answer.headers.setlist(HEADER, [*answer.headers.getlist(HEADER), value])
