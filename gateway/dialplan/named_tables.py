"""Reads a file of tables of one kind, each with a name of its own, as `trunks.toml` is one of [[trunk]]."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

from gateway.config.private_file import secret_in
from gateway.config.toml_mistake import toml_mistake
from gateway.dialplan.plan_text import PlanFile, unknown
from gateway.dialplan.toml_lines import lines_of
from gateway.errors import DialplanError, SettingsError

TablePath = tuple[str | int, ...]
"""Where a table stands in its file: its kind and its number."""


class NamedTable(Protocol):
    """What a table is read into."""

    @property
    def name(self) -> str:
        """Its own: no two of a file have the same."""


N = TypeVar("N", bound=NamedTable)


def read_named(
    file: Path,
    kind: str,
    most: int,
    read: Callable[[Mapping[str, Any], PlanFile, TablePath], N],
    unlike: Callable[[N, Iterable[N], PlanFile, TablePath], None] | None = None,
) -> tuple[N, ...]:
    """All tables of the file, `most` at most; none when there is no such file.

    `read` makes one of a table. `unlike` compares it with those before it. Both tell what is wrong by
    `PlanFile.fail`. Raises `SettingsError` with file, line and remedy.
    """
    try:
        text = file.read_text()
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: cannot be read: {error}") from None
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line, what = toml_mistake(error, text)
        raise SettingsError(f"{file}:{line}: not TOML: {what}") from None
    source = PlanFile(str(file), lines_of(text), tuple(text.split("\n")))
    found: dict[str, N] = {}
    try:
        for at, given in enumerate(_tables(table, source, kind, most)):
            path: TablePath = (kind, at)
            one = read(given, source, path)
            if one.name in found:
                source.fail((*path, "name"), f"another {kind} is called {one.name!r} too; rename one")
            if unlike is not None:
                unlike(one, found.values(), source, path)
            found[one.name] = one
    except DialplanError as error:  # the same words, of another file
        raise SettingsError(str(error)) from None
    return tuple(found.values())


def secret_named(named: object, folder: Path, key: str, fail: Callable[[str, str], NoReturn]) -> str:
    """The text of a secret's file that the table names by `key`; it lies in `folder`, where the table's does.

    `fail` is told the key and what is wrong.
    """
    if not isinstance(named, str) or not named:
        fail(key, f"{key} is the name of a file")
    try:
        return secret_in(folder / named).decode()
    except UnicodeDecodeError:
        fail(key, f"{folder / named} cannot be read: it is not text")
    except ValueError as error:
        fail(key, str(error))


def _tables(table: Mapping[str, Any], source: PlanFile, kind: str, most: int) -> list[Mapping[str, Any]]:
    for key in table:
        if key != kind:
            source.fail((key,), unknown(key, (kind,)) + f"; the file has [[{kind}]] tables")
    given: Any = table.get(kind, [])
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        source.fail((kind,), f"a {kind} is written [[{kind}]], with two brackets")
    if len(given) > most:
        source.fail((kind, most), f"there are more than {most} {kind}s")
    return given
