"""Which errors end the engine's process, which are one caller's, and what becomes of the others."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Literal

import pytest
import torch
from torch import Tensor

from model.chroma.network.weights import Chroma
from model.chroma.serving import chat, voices
from model.chroma.serving.conductor import Spoken
from model.chroma.serving.engine import ChromaEngine
from model.chroma.serving.engine_settings import EngineSettings
from model.chroma.serving.fates import fate, hung_after_s, told
from model.chroma.serving.reply import Reply
from model.chroma.serving.schedule import Kind
from model.errors import EngineBusy, EngineError
from model.own_process import Cause
from tests.model.chroma.serving.test_conductor import Band, busy, feed, hear
from tests.model.chroma.serving.test_conversation import FRAME_S, Opener, noise, opened, reference_of

__all__ = ["opened"]

ILLEGAL = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously"
OTHER_WORK = [Kind.PREFILL, Kind.HEARING, Kind.VOICE, Kind.SLOT, Kind.GARBAGE]


@pytest.mark.parametrize(
    ("error", "in_a_step", "elsewhere"),
    [
        (torch.AcceleratorError(ILLEGAL), Cause.DEVICE, Cause.DEVICE),
        (RuntimeError("CUDA error: device-side assert triggered"), Cause.DEVICE, Cause.DEVICE),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), Cause.DEVICE, Cause.DEVICE),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), Cause.DEVICE, Cause.DEVICE),
        (RuntimeError("CUDA driver error: unspecified launch failure"), Cause.DEVICE, Cause.DEVICE),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access"), Cause.DEVICE, Cause.DEVICE),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), Cause.MEMORY, "refused"),
        (torch.AcceleratorError("CUDA error: out of memory"), Cause.MEMORY, "refused"),
        (RuntimeError("Triton Error [CUDA]: out of memory"), Cause.MEMORY, "refused"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), Cause.MEMORY, "refused"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), Cause.MEMORY, "refused"),
        (MemoryError(), Cause.MEMORY, "refused"),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), Cause.STEP, "told"),
        (RuntimeError("found at least two devices, cuda:0 and cpu!"), Cause.STEP, "told"),
        (ZeroDivisionError("division by zero"), Cause.STEP, "told"),
        (ValueError("CUDA error: as somebody said on the phone"), Cause.STEP, "told"),
        (EngineError("5000 positions are more than a context of 4096 takes"), Cause.STEP, "told"),
    ],
)
def test_what_an_error_ends(
    error: Exception, in_a_step: Cause, elsewhere: Cause | Literal["refused", "told"]
) -> None:
    assert fate(error, Kind.FRAME) is in_a_step
    for kind in OTHER_WORK:
        assert fate(error, kind) == elsewhere


def test_every_kind_of_work_is_in_the_table() -> None:
    assert {Kind.FRAME, *OTHER_WORK} == {*Kind}


def test_a_gpu_hangs_after_seconds_and_a_cpu_may_take_its_time() -> None:
    for kind in Kind:
        gpu, cpu = (hung_after_s(kind, torch.device(name)) for name in ("cuda:1", "cpu"))
        assert 5 <= gpu <= cpu / 10
    assert hung_after_s(Kind.FRAME, torch.device("cuda")) < 8, "a hall gives an engine up then"


def test_an_error_is_told_in_a_line_and_only_torch_is_quoted() -> None:
    def raised(error: Exception) -> Exception:
        try:
            raise error
        except Exception as found:
            return found

    said = told(raised(torch.AcceleratorError(ILLEGAL)))
    assert said.startswith(
        "AcceleratorError: CUDA error: an illegal memory access was encountered (test_fates"
    )
    assert "\n" not in said
    assert "my card" not in told(raised(KeyError("my card is 4929")))
    assert told(KeyError("x")) == "KeyError"


# ── in the conductor ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def band() -> AsyncIterator[Band]:
    made = Band()
    yield made
    made.gate.set()
    await made.close()


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (torch.AcceleratorError(ILLEGAL), "the device failed"),
        (torch.OutOfMemoryError("CUDA out of memory"), "a step ran out of the device's memory"),
        (ZeroDivisionError(), "a step failed, and what it left behind is unknown"),
    ],
)
def test_a_step_that_fails_ends_the_engine(error: Exception, why: str) -> None:
    """In a process that is not its own by an error that nobody catches."""

    class Failing(Band):
        def _step(self, replies: list[Reply]) -> list[Spoken]:
            raise error

    async def work() -> None:
        await hear(Failing(), Reply(0, 3))

    with pytest.raises(SystemExit, match=f"chroma.conductor failed: EngineEnds: {why}"):
        asyncio.run(work())


def test_a_device_that_fails_in_other_work_ends_the_engine_too() -> None:
    def fail() -> None:
        raise torch.AcceleratorError(ILLEGAL)

    async def work() -> None:
        await Band().do(Kind.HEARING, 1, fail)

    with pytest.raises(
        SystemExit, match=r"the device failed.*hearing: AcceleratorError: CUDA error: an illegal"
    ):
        asyncio.run(work())


class Tight(Band):
    """Memory holds a prefill of so many slots at once, and none of slot 9's; or so many chunks."""

    def __init__(self, holds: int) -> None:
        super().__init__()
        self.holds = holds
        self.taken: list[weakref.ref[Tensor]] = []

    def _prefill(self, fresh: Mapping[int, Tensor]) -> None:
        taken = torch.zeros(1000)
        self.taken.append(weakref.ref(taken))
        if len(fresh) > self.holds or 9 in fresh:
            raise torch.OutOfMemoryError("CUDA out of memory")
        super()._prefill(fresh)

    def _encode(self, mels: list[Tensor]) -> list[Tensor]:
        taken = torch.zeros(1000)
        self.taken.append(weakref.ref(taken))
        if len(mels) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super()._encode(mels)


