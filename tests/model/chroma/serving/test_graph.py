"""The runner's own part of a graph: buckets, who is sent, whose rows come back. Real ones need a GPU."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.chroma.serving.graph import Runner, _Captured, buckets
from model.chroma.serving.graph_capture import Capturer, GraphRecorder, stream
from model.chroma.serving.plan import Shape


@pytest.mark.parametrize(
    ("slots", "expected"), [(1, [1]), (2, [1, 2]), (5, [1, 2, 4, 5]), (8, [1, 2, 4, 8]), (9, [1, 2, 4, 8, 9])]
)
def test_buckets_are_powers_of_two_and_all(slots: int, expected: list[int]) -> None:
    assert buckets(slots) == expected


def test_where_rows_cost_time_a_bucket_has_few_in_vain() -> None:
    found = buckets(400)
    assert found[:10] == [1, 2, 4, 8, 16, 32, 40, 48, 56, 64]
    assert found[-4:] == [256, 320, 384, 400]
    assert len(found) == 21, "each is four graphs"
    for less, more in itertools.pairwise(found):
        assert less < 32 or (more - less) / less <= 0.25


def shape(rows: int, *, words: bool = True) -> Shape:
    return Shape(rows, words=words, width=3, thinker=9, backbone=9, codec=9)


def step(shape: Shape, rows: Tensor) -> Tensor:
    """Tells each row's slot; the scratch slot is 8."""
    assert shape.rows == len(rows)
    asked.append(rows.tolist())
    return rows[:, None].float()


asked: list[list[int]] = []
"""the slots of every step"""


def test_a_plain_run_is_the_step() -> None:
    runner = Runner(step, 8, torch.device("cpu"))
    assert runner(shape(3), [7, 3, 5]).tolist() == [[7], [3], [5]]


def test_a_replay_sends_who_takes_part_and_answers_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    captured = []

    def capture(shape: Shape, _: GraphRecorder) -> _Captured:
        captured.append((shape.rows, shape.words))
        rows, told = torch.zeros(shape.rows, dtype=torch.long), torch.zeros(shape.rows, 1)
        graph = SimpleNamespace(replay=lambda: told.copy_(step(shape, rows)))
        return _Captured(graph, rows, rows.clone(), told, told.clone())  # type: ignore[arg-type]

    runner = Runner(step, 8, torch.device("cuda"))
    monkeypatch.setattr(runner, "_capture", capture)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(synchronize=lambda: None))
    first = runner(shape(3), [7, 0, 5])
    assert first.tolist() == [[7], [0], [5]]
    assert asked[-1] == [7, 0, 5, 8], "the scratch slot fills a bucket"
    assert runner(shape(3), [1, 6, 2]).tolist() == [[1], [6], [2]]
    assert asked[-1] == [1, 6, 2, 8], "who went before is out"
    assert first.tolist() == [[7], [0], [5]], "an answer is not written over"
    assert captured == [(4, True)]
    runner.prepare(shape(2, words=False))
    np.testing.assert_array_equal(runner(shape(2, words=False), [4, 3]), [[4], [3]])
    assert captured[1:] == [(2, False)]


def test_a_step_costs_the_replies_in_it_whatever_slots_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """46 replies on the highest slots of 400, as it is once all are open: 48 rows, not 400."""
    monkeypatch.setattr(Runner, "_capture", lambda _, shape, __: seen.append(shape.rows))
    runner, seen = Runner(step, 400, torch.device("cuda")), []  # type: ignore[var-annotated]
    for replies in (1, 3, 46, 100, 400):
        runner.prepare(shape(replies))
    assert seen == [1, 4, 48, 112, 400]


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
        runner = Runner(step, 8, torch.device("cpu"), Capturer(torch.device("cpu")))
        for size in (1, 2, 4, 8):
            runner.prepare(shape(size))
    stream.cache_clear()
    assert len(made) == 2
    assert len(used) == 8
    assert set(used) == {made[1]}
    assert beside is made[0]


class Again:
    """A graph without a GPU: the step once more, into the tensor of the first time."""

    pinned = False

    def __init__(self) -> None:
        self.done: list[str] = []

    def __call__(self, work: Callable[[], Any]) -> tuple[SimpleNamespace, Any]:
        told = work()
        self.done.append("record")

        def replay() -> None:
            self.done.append("replay")
            told.copy_(work())

        return SimpleNamespace(replay=replay), told

    def wait(self) -> None:
        self.done.append("wait")


def test_a_double_records_each_bucket_once_and_is_waited_for() -> None:
    """The same where there is no GPU: pads, sends, replays, waits, and only then reads."""
    double = Again()
    runner = Runner(step, 5, torch.device("cpu"), double)
    assert runner.graphs
    assert not Runner(step, 5, torch.device("cpu")).graphs
    runner.prepare(shape(4))
    assert double.done == ["record"]
    assert runner(shape(3), [4, 0, 1]).tolist() == [[4], [0], [1]]
    assert asked[-1] == [4, 0, 1, 5], "the scratch slot fills a bucket"
    assert runner(shape(4), [3, 2, 1, 0]).tolist() == [[3], [2], [1], [0]]
    assert double.done == ["record", "replay", "wait", "replay", "wait"]
    assert runner(shape(2), [2, 3], graphed=False).tolist() == [[2], [3]]
    assert len(double.done) == 5, "somebody looked on: no graph"
