"""A provisional response that must arrive (RFC 3262): repeated until the caller's PRACK names it."""

from __future__ import annotations

from collections.abc import Callable

from gateway.edge.dialogs.transaction import LINGER_S, Served, Timer
from gateway.edge.grammar.sip_message import Request, Response
from gateway.rtp.dialogs.repeat import Repeat


class Provisional:
    """Those of one INVITE, one after another. `lost` is called when no PRACK comes (§3: 64 * T1)."""

    def __init__(self, invite: Served, lost: Callable[[], None]) -> None:
        self.pending = False
        """one waits for its PRACK: no 2xx may be sent, and no other reliable one (§3)"""
        self.acknowledged = False
        """one has had its PRACK: what it described holds"""
        self._invite = invite
        self._lost = lost
        self._number = 0
        self._repeat = Repeat()
        self._patience = Timer()
        self._then: Callable[[], object] | None = None

    def send(self, answer: Response, *, reliably: bool) -> None:
        """Sends it, `reliably` with its number, again and again."""
        if not reliably:
            self._invite.answer(answer)
            return
        self._number += 1
        self.pending = True
        answer.headers.set("Require", "100rel")
        answer.headers.set("RSeq", str(self._number))
        self._invite.answer(answer)
        self._repeat.start(self._invite.flow, answer)
        self._patience.start(LINGER_S, self._lost)

    def afterwards(self, then: Callable[[], object]) -> bool:
        """Has `then` called once the PRACK came, where one is awaited; only the last one is."""
        if self.pending:
            self._then = then
        return self.pending

    def names(self, prack: Request) -> bool:
        """Whether a PRACK is of the one that waits: its number, and the INVITE's (§7.2)."""
        said = (prack.headers.get("RAck") or "").split()
        wanted = [str(self._number), str(self._invite.request.cseq.sequence), "INVITE"]
        return self.pending and [said[0].lstrip("0"), *said[1:]] == wanted if said else False

    def arrived(self) -> None:
        """The caller has it."""
        then = self._then
        self.cancel()
        self.acknowledged = True
        if then is not None:
            then()

    def cancel(self) -> None:
        """The call is answered, or over."""
        self.pending, self._then = False, None
        self._repeat.cancel()
        self._patience.cancel()
