"""The messages of each call, as edge and WHIP door see them: kept beside the call, told a HEP collector."""

from __future__ import annotations

from typing import Final

from gateway.front.house.hep import HepSender
from gateway.ipc.wire_message import Standing, WireMessage
from gateway.store.sessions import Sessions

REFUSED_BYTES: Final = 8 << 20
"""Of the ladders of all calls that were not taken: whoever calls in vain drives out no other call's."""


class CallLadder:
    """See the module. Takes what `gateway.edge.dialogs.wire_tap.OnWire` says; never waits, never fails."""

    def __init__(self, sessions: Sessions, hep: HepSender | None = None) -> None:
        self._taken = sessions.ladders()
        self._refused = sessions.ladders(REFUSED_BYTES)
        self._hep = hep

    def seen(self, call_id: str, message: WireMessage, standing: Standing) -> None:
        """One message of a call."""
        pen = self._refused if standing == "refused" else self._taken
        pen.message(call_id, message, under_way=standing == "old")
        if self._hep is not None:
            self._hep.tell(call_id, message)
