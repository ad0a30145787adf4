"""`X-VG-Auth`: the edge's word for an INVITE that it sends to a line, which takes no other."""

from __future__ import annotations

import hashlib
import hmac


def signature(token: str, call_id: str, sip_call_id: str) -> str:
    """Hex HMAC-SHA256 under the boot's token, of our id of the call and SIP's."""
    return hmac.new(token.encode(), f"{call_id}|{sip_call_id}".encode(), hashlib.sha256).hexdigest()
