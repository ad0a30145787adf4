"""What an engine understands of one caller's utterances: at a pause, at their end, or late.

The engine says what words mean to it (`judge`) and what follows from that (`take`). When it is asked that,
and what becomes of words that come too late or of an utterance that goes on, is here, once for every engine.
The same words are judged once: those of an utterance's last pause are those of its end, when no more was
said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from model.api import EarlyHearing, Floats, Understood
from model.ears.last_words import early_hearing
from model.ears.words_heard import Words
from model.tasks import Tasks

M = TypeVar("M")
"""What words mean to an engine."""


class UtteranceEar(Protocol):
    """One conversation's utterance while it arrives (`model.ears.listening.Listening`)."""

    open: bool
    """it ended where nobody stops"""

    @property
    def seconds(self) -> float: ...
    @property
    def others_wait(self) -> bool:
        """Other callers wait to be heard, too."""

    def hear(self, pcm: Floats, phrases: Sequence[str] = ()) -> None: ...
    def finish(self, phrases: Sequence[str] = ()) -> asyncio.Task[Words]: ...
    def clear(self) -> None: ...


Listen = Callable[[Callable[[Words], None]], UtteranceEar]
"""Makes an ear, which tells what it hears at a pause."""
Judge = Callable[[Words, Sequence[str]], Awaitable[M]]
"""What words mean, and of which phrases (lower case) they may be one."""


@dataclass(frozen=True, slots=True)
class PauseWords(Generic[M]):
    """What was heard at a pause, and what it means once that is known."""

    words: Words
    phrases: tuple[str, ...]
    judged: asyncio.Task[M]


class Comprehension(Generic[M]):
    """One caller's. Whoever has it closes it.

    `settles`: whether nothing more need be said after what words mean. `take`: the conversation goes on from
    an utterance's words, of so many seconds; called once for each that is committed and not dropped. A commit
    waits `wait_s` for the words, and `alone_s` longer where no other caller keeps this one from being heard.
    """

    def __init__(
        self,
        listen: Listen,
        judge: Judge[M],
        settles: Callable[[M], bool],
        take: Callable[[Words, M, float], Understood],
        *,
        wait_s: float,
        alone_s: float = 0.0,
    ) -> None:
        self._listening = listen(self._hear_pause)
        self._judge = judge
        self._settles = settles
        self._take = take
        self._wait_s = wait_s
        self._alone_s = alone_s
        self._tell: Callable[[EarlyHearing], None] = lambda _: None
        self._phrases: tuple[str, ...] = ()
        """which may be said in the present utterance"""
        self._early: PauseWords[M] | None = None
        """of the present utterance's latest pause"""
        self._late: asyncio.Task[Understood] | None = None
        """understands the last utterance, whose commit has not waited for it"""
        self._tasks = Tasks()

    @property
    def is_late(self) -> bool:
        """What was committed last is still to be understood."""
        return self._late is not None and not self._late.done()

    def tell_early(self, tell: Callable[[EarlyHearing], None]) -> None:
        """See `model.api.HearsEarly`."""
        self._tell = tell

    def hear(self, pcm: Floats, phrases: Sequence[str] = ()) -> None:
        """The utterance goes on with `pcm` (float32 24 kHz); `phrases` may be said now."""
        self._phrases = tuple(phrases)
        self._listening.hear(pcm, phrases)

    def clear(self) -> None:
        """The utterance so far was nothing."""
        self._drop_early()
        self._listening.clear()

    def reconsider(self) -> None:
        """Words mean something else from now on."""
        self._drop_early()

    async def commit(self, phrases: Sequence[str] = ()) -> Understood:
        """The utterance is over; what was understood of it, or that it will be `late`.

        One before it that is late still is dropped: the caller has gone on.
        """
        duration_s = self._listening.seconds
        early, self._early = self._early, None
        if self._late is not None:
            self._late.cancel()
            self._late = None
        answer = self._listening.finish(phrases)
        understanding = self._understand(answer, tuple(phrases), early, duration_s)
        understood = self._tasks.short(understanding, "ears.understand", told=(Exception,))
        await asyncio.wait([understood], timeout=self._wait_s)
        if not understood.done() and self._alone_s and not self._listening.others_wait:
            await asyncio.wait([understood], timeout=self._alone_s)
        if understood.done():
            return understood.result()
        self._late = understood
        return Understood(duration_s, late=True)

    async def heard_late(self) -> Understood:
        """See `model.api.HearsLate`."""
        late = self._late
        if late is None:
            return Understood(0.0)
        await asyncio.wait([late])  # whoever stops asking does not stop the understanding
        return Understood(0.0) if late.cancelled() else late.result()

    async def words_of(self, pcm: Floats) -> Words:
        """The words of sound (float32 24 kHz) that nobody says now."""
        self._listening.clear()
        self._listening.hear(pcm)
        answer = self._listening.finish()
        self._drop_early()
        return await answer

    def close(self) -> None:
        """Nobody wants to know anything more."""
        self._listening.clear()
        self._tasks.cancel()

    def _hear_pause(self, words: Words) -> None:
        self._drop_early()
        judged = self._tasks.short(self._judge_early(words, self._phrases), "ears.judge")
        self._early = PauseWords(words, self._phrases, judged)

    async def _judge_early(self, words: Words, phrases: Sequence[str]) -> M:
        judged = await self._judge(words, phrases)
        early = early_hearing(words, answered=self._settles(judged))
        if early is not None and self._early is not None and self._early.words is words:
            self._listening.open = early.state == "unfinished"
            self._tell(early)
        return judged

    def _drop_early(self) -> None:
        if self._early is not None:
            self._early.judged.cancel()
            self._early = None

    async def _understand(
        self,
        answer: asyncio.Task[Words],
        phrases: tuple[str, ...],
        early: PauseWords[M] | None,
        duration_s: float,
    ) -> Understood:
        try:
            words = await answer
            if early is not None and early.words is words and early.phrases == phrases:
                judged = await early.judged
            else:
                judged = await self._judge(words, phrases)
            return self._take(words, judged, duration_s)
        finally:
            answer.cancel()
            if early is not None:
                early.judged.cancel()
