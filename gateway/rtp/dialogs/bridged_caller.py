"""A caller on a browser's line, as a target's call here sees it: sound of this host, and no SIP.

Its end of the bridge (`gateway.line.target_bridge`) is a socket of which the kernel gives us packets of that
line's port alone. The caller's sound begins with the target's: until then nothing is sent there, nor heard.
"""

from __future__ import annotations

import secrets

from gateway.errors import LineError
from gateway.line.target_bridge import LOOPBACK, offered_by
from gateway.rtp.agreement import Agreement, Describer
from gateway.rtp.dialogs.pulse import Pulse
from gateway.rtp.media.call_media import CallMedia
from gateway.rtp.media.socket_pair import SocketPair


class BridgedCaller:
    """One call's. `port` is the browser's line's, `sockets` are ours, on loopback."""

    number = 0
    """In no tick: its sound is its target's from the first packet on."""

    def __init__(self, call_id: str, slot: int, sockets: SocketPair, port: int) -> None:
        """Raises `LineError` when the socket cannot be connected."""
        self.call_id = call_id
        self.slot = slot
        self.media: CallMedia | None = None
        self.sockets = sockets
        describer = Describer(LOOPBACK, sockets.port, ("OPUS",), secrets.randbits(31))
        self._pulse = Pulse()
        self.agreed: Agreement
        _, self.agreed = describer.answer(offered_by(port))
        try:
            sockets.rtp.connect((LOOPBACK, port))
        except OSError as error:
            raise LineError(f"no way to the browser's line: {error.strerror}") from None

    def silent_s(self, now: float) -> float:
        """Seconds for which nothing has come from the browser's line, which sends each 20 ms."""
        return self._pulse.silent_s(None if self.media is None else (self.media.receiver.received, 0), now)
