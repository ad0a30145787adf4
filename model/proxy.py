"""Any engine in a process of its own (`model.worker`), seen from its server as `model.api` has it.

The server keeps sockets, JSON, base64 and grants; the process has the weights, and an interpreter's lock that
it shares with nobody. Errors come across as themselves; what is not of `model.errors` comes as `EngineError`.
A reply's listener is waited for: at most `model.link.AHEAD` outputs are under way to it. A reply that is
cancelled has said them, until it is truncated.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Self

import structlog

from consent.grants.grant import VoiceGrant
from model.api import Floats, HistoryItem, Limits, Output, Reference, SessionConfig, Understood
from model.errors import EngineError, EngineLost
from model.link import ENGINE, ROOM, Link, LinkAnswer, LinkAsk, LinkTell, Message, More, Stop
from model.link import Output as Yielded
from model.own_process import WHY
from model.tasks import Tasks
from model.trace_context import current

log = structlog.get_logger("engine")

CLOSE_WITHIN_S: Final = 3.0
END_WITHIN_S: Final = 1.0
"""Then it is killed: the supervisor gives its server 5 s for both."""
REASON_BYTES: Final = 16_384


class EngineProxy:
    """Implements `model.api.Engine`.

    `died` is called when the process ends unasked, before those who wait for it get `EngineLost`: a server
    that ends itself there tells its clients nothing, as when it is killed.
    """

    limits: Limits

    def __init__(self, process: asyncio.subprocess.Process, reasons: int, died: Callable[[], None]) -> None:
        """`reasons`: the pipe through which the process says why it ends; closed here."""
        self.link = Link(self._take, self._gone)
        self._process = process
        self._reasons = reasons
        self._died = died
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._outputs: dict[int, asyncio.Queue[Yielded | LinkAnswer]] = {}
        self._closing = False
        self._over = asyncio.Event()
        """the process is, and everyone who waited for it knows"""
        self._tasks = Tasks()

    @classmethod
    async def start(cls, factory: str, died: Callable[[], None]) -> Self:
        """The engine that `factory` ("module:function", a coroutine function) makes, in a process of its own.

        Raises what `factory` does, and `EngineLost` when the process ends meanwhile.
        """
        ours, theirs = socket.socketpair()
        reasons, reason = os.pipe()
        os.set_blocking(reasons, False)
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "model.worker", str(theirs.fileno()), str(reason),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), reason),
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # it finds what we find
                )  # fmt: skip
        finally:
            os.close(reason)
        engine = cls(process, reasons, lambda: None)
        await asyncio.get_running_loop().create_unix_connection(lambda: engine.link, sock=ours)
        try:
            engine.limits = await engine.ask(ENGINE, "load", factory)
        except BaseException:
            await engine.close()
            raise
        engine._died = died  # until here its end is told by what is raised
        return engine

    # ── what is said ─────────────────────────────────────────────────────────────────────────────────

    def tell(self, of: int, method: str, *given: Any) -> None:
        """Calls a method that answers nothing, in order with all else."""
        self.link.say(LinkTell(of, method, given))

    async def ask(self, of: int, method: str, *given: Any) -> Any:
        """What the method answers; cancelled here it is cancelled there. Raises `EngineError`."""
        answer = asyncio.get_running_loop().create_future()
        number = self._ask(of, method, given)
        self._answers[number] = answer
        try:
            return await answer
        except asyncio.CancelledError:
            self.link.say(Stop(number))
            raise
        finally:
            del self._answers[number]

    async def outputs(self, of: int, method: str, *given: Any) -> AsyncIterator[Any]:
        """What the method yields; closed here it is closed there before this returns."""
        queue: asyncio.Queue[Yielded | LinkAnswer] = asyncio.Queue()
        number = self._ask(of, method, given)
        self._outputs[number] = queue
        taken, over = 0, False
        try:
            while isinstance(said := await queue.get(), Yielded):
                yield said.output
                taken += 1
                if taken % ROOM == 0:
                    self.link.say(More(number))
            over = True
            if said.error is not None:
                raise said.error
        finally:
            if not over:
                self.link.say(Stop(number))
                while isinstance(await queue.get(), Yielded):
                    pass
            del self._outputs[number]

    def _ask(self, of: int, method: str, given: tuple[Any, ...]) -> int:
        if self._over.is_set():
            raise EngineLost("the engine's process is over")
        number = next(self._numbers)
        self.link.say(LinkAsk(number, of, method, given))
        return number

    def _take(self, message: Message) -> None:
        match message:
            case Yielded(number, _):
                if number in self._outputs:
                    self._outputs[number].put_nowait(message)
            case LinkAnswer(number, result, error):
                if number in self._outputs:
                    self._outputs[number].put_nowait(message)
                elif number in self._answers and not self._answers[number].done():
                    answer = self._answers[number]
                    answer.set_result(result) if error is None else answer.set_exception(error)

    def _gone(self) -> None:
        """The link is broken."""
        self._tasks.short(self._end(), "engine.end")

    async def _end(self) -> None:
        status = await self._status()
        reason, *where = self._said().split("\n", 1)
        why = WHY.get(status, "") if status is not None else "it cannot be ended: a driver holds it"
        if not self._closing:
            log.critical("engine.process_died", pid=self._process.pid, status=status, why=why,
                         reason=reason, where="".join(where))  # fmt: skip
            self._died()
        lost = EngineLost(f"the engine's process ended with {status}{f': {why}' if why else ''}")
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(lost)
        for number, queue in self._outputs.items():
            queue.put_nowait(LinkAnswer(number, None, lost))
        os.close(self._reasons)
        self._over.set()

    async def _status(self) -> int | None:
        """The process's, once it is over; None when it cannot be ended (it waits in the kernel)."""
        for _ in range(2):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_WITHIN_S):
                    return await self._process.wait()
            self._process.kill()  # whatever it still does, nobody can hear it
        return None

    def _said(self) -> str:
        """What the process said of its end: a line, then where its threads were; or nothing."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self._reasons, REASON_BYTES).decode(errors="replace").strip()
        return ""

    # ── model.api.Engine ─────────────────────────────────────────────────────────────────────────────

    async def open(self, grant: VoiceGrant, reference: Reference) -> ConversationProxy:
        """A conversation in the grant's voice. Raises `EngineBusy` and what else the engine does."""
        of = next(self._numbers)
        try:
            await self.ask(of, "open", grant, reference, current())
        except asyncio.CancelledError:  # its slot may have been taken already
            self.link.say(LinkAsk(next(self._numbers), of, "close", ()))
            raise
        return ConversationProxy(self, of)

    def forget(self, voice_hash: str) -> None:
        self.tell(ENGINE, "forget", voice_hash)

    async def metrics(self) -> str:
        return str(await self.ask(ENGINE, "metrics"))

    async def close(self) -> None:
        """The engine is closed and its process over; idempotent."""
        if not self._closing:
            self._closing = True
            with contextlib.suppress(EngineError, TimeoutError):
                async with asyncio.timeout(CLOSE_WITHIN_S):
                    await self.ask(ENGINE, "close")
            self.link.cut()
        await self._over.wait()


class ConversationProxy:
    """Implements `model.api.Conversation`. `of` is its number."""

    def __init__(self, engine: EngineProxy, of: int) -> None:
        self._engine = engine
        self._of = of
        self._closed = False

    async def configure(self, config: SessionConfig) -> None:
        await self._engine.ask(self._of, "configure", config)

    def hear(self, pcm: Floats) -> None:
        self._engine.tell(self._of, "hear", pcm)

    async def commit(self) -> Understood:
        understood: Understood = await self._engine.ask(self._of, "commit")
        return understood

    def clear(self) -> None:
        self._engine.tell(self._of, "clear")

    def respond(self, item_id: str, say: str | None = None) -> AsyncIterator[Output]:
        return self._engine.outputs(self._of, "respond", item_id, say)

    async def truncate(self, item_id: str, heard_s: float) -> str:
        return str(await self._engine.ask(self._of, "truncate", item_id, heard_s))

    async def restore(self, item: HistoryItem) -> None:
        await self._engine.ask(self._of, "restore", item)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            with contextlib.suppress(EngineLost):
                # whoever is not there to see the end does not stop it
                await asyncio.shield(self._engine.ask(self._of, "close"))
