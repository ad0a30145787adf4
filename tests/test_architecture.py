"""The table "What is where" in docs/architecture.md says what is so: files, imports, import-linter's layers.

Imports are read from the syntax of every module, those under TYPE_CHECKING and inside functions too. What is
loaded by a name in a string (the command line's subcommands) is no import.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import grimp
import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
TOWERS = ("gateway", "model", "consent", "watermark")
FLOORS = ("the gateway", "consent")
"""Towers whose rooms have rows of their own, as the contracts of import-linter call them."""
NAMED = re.compile(r"`([\w.]+)`(?: \(([^)]*)\))?")
"""In the column "imports": a place of the table; of another top-level package the modules in brackets."""


@dataclass(frozen=True)
class Row:
    """`place` as written, `module` that it is, `holds` and `imports` the other cells."""

    place: str
    module: str
    holds: str
    imports: str

    @property
    def tower(self) -> str:
        return self.module.partition(".")[0]


@cache
def rows() -> list[Row]:
    text = PAGE.read_text()
    section = text.split("\n## What is where\n")[1].split("\n## ")[0]
    found = []
    for line in section.splitlines():
        if line.startswith("| `"):
            place, holds, imports = (cell.strip() for cell in line.strip("|").split(" | "))
            place = place.strip("`")
            found.append(Row(place, place.removesuffix(".py").strip("/").replace("/", "."), holds, imports))
    assert found, f"{PAGE} has no table under 'What is where'"
    return found


CODE = [row for row in rows() if row.place != "dialplans/"]


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*TOWERS, "benchmarks", cache_dir=None)


def inside(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.")


def row_of(module: str) -> Row | None:
    return next((row for row in CODE if inside(module, row.module)), None)


@cache
def imported(row: Row) -> dict[str, set[str]]:
    """Places that a row's modules import, each with its modules: `{"gateway.config": {"paths"}}`."""
    found: dict[str, set[str]] = {}
    for module in graph().modules:
        if not inside(module, row.module):
            continue
        for other in graph().find_modules_directly_imported_by(module) - set(TOWERS):
            target = row_of(other)
            assert target is not None, f"{module} imports {other}, which is in no row of the table"
            if target is not row:
                found.setdefault(target.module, set()).add(other.removeprefix(target.module).lstrip("."))
    return found


def short(place: str, tower: str) -> str:
    """A place as the column of a row of `tower` has it: a room of the same tower without the tower's name."""
    return place.removeprefix(f"{tower}.")


def cell(row: Row) -> str:
    """What the column "imports" must say."""
    found = imported(row)
    said = []
    for target in (other for other in CODE if other.module in found):
        name = f"`{short(target.module, row.tower)}`"
        modules = ", ".join(sorted(filter(None, found[target.module])))
        said.append(name if target.tower == row.tower or not modules else f"{name} ({modules})")
    return ", ".join(said) or "–"


def contract_of(name: str) -> dict[str, Any]:
    """An import-linter contract, by its name."""
    config: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts: list[dict[str, Any]] = config["tool"]["importlinter"]["contracts"]
    (contract,) = [one for one in contracts if one["name"] == name]
    assert "ignore_imports" not in contract
    return contract


def layers(name: str) -> list[list[str]]:
    """The layers of an import-linter contract, the highest first."""
    contract = contract_of(name)
    return [[one.strip() for one in layer.split("|")] for layer in contract["layers"]]


@pytest.mark.parametrize("row", CODE, ids=lambda row: row.place)
def test_a_row_names_what_its_modules_import_and_nothing_else(row: Row) -> None:
    said = {name: set(filter(None, re.split(r",\s*", within))) for name, within in NAMED.findall(row.imports)}
    real = {
        short(place, row.tower): set() if inside(place, row.tower) else modules - {""}
        for place, modules in imported(row).items()
    }
    assert said == real, f"docs/architecture.md, {row.place}: the column must say\n{cell(row)}"


