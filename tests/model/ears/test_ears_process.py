"""The queue before the threads that hear: bounded, told; the patient are last, the forgotten unheard."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from model.api import RATE_HZ, Floats
from model.ears.ears_client import Ears
from model.ears.ears_process import MOST_WAITING, USUAL_S, EarsServer
from model.ears.words_heard import Words
from tests.needs import HANGS_S

THREADS = 2


@dataclass
class HeldHearers:
    """Threads that hear how long a sound is, each when it is let go."""

    begun: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    """whose sound nobody wanted to know any more"""
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def words(self, pcm: Floats, language: str, phrases: Sequence[str], wanted: Callable[[], bool]) -> Words:
        self.begun.append(len(pcm))
        assert self.go.acquire(timeout=HANGS_S)
        if not wanted():
            self.left.append(len(pcm))
        if len(pcm) == 666:
            raise RecursionError("what nobody expects")
        return Words(str(len(pcm)), language, 1.0, len(pcm) / RATE_HZ)


@dataclass
class House:
    hearers: HeldHearers
    server: EarsServer
    ears: Ears

    def ask(self, samples: int, patient: bool = False) -> asyncio.Task[Words]:
        return asyncio.ensure_future(self.ears.transcribe(np.zeros(samples, np.float32), patient=patient))

    async def until(self, what: str) -> None:
        """Waits until the expression, in which `house` is this one, is true."""
        async with asyncio.timeout(HANGS_S):
            while not eval(what, {"house": self}):  # noqa: ASYNC110 - threads tell no event
                await asyncio.sleep(0.01)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    hearers = HeldHearers()
    server = EarsServer(hearers, THREADS)  # type: ignore[arg-type]
    listener = await asyncio.get_running_loop().create_unix_server(server.connection, str(tmp_path / "s"))
    ears = Ears(tmp_path / "s")
    await ears.ready()
    yield House(hearers, server, ears)
    hearers.go.release(100)
    await ears.close()
    listener.close()


async def test_the_queue_is_bounded_and_its_wait_is_told(house: House) -> None:
    room = THREADS * (1 + MOST_WAITING)
    asked = [house.ask(100 + k) for k in range(room + 3)]
    refused = await asyncio.gather(*asked[room:])
    assert {(words.text, words.refused) for words in refused} == {("", "busy")}
    assert not any(one.done() for one in asked[:room])
    assert house.ears.waiting == THREADS * MOST_WAITING
    assert house.ears.wait_s == pytest.approx((THREADS * MOST_WAITING + 0.5) * USUAL_S / THREADS, abs=0.01)
    house.hearers.go.release(room)
    heard = await asyncio.gather(*asked[:room])
    assert [words.text for words in heard] == [str(100 + k) for k in range(room)]
    await house.until("house.ears.wait_s == 0 and house.ears.waiting == 0")


async def test_the_patient_come_last_and_leave_a_thread_free(house: House) -> None:
    asked = [house.ask(100), house.ask(101)]
    await house.until("len(house.hearers.begun) == 2")
    asked += [house.ask(200, patient=True), house.ask(201, patient=True), house.ask(102)]
    await house.until("house.ears.waiting == 1")
    house.hearers.go.release()
    await house.until("len(house.hearers.begun) == 3")
    assert house.hearers.begun[-1] == 102
    house.hearers.go.release(2)
    await house.until("len(house.hearers.begun) == 4")
    asked.append(house.ask(103))
    await house.until("len(house.hearers.begun) == 5")
    assert house.hearers.begun[3:] == [200, 103], "beside a patient one, who is not is heard at once"
    house.hearers.go.release(3)
    assert len(await asyncio.gather(*asked)) == 6
    assert house.hearers.begun[-1] == 201


async def test_what_is_taken_back_is_not_heard(house: House) -> None:
    asked = [house.ask(100), house.ask(101), house.ask(102), house.ask(103)]
    await house.until("house.ears.waiting == 2 and len(house.hearers.begun) == 2")
    for one in asked[1:]:
        one.cancel()
    await house.until("house.ears.waiting == 0")
    house.hearers.go.release(2)
    assert (await asked[0]).text == "100"
    await house.until("house.ears.wait_s == 0")
    await house.until("house.hearers.left == [101]")  # by its own thread, where it stood
    assert sorted(house.hearers.begun) == [100, 101]


async def test_nobody_is_heard_for_one_who_has_left(house: House) -> None:
    asked = [house.ask(100), house.ask(101), house.ask(102)]
    await house.until("house.ears.waiting == 1")
    assert house.ears._wire is not None
    house.ears._wire.cut()
    lost = await asyncio.gather(*asked)
    assert {words.refused for words in lost} == {"lost"}
    house.hearers.go.release(2)
    await house.ears.ready()
    await house.until("house.server._busy == 0")
    assert sorted(house.hearers.left) == sorted(house.hearers.begun)
    assert len(house.hearers.begun) == 2


async def test_what_fails_is_no_words_and_the_next_is_heard(house: House) -> None:
    house.hearers.go.release(2)
    failed = await house.ask(666)
    assert (failed.text, failed.refused) == ("", "failed")
    assert (await house.ask(100)).text == "100"
