"""Every key is found on its line, whatever TOML allows around it."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.dialplan.toml_lines import line_of, lines_of

TEXT = '''# a comment with [brackets] = and "quotes"
[targets]
person = "sip:100@x" # another ]
"quoted key".inner = 'literal # no comment'

[[route]]
name = """two
lines""" # = [
keep = { transcript = true, list = [1,
  2] }
hours = [
  { days = "mon" }, # ]
  # nothing
  { days = "tue" },
]
  [[route.do]]
  verb = "escaped \\" ] quote"
  [[route.do]]
  verb = \'\'\'a ' b\'\'\'
  [route.do.facts]
  hours = ""
  [[route.do.answers]]
  intent = "x"

[[route]]
name = 07:30:00
'''


def test_finds_each_key_where_it_is_written() -> None:
    lines = lines_of(TEXT)
    rows = TEXT.splitlines()
    for path, starts in {
        ("targets",): "[targets]",
        ("targets", "person"): "person",
        ("targets", "quoted key", "inner"): '"quoted key".inner',
        ("route", 0): "[[route]]",
        ("route", 0, "name"): "name",
        ("route", 0, "keep", "transcript"): "keep",
        ("route", 0, "keep", "list", 1): "  2]",
        ("route", 0, "hours", 1, "days"): '  { days = "tue"',
        ("route", 0, "do", 0, "verb"): '  verb = "escaped',
        ("route", 0, "do", 1, "verb"): "  verb = '''a",
        ("route", 0, "do", 1, "facts", "hours"): "  hours",
        ("route", 0, "do", 1, "answers", 0, "intent"): "  intent",
        ("route", 1, "name"): "name = 07",
    }.items():
        assert rows[lines[path] - 1].startswith(starts), path


def test_a_missing_key_is_reported_at_what_should_hold_it() -> None:
    lines = lines_of(TEXT)
    assert line_of(lines, ("route", 1, "called")) == lines["route", 1]
    assert line_of(lines, ("nowhere",)) == 1


def paths_of(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    found = {path}
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in entries:
        found |= paths_of(inner, (*path, key))
    return found


KEYS = st.text("abc-_9 .\"'\\é", min_size=1, max_size=4)
SCALARS = st.one_of(st.text("a\"'\\#[]{}=,\n ", max_size=6), st.integers(), st.booleans(), st.floats(0, 9))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


def written(value: Any) -> str:
    """TOML, with a line break after each comma of an array."""
    if isinstance(value, str):
        quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{quoted}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[ # ]\n" + ",\n".join(map(written, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{written(key)} = {written(inner)}" for key, inner in value.items()) + "}"
    return repr(value)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_whatever_tomllib_reads_the_scanner_finds_all_of_it(table: dict[str, Any]) -> None:
    text = "".join(f"{written(key)} = {written(value)} # x\n" for key, value in table.items())
    assert tomllib.loads(text) == table
    assert set(lines_of(text)) | {()} == paths_of(table)
