"""A call's messages as a ladder of arrows, and its lines of the log, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.cli.calls.moment import time_of_day
from gateway.ipc.wire_message import US


def ladder(messages: Sequence[Mapping[str, Any]], *, whole: bool) -> Iterator[str]:
    """Messages as `Sessions.ladder` has them: who is at the other end, the way that each went, what it is.

    `whole`: with all that they say.
    """
    sides = {str(one[end]) for one in messages for end in ("from", "to")} - {US}
    wide = max((len(side) for side in sides), default=0)
    for one in messages:
        yield from _gap(one)
        out = one["from"] == US
        there = str(one["to"] if out else one["from"])
        arrow = "◀──" if out else "──▶"
        yield f"  {time_of_day(one['at'])}  {there:<{wide}} {arrow} us  {one['protocol']:<4} {one['first']}"
        if whole:
            yield from (f"      {line}".rstrip() for line in str(one["text"]).split("\n")[1:])
            yield ""


def log_lines(lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Lines as `Sessions.log` has them."""
    for one in lines:
        yield from _gap(one)
        level = "" if one["level"] == "info" else f"{str(one['level']).upper()} "
        facts = "  ".join(f"{name}={value}" for name, value in one["fields"].items())
        yield f"  {time_of_day(one['at'])}  {one['process']:<8} {level}{one['event']}  {facts}".rstrip()


def _gap(one: Mapping[str, Any]) -> Iterator[str]:
    if "left_out" in one:
        yield f"  … {one['left_out']} more were not kept"
