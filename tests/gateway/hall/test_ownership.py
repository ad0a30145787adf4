"""Who writes what: an object of the hall is whole when it is made, and its own module alone writes it.

Read from the syntax trees. A tree has no types, so an attribute is known by its name: it belongs to the
modules of the hall whose classes have a field of that name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import gateway
import gateway.hall

HALL = Path(gateway.hall.__file__).parent
ROOTS = (Path(gateway.__file__).parent, Path(__file__).parents[3] / "benchmarks")
BIRTH = ("__init__", "__post_init__", "__new__")
BACK_DOORS = ("setattr", "delattr", "vars", "__setattr__", "__delattr__", "__dict__")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Owned:
    """A class: the fields that it is born with, and the annotations and values that they are made of."""

    name: str
    module: str
    fields: dict[str, list[ast.expr]] = field(default_factory=dict)


def stores(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Attributes that are assigned, augmented or deleted, in tuples and `for` and `with` targets too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node


def methods(owner: ast.ClassDef) -> Iterator[Function]:
    return (node for node in owner.body if isinstance(node, Function))


def self_of(method: Function) -> str | None:
    """The name of a method's first parameter."""
    return method.args.args[0].arg if method.args.args else None


def is_of(node: ast.Attribute, name: str | None) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == name


def owned(module: str, tree: ast.Module) -> Iterator[tuple[Owned, ast.ClassDef]]:
    """The classes of a module."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        found = Owned(node.name, module)
        for line in node.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                found.fields[line.target.id] = [line.annotation]
        for method in methods(node):
            if method.name in BIRTH:
                for name, made_of in born(method):
                    found.fields.setdefault(name, []).extend(made_of)
        yield found, node


def born(birth: Function) -> Iterator[tuple[str, list[ast.expr]]]:
    """The fields that a constructor assigns, and what they may be made of."""
    arguments = (*birth.args.args, *birth.args.kwonlyargs)
    given = [argument.annotation for argument in arguments if argument.annotation is not None]
    for step in ast.walk(birth):
        if isinstance(step, ast.Assign):
            targets, made_of = step.targets, [step.value]
        elif isinstance(step, ast.AnnAssign):
            targets, made_of = [step.target], [step.annotation, *([step.value] if step.value else [])]
        else:
            continue
        for target in targets:
            for node in stores(target):
                if is_of(node, self_of(birth)):
                    yield node.attr, [*made_of, *given]


def hall_classes() -> dict[str, Owned]:
    """The classes of the hall by name."""
    return {
        found.name: found
        for path in sorted(HALL.rglob("*.py"))
        for found, _ in owned(path.stem, ast.parse(path.read_text()))
    }


def parts_of(name: str, classes: dict[str, Owned]) -> set[str]:
    """`name` and the hall's classes that its fields are made of, and theirs."""
    found, open_ = set[str](), [name]
    while open_:
        known = classes[open_.pop()]
        found.add(known.name)
        names = {
            node.id
            for expressions in known.fields.values()
            for expression in expressions
            for node in ast.walk(expression)
            if isinstance(node, ast.Name) and node.id in classes
        }
        open_.extend(names - found)
    return found


def writes(module: str, tree: ast.Module, classes: dict[str, Owned]) -> Iterator[str]:
    """Writes in `module` to fields of the hall's objects that are not its own."""
    owners: dict[str, set[str]] = {}
    for known in classes.values():
        for name in known.fields:
            owners.setdefault(name, set()).add(known.module)
    own = {
        node
        for _, owner in owned(module, tree)
        for method in methods(owner)
        for node in stores(method)
        if is_of(node, self_of(method))
    }
    for node in stores(tree):
        if node not in own and node.attr in owners and module not in owners[node.attr]:
            theirs = ", ".join(sorted(owners[node.attr]))
            yield f"{module}.py:{node.lineno}: writes {ast.unparse(node)}, which is a field of {theirs}"
    for step in ast.walk(tree):
        match step:
            case ast.Name(id=door) | ast.Attribute(attr=door) if door in BACK_DOORS:
                yield f"{module}.py:{step.lineno}: {door} writes past any owner"
            case ast.Call(func=ast.Attribute(value=ast.Attribute(attr=name) as event, attr="set")):
                if module not in owners.get(name, {module}):
                    yield f"{module}.py:{step.lineno}: sets {ast.unparse(event)}, another's event"


def late_births(module: str, tree: ast.Module) -> Iterator[str]:
    """Fields that an object does not have when it is made."""
    for found, owner in owned(module, tree):
        for method in methods(owner):
            for node in stores(method):
                if is_of(node, self_of(method)) and node.attr not in found.fields:
                    yield f"{module}.py:{node.lineno}: {owner.name}.{method.name} gives birth to {node.attr}"


def near_the_hall() -> list[Path]:
    """The hall's modules, and all others that import from it."""
    others = (path for root in ROOTS for path in root.rglob("*.py") if "gateway.hall" in path.read_text())
    return sorted({*HALL.rglob("*.py"), *others})


def test_only_its_own_module_writes_an_object_of_the_hall() -> None:
    classes = hall_classes()
    found = [line for path in near_the_hall() for line in writes(path.stem, parse(path), classes)]
    assert found == []


def test_an_object_of_the_hall_is_whole_when_it_is_made() -> None:
    assert [line for path in sorted(HALL.rglob("*.py")) for line in late_births(path.stem, parse(path))] == []


def test_a_call_is_made_of_parts_that_are_watched() -> None:
    parts = parts_of("Call", hall_classes())
    assert parts >= {"Seat", "CallLine", "CallEar", "Turns", "Playout", "Item", "Speech", "Inbox", "Licence"}


def test_no_part_of_a_call_is_too_large_to_be_remembered() -> None:
    classes = hall_classes()
    sizes = {name: len(classes[name].fields) for name in parts_of("Call", classes)}
    assert max(sizes.values()) <= 17, sizes


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


SCENE = """
class Seat:
    row: int

    def leave(self):
        self.row = -1


def free(seat):
    seat.row = -1
"""


BORN = """
class Seat:
    row: int

    def __init__(self):
        self.line = None

    def move(self):
"""


@pytest.mark.parametrize(
    "line",
    [
        "call.seat.row = 1",
        "call.seat.row += 1",
        "del call.seat.row",
        "call.seat.row, x = 1, 2",
        "for call.seat.row in (1, 2): pass",
        "with opened() as seat.row: pass",
        "setattr(seat, 'row', 1)",
        "object.__setattr__(seat, 'row', 1)",
        "seat.__dict__['row'] = 1",
        "call.seat.row.set()",
        "class Other:\n    def f(self, seat):\n        seat.row = 1",
    ],
)
def test_a_write_from_another_module_is_seen(line: str) -> None:
    seats = ast.parse(SCENE)
    classes = {found.name: found for found, _ in owned("seats", seats)}
    assert list(writes("seats", seats, classes)) == []
    assert len(list(writes("elsewhere", ast.parse(line), classes))) == 1


def test_a_field_that_comes_later_is_seen() -> None:
    for name, late in (("row", 0), ("line", 0), ("sound", 1)):
        scene = f"{BORN}        self.{name} = 1"
        assert len(list(late_births("seats", ast.parse(scene)))) == late
