"""The ears' process: `python -m model.ears.ears_process --uds PATH`. One per house.

A thread per core hears; one event loop keeps the queue. Whoever is not patient goes first; at most
`MOST_WAITING` questions a thread wait, the next is told at once that the ears are busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final, cast

import click
import structlog

from consent import core_files
from consent.data_dir import default_data_dir
from consent.models.model_files import models_dir
from model import heap, json_log
from model.api import RATE_HZ
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
from model.ears.hearers import Hearers
from model.errors import EarsError
from model.tasks import Tasks, watch_loop
from watermark.pcm import float_from_bytes

log = structlog.get_logger("ears")

MOST_THREADS: Final = 16
"""However many cores there are: they hear hundreds of callers."""
MOST_WAITING: Final = 8
"""Questions that wait for each thread: about 1.6 s."""
BUSY_AGAIN_S: Final = 10.0
"""Between two lines of the log that say so."""
USUAL_S: Final = 0.25
"""What a question is thought to take before any was answered."""
INERTIA: Final = 0.9
"""How much of the mean time that a question takes stays when another one is known."""


@dataclass(slots=True, eq=False)
class EarQuestion:
    """Somebody's question, from its arrival to its answer."""

    connection: Connection
    number: int
    work: Callable[[], EarMessage]
    refusal: EarMessage
    """the answer when there is no room"""
    patient: bool
    taken_back: threading.Event = field(default_factory=threading.Event)


class EarsServer:
    """The queue before the threads that hear."""

    def __init__(self, hearers: Hearers, workers: int) -> None:
        self._hearers = hearers
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, "ears")
        self._waiting: deque[EarQuestion] = deque()
        self._patient: deque[EarQuestion] = deque()
        self._busy = 0
        self._running: set[EarQuestion] = set()
        self._busy_told = -math.inf
        self._takes_s = USUAL_S
        self._connections: set[Connection] = set()
        self._told = Queue(0, 0.0)
        self._tasks = Tasks()

    def connection(self) -> Connection:
        """For whoever connects."""
        return Connection(self)

    def entered(self, connection: Connection) -> None:
        """Somebody connected."""
        self._connections.add(connection)
        connection.say(self._told)

    def left(self, connection: Connection) -> None:
        """Somebody is gone; nobody wants their answers."""
        self._connections.discard(connection)
        for question in self._running:
            if question.connection is connection:
                question.taken_back.set()
        for queue in (self._waiting, self._patient):
            for question in [one for one in queue if one.connection is connection]:
                queue.remove(question)
        self._tell()

    def take(self, connection: Connection, message: EarMessage, body: bytes) -> None:
        """One message. Raises `EarsError` at what nobody may say."""
        hearers = self._hearers
        match message:
            case Hear(number, language, phrases, patient):
                taken_back = threading.Event()
                work: Callable[[], EarMessage] = partial(
                    _hear, hearers, number, body, language, phrases, lambda: not taken_back.is_set()
                )
                refusal: EarMessage = Heard(number, "", language, 0.0, len(body) / 2 / RATE_HZ, "busy")
                self._enqueue(EarQuestion(connection, number, work, refusal, patient, taken_back))
            case Which(number, among):
                work = partial(_which, hearers, number, body, among)
                self._enqueue(EarQuestion(connection, number, work, SpokenLanguage(number, "", 0.0), False))
            case Sayable(number, phrases):
                work = partial(_sayable, hearers, number, phrases)
                self._enqueue(EarQuestion(connection, number, work, Unsayable(number, ()), True))
            case Forget(number):
                self._forget(connection, number)
            case _:
                raise EarsError(f"{type(message).__name__} is for those who ask")

    def _enqueue(self, question: EarQuestion) -> None:
        queue = self._patient if question.patient else self._waiting
        if len(queue) >= MOST_WAITING * self._workers:
            if time.monotonic() - self._busy_told > BUSY_AGAIN_S:
                self._busy_told = time.monotonic()
                log.warning("ears.busy", waiting=len(queue), wait_s=round(self.wait_s, 2))
            question.connection.say(question.refusal)
            return
        queue.append(question)
        self._begin()
        self._tell()

    def _forget(self, connection: Connection, number: int) -> None:
        for question in self._running:
            if (question.connection, question.number) == (connection, number):
                question.taken_back.set()
        for queue in (self._waiting, self._patient):
            for question in [one for one in queue if (one.connection, one.number) == (connection, number)]:
                queue.remove(question)
        self._tell()

    @property
    def wait_s(self) -> float:
        """Until a question that came now would be begun, as far as can be told."""
        before = len(self._waiting) + self._busy - self._workers + 1
        return max(0.0, (before - 0.5) * self._takes_s / self._workers)

    def _next(self) -> EarQuestion | None:
        if self._busy >= self._workers:
            return None
        if self._waiting:
            return self._waiting.popleft()
        # the patient leave one thread to those who are not, where there are several
        if self._patient and self._busy < max(1, self._workers - 1):
            return self._patient.popleft()
        return None

    def _begin(self) -> None:
        while (question := self._next()) is not None:
            self._busy += 1
            self._running.add(question)
            self._tasks.short(self._answer(question), "ears.answer")

    async def _answer(self, question: EarQuestion) -> None:
        began = time.monotonic()
        answer = question.refusal
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._pool, question.work)
        except Exception:
            if isinstance(answer, Heard):
                answer = replace(answer, refused="failed")
            raise
        finally:
            question.connection.say(answer)
            self._running.discard(question)
            if isinstance(answer, Heard) and not question.taken_back.is_set():
                self._takes_s = INERTIA * self._takes_s + (1 - INERTIA) * (time.monotonic() - began)
            self._busy -= 1
            self._begin()
            self._tell()

    def _tell(self) -> None:
        now = Queue(len(self._waiting), round(self.wait_s, 3))
        if now != self._told:
            self._told = now
            for connection in self._connections:
                connection.say(now)


