"""One call as it is told: who it was, and what happened in it, in order of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.cli.calls.moment import day_and_time, time_of_day
from gateway.store.call_record import OF_TARGET
from gateway.store.known_call import KnownCall


def head(call_id: str, call: KnownCall | None, facts: Mapping[str, Any]) -> Iterator[str]:
    """Who, which route and voice, how it ended. `call` is None when the registry has no such row."""
    if call is None:
        who = f"{facts.get('caller') or '(nobody)'} called {facts.get('called', '?')}"
        yield f"call {call_id}  not in the registry, route {facts.get('route', '?')}"
        yield f"  {who} from {facts.get('source', '?')}"
        end = facts.get("how") or facts.get("state", "unknown")
        yield f"  {day_and_time(facts.get('started_at', 0.0))}, {end}"
    else:
        row = call.row
        yield f"call {call_id}  payload {row.payload:012x}  route {row.route} of {row.dialplan}"
        yield f"  {row.caller or '(nobody)'} called {row.called} from {row.source}"
        yield f"  voice {row.voice or '(none)'}, grant {row.grant_jti or '(none)'}"
        end = call.how or {"live": f"lives ({call.where})", "unknown": "no end is known"}.get(
            call.state, "ended"
        )
        lasted = f" after {call.ended_at - call.started_at:.0f} s" if call.ended_at is not None else ""
        yield f"  {day_and_time(call.started_at)}, {end}{lasted}"
    yield from _said_of_it(facts)
    for told in facts.get("disclosed", ()):
        if isinstance(told, Mapping):
            voice = f" of the voice {told['voice']}" if told["voice"] else ""
            whom = f"machine{voice} for {told['principal']}"
            yield f"  told that it is a {whom} ({told['language']}), whole at {time_of_day(told['at'])}"
    for line in (_quality(facts), _far_quality(facts, "the caller")):
        if line:
            yield f"  {line}"
    there = {key.removeprefix(OF_TARGET): facts[key] for key in facts if key.startswith(OF_TARGET)}
    for line in (_quality(there), _far_quality(there, "the target")):
        if line:
            yield f"  of the target: {line}"
    if "mos_worst" in facts:
        yield f"  in its worst ten seconds, one way or the other: MOS {facts['mos_worst']:.1f}"


def course(facts: Mapping[str, Any]) -> Iterator[str]:
    """What happened: turns and events in order of time; `facts` as `Sessions.show` returns them."""
    for event in sorted(facts.get("events", ()), key=lambda event: float(event["at"])):
        what = _turn(event["data"]) if event["kind"] == "turn" else _event(event)
        yield f"  {time_of_day(event['at'])}  {what}"


def _said_of_it(facts: Mapping[str, Any]) -> Iterator[str]:
    """Who the caller says that it is, and what a trusted peer says of the call."""
    name, user, headers = facts.get("name"), facts.get("user"), facts.get("headers")
    if name:
        yield f"  the caller's name is given as {name}"
    if user:
        yield f"  logged in as {user}"
    for header, value in headers.items() if isinstance(headers, Mapping) else ():
        yield f"  {header}: {value}"


def _quality(facts: Mapping[str, Any]) -> str:
    """How the sound came and went, as far as it was measured."""
    said = []
    if "packets" in facts:
        packets, lost = facts["packets"], facts.get("lost", 0)
        share = 100 * lost / max(1, packets + lost)
        how = f", encrypted ({facts['srtp']})" if facts.get("srtp") else ""
        said.append(
            f"{facts.get('codec', 'sound')}{how}: {packets} packets came, {lost} were lost ({share:.1f} %)"
        )
        if "jitter_ms" in facts:
            said.append(f"jitter {facts['jitter_ms']:.1f} ms")
        if "buffer_ms" in facts:
            said.append(f"{facts['buffer_ms']:.0f} ms in the buffer")
        if "round_trip_ms" in facts:
            said.append(f"round trip {facts['round_trip_ms']:.0f} ms")
        if "mos" in facts:
            said.append(f"MOS {facts['mos']:.1f}")
    if facts.get("underruns"):
        said.append(f"{facts['underruns']} of our frames (20 ms) were not ready in time")
    return ", ".join(said)


def _far_quality(facts: Mapping[str, Any], whom: str) -> str:
    """How our sound came there, by the other side's RTCP."""
    if "far_sent" not in facts:
        return ""
    sent, lost = facts["far_sent"], facts.get("far_lost", 0)
    said = [f"{whom} missed {lost} of our {sent} packets ({100 * lost / max(1, sent):.1f} %)"]
    if "far_jitter_ms" in facts:
        said.append(f"jitter {facts['far_jitter_ms']:.1f} ms")
    if "far_mos" in facts:
        said.append(f"MOS {facts['far_mos']:.1f}")
    return ", ".join(said)


def _turn(turn: Mapping[str, Any]) -> str:
    text = turn.get("text") or turn.get("intent") or "(no transcript)"
    length = f" ({turn['duration_s']:g} s)" if "duration_s" in turn else ""
    cut = " [interrupted]" if turn.get("interrupted") else ""
    stages = "  ".join(f"{stage} {ms:.0f} ms" for stage, ms in turn.get("latency_ms", {}).items())
    return f"{turn['who']}: {text}{length}{cut}" + (f"   [{stages}]" if stages else "")


def _event(event: Mapping[str, Any]) -> str:
    return f"{event['kind']} {' '.join(f'{k}={v}' for k, v in event['data'].items())}".rstrip()
