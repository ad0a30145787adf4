"""Nothing is compiled once the engine is ready: kernels are keyed by what does not change with a call."""

from __future__ import annotations

import pytest
import torch

from tests.model.chroma.kernels.specialised import counted

WIDTHS = range(1, 257)
HEADS, KV_HEADS, DIM = 4, 2, 64


def put(width: int, rows: int = 1) -> None:
    from model.chroma.kernels.fused_kernel import rotate_put

    like = {"dtype": torch.bfloat16}
    q, k, v = (torch.empty(rows, width, heads * DIM, **like) for heads in (HEADS, KV_HEADS, KV_HEADS))
    angles = torch.empty(rows, 1, width, DIM // 2, **like), torch.empty(rows, 1, width, DIM // 2, **like)
    keys, values = (torch.empty(rows, KV_HEADS, 64, DIM, **like) for _ in range(2))
    table, places = torch.zeros(rows + 1, 5, dtype=torch.int32), torch.zeros(rows, width, dtype=torch.long)
    rotate_put(q, k, v, angles, torch.arange(rows), places, table, keys, values)


@torch.inference_mode()
def test_one_compilation_serves_prefills_of_every_width() -> None:
    with counted() as found:
        for width in WIDTHS:
            put(width)
        assert found.count() == {"_rotate_put": 1}
        put(3, rows=5)
        assert found.count() == {"_rotate_put": 1}


@torch.inference_mode()
def test_such_a_proof_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    from model.chroma.kernels import fused_kernel

    for param in fused_kernel._rotate_put.params:
        monkeypatch.setattr(param, "do_not_specialize", False)
    with counted() as found:
        for width in WIDTHS:
            put(width)
    assert found.count()["_rotate_put"] > 1