@pytest.fixture
def uncollected() -> Iterator[None]:
    """What only a collection would free lives on."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def refused(work: Callable[[], object], band: Band, kind: Kind) -> str:
    with pytest.raises(EngineBusy) as busy:
        await band.do(kind, 1, work)
    return str(busy.value)


@pytest.mark.usefixtures("uncollected")
async def test_a_pass_that_memory_does_not_hold_goes_on_one_by_one() -> None:
    band = Tight(2)
    band.steps.slots.thinker.lengths.extend([0, 0])
    async with busy(band):
        tasks = [asyncio.create_task(feed(band, slot)) for slot in (1, 9, 3)]
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in found] == [type(None), EngineBusy, type(None)]
    assert band.fed == [[1], [3]]
    assert band.cut == [1, 9, 3], "as they were before the pass"
    assert len(band.taken) == 4
    assert not [one for one in band.taken if one() is not None], "what it took is free"
    assert 'out_of_memory_total{phase="prefill"} 1.0' in band.meters.show({}, {})
    assert await hear(band, Reply(1, 3)) == [1, 2, 3], "the others go on"
    await band.close()


@pytest.mark.usefixtures("uncollected")
async def test_hearing_that_memory_does_not_hold_goes_on_one_by_one() -> None:
    band = Tight(3)
    async with busy(band):
        tasks = [
            asyncio.create_task(band.hear([torch.full((2, 2), float(number))] * count, lambda: True))
            for number, count in ((1, 2), (2, 4), (3, 3))
        ]
    found = await asyncio.gather(*tasks, return_exceptions=True)
    first, second, third = found
    assert isinstance(second, EngineBusy)
    for heard, expected in ((first, [1.0, 1.0]), (third, [3.0, 3.0, 3.0])):
        assert isinstance(heard, list)
        assert [float(token) for token in heard] == expected
    assert not [one for one in band.taken if one() is not None], "what it took is free"
    assert 'out_of_memory_total{phase="hearing"} 1.0' in band.meters.show({}, {})
    await band.close()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("kind", [Kind.SLOT, Kind.VOICE])
async def test_work_that_memory_does_not_hold_is_refused_and_frees_what_it_took(
    band: Band, kind: Kind
) -> None:
    taken: list[weakref.ref[Tensor]] = []

    def work() -> None:
        first = torch.zeros(1000)
        taken.append(weakref.ref(first))

        def deeper() -> None:
            second = torch.zeros(1000)
            taken.append(weakref.ref(second))
            raise torch.OutOfMemoryError("CUDA out of memory")

        deeper()

    assert await refused(work, band, kind) == (
        f"memory: the device has too little for this conversation now ({kind})"
    )
    assert [one() for one in taken] == [None, None]
    assert f'out_of_memory_total{{phase="{kind}"}} 1.0' in band.meters.show({}, {})
    assert await band.do(kind, 1, lambda: "next") == "next"


async def test_a_slot_that_cannot_be_made_ready_fails_alone(band: Band) -> None:
    def lacking() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    async def begin(reply: Reply, stand_by: Callable[[], None]) -> list[int | None]:
        return [frame.word async for frame in band.perform(reply, stand_by)]

    replies = [Reply(slot, 3) for slot in range(3)]
    async with busy(band):
        tasks = [
            asyncio.create_task(begin(replies[0], lambda: None)),
            asyncio.create_task(begin(replies[1], lacking)),
            asyncio.create_task(begin(replies[2], lambda: None)),
        ]
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert found[0] == found[2] == [1, 2, 3]
    assert isinstance(found[1], EngineBusy)
    assert replies[1].end == "failed"
    assert all(reply is not replies[1] for step in band.stepped for reply in step)


# ── in the engine ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def engine(toy_model: Chroma) -> AsyncIterator[ChromaEngine]:
    made = ChromaEngine(
        toy_model,
        chat.stand_in(toy_model.config),
        EngineSettings(conversations=2, context=400, reply_s=24 * FRAME_S),
    )
    yield made
    await made.close()


async def spoken(engine: ChromaEngine, opened: Opener, call: str) -> int:
    """Outputs of a call's first reply."""
    conversation = await opened(engine, call)
    conversation.hear(noise(0.3))
    await conversation.commit()
    count = 0
    async for _ in conversation.respond("one"):
        count += 1
    await conversation.close()
    return count


