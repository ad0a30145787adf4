"""How calls are shown: a line for a terminal, a row for a spreadsheet; what callers wrote is tame in both."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from gateway.cli.calls.moment import day_and_time
from gateway.store.known_call import KnownCall

COLUMNS: Final = (
    "call_id", "state", "started_at", "ended_at", "duration_s", "caller", "called", "source", "route",
    "voice", "how", "dialplan", "payload", "grant_jti", "mos", "far_mos", "plan", "sip_call_id", "sounded",
)  # fmt: skip
"""The CSV has these columns in this order; new ones come at the end. Times are ISO 8601 in UTC."""
REFUSED_COLUMNS: Final = (
    "call_id", "first_at", "last_at", "count", "status", "reason", "caller", "called", "source", "transport",
    "sip_call_id",
)  # fmt: skip
_FORMULA: Final = re.compile(r"(?:\A|(?<=[;,|]))(?=\s*[=+\-@＝＋－＠])")
"""Where a spreadsheet may see a formula: at a cell's begin, or at what it takes for one."""
_NUMBER: Final = re.compile(r"\+?[0-9]+(?:[ -][0-9]+)*")


def tame(text: object) -> str:
    """A text that somebody else wrote, for a terminal: what cannot be printed shows as its escape."""
    said = str(text)
    if said.isprintable():
        return said
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in said)


def line(call: KnownCall) -> str:
    """One call as one line."""
    lasted = f"{call.ended_at - call.started_at:.0f} s" if call.ended_at is not None else "…"
    when = day_and_time(call.started_at)
    who = f"{call.row.caller or '?'} → {call.row.called}"
    said = f"{call.row.call_id}  {when}  {call.where:<9} {lasted:>6}  {who}  {call.row.route}  {call.how}"
    return tame(said.rstrip())


def refused_line(call: Mapping[str, Any]) -> str:
    """A call that was not taken, or several that are alike, as one line; `call` as the API tells it."""
    when = day_and_time(call["started_at"])
    times = f"{call['count']} times" if call["count"] > 1 else ""
    what, who = f"{call['status']} {call['reason']}", f"{call['caller'] or '?'} → {call['called']}"
    return tame(f"{call['call_id']}  {when}  {what}  {who}  from {call['source']}  {times}".rstrip())


def write_csv(calls: Iterable[Mapping[str, Any]], out: TextIO) -> None:
    """The calls by RFC 4180, with a header, as they come; as the API tells them."""
    rows = csv.writer(out, lineterminator="\r\n")
    rows.writerow(COLUMNS)
    for call in calls:
        rows.writerow(map(cell, _values(KnownCall.told(call))))


def write_refused_csv(calls: Iterable[Mapping[str, Any]], out: TextIO) -> None:
    """The calls that were not taken by RFC 4180, with a header; as the API tells them."""
    rows = csv.writer(out, lineterminator="\r\n")
    rows.writerow(REFUSED_COLUMNS)
    for call in calls:
        told = {**call, "first_at": _iso(call["first_at"]), "last_at": _iso(call["started_at"])}
        rows.writerow(cell(told[name]) for name in REFUSED_COLUMNS)


def cell(value: object) -> str:
    """A value for a spreadsheet: no text is a formula, and none has a control character.

    What could be a formula gets an apostrophe before it, but for a telephone number, which is none.
    """
    text = "" if value is None else tame(value)
    return text if not isinstance(value, str) or _NUMBER.fullmatch(text) else _FORMULA.sub("'", text)


def _values(call: KnownCall) -> Iterator[object]:
    row, ended_at = call.row, call.ended_at
    yield from (row.call_id, call.where, _iso(call.started_at), _iso(ended_at))
    yield None if ended_at is None else f"{ended_at - call.started_at:.3f}"
    yield from (row.caller, row.called, row.source, row.route, row.voice, call.how, row.dialplan)
    yield from (
        f"{row.payload:012x}",
        row.grant_jti,
        call.facts.get("mos"),
        call.facts.get("far_mos"),
        row.plan,
        row.sip_call_id,
        row.sounded,
    )


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
