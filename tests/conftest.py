"""The whole suite's surroundings: numpy's threads, and the loop that a test runs in."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping

import pytest

from tests.house_time import HouseLoop

# as `voicegate` sets them for its processes: on a busy machine numpy's threads only wait for each other
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if getattr(item.getparent(pytest.Module).obj, "HOUSE_TIME", False):  # type: ignore[union-attr]
        return {"house": HouseLoop}
    return {"asyncio": asyncio.new_event_loop}
