"""The library's head maker, loaded once."""

from __future__ import annotations

import pytest

from model.meaning.heads import Heads
from tests.needs import MODELS, need_model


@pytest.fixture(scope="session")
def heads() -> Heads:
    need_model("meaning")
    return Heads.load(MODELS)
