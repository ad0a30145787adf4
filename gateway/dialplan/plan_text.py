"""A TOML file of the operator's and where in it a mistake stands; trunks have one too."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from gateway.dialplan import toml_lines
from gateway.errors import DialplanError


@dataclass(frozen=True, slots=True)
class PlanFile:
    """One file: its name and the lines on which its keys stand."""

    file: str
    lines: dict[toml_lines.Path, int]
    rows: tuple[str, ...]
    """its text"""

    def fail(self, path: toml_lines.Path, message: str) -> NoReturn:
        """Raises `DialplanError` about the key at `path`."""
        raise DialplanError(f"{self.file}:{self.line(path)}: {message}")

    def inline(self, path: toml_lines.Path) -> bool:
        """Whether the table at `path` is written within a line, in braces."""
        return "{" in self.rows[self.line(path) - 1].partition("#")[0]

    def line(self, path: toml_lines.Path) -> int:
        """The line of `path`, or of the nearest key around it."""
        return toml_lines.line_of(self.lines, path)


def unknown(name: str, known: Iterable[str], *, what: str = "key") -> str:
    """Says that nothing has this name, and which name was perhaps meant."""
    known = tuple(known)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"unknown {what} {name!r}; did you mean {near[0]!r}?"
    return f"unknown {what} {name!r}" + (f"; known are {', '.join(known)}" if known else "; remove it")
