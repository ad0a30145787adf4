"""`X-VG-Auth`: the word by which edge and line know each other's INVITEs; neither takes one without it."""

from __future__ import annotations

import hashlib
import hmac


def signature(token: str, call_id: str, sip_call_id: str, srtp: str = "off") -> str:
    """Hex HMAC-SHA256 under the boot's token, of our id of the call, of SIP's, and of `X-VG-SRTP`.

    `srtp` is that header's value, whether the call's sound is encrypted: "required", "optional" or "off".
    """
    said = f"{call_id}|{sip_call_id}|{srtp}"
    return hmac.new(token.encode(), said.encode(), hashlib.sha256).hexdigest()


def target_signature(token: str, call_id: str, target: str, sip_call_id: str) -> str:
    """The same in the other direction: a line's word that this call's hall wants this target called."""
    return signature(token, f"{call_id}>{target}", sip_call_id)
