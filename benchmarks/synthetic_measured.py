"""The traits of every clip over two lines, kept in a file as they are measured.

A measurement that was killed goes on where it was.
"""

from __future__ import annotations

import ast
import hashlib
import json
import random
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import synthetic_lines
from benchmarks.synthetic_corpus import Clip
from benchmarks.synthetic_lines import LINES
from consent.checks import traits as trait_module
from consent.checks.traits import at_traits_rate, traits


@dataclass(frozen=True)
class TraitTable:
    """`values` `(n, traits)`; the rest says of each row what it is."""

    names: tuple[str, ...]
    values: np.ndarray
    machine: np.ndarray
    family: np.ndarray
    person: np.ndarray
    line: np.ndarray
    clip: np.ndarray

    def rows(self, chosen: np.ndarray) -> TraitTable:
        parts = (self.machine, self.family, self.person, self.line, self.clip)
        return TraitTable(self.names, self.values[chosen], *(part[chosen] for part in parts))


class WithoutTexts(ast.NodeTransformer):
    """Leaves docstrings out."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if isinstance(node.value, ast.Constant) else node


def code() -> str:
    """What the numbers depend on, as a hash; words about it do not count."""
    trees = (ast.parse(Path(str(module.__file__)).read_text()) for module in (trait_module, synthetic_lines))
    dumped = "".join(ast.dump(WithoutTexts().visit(tree)) for tree in trees)
    return hashlib.sha256(dumped.encode()).hexdigest()[:12]


def measure(clips: list[Clip], folder: Path) -> TraitTable:
    """All clips, each over two lines; the lines' chance comes from the clip's name."""
    path = folder / f"traits-{code()}.jsonl"
    known = {}
    if path.exists():
        for line in path.read_text().splitlines():
            row = json.loads(line)
            known[row["clip"]] = row
    order = list(clips)
    random.Random(12).shuffle(order)  # what was measured so far is a sample of all
    with path.open("a") as file:
        for clip in order:
            if name(clip) not in known:
                row = {"clip": name(clip), "lines": over_lines(clip)}
                known[name(clip)] = row
                file.write(json.dumps(row) + "\n")
                file.flush()
    return table(clips, known)


def name(clip: Clip) -> str:
    return f"{clip.family}/{clip.person}/{clip.path.stem}"


def lines_of(clip: Clip) -> tuple[str, str]:
    """A line by chance, and one of the others in turn."""
    others = [line for line in LINES if line != "any line"]
    return others[zlib.crc32(name(clip).encode()) % len(others)], "any line"


def over_lines(clip: Clip) -> dict[str, dict[str, float] | None]:
    found = {}
    for line in lines_of(clip):
        through = LINES[line]
        chance = np.random.default_rng(zlib.crc32(f"{name(clip)} {line}".encode()))
        found[line] = traits(at_traits_rate(through(clip.sound, chance)))
    return found


def table(clips: list[Clip], known: dict[str, dict[str, dict[str, dict[str, float] | None]]]) -> TraitTable:
    rows = [
        (found, clip.kind == "machine", clip.family, clip.person, line, name(clip))
        for clip in clips
        for line in lines_of(clip)
        if (found := known.get(name(clip), {"lines": {}})["lines"].get(line)) is not None
    ]
    names = tuple(rows[0][0])
    values = np.array([[row[0][trait] for trait in names] for row in rows])
    machine, family, person, line, clip_names = (np.array([row[k] for row in rows]) for k in range(1, 6))
    return TraitTable(names, values, machine, family, person, line, clip_names)
