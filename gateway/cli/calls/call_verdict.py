"""The causes of a call as a terminal tells them: the first one, its evidence and what to do; or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.cli.calls.moment import time_of_day
from gateway.store.call_cause import causes, not_known
from gateway.store.told_call import CallCause


def verdict(call_id: str, call: Mapping[str, Any]) -> Iterator[str]:
    """Why the call was bad, or that nothing was wrong; `call` as `causes` takes it."""
    found = causes(call)
    if found:
        first, *others = found
        yield f"call {call_id}: {first.what}"
        yield f"  {_evidence(first)}"
        yield f"  do: {first.remedy}"
        for other in others:
            yield f"  then: {other.what} ({_evidence(other)})"
    else:
        where = "so far nothing is wrong" if _lives(call) else "nothing was wrong"
        yield (
            f"call {call_id}: {where}, as far as is known" if not_known(call) else f"call {call_id}: {where}"
        )
        if figures := _figures(call):
            yield f"  {figures}"
    for what in not_known(call):
        yield f"  not known: {what}"


def in_short(call: Mapping[str, Any]) -> str:
    """The same as one line, for `voicegate calls show`."""
    found = causes(call)
    if not found:
        return "nothing is wrong so far" if _lives(call) else "nothing was wrong, as far as is known"
    more = f", and {len(found) - 1} more (`voicegate calls why`)" if found[1:] else ""
    return f"wrong: {found[0].what} ({_evidence(found[0])}){more}"


def _lives(call: Mapping[str, Any]) -> bool:
    return "refused" not in call and not call.get("how") and call.get("ended_at") is None


def _evidence(one: CallCause) -> str:
    since = f", since {time_of_day(one.since)}" if one.since < one.at else ""
    return f"{one.event} at {time_of_day(one.at)}: {one.number}".rstrip(": ") + since


def _figures(call: Mapping[str, Any]) -> str:
    """What a sound call's figures are."""
    said = [str(call["how"])] if call.get("how") else []
    turns = [one for one in call.get("turns") or () if isinstance(one, Mapping)]
    stages = [one["latency_ms"] for one in turns if isinstance(one.get("latency_ms"), Mapping)]
    waits = [one["whole"] for one in stages if isinstance(one.get("whole"), int | float)]
    if waits:
        many = "1 answer" if len(waits) == 1 else f"{len(waits)} answers"
        said.append(f"{many} after {max(waits) / 1000:.1f} s at most")
    for name, whom in (("mos", "from the caller"), ("far_mos", "to the caller")):
        if isinstance(call.get(name), int | float):
            said.append(f"MOS {call[name]:.1f} {whom}")
    return ", ".join(said)
