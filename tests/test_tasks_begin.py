"""Tasks begin in `model.tasks`, where none fails unseen; read from the syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOME = "model/tasks.py"
PACKAGES = ("gateway", "model", "consent", "watermark")
STARTS = frozenset({"create_task", "ensure_future"})
ALLOWED: dict[str, str] = {}
"""File: why it starts a task by itself."""


def starts(tree: ast.Module) -> Iterator[int]:
    """Lines on which a task is started, but by a group that the same file opens with `async with`."""
    groups = {
        item.optional_vars.id
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncWith)
        for item in node.items
        if isinstance(item.optional_vars, ast.Name)
        and ast.unparse(item.context_expr) == "asyncio.TaskGroup()"
    }
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr="create_task") if owner in groups:
                pass
            case ast.Attribute(attr=name) | ast.Name(id=name) | ast.alias(name=name) if name in STARTS:
                yield node.lineno


def found() -> dict[str, list[int]]:
    return {
        str(path.relative_to(ROOT)): lines
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if (lines := list(starts(ast.parse(path.read_text()))))
    }


def test_a_task_is_started_in_one_place() -> None:
    others = {path: lines for path, lines in found().items() if path not in (HOME, *ALLOWED)}
    assert not others, "use model.tasks (Tasks, race), or asyncio.TaskGroup"


def test_the_list_of_those_that_may_is_not_longer_than_it_must_be() -> None:
    assert {HOME, *ALLOWED} <= set(found())


def test_where_tasks_begin_nothing_of_ours_is_imported() -> None:
    """The lines use it, which know nobody's voice."""
    tree = ast.parse((ROOT / HOME).read_text())
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert not [module for module in modules if module.split(".")[0] in PACKAGES]


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("import asyncio\nasyncio.create_task(x())", [2]),
        ("asyncio.get_running_loop().create_task(x())", [1]),
        ("from asyncio import ensure_future", [1]),
        ("async def f(g):\n  g.create_task(x())", [2]),
        ("async def f():\n  async with asyncio.TaskGroup() as g:\n    g.create_task(x())", []),
        ("tasks.short(x(), 'x')", []),
    ],
)
def test_what_counts_as_a_start(source: str, lines: list[int]) -> None:
    assert list(starts(ast.parse(source))) == lines
