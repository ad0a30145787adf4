"""A list that is read page by page, from a gateway's API or from the stores beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Entries = list[dict[str, Any]]
ReadPage = Callable[[int, str | None], tuple[Entries, str | None]]
"""Is told how many entries it may give, and the page's cursor (None: the first page's); gives them, and the
cursor of the page after it, None where there is none."""


def paged(read: ReadPage, count: int | None, at_once: int) -> Iterator[dict[str, Any]]:
    """The list's entries, `count` at most (None: all), `at_once` a page. Raises what `read` raises."""
    cursor: str | None = None
    while count is None or count > 0:
        entries, cursor = read(at_once if count is None else min(count, at_once), cursor)
        yield from entries
        count = None if count is None else count - len(entries)
        if cursor is None:
            return
