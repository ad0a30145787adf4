"""Frozen dataclasses as JSON and back, by the types of their fields.

    str, int, float, bool, None     as they are; an int is taken where a float is meant
    Literal, Enum                   one of their values
    bytes                           base64
    Path                            its text
    tuple[T, ...], dict[str, T]     an array, an object
    a dataclass                     an object with exactly its fields; a field that is None by default and in
                                    fact is left out; its `__post_init__` raises `ValueError`
    T | None                        null or a T
    A | B                           dataclasses that a Literal field `kind` tells apart
    a class with `to_json` and `from_json`    what these say

What is read is checked: another type, a missing or an unknown field raise `RpcError` with the field's name.
How a type stands in JSON is worked out once; lines use this, so it imports nothing heavy.
"""

from __future__ import annotations

import binascii
import json
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from gateway.errors import RpcError

T = TypeVar("T")
KIND: Final = "kind"
"""The field that tells the dataclasses of a union apart."""


class _Misfit(Exception):
    """A value that is not of its type; `path` grows on the way out."""

    def __init__(self, text: str, *path: str) -> None:
        super().__init__(text)
        self.path = list(path)


class _Form(NamedTuple):
    """How the values of one type stand in JSON. A `dump` of None: as they are."""

    dump: Callable[[Any], Any] | None
    load: Callable[[Any], Any]
    """Raises `_Misfit`."""


class _Field(NamedTuple):
    name: str
    dump: Callable[[Any], Any] | None
    load: Callable[[Any], Any]
    required: bool
    droppable: bool
    """Left out when it is None."""


def to_json(hint: Any, value: Any) -> Any:
    """`value`, which is of the type `hint`, as `json` can write it."""
    dump = _form(hint).dump
    return value if dump is None else dump(value)


def from_json(hint: type[T], table: object, what: str) -> T:
    """The value of the type `hint` that `to_json` wrote. Raises `RpcError`, which calls it `what`."""
    return load(hint, table, what)  # type: ignore[no-any-return]  # `hint` says it


def load(hint: Any, table: object, what: str) -> Any:
    """`from_json` for types that are not classes, such as `str | None`."""
    try:
        return _form(hint).load(table)
    except _Misfit as misfit:
        where = f"{what}, field {'.'.join(misfit.path)}" if misfit.path else what
        raise RpcError(f"{where}: {misfit}") from None


