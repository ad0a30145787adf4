"""The whole suite's surroundings: numpy's threads, the loop that a test runs in, and which tests are long."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from typing import Any

import hypothesis
import pytest
import structlog

from model import tasks
from tests.house_time import HouseLoop
from tests.slept import in_line_s

# as `voicegate` sets them for its processes: on a busy machine numpy's threads only wait for each other
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# rich draws a traceback with every local, for seconds on a busy machine; no process of the gateway has it
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

# an example may take as long as a busy machine takes for it
_PATIENT = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
# whoever runs the tests twice gets the same examples; `make prove` searches for others
hypothesis.settings.register_profile("house", _PATIENT, derandomize=True)
hypothesis.settings.register_profile("search", _PATIENT, max_examples=1_000)
hypothesis.settings.load_profile("house")

LONG_S = 20.0
"""A test that takes longer says why: `@pytest.mark.long("...")`."""


@pytest.fixture(autouse=True)
def counted_from_zero() -> None:
    """What an earlier test of this process made fail is not this one's."""
    tasks.failures.clear()


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if getattr(item.getparent(pytest.Module).obj, "HOUSE_TIME", False):  # type: ignore[union-attr]
        return {"house": HouseLoop}
    return {"asyncio": asyncio.new_event_loop}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Proofs take minutes and the package index: they run when asked for (`-m prove`), and only then.

    Files with the most long tests come first, then those with the most tests (of xdist, as they come:
    `--no-loadscope-reorder`), so that none that takes long is begun when the others are over.
    """
    proofs = [item for item in items if item.get_closest_marker("prove")]
    if "prove" in str(config.getoption("markexpr")):
        for item in proofs:
            item.add_marker(pytest.mark.timeout(0))
    elif proofs:
        config.hook.pytest_deselected(items=proofs)
        items[:] = [item for item in items if item not in proofs]
    whole = Counter(item.path for item in items)
    long = Counter(item.path for item in items if item.get_closest_marker("long"))
    items.sort(key=lambda item: (-long[item.path], -whole[item.path], item.path))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Notes how long a test took without the time in which others had its processor."""
    report = yield
    if call.when == "setup":
        item.stash[_IN_LINE] = in_line_s()
    if call.when == "call" and item.get_closest_marker("long") is None:
        took_s = call.duration - (in_line_s() - item.stash[_IN_LINE])
        if took_s > LONG_S:
            report.user_properties.append(("long_s", round(took_s)))
    return report


_IN_LINE = pytest.StashKey[float]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names the long tests without a reason. It fails none of them: the machine may be slow, or its children
    may have had to wait for a processor."""
    reports = [report for some in terminalreporter.stats.values() for report in some]
    long = {
        report.nodeid: seconds
        for report in reports
        for name, seconds in getattr(report, "user_properties", ())
        if name == "long_s" and report.when == "call"
    }
    if long:
        terminalreporter.section(f"over {LONG_S:.0f} s without a reason (pytest.mark.long)")
        for nodeid, seconds in sorted(long.items(), key=lambda one: -one[1]):
            terminalreporter.line(f"{seconds:5} s {nodeid}")
