"""How many kernels the full model launches, counted on shapes alone, and how many it may.

Whoever launches fewer lowers the number here, in the same change.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from types import ModuleType
from typing import Any

import pytest

from tests.needs import missing

STEP_WITH_WORDS = 1_091
"""Nodes of a graph in which the thinker goes on and words come in. The goal is 1,100."""
STEP_WITHOUT = 685
PREFILL = 377
"""Launches of a pass, whatever the number of slots in it; the goal is 800."""
HEARING = 502
"""Launches of the audio encoder, whatever the number of chunks."""


@cache
def _steps(kv: str = "full") -> tuple[ModuleType, Any]:
    if importlib.util.find_spec("triton") is None:
        missing("triton is not installed, so no launch is counted: pip install triton==3.9.0 (1 GB)")
    from model.chroma.tools import launches

    return launches, launches.steps_on_paper(launches.on_paper(launches.full_size(), kv=kv), slots=8)


@pytest.mark.parametrize(("words", "most"), [(True, STEP_WITH_WORDS), (False, STEP_WITHOUT)])
def test_a_step_has_so_many_nodes_at_most_whatever_its_rows(words: bool, most: int) -> None:
    launches, steps = _steps()
    one, two, seven = (launches.of_step(steps, rows, words=words, pairs=words).total for rows in (1, 2, 7))
    assert one <= two == seven <= most


def test_keys_and_values_in_bytes_launch_nothing_more() -> None:
    launches, full = _steps()
    _, steps = _steps("fp8")
    for words in (True, False):
        launched = [launches.of_step(one, 7, words=words, pairs=words) for one in (steps, full)]
        assert launched[0].torch == launched[1].torch
        assert launched[0].triton == launched[1].triton
    assert launches.of_prefill(steps, [50, 3]).total == launches.of_prefill(full, [50, 3]).total


def test_a_prefill_launches_so_much_at_most_whatever_the_number_of_slots() -> None:
    launches, steps = _steps()
    for widths in ([50], [1], [256], [50, 12, 3, 50, 37], [9] * 8):
        assert launches.of_prefill(steps, widths).total <= PREFILL, widths


def test_the_encoder_launches_so_much_at_most_whatever_the_number_of_chunks() -> None:
    launches, steps = _steps()
    for chunks in (1, 16):
        assert launches.of_hearing(steps, chunks).total <= HEARING, chunks
