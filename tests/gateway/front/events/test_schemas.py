"""docs/api/events says what the dataclasses say, and docs/events.md names every type."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.front.events.schemas import written
from gateway.store.call_events import TYPES

DOCS = Path(__file__).parents[4] / "docs"


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_the_schema_in_the_docs_is_the_codes(kind: str) -> None:
    file = DOCS / "api" / "events" / f"{kind}.json"
    assert file.read_text() == written(kind), "write it anew: python -m gateway.front.events.schemas"


def test_there_is_no_schema_of_what_is_no_more() -> None:
    assert {path.stem for path in (DOCS / "api" / "events").glob("*.json")} == set(TYPES)


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_the_page_names_each_type(kind: str) -> None:
    assert kind in (DOCS / "events.md").read_text()
