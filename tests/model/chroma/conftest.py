"""Checkpoints for the engine's tests: the goldens, and a toy unlike them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.chroma.network import checkpoint
from model.chroma.network.weights import Chroma
from tests import needs
from tests.model.chroma import toy

torch.set_num_threads(1)  # the parts are tiny: threads only wait for each other


@pytest.fixture(scope="session")
def goldens() -> Path:
    return needs.goldens()


@pytest.fixture(scope="session")
def golden(goldens: Path) -> Path:
    return goldens / "chroma-a"


@pytest.fixture(scope="session")
def chroma_a(golden: Path) -> Chroma:
    """The golden checkpoint, float32 on the CPU."""
    return checkpoint.load(golden, device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="session")
def toy_model() -> Chroma:
    return toy.model()
