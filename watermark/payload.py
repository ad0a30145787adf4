"""What a mark says: 64 bits, 16 of the gateway's epoch, 48 that only the key's holder can make for a call."""

from __future__ import annotations

import hashlib
import hmac

from watermark.keys import MarkKey


def call_payload(key: MarkKey, call_id: str) -> int:
    """The 64-bit payload of a call: `gateway << 48 | HMAC-SHA256(key, call_id)[:6]`."""
    digest = hmac.new(key.secret, b"call|" + call_id.encode(), hashlib.sha256).digest()
    return key.gateway << 48 | int.from_bytes(digest[:6])