async def test_a_voice_that_memory_does_not_hold_is_refused_and_its_slot_is_free(
    engine: ChromaEngine, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    for part in ("encoding", "encode_piece", "prepare"):
        with monkeypatch.context() as patched:
            patched.setattr(voices, part, lacking)
            with pytest.raises(EngineBusy, match=r"memory: .* \(voice\)"):
                await opened(engine, "a", reference_of(noise(0.02, 1)))
        assert engine.free == 2
    assert 'out_of_memory_total{phase="voice"} 3.0' in await engine.metrics()
    assert await spoken(engine, opened, "b")


async def test_speech_that_memory_does_not_hold_is_refused_and_heard_when_it_does(
    engine: ChromaEngine, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    conversation = await opened(engine, "a")
    conversation.hear(noise(0.3))
    with monkeypatch.context() as patched:
        patched.setattr(engine.steps, "prefill", lacking)
        with pytest.raises(EngineBusy, match=r"memory: .* \(prefill\)"):
            await conversation.commit()
        with pytest.raises(EngineBusy, match=r"memory: .* \(prefill\)"):
            await anext(conversation.respond("one"))
    assert await spoken(engine, opened, "b"), "others go on"
    assert [output async for output in conversation.respond("two")]
    await conversation.close()
    assert engine.free == 2


async def test_what_was_not_heard_while_somebody_spoke_is_heard_at_the_end(
    engine: ChromaEngine, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    known = []
    for fails in (True, False):
        conversation = await opened(engine, "a")
        with monkeypatch.context() as patched:
            if fails:
                patched.setattr(engine.steps, "encoder", lacking)
            conversation.hear(noise(2.5))
            await conversation._tasks.join()
        conversation.hear(noise(0.5, 2))
        await conversation.commit()
        known.append(engine.slots.thinker.lengths[conversation._slot])
        await conversation.close()
    assert known[0] == known[1] > 0
    assert 'out_of_memory_total{phase="hearing"} 1.0' in await engine.metrics()
