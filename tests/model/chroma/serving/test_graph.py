"""The runner's own part of a graph: buckets, who is sent, whose rows come back. Real ones need a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.chroma.serving.graph import Runner, _Captured, buckets, stream
from model.chroma.serving.plan import Shape


@pytest.mark.parametrize(
    ("slots", "expected"), [(1, [1]), (2, [1, 2]), (5, [1, 2, 4, 5]), (8, [1, 2, 4, 8]), (9, [1, 2, 4, 8, 9])]
)
def test_buckets_are_powers_of_two_and_all(slots: int, expected: list[int]) -> None:
    assert buckets(slots) == expected


def shape(first: int, stop: int, *, words: bool = True) -> Shape:
    return Shape(slice(first, stop), words=words, width=3, thinker=9, backbone=9, codec=9)


def step(shape: Shape, plan: Tensor) -> Tensor:
    """Tells each row's number where it takes part, -1 elsewhere."""
    rows = torch.arange(shape.rows.start, shape.rows.stop)
    return torch.where(plan, rows, -1)[:, None].float()


def test_a_plain_run_is_the_step() -> None:
    runner = Runner(step, 8, torch.device("cpu"))
    assert runner(shape(3, 6), [True, False, True]).tolist() == [[3], [-1], [5]]


def test_a_replay_sends_who_takes_part_and_answers_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    captured = []

    def capture(shape: Shape) -> _Captured:
        captured.append((shape.rows, shape.words))
        plan, told = torch.zeros(shape.rows.stop, dtype=torch.bool), torch.zeros(shape.rows.stop, 1)
        graph = SimpleNamespace(replay=lambda: told.copy_(step(shape, plan)))
        return _Captured(graph, plan, plan.clone(), told, told.clone())  # type: ignore[arg-type]

    runner = Runner(step, 8, torch.device("cuda"))
    monkeypatch.setattr(runner, "_capture", capture)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(synchronize=lambda: None))
    first = runner(shape(3, 6), [True, False, True])
    assert first.tolist() == [[3], [-1], [5]]
    assert runner(shape(4, 7), [False, True, False]).tolist() == [[-1], [5], [-1]], "who went before is out"
    assert first.tolist() == [[3], [-1], [5]], "an answer is not written over"
    assert captured == [(slice(0, 8), True)]
    runner.prepare(shape(0, 2, words=False))
    np.testing.assert_array_equal(runner(shape(0, 2, words=False), [True, True]), [[0], [1]])
    assert captured[1:] == [(slice(0, 2), False)]


def test_all_captures_warm_up_on_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stream keeps cuBLAS's workspace, and the 33rd of torch's would be the thinker's again."""
    made: list[Any] = []
    used: list[Any] = []

    class Stream:
        def __init__(self, *_: object) -> None:
            made.append(self)

        def wait_stream(self, _: object) -> None:
            pass

    @contextmanager
    def on(stream: Any) -> Iterator[None]:
        used.append(stream)
        yield

    for name, fake in {
        "Stream": Stream,
        "stream": on,
        "device": nullcontext,
        "current_stream": lambda *_: SimpleNamespace(wait_stream=lambda _: None),
        "CUDAGraph": lambda: SimpleNamespace(pool=lambda: None),
        "graph": lambda *_, **__: nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    for name in ("zeros", "empty"):  # nothing can be pinned where there is no GPU
        plain = getattr(torch, name)
        monkeypatch.setattr(
            torch, name, lambda *given, plain=plain, pin_memory=False, **named: plain(*given, **named)
        )
    stream.cache_clear()
    beside = stream("beside", torch.device("cpu"))
    for _ in range(2):  # a trial of `auto`, and the engine
        runner = Runner(step, 8, torch.device("cpu"))
        for size in (1, 2, 4, 8):
            runner._capture(shape(0, size))
    stream.cache_clear()
    assert len(made) == 2
    assert len(used) == 8
    assert set(used) == {made[1]}
    assert beside is made[0]
