"""What is wrong with a TOML text, in an operator's words: `tomllib` says it in a parser's."""

from __future__ import annotations

import re
import tomllib
from typing import Final

_AT: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)")
_MEANT: Final = (
    (
        re.compile(r"Illegal character '\\n'|Unterminated string"),
        "a text that begins on this line has no closing quote",
    ),
    (re.compile(r"Invalid value"), 'this is not a value; a text stands in quotes, such as name = "demo"'),
    (re.compile(r"Expected '=' after a key"), 'a line is key = value, such as name = "demo"'),
    (re.compile(r"Cannot overwrite a value"), "this key is there twice; remove one"),
    (re.compile(r"Cannot declare \('(.+)',\) twice"), "the table [{0}] is there twice; join them"),
    (
        re.compile(r"Unescaped '\\' in a string"),
        "write \\\\ for a backslash in double quotes, or use single quotes",
    ),
    (
        re.compile(r"Expected newline or end of document after a statement"),
        "something stands behind the value; is a quote missing, or a # before a comment?",
    ),
    (re.compile(r"Unclosed array"), "a list has no closing ]"),
    (re.compile(r"Unclosed inline table"), "a table has no closing }"),
)


def toml_mistake(error: tomllib.TOMLDecodeError, text: str) -> tuple[int, str]:
    """The line of the mistake, counted from 1, and what is wrong there."""
    said = str(error)
    at = _AT.search(said)
    line = int(at[1]) if at and at[1] else text.rstrip().count("\n") + 1
    said = _AT.sub("", said)
    for pattern, meant in _MEANT:
        if found := pattern.search(said):
            return line, meant.format(*found.groups())
    return line, said
