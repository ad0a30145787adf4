"""The embedded engine, loaded once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from model.embedded.engine import EmbeddedEngine


@pytest.fixture(scope="package")
def engine() -> Iterator[EmbeddedEngine]:
    engine = asyncio.run(EmbeddedEngine.load(conversations=8))
    yield engine
    asyncio.run(engine.close())
