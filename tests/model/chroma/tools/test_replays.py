"""`verify --graphed`: replays say what the step says, and a wrong capture is found.

A CPU has no CUDA graphs; a tape keeps what one keeps (`test_tape`), so what is proved is everything around a
graph: which tensors a step reads and writes, padded rows, copies, order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from gateway.cli.main import cli
from model.chroma.network.weights import Chroma
from model.chroma.serving.slots import Slots
from model.chroma.serving.steps import Steps
from model.chroma.tools import replays
from model.chroma.tools.golden import WAVE, read
from model.chroma.tools.tape import Tape, TapeRecorder


def command(*argv: str) -> Result:
    return CliRunner().invoke(cli, ["engine", "verify", "--graphed", *argv], prog_name="voicegate")


def test_replays_say_what_the_step_says(golden: Path) -> None:
    result = command(str(golden), "--case", "early_text_end", "--calls", "1,2")
    assert result.exit_code == 0, result.output
    assert "4 of 4 runs pass" in result.output
    assert result.output.count("staggered, 50 frames") == 2


def test_cases_in_one_batch_and_rounded_weights_too(golden: Path) -> None:
    few = ("--batched", "--case", "audio_end", "--case", "early_text_end", "--calls", "1")
    result = command(str(golden), *few, "--dtype", "bfloat16", "--weights", "int8")
    assert result.exit_code == 0, result.output
    assert "3 of 3 runs pass" in result.output


def test_words_and_codes_are_the_recorded_ones(golden: Path, chroma_a: Chroma) -> None:
    """A replay and a call that are wrong alike do not pass where the official answer is known."""
    (case,) = (case for case in read(golden) if case.name == "early_text_end")
    case.arrays["all_step_codes"] = case.arrays["all_step_codes"].copy()
    case.arrays["all_step_codes"][7, 3] += 1
    (verdict,) = replays.verify(chroma_a, [case], "streamed", official=True)
    assert verdict.equal == {"words": True, "codes": True, "end": True, "official": False}
    assert not verdict.passed


class StalePlan(TapeRecorder):
    """Recorded with another tensor than the one that the host writes."""

    def __call__(self, work: Callable[[], Any]) -> tuple[Tape, Any]:
        if isinstance(work, partial):
            work = partial(work.func, *(_other(one) for one in work.args))
        return super().__call__(work)


def _other(argument: Any) -> Any:
    return argument.clone() if isinstance(argument, Tensor) else argument


class StaleAnswer(TapeRecorder):
    """What is told is not what the replay fills."""

    def __call__(self, work: Callable[[], Any]) -> tuple[Tape, Any]:
        tape, told = super().__call__(work)
        return tape, _other(told)


class LastLost(TapeRecorder):
    """Something of the step was not recorded."""

    def __call__(self, work: Callable[[], Any]) -> tuple[Tape, Any]:
        tape, told = super().__call__(work)
        writes = [at for at, one in enumerate(tape.operations) if not one.made]
        del tape.operations[writes[-1] if writes else -1]
        return tape, told


@pytest.mark.parametrize("wrong", [StalePlan, StaleAnswer, LastLost])
def test_a_wrong_capture_is_found(
    golden: Path, monkeypatch: pytest.MonkeyPatch, wrong: type[TapeRecorder]
) -> None:
    monkeypatch.setattr(replays, "graphs", lambda _: wrong())
    result = command(str(golden), "--case", "early_text_end", "--calls", "2")
    assert result.exit_code == 1, result.output
    assert "0 of 3 runs pass" in result.output
    assert "slot 0, " in result.output, "where they part first"


def test_a_step_that_reads_the_host_is_found(chroma_a: Chroma, monkeypatch: pytest.MonkeyPatch) -> None:
    """Called eagerly it is right; a graph would keep the number that it read once."""
    plain = Steps._inputs

    def drifts(steps: Steps, *args: Any) -> Tensor:
        return plain(steps, *args) * (1 + 0.05 * steps.slots.backbone.lengths[0])

    monkeypatch.setattr(Steps, "_inputs", drifts)
    found = replays.company(chroma_a, 3)
    assert not found.passed
    assert found.differs is not None


def test_state_that_is_put_in_anothers_place_is_found(
    chroma_a: Chroma, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph goes on with the tensor that it was captured with."""
    plain = Slots.sample

    def anew(slots: Slots, *args: Any) -> None:
        slots.hidden = slots.hidden.clone()
        plain(slots, *args)

    monkeypatch.setattr(Slots, "sample", anew)
    assert not replays.company(chroma_a, 2).passed


def test_sound_that_parts_fails_though_codes_agree(chroma_a: Chroma, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Steps.sound
    heard: list[int] = []

    def louder(steps: Steps, *args: Any) -> Tensor:
        heard.append(1)
        return plain(steps, *args) + 0.01 * (len(heard) % 7)

    monkeypatch.setattr(Steps, "sound", louder)
    found = replays.company(chroma_a, 1, 12)
    assert found.differs is None
    assert found.frames == 12
    assert found.sound > WAVE
    assert not found.passed


@torch.inference_mode()
def test_company_begins_rests_ends_and_begins_again(
    toy_model: Chroma, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison is of something: rows of every kind, in steps of many sizes."""
    sizes: set[int] = set()
    begun: list[int] = []
    plain_begin, plain_perform = replays._begin, replays.perform

    def begin(steps: Steps, slot: int, *args: Any) -> Any:
        begun.append(slot)
        return plain_begin(steps, slot, *args)

    def perform(steps: Steps, replies: Any) -> Any:
        sizes.add(len(replies))
        return plain_perform(steps, replies)

    monkeypatch.setattr(replays, "_begin", begin)
    monkeypatch.setattr(replays, "perform", perform)
    found = replays.company(toy_model, 4)
    assert found == replays.Company(4, 50, 0.0, None)
    assert {1, 2, 3, 4} == sizes
    assert {0, 1, 2, 3} == set(begun)
    assert min(begun.count(0), begun.count(1)) >= 4, "twice in each of the two runs"
