"""Every kernel compiles for an H100 at the full model's shapes, in its budget, without a GPU."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from tests.model.chroma.kernels.budgets import BUDGETS, INLINED
from tests.needs import missing

TARGET = "sm_90"


@pytest.fixture(scope="module")
def ahead() -> ModuleType:
    if importlib.util.find_spec("triton") is None:
        missing("triton is not installed, so no kernel is compiled: pip install triton==3.9.0 (1 GB)")
    from benchmarks import engine_kernels

    return engine_kernels


@pytest.mark.long("some 50 kernels are compiled, each in half a second to two")
def test_kernels_compile_for_a_gpu_that_is_not_here_and_none_spills(ahead: ModuleType) -> None:
    assert ahead.kernels().keys() == BUDGETS.keys() | INLINED, "a kernel has no row, or a row has no kernel"
    found = ahead.everything(TARGET)
    assert {one.name for one in found} == BUDGETS.keys(), "a kernel that no step, prefill or voice launches"
    for one in found:
        budget = BUDGETS[one.name]
        assert not one.spilled, f"{one} spills"
        assert one.registers <= budget.registers, one
        assert one.shared <= budget.shared, one
    for name, budget in BUDGETS.items():  # a budget that nothing needs watches nothing
        assert budget.registers <= 1.25 * max(one.registers for one in found if one.name == name) + 8, name


def test_a_kernel_that_spills_is_seen_to_spill(ahead: ModuleType) -> None:
    share = [call for call in ahead.calls() if call.name == "_share"][:1]
    (few, *_) = ahead.compiled(share, TARGET, maxnreg=32)
    assert few.registers <= 32
    assert few.spilled > 0
