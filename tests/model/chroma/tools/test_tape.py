"""A tape keeps what a CUDA graph keeps: tensors and operations, and nothing of Python's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.chroma.tools.tape import CallRecorder, TapeRecorder


def test_a_replay_reads_what_its_tensors_hold_now() -> None:
    """Through views, operations in place, and memory that is made and not written."""
    given, state, room = torch.zeros(3), torch.zeros(2, 3), torch.zeros(4)

    def call() -> Tensor:
        state[1] += given
        room[1:3].copy_(state[1, :2] * 2)
        out = torch.empty(3)
        out[:2] = room[1:3]
        out[2] = state.sum()
        return out.flip(0).view(3, 1)

    tape, told = TapeRecorder()(call)
    for value, expected in ((1.0, [[3.0], [2.0], [2.0]]), (2.0, [[9.0], [6.0], [6.0]])):
        given.fill_(value)
        tape.replay()
        assert told.tolist() == expected


def test_what_the_host_knew_stays_as_it_was() -> None:
    numbers = {"by": 2.0}
    held = {"tensor": torch.ones(2)}
    given = torch.zeros(2)

    def call() -> Tensor:
        return given * numbers["by"] + held["tensor"]

    device = torch.device("cpu")
    for recorder, expected in ((TapeRecorder(), [7.0, 7.0]), (CallRecorder(device), [35.0, 35.0])):
        given.zero_()
        numbers["by"], held["tensor"] = 2.0, torch.ones(2)
        graph, told = recorder(call)
        given.fill_(3)
        numbers["by"], held["tensor"] = 10.0, torch.full((2,), 5.0)
        graph.replay()
        recorder.wait()
        assert told.tolist() == expected


def test_nothing_may_be_kept_in_the_recordings_own_memory() -> None:
    """On a GPU other graphs use it, too."""
    kept: dict[str, Tensor] = {}

    def call() -> Tensor:
        kept["sum"] = torch.zeros(2) + 1
        return kept["sum"].to(torch.long)

    tape, told = TapeRecorder()(call)
    assert kept["sum"].tolist() == told.tolist() == [1, 1]
    tape.replay()
    assert told.tolist() == [1, 1]
    late = torch.zeros(2)
    tape, told = TapeRecorder()(lambda: late.add_(0) + 0)
    memory = told
    tape.operations.clear()  # nobody writes it
    tape.replay()
    assert bool(memory.isnan().all())


@pytest.mark.parametrize("together", [True, False])
def test_an_operation_may_return_a_view_beside_memory_of_its_own(together: bool) -> None:
    given = torch.arange(4.0)

    def call() -> Tensor:
        first, second = torch.split(given, 2)
        return torch.stack((first, second)) if together else first + second

    tape, told = TapeRecorder()(call)
    given += 1
    tape.replay()
    assert told.tolist() == ([[1, 2], [3, 4]] if together else [4, 6])
    assert given.tolist() == [1, 2, 3, 4], "a view is not spoilt"
