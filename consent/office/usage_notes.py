"""How long each grant's voice spoke: noted in the ledger once, whoever tells it and however often."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from consent.ledger.books import Books

REMEMBERED: Final = 4_096
"""Grants whose voice is remembered, for their usage; older ones are found in the ledger."""
SOUGHT_S: Final = 90 * 86_400.0
"""How old a grant may be whose use is noted late, after a gateway was down."""


class UsageNotes:
    """Notes the use of grants. Safe to use from several threads."""

    def __init__(self, books: Books, clock: Callable[[], float]) -> None:
        """`clock` says seconds since the epoch."""
        self._books = books
        self._clock = clock
        self._voice_of: OrderedDict[str, str] = OrderedDict()
        """jti -> voice id; none is noted for the stock voice's"""
        self._lock = threading.Lock()
        self._noting = threading.Lock()
        """held by who notes a grant's use: each is noted once"""

    def remember(self, jti: str, voice_id: str) -> None:
        """Expects the use of a grant that was given; `voice_id` is empty for the stock voice's."""
        with self._lock:
            self._voice_of[jti] = voice_id
            if len(self._voice_of) > REMEMBERED:
                self._voice_of.popitem(last=False)

    def note(self, *, jti: str, call_id: str, seconds: float, dialplan: str) -> None:
        """Notes in the ledger how long a person's voice spoke under a grant; the stock voice's is not noted.

        Once for each grant: what is told later of the same one changes nothing. Raises `LedgerError`.
        """
        with self._noting:
            voice_id = self._voice_of.get(jti)
            if voice_id is None:
                voice_id = self._search(jti)
            if not voice_id:
                with self._lock:
                    self._voice_of.pop(jti, None)  # one of the stock voice's is asked for once, too
                return
            with self._books.writing(quiet=True) as writing:
                body = {"jti": jti, "call": call_id, "seconds": round(seconds, 2), "dialplan": dialplan}
                writing.append("voice.used", voice_id, body)
            with self._lock:
                self._voice_of.pop(jti, None)

    def _search(self, jti: str) -> str | None:
        """The voice of a grant that another process, or this one before it restarted, has given.

        None when its use is in the ledger already.
        """
        # a row's time: this clock may be wrong
        since_ms = round(min(self._clock() * 1000, self._books.tip[2]) - SOUGHT_S * 1000)
        found = self._books.reader.rows(kinds=("voice.granted", "voice.used"), since_ms=since_ms, holding=jti)
        rows = [row for row in found if row.table["jti"] == jti]
        if any(row.kind == "voice.used" for row in rows):
            return None
        return next((row.subject for row in rows), None)
