"""A call's record when it is over (CDR), from what Redis and the registry know of it."""

from __future__ import annotations

from gateway.ipc.ending import CallEnding
from gateway.store.call_events import CallDetail
from gateway.store.call_record import CallRecord
from gateway.store.registry import CallRow


def call_detail(
    call_id: str,
    how: CallEnding,
    at: float,
    record: CallRecord | None,
    row: CallRow | None,
    messages: int = 0,
) -> CallDetail:
    """`at`: when it ended, seconds since the epoch. Either source may know nothing of the call."""
    known = record or CallRecord(call_id, {})
    facts, number = known.facts, known.number
    began, answered = number("started_at"), number("answered_at")
    if began is None and row is not None:
        began = row.started_at

    def count(key: str) -> int | None:
        found = number(key)
        return None if found is None else int(found)

    def said(key: str) -> str | None:
        return facts.get(key) or None

    return CallDetail(
        call_id=call_id,
        caller=said("caller") or (row.caller if row is not None else None),
        called=said("called") or (row.called if row is not None else None),
        source=said("source") or (row.source if row is not None else None),
        transport=said("transport"),
        user=said("user"),
        trunk=said("trunk"),
        route=said("route") or (row.route if row is not None else None),
        dialplan=row.dialplan if row is not None else None,
        plan=said("plan") or (row.plan if row is not None else None),
        voice=said("voice") or (row.voice if row is not None else None),
        started_at=began,
        answered_at=answered,
        ended_at=at,
        duration_s=_between(began, at),
        talk_s=_between(answered, at),
        spoken_s=number("spoken_s"),
        turns=count("turns") or 0,
        how=str(how),
        party=how.party.value,
        codec=said("codec"),
        srtp=said("srtp"),
        packets=count("packets"),
        lost=count("lost"),
        jitter_ms=number("jitter_ms"),
        mos=number("mos"),
        mos_worst=number("mos_worst"),
        far_lost=count("far_lost"),
        far_mos=number("far_mos"),
        messages=messages,
    )


def _between(began: float | None, ended: float) -> float | None:
    return None if began is None else round(max(0.0, ended - began), 3)