class Connection(asyncio.Protocol):
    """One who asks."""

    def __init__(self, server: EarsServer) -> None:
        self._server = server
        self._reader = EarReader(self._take)
        self._transport: asyncio.Transport | None = None

    def say(self, message: EarMessage) -> None:
        """Sends it; to one who is gone, nothing."""
        if self._transport is not None:
            self._transport.write(written(message))

    def _take(self, message: EarMessage, body: bytes) -> None:
        self._server.take(self, message, body)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.entered(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
        except EarsError as error:
            log.error("ears.cut_off", error=str(error))
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._server.left(self)


def _hear(
    hearers: Hearers,
    number: int,
    body: bytes,
    language: str,
    phrases: tuple[str, ...],
    wanted: Callable[[], bool],
) -> Heard:
    words = hearers.words(float_from_bytes(body), language, phrases, wanted)
    return Heard(number, words.text, words.language, words.confidence, words.sounded_s, words.refused)


def _which(hearers: Hearers, number: int, body: bytes, among: tuple[str, ...]) -> SpokenLanguage:
    return SpokenLanguage(number, *hearers.language(float_from_bytes(body), among))


def _sayable(hearers: Hearers, number: int, phrases: tuple[str, ...]) -> Unsayable:
    return Unsayable(number, tuple(hearers.unsayable(phrases)))


async def serve(path: Path, models: Path, *, until_stdin_ends: bool, languages: bool) -> None:
    """Hears until SIGTERM, or until the process that started it is gone."""
    watch_loop()
    workers = min(MOST_THREADS, len(os.sched_getaffinity(0)))
    hearers = await asyncio.to_thread(Hearers, models, workers, languages=languages)
    server = EarsServer(hearers, workers)
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    if until_stdin_ends:
        await loop.connect_read_pipe(lambda: _Pipe(over), sys.stdin)
    with contextlib.suppress(FileNotFoundError):  # of one that was killed
        os.unlink(path)
    listener = await loop.create_unix_server(server.connection, str(path))
    heap.settle()
    try:
        await over.wait()
    finally:
        listener.close()
        os._exit(0)  # threads that still hear do so for nobody


class _Pipe(asyncio.Protocol):
    """Whose end is the end of whoever started this process."""

    def __init__(self, over: asyncio.Event) -> None:
        self._over = over

    def connection_lost(self, error: Exception | None) -> None:
        self._over.set()


@click.command()
@click.option("--uds", type=click.Path(path_type=Path), required=True, help="listen on this unix socket")
@click.option(
    "--models", type=click.Path(path_type=Path), envvar="VOICEGATE_MODELS", help="where weights lie"
)
@click.option("--until-stdin-ends", is_flag=True, help="end with the process that started this one")
@click.option("--languages", is_flag=True, help="callers' languages will be asked for: load that at once")
def main(uds: Path, models: Path | None, until_stdin_ends: bool, languages: bool) -> None:
    """Hears words for all processes of one house."""
    core_files.leave_none()
    json_log.configure("ears")
    data_dir = Path(os.environ.get("VOICEGATE_DATA_DIR") or default_data_dir())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started it
    directory = models_dir(data_dir, models)
    asyncio.run(serve(uds, directory, until_stdin_ends=until_stdin_ends, languages=languages))


if __name__ == "__main__":
    main()
