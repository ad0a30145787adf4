"""Addresses in a caller's SDP that no host can have: pjsua2 does not refuse them, its process aborts."""

from __future__ import annotations

import re
from typing import Final

_LONG_ADDRESS: Final = re.compile(rb"^c=[^\r\n]{250,}", re.MULTILINE | re.IGNORECASE)
"""pjlib asserts that a host has fewer than 254 characters; a name has at most 253 (RFC 1035 §2.3.4)."""
_LONG_RTCP: Final = re.compile(rb"^a=rtcp:[^\r\n]{250,}(?:\r\n|\r|\n|\Z)", re.MULTILINE | re.IGNORECASE)


def without_long_hosts(sdp: bytes) -> bytes:
    """The SDP with 0.0.0.0, which is nowhere, for an address too long, and without such an `a=rtcp`."""
    return _LONG_RTCP.sub(b"", _LONG_ADDRESS.sub(b"c=IN IP4 0.0.0.0", sdp))
