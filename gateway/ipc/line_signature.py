"""`X-VG-Auth`: the edge's word for an INVITE that it sends to a line, which takes no other."""

from __future__ import annotations

import hashlib
import hmac


def signature(token: str, call_id: str, sip_call_id: str, srtp: str = "off") -> str:
    """Hex HMAC-SHA256 under the boot's token, of our id of the call, of SIP's, and of `X-VG-SRTP`.

    `srtp` is that header's value, whether the call's sound is encrypted: "required", "optional" or "off".
    """
    said = f"{call_id}|{sip_call_id}|{srtp}"
    return hmac.new(token.encode(), said.encode(), hashlib.sha256).hexdigest()
