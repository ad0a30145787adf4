"""One meaning per name: no module's and no class's name stands twice over the whole tree.

Two short lists say what still does, and which of it may stay. They may only shrink: who regroups
`model.chroma` takes their names out.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("gateway", "model", "consent", "watermark", "benchmarks")

EACH_PACKAGE_HAS_ONE = {"cli", "errors"}
"""Modules of every package: its commands, its tree of errors."""

MODULES = {"engine", "evidence", "keys", "reply", "revocation", "sound", "web"}
"""Module names with two meanings."""

CLASSES = {
    "Answer",  # a dialplan's verb, and twice in model.chroma
    "Conversation",
    "Floor",
    "Heard",
    "Item",
    "Link",
    "Memory",
    "Part",
    "Recogniser",
    "Record",
    "Recording",
    "Reference",
    "Reply",
    "Session",
    "Shape",
    "SoundError",
    "Turn",
    "Voice",
    "Words",
    "_Layer",
}
"""Class names with two meanings."""

HINT = "one more: rename the new one; one less: take it off the list"


def _paths() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def _twice(names: list[str]) -> set[str]:
    return {name for name, count in Counter(names).items() if count > 1}


def test_a_module_name_has_one_meaning() -> None:
    named = [path.stem for path in _paths() if path.stem not in ("__init__", "__main__")]
    assert _twice(named) - EACH_PACKAGE_HAS_ONE == MODULES, (
        "one more: rename it; one less: take it off the list"
    )


def test_a_class_name_has_one_meaning() -> None:
    named = [
        node.name
        for path in _paths()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    assert _twice(named) == CLASSES, HINT


def test_the_lists_only_shrink() -> None:
    assert len(MODULES) <= 7
    assert len(CLASSES) <= 20
