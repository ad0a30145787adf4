"""The JSON Schema of each type of event, made of its dataclass.

They stand in docs/api/events, where `python -m gateway.front.events.schemas` writes them;
`tests/gateway/front/events/test_schemas.py` keeps them true.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from gateway.front.events.event_shelf import KeptEvent
from gateway.store.call_events import TYPES, VERSION

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_of(kind: str) -> dict[str, Any]:
    """What an event of this type looks like, whole. Fields may be added within a version."""
    cls = TYPES[kind]
    envelope = TypeAdapter(KeptEvent).json_schema()
    data = TypeAdapter(cls).json_schema(ref_template="#/$defs/{model}")
    definitions = data.pop("$defs", {})
    fields = {name: {"type": part["type"]} for name, part in envelope["properties"].items()}
    fields |= {"type": {"const": kind}, "version": {"const": VERSION}, "data": _plain(data)}
    table = {
        "$schema": DIALECT,
        "title": kind,
        "description": " ".join((cls.__doc__ or "").split("\n\n")[0].split()),
        "type": "object",
        "properties": fields,
        "required": envelope["required"],
    }
    if definitions:
        table["$defs"] = {name: _plain(part) for name, part in definitions.items()}
    return table


def _plain(schema: Any) -> Any:
    """Without titles, which repeat the names, and with what is left out instead of null."""
    if isinstance(schema, list):
        return [_plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    table = {name: part for name, part in schema.items() if name != "description"}
    title = table.pop("title", None)
    if isinstance(title, dict):  # a field of that name
        table["title"] = title
    if table.get("default", ...) is None:
        del table["default"]
    choices = table.get("anyOf")
    if isinstance(choices, list) and {"type": "null"} in choices:
        rest = [part for part in choices if part != {"type": "null"}]
        del table["anyOf"]
        table = {**table, **rest[0]} if len(rest) == 1 else {**table, "anyOf": rest}
    return {name: _plain(part) for name, part in table.items()}


def written(kind: str) -> str:
    """The schema as its file has it."""
    return json.dumps(schema_of(kind), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Writes a file for each type."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/api/events")
    folder.mkdir(parents=True, exist_ok=True)
    for kind in TYPES:
        (folder / f"{kind}.json").write_text(written(kind))


if __name__ == "__main__":
    main()
