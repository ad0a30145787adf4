"""A call's sessions with the engine: one for each term of its licence, and another one when one was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from gateway.hall.parts.clocks import Clocks
from gateway.hall.parts.inbox import Refused, SpeechEvent
from gateway.hall.parts.licence import Licence, Term
from gateway.hall.parts.playout import PlayoutFull
from model.client import EngineClient, EngineSession
from model.errors import EngineBusy, EngineError, EngineRefused, GrantSpent
from model.tasks import race

RECONNECT_FOR_S: Final = 10.0
"""How long a lost engine may take to come back before the call says farewell: it loads its models anew."""
FILLER_AFTER_S: Final = 0.7
RETRY_S: Final = 0.1

Post = Callable[[SpeechEvent], None]


class EngineSilent(EngineError):
    """The engine was asked to speak and says nothing."""

    code = "lost"


class EngineLife:
    """One call's."""

    def __init__(
        self,
        engine: EngineClient,
        converse: Callable[[EngineSession, Post, Term], Awaitable[None]],
        fill_wait: Callable[[], bool],
        clocks: Clocks,
        log: Any,
        note: Callable[..., None],
    ) -> None:
        """`converse` uses a session until its term is over, or an error ends it.

        `fill_wait` has words fill a wait, where the caller waits; it says whether. `note` takes down that
        the engine went, or came back, as `Session.event` does.
        """
        self._engine = engine
        self._converse = converse
        self._fill_wait = fill_wait
        self._clocks = clocks
        self._log = log
        self._note = note
        self._lost_at: float | None = None
        self._filled = False
        """words were tried once since then: they may never have been rendered"""
        self._spent: Term | None = None
        """the term whose grant has opened a session"""

    async def run(
        self,
        licence: Licence,
        post: Post,
        fills: Callable[[], bool],
        fresh: Callable[[], Awaitable[None]] | None,
    ) -> None:
        """See `Speech.run`."""
        while True:
            term, began = licence.term, self._clocks.monotonic()
            try:
                if term is self._spent and fresh is not None:
                    await fresh()
                    term = licence.term
                await term.granted.wait()
                began = self._clocks.monotonic()
                if not term.over.is_set():
                    session = await self._connect(licence.token, term)
                    if session is not None:
                        self._spent = term
                        if self._lost_at is not None:
                            away_s = self._clocks.monotonic() - self._lost_at
                            self._log.info("engine.back", after_s=round(away_s, 2))
                            self._note("engine_back", after_s=round(away_s, 2))
                        await self._converse(session, post, term)
                self._lost_at, self._filled = None, False
            except (EngineBusy, EngineRefused, EngineSilent) as refusal:
                post(Refused(refusal.code, str(refusal)))
                return
            except (EngineError, PlayoutFull) as error:
                if isinstance(error, GrantSpent):  # of a session that broke before it was open
                    self._spent = term
                if self._lost(began, error) > RECONNECT_FOR_S:
                    post(Refused("lost", str(error)))
                    return
                if self._away_s > FILLER_AFTER_S and not self._filled and fills():
                    self._filled = self._fill_wait()
                await asyncio.sleep(RETRY_S)
            except Exception as error:
                self._log.exception("speech.failed")
                post(Refused("lost", type(error).__name__))
                return

    @property
    def _away_s(self) -> float:
        """For how long there has been no engine."""
        return 0.0 if self._lost_at is None else self._clocks.monotonic() - self._lost_at

    def _lost(self, began: float, error: Exception) -> float:
        """There is no engine now; says for how long. `began`: since when there was hope."""
        now = self._clocks.monotonic()
        if self._lost_at is None or now - began > RECONNECT_FOR_S:  # it had been well until now
            self._lost_at, self._filled = now, False
            self._log.warning("engine.away", error=str(error))
            self._note("engine_away", code=error.code if isinstance(error, EngineError) else "full")
        return self._away_s

    async def _connect(self, token: str | None, term: Term) -> EngineSession | None:
        """A session; None when `term` was over before. Raises `EngineError`."""
        if token is None:
            raise EngineError("the call has no voice grant")
        session, _ = await race(self._engine.connect(token), term.over.wait())
        return session.result() if session is not None else None
