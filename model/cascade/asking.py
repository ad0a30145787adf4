"""One question to the chat server under way: tried again while that is of use, read ahead of speech."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog

from model.api import Tool
from model.cascade.chat_server import ChatServer, Message
from model.cascade.chat_tools import ToolCalls
from model.cascade.sayable import SayableText
from model.cascade.sentences import Sentences
from model.errors import ChatServerError
from model.tasks import Tasks

log = structlog.get_logger("cascade")

PAUSES_S: Final = (0.25, 0.5, 1.0, 2.0)
"""Before a question is asked again; the last one for good."""
ANSWER_S: Final = 60.0
"""The longest that one answer may take to come."""
OVER: Final = 16
"""Pieces more than the tokens that were asked for, after which the server does not keep its limit."""
CHARACTERS_A_TOKEN: Final = 8


class Asking:
    """Sentences come out as soon as they are whole, fit to be said. Begins when it is made."""

    def __init__(
        self, server: ChatServer, messages: Sequence[Message], tools: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self._server = server
        self._messages = messages
        self._tools = tools
        self._sentences: asyncio.Queue[str | None] = asyncio.Queue()  # bounded by the answer's tokens
        self._error: ChatServerError | None = None
        self._said = False
        self._calls = ToolCalls()
        self._tasks = Tasks()
        self._began = asyncio.get_running_loop().time()
        self._tasks.short(self._run(), "cascade.ask")

    async def next(self, until: float) -> str | None:
        """The next sentence; None when the answer is over. `until`: by the loop's clock.

        Raises `TimeoutError` when it is not there by then, and `ChatServerError` when none will come.
        """
        async with asyncio.timeout_at(until):
            sentence = await self._sentences.get()
        if sentence is None and self._error is not None:
            raise self._error
        return sentence

    @property
    def tool(self) -> Tool | None:
        """What the model asks for besides; known when the answer is over."""
        return self._calls.first(self._tools)

    async def close(self) -> None:
        """Ends the request, if it is under way."""
        await self._tasks.stop()

    async def _run(self) -> None:
        meters, settings, tries = self._server.meters, self._server.settings, 0
        now = asyncio.get_running_loop().time
        meters.questions.inc()
        self._error = ChatServerError("ours", "the question was given up")  # whatever ends this task
        try:
            while True:
                try:
                    await self._ask()
                except ChatServerError as error:
                    meters.errors.labels(error.kind).inc()
                    pause_s = error.retry_after_s
                    if pause_s is None:
                        pause_s = PAUSES_S[min(tries, len(PAUSES_S) - 1)]
                    late = now() + pause_s >= self._began + settings.give_up_s
                    again = not (error.lasting or self._said or late)
                    log.warning("chat_server.failed", kind=error.kind, error=str(error), again=again)
                    if not again:
                        self._error = error
                        return
                    tries += 1
                    await asyncio.sleep(pause_s)
                else:
                    self._error = None
                    return
        finally:
            self._sentences.put_nowait(None)

    async def _ask(self) -> None:
        """One try. Raises `ChatServerError`."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._read()
        except TimeoutError:
            raise ChatServerError("stalled", f"an answer took more than {ANSWER_S:g} s to come") from None

    async def _read(self) -> None:
        meters, most = self._server.meters, self._server.settings.tokens
        sentences, sayable, calls = Sentences(), SayableText(), ToolCalls()
        pieces, characters, told, cut = 0, 0, 0, False
        stream = self._server.stream(self._messages, list(self._tools.values()))
        try:
            async with contextlib.aclosing(stream) as deltas:  # type: ignore[type-var]
                async for delta in deltas:
                    for part in delta.tools:
                        calls.add(part)
                    if not pieces and (delta.text or delta.tools):
                        meters.first_token_s.observe(asyncio.get_running_loop().time() - self._began)
                    pieces += bool(delta.text or delta.tools)
                    characters += len(delta.text)
                    told = delta.tokens or told
                    for sentence in sentences.add(delta.text):
                        self._put(sayable.words(sentence))
                    cut = cut or delta.finish == "length"
                    if pieces > most + OVER or characters > most * CHARACTERS_A_TOKEN:
                        cut = True
                        break
        finally:
            meters.tokens.inc(told or pieces)
        rest = sayable.words(sentences.rest())
        if rest and not (cut and self._said):  # half a sentence, when there are whole ones before it
            self._put(rest)
        self._calls = calls
        if not self._said and calls.first(self._tools) is None:
            raise ChatServerError("empty", "the chat server's answer holds nothing that can be said")

    def _put(self, sentence: str) -> None:
        if not sentence:
            return
        if not self._said:
            self._said = True
            took_s = asyncio.get_running_loop().time() - self._began
            self._server.meters.first_sentence_s.observe(took_s)
        self._sentences.put_nowait(sentence)