def test_the_tables_order_is_that_of_the_layers() -> None:
    tower = [name for layer in layers("the tower") for name in layer]
    assert list(dict.fromkeys(row.tower for row in CODE)) == [name for name in tower if name in TOWERS]
    for house in FLOORS:
        floors = [name for layer in layers(f"{house}'s floors") for name in layer]
        tower = house.removeprefix("the ")
        assert [short(row.module, tower) for row in CODE if row.tower == tower] == floors


@pytest.mark.parametrize("house", FLOORS)
def test_a_place_imports_only_what_stands_below_its_layer(house: str) -> None:
    tower = house.removeprefix("the ")
    floor = {
        f"{tower}.{name}": number
        for number, names in enumerate(layers(f"{house}'s floors"))
        for name in names
    }
    for at, row in enumerate(CODE):
        for place in imported(row):
            target = next(other for other in CODE if other.module == place)
            assert CODE.index(target) > at, f"{row.place} imports {target.place}, which stands above it"
            if row.tower == target.tower == tower:
                assert floor[target.module] > floor[row.module], f"{row.place}: {target.place}"


def files_named(row: Row) -> Iterator[Path]:
    """Modules and folders in the cell "holds", from the row's place."""
    for name in re.findall(r"`([^`]+)`", row.holds):
        if name.endswith(("/", ".py", ".toml")) and "*" not in name:
            yield ROOT / row.place / name


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.place)
def test_a_place_and_what_it_holds_exist(row: Row) -> None:
    assert (ROOT / row.place).exists(), row.place
    assert (ROOT / row.place).is_dir() == row.place.endswith("/"), row.place
    for path in files_named(row):
        assert path.exists(), f"{row.place} holds no {path.relative_to(ROOT / row.place)}"


def test_every_module_is_in_a_row() -> None:
    covered = {module for module in graph().modules if row_of(module) is not None}
    rest = {m for m in graph().modules if m.split(".")[0] in TOWERS} - covered - set(TOWERS)
    assert not rest, f"no row of docs/architecture.md holds {', '.join(sorted(rest))}"


@pytest.mark.parametrize("package", TOWERS)
def test_a_package_itself_holds_nothing_that_a_place_could_import(package: str) -> None:
    """Its `__init__.py` may say a version; so an import of it is no arrow of the table."""
    assert not graph().find_modules_directly_imported_by(package)


def test_nothing_imports_benchmarks_or_tests() -> None:
    for module in graph().modules:
        if module.split(".")[0] in TOWERS:
            for other in graph().find_modules_directly_imported_by(module):
                assert other.split(".")[0] in TOWERS, f"{module} imports {other}"


@pytest.mark.parametrize("name", ["the model knows nothing of marks", "RTP lines know nobody's voice"])
def test_of_the_watermark_a_contract_leaves_out_only_the_conversion(name: str) -> None:
    forbidden = {one for one in contract_of(name)["forbidden_modules"] if one.startswith("watermark.")}
    assert forbidden == graph().find_children("watermark") - {"watermark.pcm"}


def test_dialplans_are_data_only() -> None:
    assert {path.suffix for path in (ROOT / "dialplans").iterdir()} <= {".toml", ""}


def test_each_word_of_the_glossary_stands_there_once() -> None:
    glossary = PAGE.read_text().split("\n## Glossary\n")[1].split("\n## ")[0]
    words = [
        word.strip()
        for line in glossary.splitlines()
        if line.startswith("| ") and not line.startswith(("| word", "| ---"))
        for word in line.split(" | ")[0].strip("| ").split(",")
    ]
    assert len(words) == len(set(words))
    promised = re.search(r"one meaning each: ([^.]*)\.", (ROOT / "CONTRIBUTING.md").read_text())
    assert promised is not None
    assert not {word.strip() for word in promised[1].split(",")} - set(words)
