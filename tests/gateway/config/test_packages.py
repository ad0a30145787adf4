"""The table of packages is what the processes' modules import."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from gateway.config import packages, remedy

ROOT = Path(__file__).parents[3]
PROCESSES = {
    "embedded Valkey": ("gateway.run.redis_server",),
    "embedded engine": ("model.server", "model.embedded.engine"),
    "ears process": ("model.ears.ears_process",),
    "cascade engine": ("model.server", "model.cascade.engine"),
    "chroma engine": ("model.server", "model.chroma.serving.engine"),
    "hall": ("gateway.hall.__main__",),
    "front": ("gateway.front.__main__",),
    "SIP line": ("gateway.rtp.sip_process",),
    "web line": ("gateway.line.web",),
    "detector": ("watermark.cli",),
}
ENGINES = ("model.embedded.engine", "model.cascade.engine", "model.chroma.serving.engine")
ONLY_WHEN_USED = {"matplotlib", "triton"}
"""Imported inside functions: by a plot, by kernels of a GPU."""
BY_NAME = {name: {"websockets"} for name in ("embedded engine", "cascade engine", "chroma engine")} | {
    "SIP line": {"av"}
}
"""What is named by a string: uvicorn's WebSockets, and FFmpeg, which only G.722 needs."""


def source(module: str) -> Path | None:
    """The file of one of our modules; None for what is not one."""
    path = ROOT.joinpath(*module.split("."))
    return next((at for at in (path.with_suffix(".py"), path / "__init__.py") if at.is_file()), None)


def imported(module: str) -> set[str]:
    """The packages that `module` imports, also through our modules; `model.engines` loads what it is told."""
    found: set[str] = set()
    seen, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name in seen or (name in ENGINES and seen):
            continue
        seen.add(name)
        path = source(name)
        assert path is not None, name
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                inside = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [node.module, *(one for one in inside if source(one))]
            for one in names:
                if one.split(".")[0] in packages.OURS:
                    waiting.append(one)
                else:
                    found.add(one.split(".")[0])
    return found - set(sys.stdlib_module_names) - ONLY_WHEN_USED


@pytest.mark.parametrize("process", PROCESSES)
def test_the_table_says_what_a_process_imports(process: str) -> None:
    found = set().union(*(imported(module) for module in PROCESSES[process]), BY_NAME.get(process, ()))
    assert set(packages.NEEDED[process]) == found


def test_every_process_is_in_the_table() -> None:
    assert set(packages.NEEDED) == set(PROCESSES)


def test_all_are_installed_here() -> None:
    assert packages.absent(name for names in packages.NEEDED.values() for name in names) is None
    assert packages.absent(("click", "no_such_package")) == "no_such_package"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "aiortc",
            f"needs aiortc, which is not installed; install voicegate again: {remedy.install_again()}",
        ),
        ("torch.nn", f"needs torch; install it with: {remedy.install_with('chroma')}"),
        ("gateway.x", "needs gateway.x, which is not part of this installation; install voicegate again: "),
    ],
)
def test_a_missing_package_comes_with_its_remedy(name: str, text: str) -> None:
    assert packages.missing(name, "the web line").startswith(f"the web line {text}")