def packed(table: object) -> bytes:
    """JSON without spaces. Raises `RpcError` for what JSON cannot say."""
    try:
        return json.dumps(table, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise RpcError(f"it cannot be written as JSON: {error}") from None


def unpacked(body: bytes) -> dict[str, Any]:
    """A message's JSON object. Raises `RpcError` for anything else."""
    try:
        table = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RpcError(f"not JSON: {error}") from None
    if not isinstance(table, dict):
        raise RpcError("a message must be a JSON object")
    return table


# ── one form a type ──────────────────────────────────────────────────────────────────────────────────────

_FORMS: Final[dict[Any, _Form]] = {}
_NAMES: Final[Mapping[type, str]] = {
    str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null",
    dict: "an object", list: "an array",
}  # fmt: skip


def _named(value: object) -> str:
    """What came, without telling what it says: it may be a secret."""
    return _NAMES.get(type(value), type(value).__name__)


def _form(hint: Any) -> _Form:
    form = _FORMS.get(hint)
    if form is None:
        form = _FORMS[hint] = _worked_out(hint)
    return form


def _worked_out(hint: Any) -> _Form:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is None or hint is type(None):
        return _plain(type(None))
    if hint in (str, int, bool):
        return _plain(hint)
    if hint is float:
        return _Form(None, _number)
    if hint is bytes:
        return _Form(lambda value: binascii.b2a_base64(value, newline=False).decode(), _bytes)
    if hint is Path:
        return _Form(str, lambda value: Path(_plain(str).load(value)))
    if origin is Literal:
        return _choice(arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _array(_form(arguments[0]))
    if origin is dict and arguments[0] is str:
        return _mapping(_form(arguments[1]))
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if isinstance(hint, type) and hasattr(hint, "to_json") and hasattr(hint, "from_json"):
        return _own(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _Form(lambda value: value.value, _choice_of(hint))
    if is_dataclass(hint):
        return _object(hint)
    raise TypeError(f"no message can carry {hint!r}")


def _plain(kind: type) -> _Form:
    def load(value: Any) -> Any:
        if type(value) is not kind:
            raise _Misfit(f"expected {_NAMES[kind]}, got {_named(value)}")
        return value

    return _Form(None, load)


def _number(value: Any) -> float:
    if type(value) is not float and type(value) is not int:
        raise _Misfit(f"expected a number, got {_named(value)}")
    return float(value)


def _bytes(value: Any) -> bytes:
    try:
        return binascii.a2b_base64(_plain(str).load(value), strict_mode=True)
    except ValueError as error:
        raise _Misfit(f"expected base64: {error}") from None


def _choice(options: tuple[Any, ...]) -> _Form:
    def load(value: Any) -> Any:
        for option in options:
            if type(value) is type(option) and value == option:
                return value
        shown = repr(value)[:40] if isinstance(value, str) else _named(value)
        raise _Misfit(f"expected one of {', '.join(map(repr, options))}, got {shown}")

    return _Form(None, load)


def _choice_of(kind: type[Enum]) -> Callable[[Any], Enum]:
    choice = _choice(tuple(member.value for member in kind))
    return lambda value: kind(choice.load(value))


def _array(item: _Form) -> _Form:
    def dump(values: Any) -> list[Any]:
        return list(values) if item.dump is None else [item.dump(value) for value in values]

    def load(values: Any) -> tuple[Any, ...]:
        if type(values) is not list:
            raise _Misfit(f"expected an array, got {_named(values)}")
        out = []
        for at, value in enumerate(values):
            try:
                out.append(item.load(value))
            except _Misfit as misfit:
                misfit.path.insert(0, str(at))
                raise
        return tuple(out)

    return _Form(dump, load)


def _mapping(item: _Form) -> _Form:
    def dump(values: Any) -> dict[str, Any]:
        return {key: value if item.dump is None else item.dump(value) for key, value in values.items()}

    def load(values: Any) -> dict[str, Any]:
        if type(values) is not dict:
            raise _Misfit(f"expected an object, got {_named(values)}")
        out = {}
        for key, value in values.items():
            try:
                out[key] = item.load(value)
            except _Misfit as misfit:
                misfit.path.insert(0, key)
                raise
        return out

    return _Form(dump, load)


def _union(members: tuple[Any, ...]) -> _Form:
    optional = type(None) in members
    some = tuple(member for member in members if member is not type(None))
    form = _form(some[0]) if len(some) == 1 else _kinds(some)
    inner_dump, inner_load = form

    def load(value: Any) -> Any:
        return None if value is None and optional else inner_load(value)

    if inner_dump is None:
        return _Form(None, load)
    return _Form(lambda value: None if value is None else inner_dump(value), load)


def _kinds(members: tuple[Any, ...]) -> _Form:
    """Dataclasses with a `kind` each."""
    by_kind: dict[Any, _Form] = {}
    for member in members:
        if not is_dataclass(member):
            raise TypeError(f"no message can carry one of {members}: nothing tells them apart")
        for kind in get_args(get_type_hints(member)[KIND]):
            by_kind[kind] = _form(member)
    choice = _choice(tuple(by_kind))

    def load(table: Any) -> Any:
        if type(table) is not dict:
            raise _Misfit(f"expected an object, got {_named(table)}")
        if KIND not in table:
            raise _Misfit("it is missing", KIND)
        try:
            kind = choice.load(table[KIND])
        except _Misfit as misfit:
            misfit.path.insert(0, KIND)
            raise
        return by_kind[kind].load(table)

    return _Form(lambda value: to_json(type(value), value), load)


def _own(kind: Any) -> _Form:
    def load(value: Any) -> Any:
        try:
            return kind.from_json(value)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise _Misfit(f"it is not a {kind.__name__}: {type(error).__name__}") from None

    return _Form(lambda value: value.to_json(), load)


def _object(kind: Any) -> _Form:
    hints = get_type_hints(kind)
    plan = [
        _Field(
            field.name,
            *_form(hints[field.name]),
            required=field.default is MISSING and field.default_factory is MISSING,
            droppable=field.default is None,
        )
        for field in fields(kind)
    ]
    names = frozenset(field.name for field in plan)

    def dump(value: Any) -> dict[str, Any]:
        table = {}
        for name, dump, _, _, droppable in plan:
            inner = getattr(value, name)
            if inner is not None or not droppable:
                table[name] = inner if dump is None else dump(inner)
        return table

    def load(table: Any) -> Any:
        if type(table) is not dict:
            raise _Misfit(f"expected an object, got {_named(table)}")
        arguments = {}
        for name, _, load, required, _ in plan:
            if name in table:
                try:
                    arguments[name] = load(table[name])
                except _Misfit as misfit:
                    misfit.path.insert(0, name)
                    raise
            elif required:
                raise _Misfit("it is missing", name)
        if len(arguments) < len(table):
            raise _Misfit("nobody here knows it", sorted(table.keys() - names)[0])
        try:
            return kind(**arguments)
        except ValueError as error:
            raise _Misfit(str(error)) from None

    return _Form(dump, load)
