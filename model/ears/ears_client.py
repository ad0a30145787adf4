"""The ears as everybody else has them: sound in, words out, none of the work in this process.

`VOICEGATE_EARS` names the socket of the house's ears (`model.ears.ears_process`), which the gateway's
supervisor keeps. A process without it, an engine that runs by itself, starts ears of its own and keeps them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self, cast

import structlog

from model.api import MAX_UTTERANCE_S, RATE_HZ, Floats
from model.ears import ONE_THREAD, SOCKET_VARIABLE
from model.ears.ear_messages import (
    EarMessage,
    EarReader,
    Forget,
    Hear,
    Heard,
    Queue,
    Sayable,
    SpokenLanguage,
    Unsayable,
    Which,
    written,
)
from model.ears.words_heard import Words
from model.errors import EarsError
from model.tasks import Tasks
from watermark.pcm import bytes_from_float

log = structlog.get_logger("ears")

READY_S: Final = 60.0
"""How long the first weights may take to load."""
PATIENCE_S: Final = 3.0
"""How long a question waits for ears that are being started again."""
ANSWER_S: Final = 20.0
"""How long an answer may take: a full queue, and a minute of sound."""
MOST_WAIT_S: Final = 0.9
"""Who calls while callers wait longer than this to be heard is one too many."""
AGAIN_S: Final = 0.05
"""Between two tries to reach them."""


class Ears:
    """The house's ears. Never raises for a lost process: nothing was heard then."""

    def __init__(self, socket: Path) -> None:
        """Asks the ears that listen on this socket; they may come later, and go."""
        self._socket = socket
        self._tasks = Tasks()
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[EarMessage]] = {}
        self._wire: _Wire | None = None
        self._there = asyncio.Event()
        self._queue = Queue(0, 0.0)
        self._tasks.lasting(self._keep_reaching, "ears.reach")

    @classmethod
    async def of_this_house(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """The ears that `environ` names, else ears of this process' own; ready to hear.

        Raises `EarsError` when they do not start.
        """
        ears = cls(Path(environ[SOCKET_VARIABLE])) if SOCKET_VARIABLE in environ else _OwnEars()
        try:
            await ears.ready()
        except BaseException:
            await ears.close()
            raise
        return cast("Self", ears)

    @property
    def wait_s(self) -> float:
        """How long a question that were asked now would wait before it is begun, as far as can be told."""
        return self._queue.wait_s

    @property
    def waiting(self) -> int:
        """How many questions wait to be begun."""
        return self._queue.waiting

    async def ready(self) -> None:
        """Returns when somebody hears. Raises `EarsError` when nobody does in time."""
        try:
            async with asyncio.timeout(READY_S):
                await self._there.wait()
        except TimeoutError:
            raise EarsError(f"the ears do not listen on {self._socket}; their log says why") from None

    async def transcribe(
        self,
        pcm: Floats,
        language: str | None = "en",
        *,
        phrases: Sequence[str] = (),
        patient: bool = False,
    ) -> Words:
        """The words of `pcm` (float32 24 kHz, at most 60 s of it), None: in whatever language they are.

        `phrases` (lower case) are what may be said, for installations that know nothing but phrases. Who is
        `patient` waits behind all who are not. Cancelling this takes the question back.
        """
        pcm = pcm[: round(MAX_UTTERANCE_S * RATE_HZ)]
        number = next(self._numbers)
        answer = await self._ask(Hear(number, language or "", tuple(phrases), patient), number, pcm)
        if not isinstance(answer, Heard):
            return Words("", language or "", 0.0, len(pcm) / RATE_HZ, "lost")
        return Words(answer.text, answer.language, answer.confidence, answer.sounded_s, answer.refused)

    async def language(self, pcm: Floats, among: Sequence[str]) -> tuple[str, float]:
        """Which of the languages (ISO 639-1) `pcm` (float32 24 kHz) speaks, and how likely.

        It may be another one, where that is far likelier than all of them (`model.ears.language_choice`).
        Empty when it cannot be told: not clear, too short (1.5 s), no weights, lost ears.
        """
        number = next(self._numbers)
        answer = await self._ask(Which(number, tuple(among)), number, pcm[: round(MAX_UTTERANCE_S * RATE_HZ)])
        return (answer.language, answer.probability) if isinstance(answer, SpokenLanguage) else ("", 0.0)

    async def unsayable(self, phrases: Sequence[str]) -> list[str]:
        """Those of `phrases` that nobody will be heard saying."""
        number = next(self._numbers)
        answer = await self._ask(Sayable(number, tuple(phrases)), number)
        return list(answer.phrases) if isinstance(answer, Unsayable) else []

    def metrics(self) -> str:
        """How busy they are, as Prometheus' text."""
        gauges = (
            ("voicegate_ears_waiting", "Questions that wait to be heard", self.waiting),
            ("voicegate_ears_wait_seconds", "How long another one would wait", self.wait_s),
        )
        return "".join(
            f"# HELP {name} {text}\n# TYPE {name} gauge\n{name} {value:g}\n" for name, text, value in gauges
        )

    async def close(self) -> None:
        """Asks no more."""
        await self._tasks.stop()
        if self._wire is not None:
            self._wire.cut()

    async def _ask(self, message: EarMessage, number: int, pcm: Floats | None = None) -> EarMessage | None:
        """The answer, None when the ears are lost before it comes."""
        if self._wire is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    await self._there.wait()
        if self._wire is None:
            log.error("ears.away", remedy="the ears are started again; what is said meanwhile is lost")
            return None
        answer: asyncio.Future[EarMessage] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            self._wire.say(message, b"" if pcm is None else bytes_from_float(pcm))
            async with asyncio.timeout(ANSWER_S):
                return await answer
        except TimeoutError:
            log.error("ears.slow", waited_s=ANSWER_S, remedy="see whether their process has a core to run on")
            if self._wire is not None:
                self._wire.say(Forget(number))
            return None
        except ConnectionError:
            log.error("ears.lost", remedy="the ears are started again; this utterance is lost")
            return None
        except asyncio.CancelledError:
            if self._wire is not None:
                self._wire.say(Forget(number))
            raise
        finally:
            del self._asked[number]

    def _take(self, message: EarMessage, _: bytes) -> None:
        match message:
            case Queue():
                self._queue = message
                self._there.set()
            case Heard(number) | SpokenLanguage(number) | Unsayable(number):
                answer = self._asked.get(number)
                if answer is not None and not answer.done():
                    answer.set_result(message)

    async def _keep_reaching(self) -> None:
        """Connects, and again whenever the connection is lost."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                _, wire = await loop.create_unix_connection(lambda: _Wire(self._take), str(self._socket))
            except OSError:  # not there yet, or not again
                await asyncio.sleep(AGAIN_S)
                continue
            self._wire = wire
            try:
                await wire.over.wait()
            finally:
                self._wire = None
                self._there.clear()
                self._queue = Queue(0, 0.0)
                for answer in self._asked.values():
                    if not answer.done():
                        answer.set_exception(ConnectionError("the ears are gone"))


class _Wire(asyncio.Protocol):
    """One connection to the ears."""

    def __init__(self, take: Callable[[EarMessage, bytes], None]) -> None:
        self._reader = EarReader(take)
        self._transport: asyncio.Transport | None = None
        self.over = asyncio.Event()

    def say(self, message: EarMessage, body: bytes = b"") -> None:
        if self._transport is not None:
            self._transport.write(written(message, body))

    def cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
        except EarsError as error:
            log.error("ears.cut_off", error=str(error))
            self.cut()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.over.set()


class _OwnEars(Ears):
    """Ears in a process of this one's own, which is kept and ends with it."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="voicegate-ears-"))
        self.process: asyncio.subprocess.Process | None = None
        super().__init__(self._folder / "ears.sock")
        self._tasks.lasting(self._keep, "ears.keep")

    async def _keep(self) -> None:
        while True:
            self.process = process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "model.ears.ears_process",
                "--uds", str(self._socket), "--until-stdin-ends",
                stdin=asyncio.subprocess.PIPE,  # ours to close: whatever ends us ends them
                # it finds what we find
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(sys.path)},
            )  # fmt: skip
            status = await process.wait()
            log.error("ears.died", pid=process.pid, status=status, remedy="they are started again")
            await asyncio.sleep(AGAIN_S)

    async def close(self) -> None:
        await super().close()
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
