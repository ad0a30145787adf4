"""Finds the line of each key of a TOML text: `tomllib` does not say it, and whoever fixes a file must know.

It reads only texts that `tomllib` has accepted, so it checks nothing and follows TOML 1.0 just far enough.
"""

from __future__ import annotations

import re
import tomllib
from typing import Final

Path = tuple[str | int, ...]
"""Keys and array indices from the top: ("route", 0, "do", 2, "text")."""

_SPACE: Final = re.compile(r"[ \t]*")
_BLANK: Final = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR: Final = re.compile(r"[^,\]}#\n]+")
_STRINGS: Final = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r'"""(?:\\.|[^\\])*?"{3,5}',
        r"'''.*?'{3,5}",
        r'"(?:\\.|[^"\\\n])*"',
        r"'[^'\n]*'",
    )
)


def lines_of(text: str) -> dict[Path, int]:
    """Path to line, counted from 1: the line where a key is written, or where an array's item begins."""
    return _Scanner(text).read()


def line_of(lines: dict[Path, int], path: Path) -> int:
    """The line of `path`, or of the nearest thing around it that stands in the text."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.lines: dict[Path, int] = {}
        self.items: dict[Path, int] = {}
        """Items so far of each `[[array of tables]]`."""

    def read(self) -> dict[Path, int]:
        table: Path = ()
        self.skip(_BLANK)
        while self.at < len(self.text):
            if self.text.startswith("[[", self.at):
                self.at += 2
                *around, last = self.keys()
                path = (*self.inside(tuple(around)), last)
                index = self.items.get(path, 0)
                self.items[path] = index + 1
                table = (*path, index)
                self.lines.setdefault(path, self.line)
                self.lines[table] = self.line
                self.at += 2
            elif self.text[self.at] == "[":
                self.at += 1
                table = self.inside(self.keys())
                self.lines.setdefault(table, self.line)
                self.at += 1
            else:
                self.pair(table)
            self.skip(_BLANK)
        return self.lines

    def skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        assert match is not None  # noqa: S101  # tomllib took the text, so each pattern stands where it is sought
        self.at = match.end()
        self.line += match.group().count("\n")
        return match.group()

    def inside(self, keys: tuple[str, ...]) -> Path:
        """A header's keys as a path: each array of tables on the way means its latest item."""
        path: Path = ()
        for key in keys:
            path = (*path, key)
            if path in self.items:
                path = (*path, self.items[path] - 1)
        return path

    def keys(self) -> tuple[str, ...]:
        found = []
        while True:
            self.skip(_SPACE)
            if self.text[self.at] in "\"'":
                found.append(tomllib.loads(f"key = {self.string()}")["key"])
            else:
                found.append(self.skip(_BARE))
            self.skip(_SPACE)
            if self.text[self.at] != ".":
                return tuple(found)
            self.at += 1

    def pair(self, table: Path) -> None:
        line = self.line
        path = table
        for key in self.keys():
            path = (*path, key)
            self.lines.setdefault(path, line)
        self.at += 1  # the equals sign
        self.skip(_SPACE)
        self.value(path)

    def value(self, path: Path) -> None:
        first = self.text[self.at]
        if first == "[":
            self.at += 1
            index = 0
            while self.skip(_BLANK) is not None and self.text[self.at] != "]":
                self.lines[(*path, index)] = self.line
                self.value((*path, index))
                index += 1
                self.skip(_BLANK)
                if self.text[self.at] == ",":
                    self.at += 1
            self.at += 1
        elif first == "{":
            self.at += 1
            while self.skip(_BLANK) is not None and self.text[self.at] != "}":
                self.pair(path)
                self.skip(_BLANK)
                if self.text[self.at] == ",":
                    self.at += 1
            self.at += 1
        elif first in "\"'":
            self.string()
        else:
            self.skip(_SCALAR)

    def string(self) -> str:
        for pattern in _STRINGS:
            if pattern.match(self.text, self.at):
                return self.skip(pattern)
        raise AssertionError("tomllib accepted a string that this scanner does not know")
