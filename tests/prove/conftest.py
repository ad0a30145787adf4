"""Proofs take minutes and the package index: they run when they are asked for (`-m prove`), and only then."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "prove" in str(config.getoption("markexpr")):
        return
    proofs = [item for item in items if item.get_closest_marker("prove")]
    items[:] = [item for item in items if item not in proofs]
    config.hook.pytest_deselected(items=proofs)
