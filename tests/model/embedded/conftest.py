"""The embedded engine: its mouth and its ears are started once; each test has an engine of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from consent.whisper.whisper import ENGLISH
from model.ears.ears_client import Ears
from model.embedded.engine import EmbeddedEngine
from model.embedded.mouth import Mouth
from model.meaning.heads import Heads
from tests.needs import HANGS_S, need_model

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="package")
def mouth() -> Iterator[Mouth]:
    mouth = Mouth()
    yield mouth

    async def close() -> None:  # it ends tasks, so it needs a loop
        mouth.close()

    asyncio.run(close())


@pytest.fixture(scope="package")
def ears_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    socket = tmp_path_factory.mktemp("ears") / "s"
    models = need_model(ENGLISH)
    process = subprocess.Popen(
        [sys.executable, "-m", "model.ears.ears_process", "--uds", socket, "--models", models],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    yield socket
    process.terminate()
    process.wait()


@pytest.fixture(scope="package")
def heads() -> Heads:
    return Heads.load(need_model("meaning"))


@pytest.fixture
async def engine(
    mouth: Mouth, ears_socket: Path, heads: Heads, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[EmbeddedEngine]:
    """An engine that waits for its ears on a busy machine too; `test_late_words` has one that does not."""
    monkeypatch.setattr("model.embedded.engine.FILLER_S", HANGS_S)
    ears = Ears(ears_socket)
    await ears.ready()
    yield EmbeddedEngine(mouth, ears, conversations=8, heads=heads)
    await ears.close()
