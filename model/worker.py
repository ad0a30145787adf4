"""An engine's own process: `python -m model.worker FD REASONS`, started by `model.proxy` and nobody else.

It loads the engine that it is asked for and calls it as it is told (`model.link`). It ends when its server
closes the link or dies, and by nothing less: signals are for the server, which says goodbye here. What goes
wrong with its engine may end it too (`model.own_process`); REASONS is a pipe for the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from typing import Any, cast

from consent import core_files
from consent.grants.grant import VoiceGrant
from model import errors, heap, json_log, own_process
from model.api import Conversation, Engine, Limits, Reference
from model.errors import EngineError, EngineLost
from model.link import AHEAD, ENGINE, ROOM, Link, LinkAnswer, LinkAsk, LinkTell, Message, More, Output, Stop
from model.tasks import Tasks, watch_loop
from model.trace_context import enter


class Worker:
    """One engine and its conversations, by their numbers."""

    def __init__(self) -> None:
        self.link = Link(self._take, self._left)
        self.left = asyncio.Event()
        """the server has said goodbye"""
        self._closed = False
        self._engine: Engine | None = None
        self._conversations: dict[int, Conversation] = {}
        self._traces: dict[int, str | None] = {}
        """of conversations, by the same numbers: `traceparent`"""
        self._tasks = Tasks()
        self._asked: dict[int, tuple[int, asyncio.Task[Any]]] = {}
        """by the number of what was asked: of whom, and its work"""
        self._room: dict[int, asyncio.Semaphore] = {}
        """for outputs, by the same number"""

    def _left(self) -> None:
        if not self._closed:  # it died: nothing is left to do, and no thread's work is worth waiting for
            os._exit(1)
        self.left.set()

    def _take(self, message: Message) -> None:
        match message:
            case LinkTell(of, method, given):
                # by the loop's queue, as a task begins: what was said later is not done earlier
                asyncio.get_running_loop().call_soon(self._tell, of, method, given)
            case LinkAsk(number, of, _, _):
                # the server takes what it fails with, but a stranger's error is also ours to count
                task = self._tasks.short(self._work(message), "engine.asked", told=(EngineError,))
                self._asked[number] = of, task
                task.add_done_callback(lambda done: self._done(number, done))
            case More(number):
                if number in self._room:
                    for _ in range(ROOM):
                        self._room[number].release()
            case Stop(number):
                if number in self._asked:
                    self._asked[number][1].cancel()

    def _tell(self, of: int, method: str, given: tuple[Any, ...]) -> None:
        with contextlib.suppress(EngineLost):
            getattr(self._whom(of), method)(*given)

    def _whom(self, of: int) -> Engine | Conversation:
        whom = self._engine if of == ENGINE else self._conversations.get(of)
        if whom is None:
            raise EngineLost("this conversation is over")
        return whom

    def _work(self, ask: LinkAsk) -> Coroutine[Any, Any, Any]:
        match ask:
            case LinkAsk(_, _, "load", (factory,)):
                return self._load(factory)
            case LinkAsk(_, of, "open", given):
                return self._open(of, *given)
            case LinkAsk(number, of, "respond", given):
                return self._respond(number, of, *given)
            case LinkAsk(number, of, "close", ()):
                return self._close(number, of)
        return self._call(ask)

    async def _load(self, factory: str) -> Limits:
        module, name = factory.split(":")
        engine: Engine = await getattr(importlib.import_module(module), name)()
        heap.settle()
        own_process.loaded()
        self._engine = engine
        return engine.limits

    async def _open(self, of: int, grant: VoiceGrant, reference: Reference, trace: str | None) -> None:
        if self._engine is None:
            raise EngineLost("no engine was loaded before this conversation")
        enter(trace)
        self._conversations[of] = await self._engine.open(grant, reference)
        self._traces[of] = trace

    async def _call(self, ask: LinkAsk) -> Any:
        enter(self._traces.get(ask.of))
        return await getattr(self._whom(ask.of), ask.method)(*ask.given)

    async def _respond(self, number: int, of: int, *given: Any) -> None:
        enter(self._traces.get(of))
        room = self._room[number] = asyncio.Semaphore(AHEAD)
        conversation = cast("Conversation", self._whom(of))
        async with contextlib.aclosing(conversation.respond(*given)) as outputs:  # type: ignore[type-var]
            async for output in outputs:
                await room.acquire()
                self.link.say(Output(number, output))

    async def _close(self, number: int, of: int) -> None:
        """Whatever a conversation was about ends first, also its opening."""
        tasks = [task for n, (whose, task) in self._asked.items() if whose == of and n != number]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if of == ENGINE:
            if self._engine is not None:
                await self._engine.close()
            self._closed = True
        elif (conversation := self._conversations.pop(of, None)) is not None:
            self._traces.pop(of, None)
            await conversation.close()

    def _done(self, number: int, task: asyncio.Task[Any]) -> None:
        del self._asked[number]
        self._room.pop(number, None)
        if task.cancelled():
            self.link.say(LinkAnswer(number, None, None))
        elif (error := task.exception()) is not None:
            self.link.say(LinkAnswer(number, None, _told(error)))
        else:
            self.link.say(LinkAnswer(number, task.result(), None))


def _told(error: BaseException) -> EngineError:
    """An error as the server can have it: ours as it is, another by its words, since it may be of a package
    that the server does not load."""
    if isinstance(error, EngineError) and type(error).__module__ == errors.__name__:
        return error
    return EngineError(f"{type(error).__name__}: {error}")


async def work(fd: int) -> None:
    """Until the link ends."""
    watch_loop()
    worker = Worker()
    await asyncio.get_running_loop().create_unix_connection(
        lambda: worker.link, sock=socket.socket(fileno=fd)
    )
    await worker.left.wait()


def main() -> None:
    core_files.leave_none()
    json_log.configure("engine")
    own_process.begin(int(sys.argv[2]))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    asyncio.run(work(int(sys.argv[1])))
    sys.stderr.flush()
    os._exit(0)  # to take apart 400,000 objects, one by one, is of no use to anybody


if __name__ == "__main__":
    main()
